package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A guard whose line was changed, or whose test was renamed, guards nothing.
// The mutants themselves take too long to be run with every test.
func TestGuardsAreUpToDate(t *testing.T) {
	t.Chdir("../..")
	guards, err := read("internal/mutate/guards.txt")
	if err != nil || len(guards) == 0 {
		t.Fatalf("%d guards, %v", len(guards), err)
	}
	for _, g := range guards {
		if source, err := os.ReadFile(g.file); err != nil {
			t.Errorf("%s: %v", g.what, err)
		} else if n := strings.Count(string(source), g.old+"\n"); n != 1 {
			t.Errorf("%s: the line %q stands %d times in %s, want once", g.what, g.old, n, g.file)
		}
		files, err := filepath.Glob(filepath.Join(g.pkg, "*_test.go"))
		if err != nil {
			t.Fatal(err)
		}
		var tests strings.Builder
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			tests.Write(text)
		}
		for name := range strings.SplitSeq(g.tests, "|") {
			if !strings.Contains(tests.String(), "func "+name+"(") {
				t.Errorf("%s: %s is not a test of %s", g.what, name, g.pkg)
			}
		}
	}
}
