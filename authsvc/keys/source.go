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
