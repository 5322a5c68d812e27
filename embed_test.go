package sluice

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestPluginSourceIsWholeAndWithoutTests compares it with the tree.
func TestPluginSourceIsWholeAndWithoutTests(t *testing.T) {
	want := []string{".traefik.yml"}
	err := filepath.WalkDir("plugin", func(path string, _ fs.DirEntry, err error) error {
		if strings.HasSuffix(path, ".go") && !strings.HasSuffix(path, "_test.go") {
			want = append(want, filepath.ToSlash(path))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "stale.go"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := WritePlugin(dir); err != nil {
		t.Fatal(err)
	}
	var got []string
	err = fs.WalkDir(os.DirFS(dir), ".", func(path string, entry fs.DirEntry, err error) error {
		if !entry.IsDir() {
			got = append(got, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("laid out %q, the tree has %q", got, want)
	}
	for _, path := range got {
		laid, _ := os.ReadFile(filepath.Join(dir, path))
		own, _ := os.ReadFile(path)
		if len(own) == 0 || string(laid) != string(own) {
			t.Errorf("%s differs from the tree", path)
		}
	}
}

func TestTraefikFileRefusesUnknownNames(t *testing.T) {
	if _, err := TraefikFile("none.yml"); err == nil {
		t.Error("no error")
	}
	if content, err := TraefikFile("traefik.yml"); err != nil || len(content) == 0 {
		t.Errorf("traefik.yml: %v", err)
	}
}
