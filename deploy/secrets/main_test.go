package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestSecrets issues, issues again, and loses one holder's copy: what holders
// have in common stays equal throughout, and nothing is ever replaced.
func TestSecrets(t *testing.T) {
	dir := folders(t)
	if err := issue(dir); err != nil {
		t.Fatal(err)
	}
	first := contents(t, dir)
	if got, want := len(first), 12; got != want {
		t.Errorf("%d files, want %d", got, want)
	}
	distinct := map[string]bool{}
	for name, value := range first {
		if len(value) < 26 {
			t.Errorf("%s: %d characters", name, len(value))
		}
		distinct[value] = true
	}
	if got, want := len(distinct), len(holders)+1; got != want { // the exporter's file is one of its own
		t.Errorf("%d distinct values, want %d", got, want)
	}

	if err := os.Remove(filepath.Join(dir, "gateway", "redis-gateway")); err != nil {
		t.Fatal(err)
	}
	if err := issue(dir); err != nil {
		t.Fatal(err)
	}
	for name, value := range contents(t, dir) {
		if first[name] != value {
			t.Errorf("%s changed", name)
		}
	}

	if err := os.WriteFile(filepath.Join(dir, "users", "issuer-token"), []byte("another"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := issue(dir); err == nil || !strings.Contains(err.Error(), "issuer-token differs") {
		t.Errorf("two values of one secret: %v", err)
	}
}

func TestCertificate(t *testing.T) {
	dir := t.TempDir()
	certificate := filepath.Join(dir, "cert.pem")
	var log strings.Builder
	if err := certify(dir, &log); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(log.String(), "self-signed") {
		t.Errorf("no warning: %q", log.String())
	}
	made, err := os.ReadFile(certificate)
	if err != nil {
		t.Fatal(err)
	}
	if err := certify(dir, &log); err != nil {
		t.Fatal(err)
	}
	if kept, err := os.ReadFile(certificate); err != nil || string(kept) != string(made) {
		t.Errorf("a good certificate was replaced (%v)", err)
	}
	if err := os.Remove(filepath.Join(dir, "key.pem")); err != nil {
		t.Fatal(err)
	}
	if err := certify(dir, &log); err == nil || !strings.Contains(err.Error(), "other half") {
		t.Errorf("half a pair: %v", err)
	}
}

// folders makes one for every holder, as the volumes are.
func folders(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, h := range holders {
		for _, who := range h.who {
			if err := os.MkdirAll(filepath.Join(dir, who), 0o750); err != nil {
				t.Fatal(err)
			}
		}
	}
	return dir
}

func contents(t *testing.T, dir string) map[string]string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*", "*"))
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]string{}
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		found[strings.TrimPrefix(file, dir)] = string(content)
	}
	return found
}
