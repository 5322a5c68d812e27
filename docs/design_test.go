// Package docs holds the documents to the code: what they cite of each other
// exists.
package docs

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var (
	ruleHeading = regexp.MustCompile(`(?m)^### ([a-z0-9-]+)$`)
	invariant   = regexp.MustCompile(`(?m)^- \*\*(I[0-9]+) `)
	citation    = regexp.MustCompile(`design: ([a-z0-9-]+)`)
	cited       = regexp.MustCompile(`\bI[0-9]+\b`)
	elsewhere   = regexp.MustCompile(`\b(RULES|DESIGN|ENGINE|STYLE)( section)? [0-9A-D]`)
)

// TestCitations finds what cites a rule that design.md does not have, a rule that
// nothing cites, and what cites a document that is not in the repository.
func TestCitations(t *testing.T) {
	design, err := os.ReadFile("design.md")
	if err != nil {
		t.Fatal(err)
	}
	uses := map[string]int{}
	for _, m := range ruleHeading.FindAllStringSubmatch(string(design), -1) {
		uses[m[1]] = 0
	}
	for _, m := range invariant.FindAllStringSubmatch(string(design), -1) {
		uses[m[1]] = 0
	}
	if len(uses) < 40 {
		t.Fatalf("design.md has %d names: is it read?", len(uses))
	}
	for _, path := range sources(t) {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for number, line := range strings.Split(string(text), "\n") {
			var names []string
			for _, m := range citation.FindAllStringSubmatch(line, -1) {
				names = append(names, m[1])
			}
			if strings.HasSuffix(path, ".go") {
				names = append(names, cited.FindAllString(line, -1)...)
			}
			for _, name := range names {
				if _, known := uses[name]; !known {
					t.Errorf("%s:%d cites %s, which design.md does not have", path, number+1, name)
				}
				uses[name]++
			}
			if m := elsewhere.FindString(line); m != "" {
				t.Errorf("%s:%d cites a document that nobody outside can open: %s", path, number+1, m)
			}
		}
	}
	for name, n := range uses {
		if n == 0 {
			t.Errorf("nothing cites %s of design.md", name)
		}
	}
}

// sources are all files of the repository that people write, but for this folder's.
func sources(t *testing.T) []string {
	t.Helper()
	var all []string
	err := filepath.WalkDir("..", func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := entry.Name()
		if entry.IsDir() {
			if path != ".." && (strings.HasPrefix(name, ".") || name == "docs" || name == "bin" || name == "testdata") {
				return filepath.SkipDir
			}
			return nil
		}
		switch filepath.Ext(name) {
		case ".go", ".md", ".yml", ".yaml", ".lua", ".sh", ".conf", ".toml":
			all = append(all, path)
		default:
			if name == "Makefile" || name == "Dockerfile" {
				all = append(all, path)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}
