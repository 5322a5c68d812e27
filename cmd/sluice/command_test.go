package main

import (
	"bytes"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sluice-gateway/sluice/cmd/sluice/stack"
)

// run executes a command line and returns what it printed.
func run(t *testing.T, args ...string) (out string, err error) {
	t.Helper()
	var buffer bytes.Buffer
	root := rootCommand()
	root.SetArgs(args)
	root.SetOut(&buffer)
	root.SetErr(&buffer)
	err = root.ExecuteContext(t.Context())
	return buffer.String(), err
}

// TestMistakesAreAnsweredInOneLine is issue 3: a busy port, a missing binary, a
// bad flag say what to do, before anything is started.
func TestMistakesAreAnsweredInOneLine(t *testing.T) {
	t.Setenv("XDG_STATE_HOME", t.TempDir())
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	free := []string{"--listen=127.0.0.1:0", "--listenTLS=127.0.0.1:0"}
	tests := []struct {
		name string
		args []string
		want string
	}{
		{"no such command", []string{"frobnicate"}, `unknown command "frobnicate"`},
		{"no such flag", []string{"up", "--gateway=3"}, "unknown flag: --gateway; `sluice up --help` lists the flags"},
		{"no number", []string{"up", "--gateways=many"}, "`sluice up --help` lists the flags"},
		{"busy port", []string{"up", "--listenTLS=127.0.0.1:0", "--listen=" + busy.Addr().String()}, "the port is in use; stop what listens there"},
		{"no such binary", append([]string{"up", "--traefik=/nonexistent"}, free...), "--traefik=/nonexistent"},
		{"another program", append([]string{"up", "--traefik=/bin/echo"}, free...), "is this a Traefik?"},
		{"nothing to check", []string{"check"}, "name the dynamic configuration file"},
		{"no such file", []string{"check", "/nonexistent.yml"}, "no such file"},
		{"too many files", []string{"check", "a.yml", "b.yml"}, "accepts at most 1 arg"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			out, err := run(t, test.args...)
			if err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("error %v, want one line with %q", err, test.want)
			}
			if strings.Contains(out, "Usage:") {
				t.Errorf("a page of usage: %s", out)
			}
		})
	}
}

func TestOldStockTraefikIsRefused(t *testing.T) {
	old := filepath.Join(t.TempDir(), "traefik")
	if err := os.WriteFile(old, []byte("#!/bin/sh\necho 'Version:      3.7.12'\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	_, err := run(t, "up", "--traefik="+old, "--listen=127.0.0.1:0", "--listenTLS=127.0.0.1:0", "--dataDir="+t.TempDir())
	if err == nil || !strings.Contains(err.Error(), "is version 3.7.12: Sluice needs 3.7.13 or newer") {
		t.Fatalf("error %v", err)
	}
}

func TestCheck(t *testing.T) {
	t.Setenv("SLUICE_REDIS", "redis:6379")
	t.Setenv("SLUICE_AUTHSVC", "http://authsvc:9000")
	broken := filepath.Join(t.TempDir(), "broken.yml")
	content := `http: {middlewares: {gate: {plugin: {sluice: {redis: {addresses: "r:1"}, colour: red, limits: [{key: ip, limit: 1, window: 1s}]}}}}}`
	if err := os.WriteFile(broken, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name    string
		args    []string
		want    []string
		failure string
	}{
		{"shipped", []string{"../../traefik/fast.yml", "--static=../../traefik/traefik.yml"},
			[]string{"4 middlewares of the plugin, no errors", "traefik.yml: closed", "not set in this environment: SLUICE_ACME, SLUICE_MIN_INSTANCES"}, ""},
		{"static alone", []string{"--static=../../traefik/traefik.yml"}, []string{"closed"}, ""},
		{"errors", []string{broken}, []string{"colour", "limits[0].name"}, "2 errors"},
		{"openings", []string{"--static=../../traefik/balancer.yml"}, []string{"entryPoints.web.http.aliasHeadersStrategy: write reject"}, "errors"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			out, err := run(t, append([]string{"check"}, test.args...)...)
			for _, part := range test.want {
				if !strings.Contains(out, part) {
					t.Errorf("%q is not in %s", part, out)
				}
			}
			if failed := err != nil; failed != (test.failure != "") || failed && !strings.Contains(err.Error(), test.failure) {
				t.Errorf("error %v, want %q", err, test.failure)
			}
		})
	}
}

func TestUpHasTheFlagsOfTheContract(t *testing.T) {
	flags := upCommand().Flags()
	for name, value := range map[string]string{
		"listen": "127.0.0.1:8080", "listenTLS": "127.0.0.1:8443", "gateways": "1", "redis": "", "traefik": "", "plugin": "",
		"wiring": "fast", "dynamic": "", "readyFile": "", "dataDir": "", "redirectHTTP": "false",
	} {
		if flag := flags.Lookup(name); flag == nil || flag.DefValue != value {
			t.Errorf("--%s: %+v, want default %q", name, flag, value)
		}
	}
}

func TestCopyBinaryReplacesOneThatRuns(t *testing.T) {
	dir := t.TempDir()
	from, to := filepath.Join(dir, "from"), filepath.Join(dir, "to")
	for name, content := range map[string]string{from: "new", to: "old"} {
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := copyBinary(from, to); err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(to)
	info, _ := os.Stat(to)
	if err != nil || string(content) != "new" || info.Mode().Perm()&0o111 == 0 {
		t.Errorf("%q, mode %v, %v", content, info.Mode(), err)
	}
}

// TestTourCanBePasted: the lines name this stack's own address.
func TestTourCanBePasted(t *testing.T) {
	var out bytes.Buffer
	tour(&out, stack.Ready{HTTP: "http://127.0.0.1:1234", Plugin: stack.Compiled, Wiring: stack.Classic, Gateways: make([]stack.Gateway, 3)}, "/tmp/x")
	for _, part := range []string{
		"3 gateways behind a balancer with the plugin compiled, classic wiring; logs in /tmp/x",
		"curl -s http://127.0.0.1:1234/v1/users/register", "curl -s http://127.0.0.1:1234/v1/users/login",
		`curl -i http://127.0.0.1:1234/v1/products -H "Authorization: Bearer $TOKEN"`, "[1-25]",
	} {
		if !strings.Contains(out.String(), part) {
			t.Errorf("%q is not in the tour:\n%s", part, out.String())
		}
	}
}

func TestVersionNamesAllThree(t *testing.T) {
	out, err := run(t, "version")
	if err != nil || strings.Count(out, "\n") != 3 || !strings.Contains(out, "traefik  3.7.13") {
		t.Errorf("%s, %v", out, err)
	}
}
