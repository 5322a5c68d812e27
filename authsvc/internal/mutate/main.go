// Command mutate checks that every guard of authsvc, and of the identity in the
// plugin, is missed when it is gone.
//
// guards.txt lists the guards: the line that is one, the line that takes its
// place, and the test that must notice. Each is replaced by `go test -overlay`,
// so the tree itself is never touched; a mutant that does not compile counts as
// a mistake of the list. Run it from authsvc/:
//
//	go run ./internal/mutate [word]
//
// With a word only guards whose description holds it are tried. The exit status
// is 1 if any guard can be removed unnoticed. result.txt keeps the last output.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// guard is one entry of guards.txt.
type guard struct {
	what     string // # size is bounded before anything is decoded
	file     string // token/guard.go
	old, new string // -line, +line
	pkg      string // ./token
	tests    string // TestSizes
}

func main() {
	word := strings.Join(os.Args[1:], " ")
	guards, err := read("internal/mutate/guards.txt")
	if err != nil {
		fmt.Fprintln(os.Stderr, "mutate:", err)
		os.Exit(1)
	}
	unnoticed := 0
	for _, g := range guards {
		if !strings.Contains(g.what, word) {
			continue
		}
		verdict := "noticed by " + g.tests
		if err := g.try(); err != nil {
			unnoticed++
			verdict = "UNNOTICED: " + err.Error()
		}
		fmt.Printf("%-70s %s\n", g.what, verdict)
	}
	if unnoticed > 0 {
		os.Exit(1)
	}
}

func read(path string) ([]guard, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	var guards []guard
	var g guard
	for lines := bufio.NewScanner(file); lines.Scan(); {
		line := lines.Text()
		switch {
		case line == "":
		case line[0] == '#':
			g = guard{what: strings.TrimSpace(line[1:])}
		case line[0] == '-':
			g.old = line[1:]
		case line[0] == '+':
			g.new = line[1:]
		case strings.HasPrefix(line, ".") && strings.Contains(line, " "):
			g.pkg, g.tests, _ = strings.Cut(line, " ")
			guards = append(guards, g)
		default:
			g.file = line
		}
	}
	return guards, nil
}

// try returns nil if the tests turn red without the guard.
func (g guard) try() error {
	source, err := os.ReadFile(g.file)
	if err != nil {
		return err
	}
	if n := strings.Count(string(source), g.old+"\n"); n != 1 {
		return fmt.Errorf("the line stands %d times in %s", n, g.file)
	}
	dir, err := os.MkdirTemp("", "mutate")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	mutant := filepath.Join(dir, "mutant.go")
	if err := os.WriteFile(mutant, []byte(strings.Replace(string(source), g.old+"\n", g.new+"\n", 1)), 0o600); err != nil {
		return err
	}
	original, err := filepath.Abs(g.file)
	if err != nil {
		return err
	}
	overlay, err := json.Marshal(map[string]any{"Replace": map[string]string{original: mutant}})
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "overlay.json"), overlay, 0o600); err != nil {
		return err
	}
	binary := filepath.Join(dir, "mutant.test")
	build := exec.Command("go", "test", "-c", "-vet=off", "-overlay", filepath.Join(dir, "overlay.json"), "-o", binary, ".")
	build.Dir = g.pkg // may be of another module
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("does not compile: %s", out)
	}
	test := exec.Command(binary, "-test.timeout=120s", "-test.run", "^("+g.tests+")$")
	test.Dir = g.pkg
	out, err := test.CombinedOutput()
	switch {
	case err == nil && strings.Contains(string(out), "no tests to run"):
		return errors.New("there is no such test")
	case err == nil:
		return errors.New(g.tests + " stays green")
	case !strings.Contains(string(out), "--- FAIL") && !strings.Contains(string(out), "panic: test timed out"):
		return fmt.Errorf("the test did not run: %s", out)
	}
	return nil
}
