// Package forms runs the plugin in both forms in which Traefik runs it, behind
// one interface, so that one suite holds for both: compiled, and interpreted by
// Yaegi exactly as Traefik v3.7.13 sets it up (pkg/plugins/middlewareyaegi.go).
// Neither needs a Traefik binary.
package forms

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"

	"github.com/traefik/paerser/file"
	"github.com/traefik/paerser/parser"
	"github.com/traefik/yaegi/interp"
	"github.com/traefik/yaegi/stdlib"
	"go.yaml.in/yaml/v3"

	"github.com/sluice-gateway/sluice"
	"github.com/sluice-gateway/sluice/internal/dynconf"
	"github.com/sluice-gateway/sluice/test/compiled"
)

// Form is one way to run the plugin.
type Form interface {
	fmt.Stringer

	// New makes the handler that Traefik makes of one middleware: CreateConfig,
	// the configuration decoded onto it, New. It fails the test where Traefik
	// would not install the router. The test's end is to the plugin what the
	// next configuration is.
	New(t testing.TB, config map[string]any, next http.Handler) http.Handler
}

// All are the forms.
var All = []Form{Compiled{}, Interpreted{}}

// Compiled is the plugin as a part of our own Traefik binary.
type Compiled struct{}

func (Compiled) String() string { return "compiled" }

// New is Form's.
func (Compiled) New(t testing.TB, config map[string]any, next http.Handler) http.Handler {
	t.Helper()
	handler, err := compiled.New(t.Context(), config, next, t.Name())
	if err != nil {
		t.Fatal(err)
	}
	return handler
}

// Interpreted is the plugin as a stock Traefik runs it. It is loaded once for the
// whole test binary, as Traefik loads a plugin once for the whole process.
type Interpreted struct{}

func (Interpreted) String() string { return "interpreted" }

// New is Form's.
func (Interpreted) New(t testing.TB, config map[string]any, next http.Handler) http.Handler {
	t.Helper()
	loaded, err := LoadOnce()
	if err != nil {
		t.Fatal(err)
	}
	handler, err := loaded.New(t.Context(), config, next, t.Name())
	if err != nil {
		t.Fatal(err)
	}
	return handler
}

// LoadOnce loads the plugin into this process. It lays the source out in a folder
// that lives only while it is read: Yaegi reads all of it at import.
var LoadOnce = sync.OnceValues(func() (*Loaded, error) {
	goPath, err := os.MkdirTemp("", "sluice-gopath-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(goPath)
	// Traefik's writers are no files either, which leaves the plugin the
	// process's own os.Stderr.
	return Load(goPath, struct{ io.Writer }{os.Stderr})
})

// Loaded is an interpreter that holds the plugin.
type Loaded struct {
	Manifest          Manifest
	new, createConfig reflect.Value
}

// Manifest is what .traefik.yml says, as far as loading needs it.
type Manifest struct {
	Import   string         `yaml:"import"`
	BasePkg  string         `yaml:"basePkg"`
	TestData map[string]any `yaml:"testData"`
}

// Load interprets the plugin's source, laid out under a GOPATH of its own. What
// the plugin prints goes to log.
func Load(goPath string, log io.Writer) (*Loaded, error) {
	folder := filepath.Join(goPath, "src", filepath.FromSlash(sluice.Module))
	if err := sluice.WritePlugin(folder); err != nil {
		return nil, err
	}
	content, err := os.ReadFile(filepath.Join(folder, ".traefik.yml"))
	if err != nil {
		return nil, err
	}
	var l Loaded
	if err := yaml.Unmarshal(content, &l.Manifest); err != nil {
		return nil, err
	}
	i := interp.New(interp.Options{GoPath: goPath, Env: os.Environ(), Stdout: log, Stderr: log})
	if err := i.Use(stdlib.Symbols); err != nil {
		return nil, err
	}
	if _, err := i.Eval(fmt.Sprintf("import %q", l.Manifest.Import)); err != nil {
		return nil, fmt.Errorf("import plugin code %q: %w", l.Manifest.Import, err)
	}
	base := l.Manifest.BasePkg
	if base == "" {
		base = strings.ReplaceAll(filepath.Base(l.Manifest.Import), "-", "_")
	}
	if l.new, err = i.Eval(base + ".New"); err != nil {
		return nil, fmt.Errorf("eval New: %w", err)
	}
	if l.createConfig, err = i.Eval(base + ".CreateConfig"); err != nil {
		return nil, fmt.Errorf("eval CreateConfig: %w", err)
	}
	return &l, nil
}

// New makes a handler as Traefik's builder does. A panic, which would end
// Traefik, is an error here, so that the other tests still say what they know.
func (l *Loaded) New(ctx context.Context, config map[string]any, next http.Handler, name string) (handler http.Handler, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("New panicked, and Traefik with it: %v", p)
		}
	}()
	onto := l.createConfig.Call(nil)[0]
	if err := dynconf.Decode(config, onto.Interface()); err != nil {
		return nil, fmt.Errorf("decode: %w", err)
	}
	results := l.new.Call([]reflect.Value{reflect.ValueOf(ctx), reflect.ValueOf(next), onto, reflect.ValueOf(name)})
	if err, failed := results[1].Interface().(error); failed {
		return nil, fmt.Errorf("New: %w", err)
	}
	var ok bool
	if handler, ok = results[0].Interface().(http.Handler); !ok {
		return nil, fmt.Errorf("New returned a %T", results[0].Interface())
	}
	return handler, nil
}

// middlewares is the part of Traefik's dynamic configuration that leads to a
// plugin's.
type middlewares struct {
	HTTP *struct {
		Middlewares map[string]*struct {
			Plugin map[string]map[string]any
		}
	}
}

func (m *middlewares) gate() (map[string]any, error) {
	if m.HTTP != nil {
		if gate := m.HTTP.Middlewares["gate"]; gate != nil {
			return gate.Plugin["sluice"], nil
		}
	}
	return nil, fmt.Errorf("there is no middleware named gate")
}

// FromFile is a plugin's configuration as the file provider hands it over: every
// scalar a string, an empty list or map the empty string (design: file-provider).
func FromFile(t testing.TB, config string) map[string]any {
	t.Helper()
	content := "http:\n  middlewares:\n    gate:\n      plugin:\n        sluice:\n"
	for line := range strings.Lines(strings.ReplaceAll(strings.TrimRight(config, " \t\n"), "\t", "  ") + "\n") {
		content += "          " + line
	}
	var decoded middlewares
	if err := file.DecodeContent(content, ".yml", &decoded); err != nil {
		t.Fatalf("%v in\n%s", err, content)
	}
	gate, err := decoded.gate()
	if err != nil {
		t.Fatalf("%v in\n%s", err, content)
	}
	return gate
}

// FromLabels is a plugin's configuration as the providers that read labels hand
// it over. Names begin below the plugin: "redis.addresses".
func FromLabels(t testing.TB, labels map[string]string) map[string]any {
	t.Helper()
	full := make(map[string]string, len(labels))
	for name, value := range labels {
		full["traefik.http.middlewares.gate.plugin.sluice."+name] = value
	}
	var decoded middlewares
	if err := parser.Decode(full, &decoded, parser.DefaultRootName, "traefik.http"); err != nil {
		t.Fatal(err)
	}
	gate, err := decoded.gate()
	if err != nil {
		t.Fatal(err)
	}
	return gate
}
