package test

import (
	"os"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
	"golang.org/x/mod/modfile"
)

const modulePath = "github.com/sluice-gateway/sluice"

// TestCatalogAcceptsTheModule holds the root go.mod against what the plugin
// catalog's analyser refuses (design: catalog), indirect requirements included.
func TestCatalogAcceptsTheModule(t *testing.T) {
	content, err := os.ReadFile("../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	module, err := modfile.Parse("go.mod", content, nil)
	if err != nil {
		t.Fatal(err)
	}
	if module.Module.Mod.Path != modulePath {
		t.Errorf("module %s, want %s", module.Module.Mod.Path, modulePath)
	}
	if len(module.Replace) > 0 {
		t.Error("a replace directive keeps `go install` from working")
	}
	for _, required := range module.Require {
		for _, refused := range []string{"github.com/traefik/yaegi", "github.com/traefik/traefik"} {
			if path := required.Mod.Path; path == refused || strings.HasPrefix(path, refused+"/") {
				t.Errorf("go.mod requires %s; such a test belongs into the nested module", required.Mod)
			}
		}
	}
}

// TestManifest checks .traefik.yml as the catalog and Traefik's local plugins do
// (pkg/plugins, checkLocalPluginManifest).
func TestManifest(t *testing.T) {
	content, err := os.ReadFile("../.traefik.yml")
	if err != nil {
		t.Fatal(err)
	}
	var manifest struct {
		DisplayName string         `yaml:"displayName"`
		Type        string         `yaml:"type"`
		Runtime     string         `yaml:"runtime"`
		Import      string         `yaml:"import"`
		BasePkg     string         `yaml:"basePkg"`
		Summary     string         `yaml:"summary"`
		UseUnsafe   bool           `yaml:"useUnsafe"`
		TestData    map[string]any `yaml:"testData"`
	}
	if err := yaml.Unmarshal(content, &manifest); err != nil {
		t.Fatal(err)
	}
	if manifest.DisplayName == "" || manifest.Summary == "" || len(manifest.TestData) == 0 {
		t.Errorf("displayName %q, summary %q and testData %v are mandatory", manifest.DisplayName, manifest.Summary, manifest.TestData)
	}
	if manifest.Type != "middleware" || !slices.Contains([]string{"", "yaegi"}, manifest.Runtime) {
		t.Errorf("type %q, runtime %q", manifest.Type, manifest.Runtime)
	}
	if !strings.HasPrefix(manifest.Import, modulePath) {
		t.Errorf("import %q does not begin with the module's path", manifest.Import)
	}
	if manifest.UseUnsafe {
		t.Error("useUnsafe asks operators to drop a guard")
	}
}
