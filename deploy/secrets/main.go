// Command secrets makes, on the first start of a stack, what its parts prove
// themselves with: passwords of Redis, authsvc's two tokens and a certificate.
//
//	secrets DIR
//
// DIR holds one folder for every holder, a volume that nobody else sees. A
// secret that any of its holders has is kept and given to those that lack it,
// so a restart changes nothing and one secret may be put there by hand. To
// change one, remove it from all its holders and start again.
package main

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: secrets DIR")
		os.Exit(2)
	}
	err := issue(os.Args[1])
	if err == nil {
		err = certify(filepath.Join(os.Args[1], "certificates"), os.Stderr)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "secrets:", err)
		os.Exit(1)
	}
}

// holders says who has which secret.
var holders = []struct {
	secret string
	who    []string
}{
	{"redis-default", []string{"redis"}},
	{"redis-gateway", []string{"redis", "gateway"}},
	{"redis-authsvc", []string{"redis", "authsvc"}},
	{"redis-monitor", []string{"redis", "monitor"}},
	{"admin-token", []string{"authsvc"}},
	{"issuer-token", []string{"authsvc", "users"}},
	{"grafana-admin", []string{"grafana"}},
}

// issue gives every holder its secrets.
func issue(dir string) error {
	for _, h := range holders {
		value, err := known(dir, h.secret, h.who)
		if err != nil {
			return err
		}
		if value == "" {
			value = rand.Text()
		}
		for _, who := range h.who {
			if err := write(filepath.Join(dir, who, h.secret), []byte(value+"\n")); err != nil {
				return err
			}
		}
		if h.secret == "redis-monitor" {
			// The exporter wants passwords by address, as JSON; some versions look
			// for the address with the user in it, others for that without.
			passwords := fmt.Sprintf("{%q: %q, %q: %q}\n", "redis://monitor@redis:6379", value, "redis://redis:6379", value)
			if err := write(filepath.Join(dir, "monitor", "redis-exporter.json"), []byte(passwords)); err != nil {
				return err
			}
		}
	}
	return nil
}

// known returns the secret that its holders have, or nothing. Two that differ
// are an error: whichever won would lock somebody out.
func known(dir, secret string, who []string) (string, error) {
	var value string
	for _, holder := range who {
		content, err := os.ReadFile(filepath.Join(dir, holder, secret))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
		switch found := strings.TrimSpace(string(content)); {
		case found == "":
		case value != "" && found != value:
			return "", fmt.Errorf("%s differs between %s; remove the wrong one", secret, strings.Join(who, " and "))
		default:
			value = found
		}
	}
	return value, nil
}

// write puts a file in place whole, readable by its group: the parts run as
// different users that have the group in common.
func write(name string, content []byte) error {
	temporary := name + ".new"
	if err := os.WriteFile(temporary, content, 0o640); err != nil {
		return err
	}
	return os.Rename(temporary, name)
}
