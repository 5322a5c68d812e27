package version

import (
	"runtime/debug"
	"testing"
)

func TestBuildInfo(t *testing.T) {
	vcs := func(revision, modified string) []debug.BuildSetting {
		return []debug.BuildSetting{{Key: "vcs", Value: "git"}, {Key: "vcs.revision", Value: revision}, {Key: "vcs.modified", Value: modified}}
	}
	for _, test := range []struct {
		name            string
		info            *debug.BuildInfo
		version, commit string
	}{
		{"none", nil, "unknown", "unknown"},
		{"a checkout of a tag", &debug.BuildInfo{Main: debug.Module{Version: "v0.1.0"}, Settings: vcs("6a55386", "false")}, "v0.1.0", "6a55386"},
		{"an edited one", &debug.BuildInfo{Main: debug.Module{Version: "v0.1.0+dirty"}, Settings: vcs("6a55386", "true")}, "v0.1.0+dirty", "6a55386 and changes"},
		{"go install", &debug.BuildInfo{Main: debug.Module{Version: "v0.1.0"}}, "v0.1.0", "unknown"},
		{"without git", &debug.BuildInfo{Main: debug.Module{Version: "(devel)"}}, "(devel)", "unknown"},
	} {
		version, commit := of(test.info, test.info != nil)
		if version != test.version || commit != test.commit {
			t.Errorf("%s: %q, %q, want %q, %q", test.name, version, commit, test.version, test.commit)
		}
	}
}

func TestTheLinkerHasTheWord(t *testing.T) {
	defer func(t, c string) { tag, commit = t, c }(tag, commit)
	tag, commit = "v9.9.9", "abc"
	if Version() != "v9.9.9" || Commit() != "abc" {
		t.Errorf("%s, %s", Version(), Commit())
	}
}
