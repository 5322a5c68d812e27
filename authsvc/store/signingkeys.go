package store

import (
	"context"
	"encoding/json"
	"time"
)

// PublishedKey is what Redis tells of a signing key: its public half and its
// schedule, never the private half (design: signing-keys).
type PublishedKey struct {
	ID        string          `json:"kid"`
	Algorithm string          `json:"alg"`
	JWK       json.RawMessage `json:"jwk"`
	Activates time.Time       `json:"activates"`
	Retires   time.Time       `json:"retires,omitzero"`
}

// PublishKey writes a public key down for a minute; its owners repeat it.
func (s *Store) PublishKey(ctx context.Context, key PublishedKey) error {
	value, err := json.Marshal(key)
	if err != nil {
		return err
	}
	return s.call(ctx, func(ctx context.Context) error {
		return isOK(s.redis.Set(ctx, s.signingKey(key.ID), value, time.Minute).Result())
	})
}
