package stack

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestOptionsDefaults(t *testing.T) {
	state := t.TempDir()
	t.Setenv("XDG_STATE_HOME", state)
	o := Options{Listen: "127.0.0.1:0", ListenTLS: "localhost:0"}
	if err := o.complete(); err != nil {
		t.Fatal(err)
	}
	if o.Gateways != 1 || o.Plugin != Compiled || o.Wiring != Fast || o.DataDir != filepath.Join(state, "sluice") || o.Log == nil {
		t.Errorf("%+v", o)
	}
	if strings.HasSuffix(o.Listen, ":0") || strings.HasSuffix(o.ListenTLS, ":0") {
		t.Errorf("no port was chosen: %s, %s", o.Listen, o.ListenTLS)
	}
	stock := Options{Listen: "127.0.0.1:0", ListenTLS: "127.0.0.1:0", Traefik: "traefik", DataDir: state}
	if err := stock.complete(); err != nil || stock.Plugin != Interpreted {
		t.Errorf("a stock Traefik interprets: %q, %v", stock.Plugin, err)
	}
}

func TestOptionsFaults(t *testing.T) {
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	taken := busy.Addr().String()
	tests := []struct {
		name    string
		options Options
		want    string
	}{
		{"gateways", Options{Gateways: -1}, "--gateways=-1: write a number from 1 to 16"},
		{"wiring", Options{Wiring: "quick"}, "--wiring=quick: write fast or classic"},
		{"plugin", Options{Plugin: "jitted"}, "--plugin=jitted: write compiled or interpreted"},
		{"compiled in a stock Traefik", Options{Plugin: Compiled, Traefik: "t"}, "--plugin=compiled needs our own Traefik"},
		{"redis", Options{Redis: "redis"}, "--redis=redis: write host:port"},
		{"dynamic", Options{Dynamic: "/nonexistent.yml"}, "--dynamic=/nonexistent.yml: no such file or directory"},
		{"dynamic folder", Options{Dynamic: "/tmp"}, "--dynamic=/tmp: not a file"},
		{"no port", Options{Listen: "localhost"}, "--listen=localhost: write host:port"},
		{"busy port", Options{Listen: taken}, "--listen=" + taken + ": the port is in use; stop what listens there, or name another such as --listen=127.0.0.1:0"},
		{"busy TLS port", Options{ListenTLS: taken}, "--listenTLS=" + taken + ": the port is in use"},
		{"foreign address", Options{Listen: "192.0.2.1:80"}, "--listen=192.0.2.1:80: cannot listen there"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			o := test.options
			o.DataDir = t.TempDir()
			for _, address := range []*string{&o.Listen, &o.ListenTLS} {
				if *address == "" {
					*address = "127.0.0.1:0"
				}
			}
			err := o.complete()
			if err == nil || !strings.HasPrefix(err.Error(), test.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("error %v, want one line: %s", err, test.want)
			}
		})
	}
}

func TestOptionsFaultsComeAllAtOnce(t *testing.T) {
	o := Options{Listen: "127.0.0.1:0", ListenTLS: "127.0.0.1:0", DataDir: t.TempDir(), Gateways: 99, Wiring: "x", Plugin: "y", Redis: "z"}
	err := o.complete()
	if err == nil || strings.Count(err.Error(), "\n") != 3 {
		t.Errorf("error %v", err)
	}
}

func TestDynamicBecomesAbsolute(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	if err := os.WriteFile("mine.yml", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	path := "mine.yml"
	if err := readable(&path); err != nil || path != filepath.Join(dir, "mine.yml") {
		t.Errorf("%s, %v", path, err)
	}
}

func TestOlderThan(t *testing.T) {
	for version, older := range map[string]bool{
		"3.7.12": true, "3.6.99": true, "2.11.0": true, "3.7": true,
		"3.7.13": false, "v3.7.14": false, "3.8.0": false, "4.0.0": false, "dev": false,
	} {
		if olderThan(version, "3.7.13") != older {
			t.Errorf("%s older than 3.7.13: %t", version, !older)
		}
	}
}

func TestURL(t *testing.T) {
	for address, want := range map[string]string{
		"127.0.0.1:8080": "http://127.0.0.1:8080", ":80": "http://127.0.0.1:80", "0.0.0.0:80": "http://127.0.0.1:80",
		"[::]:80": "http://127.0.0.1:80", "[::1]:80": "http://[::1]:80", "example.com:81": "http://example.com:81",
	} {
		if got := url("http", address); got != want {
			t.Errorf("url(%s) = %s", address, got)
		}
	}
}
