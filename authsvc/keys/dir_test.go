package keys

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/authsvc/config"
)

// A key whose successor's tokens are all that can be alive is deleted by the
// next rotation, and its tokens are refused.
func TestRetiredKeysDie(t *testing.T) {
	d, err := OpenDir(config.Own{KeyDir: t.TempDir(), Algorithm: "ES256"}, time.Minute, func() {}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	first, _ := d.Signer(time.Now())
	if err := d.Rotate(time.Now().Add(-time.Hour)); err != nil { // an hour ago: the first retired since
		t.Fatal(err)
	}
	for _, key := range d.Living() {
		if key.KeyID == first.KeyID {
			t.Error("a retired key is alive")
		}
	}
	if err := d.Rotate(time.Now()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(d.path, first.KeyID+".pem")); !os.IsNotExist(err) {
		t.Errorf("the file of a retired key: %v", err)
	}
	for _, name := range []string{"admin.token"} {
		if _, err := d.SecretFile(name, 24); err != nil {
			t.Fatal(err)
		}
	}
	entries, _ := os.ReadDir(d.path)
	for _, entry := range entries {
		if info, _ := entry.Info(); info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s is readable by others: %s", entry.Name(), info.Mode())
		}
	}
}

// A key that an operator has put there under a name of his own is one that
// retires, like any other.
func TestForeignFilesRetire(t *testing.T) {
	dir := t.TempDir()
	own := config.Own{KeyDir: dir, Algorithm: "ES256"}
	d, err := OpenDir(own, time.Minute, func() {}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	first, _ := d.Signer(time.Now())
	if err := os.Rename(filepath.Join(dir, first.KeyID+".pem"), filepath.Join(dir, "mine.pem")); err != nil {
		t.Fatal(err)
	}
	if err := d.Rotate(time.Now()); err != nil {
		t.Fatal(err)
	}
	retires := map[string]int{}
	for _, key := range d.Living() {
		if !key.Retires.IsZero() {
			retires[key.KeyID]++
		}
	}
	if len(d.Living()) != 2 || retires[first.KeyID] != 1 {
		t.Errorf("%d keys, of which retire: %v", len(d.Living()), retires)
	}
}
