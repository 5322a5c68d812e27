package build

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"go/ast"
	gobuild "go/build"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"text/template"

	"go.yaml.in/yaml/v3"
	"golang.org/x/mod/module"

	"github.com/sluice-gateway/sluice"
)

// withPackage registers the other plugins. It imports little beside them, so it
// is compiled in seconds.
const withPackage = "github.com/traefik/traefik/dynamic/ext/with"

// manifestName is the file by which Traefik knows a plugin.
const manifestName = ".traefik.yml"

// otherPlugin is a plugin that is compiled in beside ours.
type otherPlugin struct {
	Module, Version string
	Import, Package string // of its manifest, and the name by which Traefik calls it
	sum             string // of the module, as go.sum has it
	manifest        []byte
}

// findPlugins fetches what Options.With names and tells what Traefik could not
// use, before anything that takes minutes.
func findPlugins(ctx context.Context, options Options) (found []otherPlugin, err error) {
	for _, named := range options.With {
		p, err := findPlugin(ctx, options, named)
		if err != nil {
			return nil, fmt.Errorf("--with=%s: %w", named, err)
		}
		if slices.ContainsFunc(found, func(other otherPlugin) bool { return other.Module == p.Module }) {
			return nil, fmt.Errorf("--with=%s: the module is named twice", named)
		}
		found = append(found, p)
	}
	slices.SortFunc(found, func(a, b otherPlugin) int { return strings.Compare(a.Module, b.Module) })
	return found, nil
}

func findPlugin(ctx context.Context, options Options, named string) (p otherPlugin, err error) {
	p.Module, p.Version, _ = strings.Cut(named, "@")
	switch {
	case p.Version == "" || module.CheckPath(p.Module) != nil:
		return p, errors.New("write MODULE@VERSION, such as github.com/PascalMinder/geoblock@v0.3.8")
	case p.Module == sluice.Module:
		return p, errors.New("that is Sluice itself, which is compiled in always")
	case p.Version != module.CanonicalVersion(p.Version):
		return p, errors.New("a version is written whole, such as v0.3.8")
	}
	if err := module.Check(p.Module, p.Version); err != nil {
		return p, err
	}
	goCommand, err := findGo(options.Go)
	if err != nil {
		return p, err
	}
	if err := os.MkdirAll(options.Cache, 0o755); err != nil {
		return p, fmt.Errorf("create the build cache: %w; %s", err, elsewhere)
	}
	source, err := download(ctx, goCommand, options.Cache, named)
	if err != nil {
		return p, err
	}
	p.sum = source.Sum
	return p, p.read(source.Dir)
}

// read holds a module to what Traefik asks of a plugin that it interprets.
func (p *otherPlugin) read(dir string) (err error) {
	if p.manifest, err = os.ReadFile(filepath.Join(dir, manifestName)); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("not a Traefik plugin: there is no %s in the module", manifestName)
	} else if err != nil {
		return err
	}
	var manifest struct {
		Type, Runtime, Import string
		BasePkg               string `yaml:"basePkg"`
	}
	if err := yaml.Unmarshal(p.manifest, &manifest); err != nil {
		return fmt.Errorf("%s: %w", manifestName, err)
	}
	p.Import = manifest.Import
	below, inside := strings.CutPrefix(p.Import, p.Module)
	switch {
	case manifest.Type != "middleware":
		return fmt.Errorf("%s: type: %q: only a middleware can be compiled in", manifestName, manifest.Type)
	case manifest.Runtime != "" && manifest.Runtime != "yaegi":
		return fmt.Errorf("%s: runtime: %q: only Go that Traefik would interpret (yaegi) can be compiled in", manifestName, manifest.Runtime)
	case !inside || below != "" && below[0] != '/':
		return fmt.Errorf("%s: import: %q is no package of the module %s", manifestName, p.Import, p.Module)
	}
	p.Package = cmp.Or(manifest.BasePkg, strings.ReplaceAll(path.Base(p.Import), "-", "_"))
	return p.readPackage(filepath.Join(dir, filepath.FromSlash(below)))
}

// readPackage looks for the two functions that Traefik calls. Whether they have
// the right form is left to the compiler.
func (p *otherPlugin) readPackage(dir string) error {
	source, err := gobuild.ImportDir(dir, 0)
	if err != nil {
		return fmt.Errorf("%s: import: %q: %w", manifestName, p.Import, err)
	}
	if source.Name != p.Package {
		return fmt.Errorf("package %s calls itself %s, and Traefik will look for %s.New", p.Import, source.Name, p.Package)
	}
	missing := []string{"CreateConfig", "New"}
	for _, name := range source.GoFiles {
		file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(dir, name), nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		for _, declaration := range file.Decls {
			if function, ok := declaration.(*ast.FuncDecl); ok && function.Recv == nil {
				missing = slices.DeleteFunc(missing, func(name string) bool { return name == function.Name.Name })
			}
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("not a Traefik plugin: package %s has no function %s", p.Import, strings.Join(missing, " and no function "))
	}
	return nil
}

// requiring adds the plugins to the build module's go.mod.
func requiring(mod []byte, plugins []otherPlugin) []byte {
	for _, p := range plugins {
		mod = fmt.Appendf(mod, "\nrequire %s %s\n", p.Module, p.Version)
	}
	return mod
}

// withSource is the package that registers the plugins.
func withSource(plugins []otherPlugin) []byte {
	var source bytes.Buffer
	if err := template.Must(template.New("").Parse(string(recipeFile("with.go.txt")))).Execute(&source, plugins); err != nil {
		panic(err) // the template is ours
	}
	return source.Bytes()
}

// writeManifests lays out plugins-local in the folder that Traefik will run in:
// our plugin whole, so that it can be interpreted, too, and of the others the
// manifest, which Traefik reads before it asks for the plugin.
func writeManifests(workDir string, plugins []otherPlugin) error {
	if err := sluice.WritePlugin(sluice.LocalPlugin(workDir, sluice.Module)); err != nil {
		return err
	}
	for _, p := range plugins {
		if err := write(filepath.Join(sluice.LocalPlugin(workDir, p.Module), manifestName), p.manifest); err != nil {
			return fmt.Errorf("write the manifest of %s: %w", p.Module, err)
		}
	}
	return nil
}
