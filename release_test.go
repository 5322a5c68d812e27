package sluice_test

import (
	"errors"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/sluice-gateway/sluice/plugin"
)

// TestOneVersion: what the documents and resources name is what the plugin calls
// itself, and CHANGELOG.md has it released or announces it.
func TestOneVersion(t *testing.T) {
	mention := regexp.MustCompile(`(?m)(?:^ *(?:version|newTag): |\bsluice-gateway/\w+:)v([0-9]\S*)|/charts/sluice --version (\S+)`)
	named := map[string]*regexp.Regexp{
		"docs/configuration.md":                mention,
		"docs/quickstart.md":                   mention,
		"docs/deployment.md":                   mention,
		"deploy/kubernetes/kustomization.yaml": mention,
		"deploy/helm/sluice/Chart.yaml":        regexp.MustCompile(`(?m)^(?:version: |appVersion: v)(\S+)`),
		"CHANGELOG.md":                         regexp.MustCompile(`(?m)^(?:## \[([0-9]\S*)\]|.*becomes v(\S+) with its tag)`),
	}
	for file, pattern := range named {
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		found := pattern.FindAllStringSubmatch(string(content), -1)
		if file == "CHANGELOG.md" && len(found) > 1 {
			found = found[:1] // below it are the releases before
		}
		if len(found) == 0 {
			t.Errorf("%s names no version", file)
		}
		for _, match := range found {
			if version := strings.Join(match[1:], ""); version != plugin.Version {
				t.Errorf("%s names %s, the plugin is %s", file, version, plugin.Version)
			}
		}
	}
}

// TestLinkerSetsWhatThereIs: the linker passes over a variable that is not there.
func TestLinkerSetsWhatThereIs(t *testing.T) {
	source, err := os.ReadFile("internal/version/version.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{".github/release.sh", "Dockerfile"} {
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		text := strings.ReplaceAll(string(content), "$variables", "github.com/sluice-gateway/sluice/internal/version")
		set := regexp.MustCompile(`-X github\.com/sluice-gateway/sluice/internal/version\.(\w+)=`).FindAllStringSubmatch(text, -1)
		var names []string
		for _, match := range set {
			names = append(names, match[1])
		}
		slices.Sort(names)
		if want := []string{"commit", "tag"}; !slices.Equal(names, want) || !strings.Contains(string(source), "\nvar tag, commit string\n") {
			t.Errorf("%s sets %q, the package has %q", file, names, want)
		}
	}
}

// TestReleaseRefusesAnotherTag: before anything is built.
func TestReleaseRefusesAnotherTag(t *testing.T) {
	for tag, want := range map[string]string{
		"v9.9.9": "Version in plugin/report.go is another",
		"9":      "Version in plugin/report.go is another",
	} {
		release := exec.Command(".github/release.sh")
		release.Env = append(os.Environ(), "TAG="+tag)
		if out, err := release.CombinedOutput(); err == nil || !strings.Contains(string(out), want) {
			t.Errorf("TAG=%s: %v\n%s", tag, err, out)
		}
	}
	release := exec.Command(".github/release.sh", "publish")
	if out, err := release.CombinedOutput(); err == nil || !strings.Contains(string(out), "write nothing, chart, notes or try") {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestReleaseIsTried: `release.sh try` is content with an archive that does what
// it should without any other program, and with no other.
func TestReleaseIsTried(t *testing.T) {
	for _, program := range []string{"bash", "tar", "sha256sum"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skip(err)
		}
	}
	const (
		version = `version) if command -v ls; then exit 1; fi; echo "sluice   v1.2.3" ;;` // nothing is on its PATH
		up      = `up) trap "exit 0" TERM; echo {} >ready.json; echo the tour; while :; do :; done ;;`
		demo    = `demo) echo demonstrated ;;`
	)
	for name, test := range map[string]struct {
		cases []string
		good  bool
	}{
		"all is well":            {[]string{version, up, demo}, true},
		"another version":        {[]string{`version) echo "sluice   v1.2.4" ;;`, up, demo}, false},
		"up fails":               {[]string{version, `up) echo {} >ready.json; echo the tour; exit 1 ;;`, demo}, false},
		"up fails at once":       {[]string{version, `up) echo no >&2; exit 1 ;;`, demo}, false},
		"up ends with an error":  {[]string{version, strings.Replace(up, "exit 0", "exit 1", 1), demo}, false},
		"up writes no readyFile": {[]string{version, strings.Replace(up, "echo {} >ready.json;", "", 1), demo}, false},
		"the demo fails":         {[]string{version, up, `demo) exit 1 ;;`}, false},
	} {
		dir, unpacked := t.TempDir(), "sluice_1.2.3_"+runtime.GOOS+"_"+runtime.GOARCH
		script, err := os.ReadFile(".github/release.sh")
		if err != nil {
			t.Fatal(err)
		}
		program := "#!/bin/sh\ncase $1 in\n" + strings.Join(test.cases, "\n") + "\nesac\n"
		for file, content := range map[string]string{
			".github/release.sh":            string(script),
			"plugin/report.go":              "const Version = \"1.2.3\"\n",
			"CHANGELOG.md":                  "## [1.2.3]\n\nWords.\n",
			"dist/" + unpacked + "/sluice":  program,
			"dist/" + unpacked + "/authsvc": program,
			"dist/sluice/Chart.yaml":        "appVersion: v1.2.3\n",
		} {
			file = filepath.Join(dir, file)
			if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(content), 0o755)); err != nil {
				t.Fatal(err)
			}
		}
		pack := exec.Command("sh", "-ec", "tar -czf sluice-1.2.3.tgz sluice; tar -czf "+unpacked+".tar.gz "+unpacked+"; sha256sum "+unpacked+".tar.gz >sluice_1.2.3_checksums.txt")
		pack.Dir = filepath.Join(dir, "dist")
		if out, err := pack.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		try := exec.Command(filepath.Join(dir, ".github/release.sh"), "try")
		try.Env = append(os.Environ(), "TAG=v1.2.3")
		out, err := try.CombinedOutput()
		if (err == nil) != test.good || strings.Contains(string(out), "demonstrated") != test.good {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
}

// TestWorkflows holds them to what actionlint, which `make lint` runs, leaves
// open: pins, permissions, times, and that what they run is here.
func TestWorkflows(t *testing.T) {
	files, err := filepath.Glob(".github/workflows/*.yml")
	if err != nil || len(files) != 2 {
		t.Fatalf("%q, %v", files, err)
	}
	makefile, err := os.ReadFile("Makefile")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var workflow struct {
			Permissions map[string]string
			Concurrency struct{ Group string }
			Jobs        map[string]struct {
				Timeout     int `yaml:"timeout-minutes"`
				Permissions map[string]string
				Steps       []struct{ Uses, Run string }
			}
		}
		if err := yaml.Unmarshal(content, &workflow); err != nil {
			t.Fatal(err)
		}
		if workflow.Permissions == nil || workflow.Concurrency.Group == "" {
			t.Errorf("%s: permissions %v, concurrency %q", file, workflow.Permissions, workflow.Concurrency.Group)
		}
		if slices.Contains(slices.Collect(maps.Values(workflow.Permissions)), "write") {
			t.Errorf("%s: every job may write: %v", file, workflow.Permissions)
		}
		for name, job := range workflow.Jobs {
			if job.Timeout == 0 {
				t.Errorf("%s: %s has no timeout-minutes", file, name)
			}
			for what, how := range job.Permissions {
				if how == "write" && (filepath.Base(file) != "release.yml" || what != "contents" && what != "packages") {
					t.Errorf("%s: %s may write %s", file, name, what)
				}
			}
			for _, step := range job.Steps {
				if step.Uses != "" && !regexp.MustCompile(`^[\w-]+/[\w-]+@(v\d+|[0-9a-f]{40})$`).MatchString(step.Uses) {
					t.Errorf("%s: %s uses %s: pin it by a major version or a whole commit", file, name, step.Uses)
				}
				for _, target := range regexp.MustCompile(`\bmake (\S+)`).FindAllStringSubmatch(step.Run, -1) {
					if !strings.Contains(string(makefile), "\n"+target[1]+":") {
						t.Errorf("%s: %s: there is no target %s", file, name, target[1])
					}
				}
				for _, script := range regexp.MustCompile(`(?:^|\s)(\.\w+/\S+)`).FindAllStringSubmatch(step.Run, -1) {
					if info, err := os.Stat(script[1]); err != nil || info.Mode()&0o111 == 0 {
						t.Errorf("%s: %s: %s cannot be run (%v)", file, name, script[1], err)
					}
				}
			}
		}
	}
}
