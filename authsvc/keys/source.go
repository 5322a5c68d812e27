// Package keys holds what authsvc signs and verifies tokens with, and notices
// when it changes.
//
// A Dir is the folder of its own signing keys, which all replicas share. A Source
// hands out the keys of one issuer: the Dir is one, and Open makes one of a file
// (file.go) or of a key server (remote.go). Whatever a source reads goes through
// usableKeys: weak and useless keys are left out, and each is named in the log
// once. A Source's Watch then runs until the end, and takes a set over when it
// is sound; one that is not leaves the keys as they are. The secrets that open
// the admin interface change in the same way (secret.go).
package keys

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/sluice-gateway/sluice/authsvc/config"
	"github.com/sluice-gateway/sluice/authsvc/token"
)

// Source hands out an issuer's current keys.
type Source interface {
	// Keys is false until the first set has arrived.
	Keys() (token.KeySet, bool)
	// Refresh looks for a key that Keys lacks. It reports whether it looked.
	Refresh(ctx context.Context, kid string) bool
	// Watch takes over what changes, until ctx ends.
	Watch(ctx context.Context)
}

// Open begins to supply an issuer's keys; changed is called whenever there are
// others than before. Files are read now and must be good; a key server may be
// away, but what it answers in time must be good too.
func Open(ctx context.Context, i config.Issuer, changed func(), log *slog.Logger) (Source, error) {
	log = log.With("issuer", i.Name)
	if i.JWKSURL == "" {
		return openFile(i, changed, log)
	}
	keys := newRemoteKeys(i, changed, log)
	if _, err := keys.client(); err != nil {
		return nil, fmt.Errorf("ca: %w", err)
	}
	if err := keys.Fetch(ctx); errors.Is(err, errWeakKeys) {
		return nil, err
	}
	return keys, nil
}

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
