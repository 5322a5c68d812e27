package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sluice-gateway/sluice/cmd/sluice/stack"
)

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

// TestTourCanBePasted runs every line of the tour in a shell, twice, as whoever
// pastes it would. Curl is told what a gateway would answer by a stand-in.
func TestTourCanBePasted(t *testing.T) {
	here := stack.Ready{HTTP: "http://127.0.0.1:1234", HTTPS: "https://127.0.0.1:1235", Admin: "http://127.0.0.1:1236",
		Plugin: stack.Compiled, Wiring: stack.Classic, Gateways: make([]stack.Gateway, 3)}
	dir := filepath.Join(t.TempDir(), "it's here")
	curl := `#!/bin/sh
printf '%s|' "$@" >> "$CALLS"; echo >> "$CALLS"
case "$*" in
*register*) if [ -e "$CALLS.ada" ]; then echo '{"status":409}'; else touch "$CALLS.ada"; echo '{"access_token":"first"}'; fi ;;
*metrics*) echo sluice_gateway_up ;;
*login*) echo '{"access_token":"second"}' ;;
esac
`
	for name, content := range map[string]string{"curl": curl, "admin.token": "operator"} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for _, test := range []struct {
		name         string
		sights       sights
		want, absent []string
	}{
		{"shipped", sights{Ready: here, Shipped: true, Certificate: filepath.Join(dir, "tls.pem")},
			[]string{"|http://127.0.0.1:1234/v1/users/register|", "--cacert|" + dir + "/tls.pem|-i|https://127.0.0.1:1235/v1/products|-H|Authorization: Bearer second|"}, nil},
		{"redirected", sights{Ready: here, Shipped: true, Redirects: true, Certificate: filepath.Join(dir, "tls.pem")},
			[]string{"--cacert|" + dir + "/tls.pem|-sS|https://127.0.0.1:1235/v1/users/register|"}, []string{"http://127.0.0.1:1234"}},
		{"own certificate", sights{Ready: here, Shipped: true}, []string{"-k|-i|https://127.0.0.1:1235/v1/products|"}, []string{"--cacert"}},
		{"own routes", sights{Ready: here}, []string{"|http://127.0.0.1:1236/metrics|"}, []string{"/v1/products", "/v1/users"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			var out bytes.Buffer
			test.sights.Work, test.sights.AdminTokenFile = "/tmp/x", filepath.Join(dir, "admin.token")
			tour(&out, test.sights)
			if want := "3 gateways behind a balancer with the plugin compiled, classic wiring; logs in /tmp/x"; !strings.Contains(out.String(), want) {
				t.Errorf("%q is not in the tour:\n%s", want, out.String())
			}
			var lines []string
			for line := range strings.Lines(out.String()) {
				if strings.HasPrefix(line, "  curl ") || strings.HasPrefix(line, "  TOKEN=") {
					lines = append(lines, line)
				}
			}
			pasted := strings.Join(lines, "")
			calls := filepath.Join(t.TempDir(), "calls")
			shell := exec.Command("sh", "-eu", "-c", "TOKEN=\n"+pasted+pasted+"echo \"TOKEN is $TOKEN\"")
			shell.Env = append(os.Environ(), "CALLS="+calls, "PATH="+dir+":"+os.Getenv("PATH"))
			printed, err := shell.CombinedOutput()
			if err != nil {
				t.Fatalf("%v: %s", err, printed)
			}
			if test.sights.Shipped && !strings.Contains(string(printed), "TOKEN is second\n") {
				t.Errorf("no token after the lines were pasted twice: %s", printed)
			}
			called, err := os.ReadFile(calls)
			if err != nil {
				t.Fatal(err)
			}
			for _, part := range append(test.want, "http://127.0.0.1:1236/v1/gateways|-H|Authorization: Bearer operator|") {
				if !strings.Contains(string(called), part) {
					t.Errorf("%q is not among the calls:\n%s", part, called)
				}
			}
			for _, part := range test.absent {
				if strings.Contains(string(called), part) {
					t.Errorf("%q is among the calls:\n%s", part, called)
				}
			}
		})
	}
}
