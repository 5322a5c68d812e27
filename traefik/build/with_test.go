package build

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sluice-gateway/sluice"
)

const form = `
import ("context"; "net/http")
type Config struct{}
func CreateConfig() *Config { return nil }
func New(_ context.Context, next http.Handler, _ *Config, _ string) (http.Handler, error) { return next, nil }
`

// publish makes a module of files that the fake go command knows at v1.0.0.
func publish(t *testing.T, module string, files map[string]string) {
	t.Helper()
	for name, content := range files {
		if err := write(filepath.Join(os.Getenv("PLUGINS"), module, name), []byte(content)); err != nil {
			t.Fatal(err)
		}
	}
}

func TestWithOtherPlugins(t *testing.T) {
	options, calls := workshop(t)
	plain, err := Build(t.Context(), options)
	if err != nil {
		t.Fatal(err)
	}
	publish(t, "example.com/a-b", map[string]string{".traefik.yml": "type: middleware\nimport: example.com/a-b\n", "a.go": "package a_b" + form})
	publish(t, "example.com/c", map[string]string{".traefik.yml": "type: middleware\nruntime: yaegi\nimport: example.com/c/d\nbasePkg: e\n", "d/d.go": "package e" + form})
	options.With, options.WorkDir = []string{"example.com/c@v1.0.0", "example.com/a-b@v1.0.0"}, t.TempDir()
	with, err := Build(t.Context(), options)
	if err != nil || with == plain {
		t.Fatalf("%s, %v", with, err)
	}
	for name, want := range map[string]string{
		"go.mod":           "\nrequire example.com/a-b v1.0.0\n\nrequire example.com/c v1.0.0\n",
		"ext/with.go":      "with.Symbols",
		"ext/with/with.go": `"example.com/c/d/e": symbols(plugin1.CreateConfig, plugin1.New)`,
	} {
		content, err := os.ReadFile(filepath.Join(options.Cache, "module", name))
		if err != nil || !strings.Contains(string(content), want) {
			t.Errorf("%s lacks %q (%v):\n%s", name, want, err, content)
		}
	}
	all := calls()
	if early, late := strings.Index(all, "build -mod=mod "+withPackage), strings.Index(all, "list -mod=mod"); early < 0 || late < early {
		t.Errorf("the plugins are not compiled by themselves first:\n%s", all)
	}
	for _, module := range []string{sluice.Module, "example.com/a-b", "example.com/c"} {
		if _, err := os.Stat(filepath.Join(options.WorkDir, "plugins-local/src", module, ".traefik.yml")); err != nil {
			t.Error(err)
		}
	}
	options.With = []string{"example.com/a-b@v1.0.0", "example.com/c@v1.0.0"}
	if again, err := Build(t.Context(), options); err != nil || again != with {
		t.Errorf("in another order it is %s, not %s (%v)", again, with, err)
	}
}

func TestWithMistakes(t *testing.T) {
	manifest := func(import_ string) string { return "type: middleware\nimport: " + import_ + "\n" }
	for _, test := range []struct {
		with  string
		files map[string]string
		want  string
	}{
		{"example.com/p", nil, "write MODULE@VERSION, such as github.com/PascalMinder/geoblock@v0.3.8"},
		{"@v1.0.0", nil, "write MODULE@VERSION"},
		{"example.com/p@", nil, "write MODULE@VERSION"},
		{"example.com/p@latest", nil, "a version is written whole, such as v0.3.8"},
		{"example.com/p@v1", nil, "a version is written whole"},
		{"example.com/p@v2.0.0", nil, "should be v0 or v1, not v2"},
		{"example.com/p@v1.0.1", nil, "unknown revision"},
		{sluice.Module + "@v0.1.0", nil, "that is Sluice itself"},
		{"example.com/p@v1.0.0", map[string]string{"p.go": "package p" + form}, "not a Traefik plugin: there is no .traefik.yml in the module"},
		{"example.com/p@v1.0.0", map[string]string{".traefik.yml": "type: [", "p.go": "package p" + form}, ".traefik.yml: yaml"},
		{"example.com/p@v1.0.0", map[string]string{".traefik.yml": "type: provider\nimport: example.com/p\n"}, `type: "provider": only a middleware`},
		{"example.com/p@v1.0.0", map[string]string{".traefik.yml": "type: middleware\nruntime: wasm\n"}, `runtime: "wasm": only Go`},
		{"example.com/p@v1.0.0", map[string]string{".traefik.yml": manifest("example.com/pq")}, `import: "example.com/pq" is no package of the module example.com/p`},
		{"example.com/p@v1.0.0", map[string]string{".traefik.yml": manifest("example.com/p/q"), "p.go": "package p" + form}, `import: "example.com/p/q"`},
		{"example.com/p@v1.0.0", map[string]string{".traefik.yml": manifest("example.com/p"), "p.go": "package q" + form}, "calls itself q, and Traefik will look for p.New"},
		{"example.com/p@v1.0.0", map[string]string{".traefik.yml": manifest("example.com/p"), "p.go": "package p\ntype t int\nfunc (t) New() {}\nfunc CreateConfig() {}"}, "has no function New"},
		{"example.com/p@v1.0.0", map[string]string{".traefik.yml": manifest("example.com/p"), "p.go": "package p\n", "p_test.go": "package p" + form}, "no function CreateConfig and no function New"},
		{"example.com/p@v1.0.0", map[string]string{".traefik.yml": manifest("example.com/p"), "p.go": "package p\nfunc ("}, "p.go:2"},
	} {
		options, calls := workshop(t)
		publish(t, "example.com/p", test.files)
		options.With = []string{test.with}
		_, err := Build(t.Context(), options)
		if err == nil || !strings.Contains(err.Error(), "--with="+test.with+": ") || !strings.Contains(err.Error(), test.want) {
			t.Errorf("error %v, want %q", err, test.want)
		}
		if strings.Contains(calls(), "list") || strings.Contains(calls(), "build") {
			t.Errorf("%s: told only after %s", test.want, calls())
		}
	}
	options, _ := workshop(t)
	publish(t, "example.com/p", map[string]string{".traefik.yml": manifest("example.com/p"), "p.go": "package p" + form})
	options.With = []string{"example.com/p@v1.0.0", "example.com/p@v1.0.0"}
	if _, err := Build(t.Context(), options); err == nil || !strings.Contains(err.Error(), "named twice") {
		t.Errorf("error %v", err)
	}
}

// TestWithSourceCompiles holds the registration to the real compiler, with our
// own plugin as the other one, and with one of another form.
func TestWithSourceCompiles(t *testing.T) {
	for _, test := range []struct{ source, want string }{
		{"", ""},
		{"package plugin\nfunc CreateConfig() *int { return nil }\nfunc New(string) error { return nil }\n", "plugin0.New"},
	} {
		dir := t.TempDir()
		target := filepath.Join(dir, "other")
		if err := sluice.WritePlugin(target); err != nil {
			t.Fatal(err)
		}
		if test.source != "" {
			if err := errors.Join(os.RemoveAll(filepath.Join(target, "plugin")), write(filepath.Join(target, "plugin/plugin.go"), []byte(test.source))); err != nil {
				t.Fatal(err)
			}
		}
		other := []otherPlugin{{Module: sluice.Module, Version: "v0.0.0", Import: sluice.Module + "/plugin", Package: "plugin"}}
		mod := fmt.Appendf(nil, minimalMod+"\nreplace %s => %s\n", "example.com/with", sluice.Module, "./other")
		for name, content := range map[string][]byte{
			"other/go.mod": fmt.Appendf(nil, minimalMod, sluice.Module), "go.mod": requiring(mod, other), "with.go": withSource(other)} {
			if err := write(filepath.Join(dir, name), content); err != nil {
				t.Fatal(err)
			}
		}
		out, err := command(t.Context(), "go", dir, "build", ".").CombinedOutput()
		if (err == nil) != (test.want == "") || !strings.Contains(string(out), test.want) {
			t.Errorf("want %q: %v\n%s", test.want, err, out)
		}
	}
}

// TestPlatform: what another machine runs is neither asked for its version nor
// taken for this machine's.
func TestPlatform(t *testing.T) {
	options, calls := workshop(t)
	t.Setenv("TRAEFIK_VERSION", "cannot run here")
	foreign := "linux/arm64"
	if host == foreign {
		foreign = "linux/amd64"
	}
	for _, platform := range []string{"linux", "/arm64", "linux/", "linux/arm/v7"} {
		options.Platform = platform
		if _, err := Build(t.Context(), options); err == nil || !strings.Contains(err.Error(), "--platform="+platform+": write OS/ARCHITECTURE") || calls() != "" {
			t.Errorf("%q: error %v after %s", platform, err, calls())
		}
	}
	options.Platform = foreign
	path, err := Build(t.Context(), options)
	if err != nil || !strings.HasSuffix(path, strings.ReplaceAll(foreign, "/", "-")) {
		t.Errorf("%s, %v", path, err)
	}
	if !strings.Contains(calls(), "for "+foreign) {
		t.Errorf("the compiler is not told %s: %s", foreign, calls())
	}
}

// TestBesideTheProgram: what lies beside the running program, as a release has
// it, needs no Go and no cache.
func TestBesideTheProgram(t *testing.T) {
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	beside := filepath.Join(filepath.Dir(program), "traefik-"+Version+"-"+Source()[:16])
	if err := os.WriteFile(beside, nil, 0o755); err != nil {
		t.Fatal(err)
	}
	defer os.Remove(beside)
	options, calls := workshop(t)
	if path, err := Build(t.Context(), options); err != nil || path != beside || calls() != "" {
		t.Errorf("%s, %v, calls %s", path, err, calls())
	}
}
