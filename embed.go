// Package sluice carries the files that an installed `sluice` command needs
// and would otherwise look for in a source tree: the plugin's source, which
// Traefik interprets or traefik/build compiles in, its manifest, and the
// shipped Traefik configuration.
//
// It lies outside plugin/ because the interpreter ignores //go:embed, and it
// imports nothing of ours, so anything may import it.
package sluice

import (
	"embed"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Module is the module path, which is also the plugin's name to Traefik.
const Module = "github.com/sluice-gateway/sluice"

//go:embed .traefik.yml plugin/*.go plugin/*/*.go traefik/*.yml
var files embed.FS

// PluginSource returns the manifest and the plugin's Go files without its
// tests, by slash-separated path relative to the module's root.
func PluginSource() map[string][]byte {
	source := map[string][]byte{}
	err := fs.WalkDir(files, ".", func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() || strings.HasSuffix(path, "_test.go"):
			return nil
		case path == ".traefik.yml" || strings.HasPrefix(path, "plugin/"):
			source[path], err = files.ReadFile(path)
		}
		return err
	})
	if err != nil {
		panic(err) // an embedded file system cannot fail to read
	}
	return source
}

// LocalPlugin is the folder of a plugin for a Traefik that runs in workDir.
func LocalPlugin(workDir, module string) string {
	return filepath.Join(workDir, "plugins-local", "src", filepath.FromSlash(module))
}

// WritePlugin lays PluginSource out under dir, as Traefik's plugins-local
// folder and the build of the compiled form want it. What dir held is replaced.
func WritePlugin(dir string) error {
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("write the plugin's source: %w", err)
	}
	source := PluginSource()
	for _, path := range slices.Sorted(maps.Keys(source)) {
		name := filepath.Join(dir, filepath.FromSlash(path))
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			return fmt.Errorf("write the plugin's source: %w", err)
		}
		if err := os.WriteFile(name, source[path], 0o644); err != nil {
			return fmt.Errorf("write the plugin's source: %w", err)
		}
	}
	return nil
}

// TraefikFile returns one of the shipped files of traefik/, such as "fast.yml".
func TraefikFile(name string) ([]byte, error) {
	content, err := files.ReadFile("traefik/" + name)
	if err != nil {
		return nil, fmt.Errorf("no shipped Traefik file %q: %w", name, err)
	}
	return content, nil
}
