package stack

import (
	"crypto/tls"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
)

// TestReadyFile is the contract of design: ready-file and design: operator-tokens: these keys,
// for the owner alone, and never half of it.
func TestReadyFile(t *testing.T) {
	name := filepath.Join(t.TempDir(), "ready.json")
	ready := Ready{AdminToken: "a", Gateways: []Gateway{{HTTP: "http://g", HTTPS: "https://g", PID: 7}}}
	for range 2 { // the second replaces the first
		if err := ready.write(name); err != nil {
			t.Fatal(err)
		}
	}
	info, err := os.Stat(name)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	content, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	var keys map[string]any
	if err := json.Unmarshal(content, &keys); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"http", "https", "authsvc", "admin", "adminToken", "issuerToken", "redis", "plugin", "wiring", "gateways"} {
		if _, there := keys[key]; !there {
			t.Errorf("no %q", key)
		}
	}
	if len(keys) != 10 {
		t.Errorf("%d keys", len(keys))
	}
	left, _ := os.ReadDir(filepath.Dir(name))
	if len(left) != 1 {
		t.Errorf("left behind: %v", left)
	}
	if err := ready.write(filepath.Join(name, "below-a-file")); err == nil {
		t.Error("no error")
	}
}

func TestSelfSignedIsKeptUntilItServesNoMore(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	hosts := []string{"localhost", "127.0.0.1", "::1"}
	file, err := selfSigned(dir, hosts)
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.LoadX509KeyPair(file, file)
	if err != nil {
		t.Fatal(err)
	}
	for _, host := range hosts {
		if err := pair.Leaf.VerifyHostname(host); err != nil {
			t.Error(err)
		}
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the key is readable by others: %v, %v", info.Mode(), err)
	}
	read := func() string {
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		return string(content)
	}
	first := read()
	if _, err := selfSigned(dir, hosts); err != nil || read() != first {
		t.Errorf("it was made anew (%v)", err)
	}
	if _, err := selfSigned(dir, append(hosts, "gateway.example")); err != nil || read() == first {
		t.Errorf("it was kept for a name that it lacks (%v)", err)
	}
	if err := os.WriteFile(file, []byte("rubbish"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := selfSigned(dir, hosts); err != nil || read() == "rubbish" {
		t.Errorf("rubbish was kept (%v)", err)
	}
}
