package test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"testing"

	"github.com/google/licensecheck"
)

// accepted are the licences, by SPDX identifier, that what we ship and what we
// test with may have: permissive ones, and MPL-2.0, which asks something of those
// who change its files alone.
var accepted = []string{"Apache-2.0", "MIT", "BSD-2-Clause", "BSD-3-Clause", "ISC", "MPL-2.0", "Unlicense", "CC0-1.0", "BlueOak-1.0.0"}

var licenceFile = regexp.MustCompile(`(?i)^(licen[cs]e|copying|unlicense)([-.].*)?$`)

// TestLicences reads the licence of every module that a package of ours, or a
// test, is linked with.
func TestLicences(t *testing.T) {
	for _, root := range []string{"..", ".", "../bench/compare"} {
		modules := linked(t, root)
		if len(modules) < 10 {
			t.Fatalf("%s: only %d modules found", root, len(modules))
		}
		for path, dir := range modules {
			if found := licences(t, dir); len(found) == 0 {
				t.Errorf("%s: no licence that is known", path)
			} else if !slices.ContainsFunc(found, func(id string) bool { return slices.Contains(accepted, id) }) {
				t.Errorf("%s: %v, accepted are %v", path, found, accepted)
			}
		}
	}
}

// linked maps the modules behind a module's packages and tests to where their
// source lies.
func linked(t *testing.T, root string) map[string]string {
	t.Helper()
	command := exec.Command("go", "list", "-deps", "-test", "-json=Module", "./...")
	command.Dir = root
	var complaints bytes.Buffer
	command.Stderr = &complaints
	out, err := command.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, complaints.String())
	}
	modules := map[string]string{}
	for decoder := json.NewDecoder(bytes.NewReader(out)); ; {
		var pkg struct {
			Module *struct {
				Path, Dir string
				Main      bool
			}
		}
		if err := decoder.Decode(&pkg); errors.Is(err, io.EOF) {
			return modules
		} else if err != nil {
			t.Fatal(err)
		}
		if m := pkg.Module; m != nil && !m.Main && m.Dir != "" {
			modules[m.Path] = m.Dir
		}
	}
}

// licences names what the files at a module's root, or at that of the repository
// above it, say. A file may offer several; one that is accepted will do.
func licences(t *testing.T, dir string) (found []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		if entry.IsDir() || !licenceFile.MatchString(entry.Name()) {
			continue
		}
		text, err := os.ReadFile(filepath.Join(dir, entry.Name()))
		if err != nil {
			t.Fatal(err)
		}
		for _, match := range licensecheck.Scan(text).Match {
			if !match.IsURL && !slices.Contains(found, match.ID) {
				found = append(found, match.ID)
			}
		}
	}
	return found
}
