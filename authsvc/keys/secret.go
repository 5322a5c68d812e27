package keys

import (
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/sluice-gateway/sluice/authsvc/config"
)

// Secret is a bearer token of the admin interface; one that is empty opens
// nothing (the issuer's, where no token is issued). One that stands in a file
// of its own may change without a restart (design: secrets).
type Secret struct {
	path string // empty: fixed

	mu    sync.Mutex // protects what follows
	text  string
	stamp time.Time
	asked time.Time
}

// OpenSecret takes the text that is configured, else that of the file at path,
// else that of the file called name in the folder, which is made if need be.
func OpenSecret(d *Dir, name, text, path string) (*Secret, error) {
	s := &Secret{path: path, text: text}
	if text != "" {
		return s, nil
	}
	if path == "" {
		var err error
		s.text, err = d.SecretFile(name, 24)
		return s, err
	}
	err := s.read()
	if err == nil && len(s.text) < config.MinSecret {
		err = fmt.Errorf("shorter than %d characters; make one with: openssl rand -hex 24", config.MinSecret)
	}
	return s, err
}

func (s *Secret) read() error {
	info, err := os.Stat(s.path)
	if err != nil {
		return err
	}
	s.stamp = info.ModTime()
	data, err := config.ReadFile(s.path)
	if err == nil {
		s.text = strings.TrimSpace(string(data))
	}
	return err
}

// Value is the secret as it is now.
func (s *Secret) Value() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.path != "" && time.Since(s.asked) > fileCheck {
		s.asked = time.Now()
		if info, err := os.Stat(s.path); err == nil && !info.ModTime().Equal(s.stamp) {
			before := s.text
			if s.read() != nil || len(s.text) < config.MinSecret {
				s.text = before // half written, or emptied: never let "" in
			}
		}
	}
	return s.text
}

// Matches compares in constant time, whatever the lengths.
func (s *Secret) Matches(presented string) bool {
	text := s.Value()
	want, got := sha256.Sum256([]byte(text)), sha256.Sum256([]byte(presented))
	return text != "" && subtle.ConstantTimeCompare(want[:], got[:]) == 1
}
