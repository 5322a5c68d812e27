package build

import (
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/sluice-gateway/sluice"
)

//go:embed recipe
var recipe embed.FS

// lego is the ACME library whose copy loses its DNS providers. The copy
// escapes go.sum, so its hash is checked here.
const (
	lego    = "github.com/go-acme/lego/v5@v5.4.1"
	legoSum = "h1:Jt6xAP9xQrJ3SLLGgxejfDDd3pzdrmuLCWe4oTqHHQc="
)

// minimalMod is the go.mod under which a replacement is laid out.
const minimalMod = "module %s\n\ngo 1.26.0\n"

// legoUnused are the folders of lego that Traefik does not import, or only by
// way of the provider list that is replaced.
var legoUnused = []string{"providers", "cmd", "e2e", "docs"}

// Source is the hash, in hexadecimal, of all that decides what the binary is:
// the plugin's source without its tests, and the recipe.
func Source() string {
	hash := sha256.New()
	add := func(name string, content []byte) {
		fmt.Fprintf(hash, "%d %s %d\n", len(name), name, len(content))
		hash.Write(content)
	}
	plugin := sluice.PluginSource()
	for _, name := range slices.Sorted(maps.Keys(plugin)) {
		add(name, plugin[name])
	}
	for _, name := range []string{"traefik.mod", "traefik.sum", "ext.go.txt", "lego_dns.go.txt", "dashboard.html"} {
		add(name, recipeFile(name))
	}
	add("lego", []byte(lego+legoSum))
	return hex.EncodeToString(hash.Sum(nil))
}

// hashOf is Source with the dashboard's pages and other plugins, if there are any.
func hashOf(pages map[string][]byte, plugins []otherPlugin) string {
	if len(pages)+len(plugins) == 0 {
		return Source()
	}
	hash := sha256.New()
	io.WriteString(hash, Source()) // a hash never fails to write
	for _, name := range slices.Sorted(maps.Keys(pages)) {
		fmt.Fprintf(hash, "%q %d\n", name, len(pages[name]))
		hash.Write(pages[name])
	}
	if len(plugins) > 0 {
		hash.Write(recipeFile("with.go.txt"))
		hash.Write(recipeFile("ext_with.go.txt"))
	}
	for _, p := range plugins {
		fmt.Fprintf(hash, "%s@%s %s\n", p.Module, p.Version, p.sum)
	}
	return hex.EncodeToString(hash.Sum(nil))
}

// readPages returns the files of a folder with the dashboard's pages, by path.
func readPages(folder string) (pages map[string][]byte, err error) {
	if folder == "" {
		return nil, nil
	}
	pages = map[string][]byte{}
	root := os.DirFS(folder)
	err = fs.WalkDir(root, ".", func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.Type().IsRegular() {
			pages[path], err = fs.ReadFile(root, path)
		}
		return err
	})
	if err == nil && pages["index.html"] == nil {
		err = errors.New("there is no index.html in it")
	}
	if err != nil {
		return nil, fmt.Errorf("the dashboard's pages in %s: %w; name webui/static of an unpacked traefik-v%s.src.tar.gz, as Traefik publishes it with its release", folder, err, Version)
	}
	return pages, nil
}

func recipeFile(name string) []byte {
	content, err := recipe.ReadFile("recipe/" + name)
	if err != nil {
		panic(err) // the list of names and the embedded folder are both ours
	}
	return content
}

// layOut writes the build module into dir, replacing what an earlier recipe
// left there.
func layOut(ctx context.Context, goCommand, dir string, pages map[string][]byte, plugins []otherPlugin) error {
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("lay out the build module: %w", err)
	}
	if err := sluice.WritePlugin(filepath.Join(dir, "sluice")); err != nil {
		return err
	}
	if len(pages) == 0 {
		pages = map[string][]byte{"index.html": recipeFile("dashboard.html")}
	}
	for name, content := range pages {
		if err := write(filepath.Join(dir, "ext/dashboard", name), content); err != nil {
			return fmt.Errorf("lay out the build module: %w", err)
		}
	}
	files := map[string][]byte{
		"go.mod":        requiring(recipeFile("traefik.mod"), plugins),
		"go.sum":        recipeFile("traefik.sum"),
		"ext/ext.go":    recipeFile("ext.go.txt"),
		"ext/go.mod":    fmt.Appendf(nil, minimalMod, "github.com/traefik/traefik/dynamic/ext"),
		"sluice/go.mod": fmt.Appendf(nil, minimalMod, sluice.Module),
	}
	if len(plugins) > 0 {
		files["ext/with.go"] = recipeFile("ext_with.go.txt")
		files["ext/with/with.go"] = withSource(plugins)
	}
	for name, content := range files {
		if err := write(filepath.Join(dir, name), content); err != nil {
			return fmt.Errorf("lay out the build module: %w", err)
		}
	}
	return copyLego(ctx, goCommand, filepath.Join(dir, "lego"))
}

// copyLego copies lego from the module cache, less what legoUnused names, and
// puts the empty provider list in its place.
func copyLego(ctx context.Context, goCommand, dir string) error {
	module, err := download(ctx, goCommand, filepath.Dir(dir), lego)
	if err != nil {
		return fmt.Errorf("download %s: %w", lego, err)
	}
	if module.Sum != legoSum {
		return fmt.Errorf("download %s: its hash is %s, not %s", lego, module.Sum, legoSum)
	}
	err = fs.WalkDir(os.DirFS(module.Dir), ".", func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && slices.Contains(legoUnused, path):
			return fs.SkipDir
		case entry.IsDir():
			return nil
		}
		content, err := os.ReadFile(filepath.Join(module.Dir, path))
		if err != nil {
			return err
		}
		return write(filepath.Join(dir, path), content)
	})
	if err == nil {
		err = write(filepath.Join(dir, "providers/dns/zz_gen_dns_providers.go"), recipeFile("lego_dns.go.txt"))
	}
	if err != nil {
		return fmt.Errorf("copy %s: %w", lego, err)
	}
	return nil
}

// downloaded is what the go command says of a module.
type downloaded struct{ Dir, Sum, Error string }

// download has the go command fetch module@version, unless its cache holds it.
func download(ctx context.Context, goCommand, dir, module string) (d downloaded, err error) {
	cmd := command(ctx, goCommand, dir, "mod", "download", "-json", module)
	var complaints strings.Builder
	cmd.Stderr = &complaints
	out, err := cmd.Output()
	jsonErr := json.Unmarshal(out, &d)
	switch {
	case d.Error != "":
		return d, errors.New(d.Error) // exit status 1 adds nothing to it
	case err != nil || jsonErr != nil:
		return d, fmt.Errorf("%w: %s", errors.Join(err, jsonErr), complaints.String())
	}
	return d, nil
}

func write(name string, content []byte) error {
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	return os.WriteFile(name, content, 0o644)
}
