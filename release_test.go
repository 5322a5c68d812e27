package sluice_test

import (
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
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
