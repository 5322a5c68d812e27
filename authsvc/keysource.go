package authsvc

import (
	"cmp"
	"context"
	"errors"
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

// loadFileKeys reads the issuer's file once; an error here stops the start.
func loadFileKeys(i config.Issuer, changed func(), log *slog.Logger) (*fileKeys, error) {
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

func (f *fileKeys) keys() (token.KeySet, bool) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.set, true
}

func (f *fileKeys) refresh(context.Context, string) bool { return false }

// errWeakKeys is an answer that must not be waited out: it would be no better
// next time.
var errWeakKeys = errors.New("weak key")

// usableKeys leaves out of a set what is sound in form and worthless all the
// same, and what the issuer's algorithms have no use for. If nothing remains,
// the error says what became of each key.
func usableKeys(set token.KeySet, algorithms []string) (token.KeySet, error) {
	sound := set.WithoutWeak()
	usable := sound.Restrict(algorithms)
	if usable.Len() > 0 {
		return usable, nil
	}
	var all []error
	if sound.Len() > 0 {
		all = append(all, fmt.Errorf("no key fits algorithms %v", algorithms))
	}
	for _, left := range usable.LeftOut() {
		if left.Weak {
			all = append(all, fmt.Errorf("%w: %s", errWeakKeys, left))
		} else {
			all = append(all, errors.New(left.String()))
		}
	}
	return token.KeySet{}, errors.Join(all...)
}

// leftOutSaid holds which keys the log has named as left out of the last set,
// so that each is named once and not at every reading.
type leftOutSaid map[string]bool

// report names the keys that the set before did not lack. A weak key is loud:
// somebody may be able to sign with it, here and wherever else it is trusted.
func (said leftOutSaid) report(log *slog.Logger, set token.KeySet) leftOutSaid {
	now := make(leftOutSaid)
	for _, left := range set.LeftOut() {
		// Some issuers list their keys in another order every time.
		name := cmp.Or(left.ID, left.Place) + ": " + left.Reason
		now[name] = true
		switch {
		case said[name]:
		case left.Weak:
			log.Error("weak key left out: it proves nothing, because others may sign with it; the issuer has to replace it",
				"key", left.Place, "kid", left.ID, "reason", left.Reason)
		default:
			log.Warn("unusable key left out; tokens that only it has signed are refused, the other keys serve",
				"key", left.Place, "kid", left.ID, "reason", left.Reason)
		}
	}
	return now
}
