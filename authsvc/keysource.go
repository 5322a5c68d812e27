package authsvc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/sluice-gateway/sluice/authsvc/token"
)

// fileKeys are keys in a file of an operator: JWKS, PEM or secret. The file is
// looked at every fileCheck rather than watched: Kubernetes swaps mounted
// secrets by renaming a folder above, which file notifications miss.
type fileKeys struct {
	path    string
	parse   func([]byte) (token.KeySet, error)
	changed func()
	log     *slog.Logger

	mu    sync.RWMutex // protects what follows
	set   token.KeySet
	stamp time.Time
}

const fileCheck = time.Second

// loadFileKeys reads the file once; an error here stops the start.
func loadFileKeys(path string, parse func([]byte) (token.KeySet, error), changed func(), log *slog.Logger) (*fileKeys, error) {
	f := &fileKeys{path: path, parse: parse, changed: changed, log: log}
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	f.stamp = info.ModTime()
	f.set, err = f.read()
	return f, err
}

func (f *fileKeys) read() (token.KeySet, error) {
	data, err := readFile(f.path)
	if err != nil {
		return token.KeySet{}, err
	}
	set, err := f.parse(data)
	if err == nil {
		err = checkKeys(set)
	}
	if err != nil {
		return token.KeySet{}, fmt.Errorf("%s: %w", f.path, err)
	}
	return set, nil
}

// watch takes over changes until ctx ends. A file that is gone, half written
// or weak leaves the keys as they are.
func (f *fileKeys) watch(ctx context.Context) {
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

func (f *fileKeys) keys() (token.KeySet, bool) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.set, true
}

func (f *fileKeys) refresh(context.Context, string) bool { return false }

// errWeakKeys is an answer that must not be waited out: it would be no better
// next time.
var errWeakKeys = errors.New("weak key")

// checkKeys refuses keys that are sound in form and worthless all the same.
func checkKeys(set token.KeySet) error {
	var all []error
	for _, key := range set.Keys() {
		if weakness := key.Weakness(); weakness != "" {
			all = append(all, fmt.Errorf("%w %q: %s", errWeakKeys, key.ID, weakness))
		}
	}
	return errors.Join(all...)
}
