package session

import (
	"context"
	"errors"
	"time"

	"github.com/sluice-gateway/sluice/authsvc/identity"
	"github.com/sluice-gateway/sluice/authsvc/store"
)

// Session is the session of a refresh token that was made here.
func (s *Sessions) Session(refresh string) (session string, ours bool) {
	return s.tokens.session(refresh)
}

// Active tells whether a refresh token of a session could be used now, and what
// Redis holds of the session.
func (s *Sessions) Active(ctx context.Context, session, presented string) (family store.Family, active bool, err error) {
	family, err = s.store.LoadFamily(ctx, session)
	if errors.Is(err, store.ErrNoSession) {
		return family, false, nil
	}
	if err != nil || !s.tokens.wrote(family) || family.Current != refreshSum(presented) {
		return family, false, err
	}
	_, mark, err := s.store.Stamp(ctx, s.config.Own.UserPrefix+family.User)
	return family, err == nil && family.Issued.UnixMilli() > mark, err
}

// Explain looks at each thing that Refresh asks.
func (s *Sessions) Explain(ctx context.Context, presented string) (*identity.Findings, error) {
	f := new(identity.Findings)
	session, _ := s.Session(presented)
	f.Add("form", "made by this authsvc", "it was, in session "+session, true)
	family, err := s.store.LoadFamily(ctx, session)
	if err != nil && !errors.Is(err, store.ErrNoSession) {
		return nil, err
	}
	f.Either("session", "alive in redis", "alive", "revoked, expired or forgotten", err == nil)
	if err == nil {
		wrote := s.tokens.wrote(family)
		f.Either("entry", "written by authsvc", "it was", "written by somebody else", wrote)
		f.User, f.Issuer = s.config.Own.UserPrefix+family.User, "own"
		current := family.Current == refreshSum(presented)
		f.Either("rotation", "the youngest of its session", "the youngest", "an older one; showing it ends the session, but for a repeat within "+s.config.Refresh.Grace.String(), current)
		_, mark, err := s.store.Stamp(ctx, f.User)
		if err != nil {
			return nil, err
		}
		if mark > 0 {
			f.Add("revocation of the user", "rotated after "+time.UnixMilli(mark).UTC().Format(time.RFC3339Nano), family.Issued.UTC().Format(time.RFC3339Nano), family.Issued.UnixMilli() > mark)
		}
	}
	return f, nil
}
