package keys

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/sluice-gateway/sluice/authsvc/config"
	"github.com/sluice-gateway/sluice/authsvc/token"
)

// fileKeys are keys in a file of an operator: JWKS, PEM or secret. The file is
// looked at every fileCheck rather than watched: Kubernetes swaps mounted
// secrets by renaming a folder above, which file notifications miss.
type fileKeys struct {
	path       string
	algorithms []string
	parse      func([]byte) (token.KeySet, error)
	changed    func()
	log        *slog.Logger

	mu    sync.RWMutex // protects what follows
	set   token.KeySet
	said  leftOutSaid
	stamp time.Time
}

const fileCheck = time.Second

// openFile reads the issuer's file once; an error here stops the start.
func openFile(i config.Issuer, changed func(), log *slog.Logger) (*fileKeys, error) {
	f := &fileKeys{path: i.JWKSFile, parse: token.ParseKeySet, algorithms: i.Algorithms, changed: changed, log: log}
	switch {
	case i.PEMFile != "":
		f.path, f.parse = i.PEMFile, token.ParsePEM
	case i.SecretFile != "":
		f.path, f.parse = i.SecretFile, token.SecretKeySet
	}
	info, err := os.Stat(f.path)
	if err != nil {
		return nil, err
	}
	f.stamp = info.ModTime()
	if f.set, err = f.read(); err == nil {
		f.said = f.said.report(log, f.set)
	}
	return f, err
}

func (f *fileKeys) read() (token.KeySet, error) {
	data, err := config.ReadFile(f.path)
	if err != nil {
		return token.KeySet{}, err
	}
	set, err := f.parse(data)
	if err == nil {
		set, err = usableKeys(set, f.algorithms)
	}
	if err != nil {
		return token.KeySet{}, fmt.Errorf("%s: %w", f.path, err)
	}
	return set, nil
}

// Watch takes over changes until ctx ends. A file that is gone, half written
// or weak leaves the keys as they are.
func (f *fileKeys) Watch(ctx context.Context) {
	every := time.NewTicker(fileCheck)
	defer every.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-every.C:
		}
		info, err := os.Stat(f.path)
		f.mu.RLock()
		same := err != nil || info.ModTime().Equal(f.stamp)
		f.mu.RUnlock()
		if same {
			continue
		}
		set, err := f.read()
		f.mu.Lock()
		f.stamp = info.ModTime()
		if err == nil {
			f.set = set
			f.said = f.said.report(f.log, set)
		}
		f.mu.Unlock()
		if err != nil {
			f.log.Error("changed key file not taken over", "file", f.path, "error", err)
			continue
		}
		f.changed()
		f.log.Info("key file read again", "file", f.path, "keys", set.Len())
	}
}

// Keys are those of the file.
func (f *fileKeys) Keys() (token.KeySet, bool) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.set, true
}

// Refresh has nothing to look for: a changed file is seen within a second.
func (f *fileKeys) Refresh(context.Context, string) bool { return false }
