package compose

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

func TestMissingIsToldAtOnce(t *testing.T) {
	there := filepath.Join(t.TempDir(), "there")
	if err := os.WriteFile(there, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := missing([][2]string{{there, "a"}, {"sh", "dash"}}); err != nil {
		t.Error(err)
	}
	err := missing([][2]string{{there, "a"}, {"/nonexistent/b", "b"}, {"no-such-program", "c"}})
	if want := "this machine lacks /nonexistent/b, no-such-program; on Debian: apt-get install b c"; err == nil || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
}

// TestMakefileInstallsWhatIsNeeded: what `make compose` installs is what Open
// asks for.
func TestMakefileInstallsWhatIsNeeded(t *testing.T) {
	content, err := os.ReadFile("../../Makefile")
	if err != nil {
		t.Fatal(err)
	}
	for i, name := range []string{"COMPOSE_PROGRAMS", "COMPOSE_PACKAGES"} {
		line := regexp.MustCompile(`(?m)^` + name + ` := (.*)$`).FindSubmatch(content)
		if line == nil {
			t.Fatalf("the Makefile has no %s", name)
		}
		var want []string
		for _, need := range Needed {
			want = append(want, need[i])
		}
		if got := strings.Fields(string(line[1])); !slices.Equal(got, want) {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
}
