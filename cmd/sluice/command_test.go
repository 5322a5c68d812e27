package main

import (
	"bytes"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
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

// TestMistakesAreAnsweredInOneLine: a busy port, a missing binary, a bad flag say
// what to do, before anything is started.
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
		{"no gateway", []string{"up", "--gateways=0"}, `invalid argument "0" for "--gateways" flag: write a number from 1 to 16`},
		{"no gateway to show", []string{"demo", "--gateways=0"}, `invalid argument "0" for "--gateways" flag: write a number from 1 to 16`},
		{"a variable that is not set", append([]string{"up", "--redis="}, free...), `invalid argument "" for "--redis" flag: it is empty`},
		{"nothing to check in", []string{"check", "--static="}, `invalid argument "" for "--static" flag: it is empty`},
		{"busy port", []string{"up", "--listenTLS=127.0.0.1:0", "--listen=" + busy.Addr().String()}, "the port is in use; stop what listens there"},
		{"no such binary", append([]string{"up", "--traefik=/nonexistent"}, free...), "--traefik=/nonexistent"},
		{"another program", append([]string{"up", "--traefik=/bin/echo"}, free...), "is this a Traefik?"},
		{"nothing to check", []string{"check"}, "name the files, folders or -"},
		{"no such file", []string{"check", "/nonexistent.yml"}, "no such file"},
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

// TestHintsNameWhatTheCommandHas: what a message tells to write can be written.
func TestHintsNameWhatTheCommandHas(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	inFile := filepath.Join(file, "sluice") // where no folder can be made
	for _, test := range []struct {
		name string
		args []string
		env  map[string]string
		want string
	}{
		{"no place for keys", []string{"up", "--dataDir=" + inFile, "--listen=127.0.0.1:0", "--listenTLS=127.0.0.1:0"}, nil,
			"--dataDir=" + inFile + ": not a directory; name a folder that can be written"},
		{"no place for keys by default", []string{"demo"}, map[string]string{"XDG_STATE_HOME": inFile},
			"--dataDir=" + inFile + "/sluice: not a directory; name a folder that can be written"},
		{"no home", []string{"demo"}, map[string]string{"XDG_STATE_HOME": "", "HOME": ""}, "name a folder with --dataDir=DIR"},
		{"no place to build", []string{"traefik", "build"}, map[string]string{"SLUICE_CACHE": "", "XDG_CACHE_HOME": inFile},
			"name a folder that can be written in the variable SLUICE_CACHE"},
		{"no place to build in for up", []string{"demo"}, map[string]string{"SLUICE_CACHE": "", "XDG_CACHE_HOME": inFile},
			"name a folder that can be written in the variable SLUICE_CACHE"},
		{"no Go", []string{"traefik", "build"}, map[string]string{"SLUICE_CACHE": t.TempDir(), "PATH": t.TempDir()}, "needs Go 1.26 or newer on PATH"},
		{"no Go for up", []string{"demo"}, map[string]string{"SLUICE_CACHE": t.TempDir(), "PATH": t.TempDir()}, "name a stock Traefik with --traefik=FILE"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Setenv("XDG_STATE_HOME", t.TempDir())
			for name, value := range test.env {
				t.Setenv(name, value)
			}
			_, err := run(t, test.args...)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Fatalf("error %v, want %q", err, test.want)
			}
			command, _, findErr := rootCommand().Find(test.args)
			if findErr != nil {
				t.Fatal(findErr)
			}
			for _, named := range regexp.MustCompile(`--([A-Za-z.]+)`).FindAllStringSubmatch(err.Error(), -1) {
				if command.Flags().Lookup(named[1]) == nil {
					t.Errorf("%q names --%s, which `%s` does not have", err, named[1], command.CommandPath())
				}
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
	authsvc := filepath.Join(t.TempDir(), "authsvc.yml")
	if err := os.WriteFile(authsvc, []byte("adminListen: 127.0.0.1:9001"), 0o600); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name    string
		args    []string
		want    []string
		failure string
	}{
		{"shipped", []string{"../../traefik/fast.yml", "--static=../../traefik/traefik.yml"},
			[]string{"8 routers, 4 middlewares of the plugin, no errors", "not set in this environment: SLUICE_ACME, SLUICE_KEY_PREFIX, SLUICE_MIN_INSTANCES"}, ""},
		{"static alone", []string{"--static=../../traefik/traefik.yml"}, []string{"traefik.yml: 0 routers, 0 middlewares of the plugin, no errors"}, ""},
		{"resources", []string{"../../deploy/kubernetes/routes.yaml", "--static=../../deploy/kubernetes/traefik.yml"},
			[]string{"not on this machine, so not read: /run/secrets/sluice/redis-gateway", "9 routers, 4 middlewares of the plugin, no errors"}, ""},
		{"compose", []string{"../../compose.yaml"}, []string{"compose.yaml: 0 routers, 0 middlewares of the plugin, no errors"}, ""},
		{"a folder", []string{"../../traefik"}, []string{"9 middlewares of the plugin, no errors, 1 warning", "balancer.yml: no gateway's static configuration"}, ""},
		{"nothing of Traefik's", []string{authsvc}, []string{"not checked: " + authsvc + ": of authsvc"}, "nothing was checked"},
		{"an empty folder", []string{t.TempDir()}, nil, "nothing was checked"},
		{"errors", []string{broken}, []string{"broken.yml:1: error: middleware \"gate\": colour", "limits[0].name"}, "2 errors, 0 warnings"},
		{"several files", []string{broken, "../../traefik/fast.yml"}, []string{"broken.yml:1: error"}, "2 errors"},
		{"openings", []string{"--static=../../traefik/balancer.yml"}, []string{"entryPoints.web.http.aliasHeadersStrategy: write reject", "warning: entryPoints.web.http.maxHeaderBytes"}, "errors"},
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
