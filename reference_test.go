package sluice_test

import (
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/mod/modfile"

	"github.com/sluice-gateway/sluice/authsvc/config"
)

// The authsvc options that docs/configuration.md shows are the defaults.
func TestReferenceShowsAuthsvcDefaults(t *testing.T) {
	file := filepath.Join(t.TempDir(), "authsvc.yml")
	if err := os.WriteFile(file, []byte(block(t, "docs/configuration.md", "yaml authsvc")), 0o600); err != nil {
		t.Fatal(err)
	}
	shown, err := config.Load([]string{"--configFile=" + file}, nil)
	if err != nil {
		t.Fatal(err)
	}
	shown.ConfigFile = ""
	if want := config.New(); !reflect.DeepEqual(shown, want) {
		t.Errorf("the reference shows\n%+v, the defaults are\n%+v", shown, want)
	}
}

// Every direct dependency earns its place in a line of docs/dependencies.md,
// and no line speaks of one that is gone.
func TestDocsListDependencies(t *testing.T) {
	direct := map[string]bool{}
	text, err := os.ReadFile("docs/dependencies.md")
	if err != nil {
		t.Fatal(err)
	}
	table := string(text)
	for _, file := range []string{"go.mod", "test/go.mod"} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		mod, err := modfile.Parse(file, text, nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, require := range mod.Require {
			if require.Indirect || strings.HasPrefix(require.Mod.Path, mod.Module.Mod.Path) || strings.HasPrefix(mod.Module.Mod.Path, require.Mod.Path+"/") {
				continue
			}
			direct[require.Mod.Path] = true
			if !strings.Contains(table, "| "+require.Mod.Path+" |") {
				t.Errorf("docs/dependencies.md lacks %s, which %s requires", require.Mod.Path, file)
			}
		}
	}
	for _, line := range regexp.MustCompile(`(?m)^\| ([a-z0-9.-]+\.[a-z]+/\S+) \|.*$`).FindAllStringSubmatch(table, -1) {
		if !direct[line[1]] && !strings.Contains(line[0], "not in go.mod") {
			t.Errorf("docs/dependencies.md lists %s, which no go.mod requires", line[1])
		}
	}
}
