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

func readme(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// The authsvc options that the README shows are the defaults.
func TestReadmeShowsAuthsvcDefaults(t *testing.T) {
	block := regexp.MustCompile("(?s)```yaml authsvc\n(.*?)```").FindStringSubmatch(readme(t))
	if block == nil {
		t.Fatal("README.md has no block marked `yaml authsvc`")
	}
	file := filepath.Join(t.TempDir(), "authsvc.yml")
	if err := os.WriteFile(file, []byte(block[1]), 0o600); err != nil {
		t.Fatal(err)
	}
	shown, err := config.Load([]string{"--configFile=" + file}, nil)
	if err != nil {
		t.Fatal(err)
	}
	shown.ConfigFile = ""
	if want := config.New(); !reflect.DeepEqual(shown, want) {
		t.Errorf("the README shows\n%+v, the defaults are\n%+v", shown, want)
	}
}

// Every direct dependency earns its place in a line of the README's table, and
// no line speaks of one that is gone.
func TestReadmeListsDependencies(t *testing.T) {
	direct := map[string]bool{}
	table := readme(t)
	table = table[strings.Index(table, "## Dependencies"):]
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
				t.Errorf("README.md's dependency table lacks %s, which %s requires", require.Mod.Path, file)
			}
		}
	}
	for _, line := range regexp.MustCompile(`(?m)^\| ([a-z0-9.-]+\.[a-z]+/\S+) \|.*$`).FindAllStringSubmatch(table, -1) {
		if !direct[line[1]] && !strings.Contains(line[0], "not in go.mod") {
			t.Errorf("README.md's dependency table lists %s, which no go.mod requires", line[1])
		}
	}
}
