package keys

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/authsvc/internal/issuertest"
	"github.com/sluice-gateway/sluice/internal/redistest"
)

// A secret in a file changes, and emptying the file does not open the door.
func TestEmptiedSecretFile(t *testing.T) {
	t.Parallel() // it waits, mostly
	path := issuertest.WriteFile(t, filepath.Join(t.TempDir(), "admin"), "the-first-admin-token\n")
	s, err := OpenSecret(nil, "admin.token", "", path)
	if err != nil || !s.Matches("the-first-admin-token") {
		t.Fatalf("the first token does not work: %v", err)
	}
	touch := func(ahead time.Duration) (stamp time.Time) { // two writes may bear one time
		t.Helper()
		stamp = time.Now().Add(ahead)
		if err := os.Chtimes(path, stamp, stamp); err != nil {
			t.Fatal(err)
		}
		return stamp
	}
	issuertest.WriteFile(t, path, "the-second-admin-token\n")
	touch(time.Hour)
	redistest.Eventually(t, 10*time.Second, "the second token works", func() bool { return s.Matches("the-second-admin-token") })
	issuertest.WriteFile(t, path, "")
	stamp := touch(2 * time.Hour)
	redistest.Eventually(t, 10*time.Second, "the empty file was looked at", func() bool {
		s.Matches("x")
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.stamp.Equal(stamp)
	})
	if s.Matches("") || s.Matches("the-first-admin-token") || !s.Matches("the-second-admin-token") {
		t.Error("an empty file changed who may enter")
	}
}
