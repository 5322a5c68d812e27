package operator

import (
	"bytes"
	"context"
	"net"
	"reflect"
	"strings"
	"testing"

	"github.com/sluice-gateway/sluice/authsvc/config"
)

// run runs the command and returns what it printed.
func run(environ []string, args ...string) (status int, out, errs string) {
	var stdout, stderr bytes.Buffer
	p := &Program{Environ: environ, In: strings.NewReader(""), Out: &stdout, Err: &stderr}
	status = p.Main(context.Background(), args)
	return status, stdout.String(), stderr.String()
}

// The admin listener is plain HTTP: without a word of the operator's it is for
// this machine alone, and the commands find it wherever he has put it.
func TestAdminListenerIsLocalByDefault(t *testing.T) {
	host, _, err := net.SplitHostPort(config.New().AdminListen)
	if err != nil || !net.ParseIP(host).IsLoopback() {
		t.Errorf("adminListen: %q %v", config.New().AdminListen, err)
	}
	for listen, server := range map[string]string{
		"":               "http://127.0.0.1:9001",
		":9005":          "http://127.0.0.1:9005",
		"0.0.0.0:9005":   "http://127.0.0.1:9005",
		"[::]:9005":      "http://127.0.0.1:9005",
		"10.1.2.3:9005":  "http://10.1.2.3:9005",
		"[fd00::1]:9005": "http://[fd00::1]:9005",
		"inner:9005":     "http://inner:9005",
	} {
		p := &Program{}
		if listen != "" {
			p.Environ = []string{"AUTHSVC_ADMINLISTEN=" + listen}
		}
		if got := p.defaults().Server; got != server {
			t.Errorf("adminListen %q: %s, want %s", listen, got, server)
		}
	}
}

// --help names every field of Config with its description, and no secret.
func TestHelpIsComplete(t *testing.T) {
	status, out, _ := run([]string{"AUTHSVC_ADMINTOKEN=0123456789abcdefsecret"}, "--help")
	if status != 0 || strings.Contains(out, "secret0") || strings.Contains(out, "abcdefsecret") {
		t.Errorf("help: %d", status)
	}
	var walk func(t reflect.Type, path string) []string
	walk = func(kind reflect.Type, path string) (names []string) {
		for i := range kind.NumField() {
			field := kind.Field(i)
			name := path + strings.ToLower(field.Name)
			if field.Tag.Get("description") == "" {
				t.Errorf("%s has no description", name)
			}
			switch {
			case field.Type.Kind() == reflect.Struct:
				names = append(names, walk(field.Type, name+".")...)
			case field.Type.Kind() == reflect.Slice && field.Type.Elem().Kind() == reflect.Struct:
				names = append(names, walk(field.Type.Elem(), name+"[n].")...)
			case field.Type.Kind() == reflect.Map:
				names = append(names, name+".<name>")
			default:
				names = append(names, name)
			}
		}
		return names
	}
	names := walk(reflect.TypeFor[config.Config](), "")
	for _, name := range names {
		if !strings.Contains(out, "--"+name+"  (Default") {
			t.Errorf("--help lacks %s", name)
		}
	}
	if len(names) < 55 {
		t.Errorf("only %d options found", len(names))
	}
	for _, args := range [][]string{{"token", "--help"}, {"token", "issue", "--help"}, {"limit", "show", "-h"}, {"keys", "rotate", "--help"}} {
		if status, out, errs := run([]string{"AUTHSVC_ADMINTOKEN=0123456789abcdefsecret"}, args...); status != 0 || out == "" || strings.Contains(out+errs, "abcdefsecret") {
			t.Errorf("%v: %d %q", args, status, errs)
		}
	}
}
