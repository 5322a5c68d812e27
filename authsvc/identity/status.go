package identity

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sluice-gateway/sluice/authsvc/store"
	"github.com/sluice-gateway/sluice/authsvc/token"
)

// ErrRevoked is the cause of refusing a token that was good once.
var ErrRevoked = errors.New("revoked")

// Judge says whether a token counts now: it is verified, and nobody has taken it
// back.
type Judge struct {
	*Verifier
	store    *store.Store
	degraded prometheus.Counter
}

// NewJudge looks up in a store what its verifier lets pass.
func NewJudge(v *Verifier, s *store.Store) *Judge {
	return &Judge{Verifier: v, store: s, degraded: prometheus.NewCounter(prometheus.CounterOpts{
		Name: "authsvc_degraded_total", Help: "Tokens judged without Redis.",
	})}
}

// Authenticate verifies a token and asks for its status. It is certain unless a
// revocation may have been missed.
func (j *Judge) Authenticate(ctx context.Context, compact string, now time.Time) (who *Identity, certain bool, err error) {
	who, err = j.Verify(ctx, compact, now)
	if err != nil {
		return nil, false, err
	}
	certain, err = j.CheckStatus(ctx, who)
	return who, certain, err
}

// CheckStatus asks memory, and Redis where memory cannot know.
func (j *Judge) CheckStatus(ctx context.Context, who *Identity) (certain bool, err error) {
	required := j.config.Sessions.Required
	status, err := j.store.Status(ctx, j.Question(who), !required)
	if refused := who.refusedBy(status, j.config.ClockLeeway); refused != nil {
		return false, refused // whatever Redis could add, it could not make this good
	}
	if err != nil {
		j.degraded.Inc()
		// What was present a moment ago is served on, as any known token is
		// (design: away); a token nobody has vouched for is not.
		if j.config.OnRedisFailure == "deny" || required && !status.Present {
			return false, err
		}
		return false, nil
	}
	if required && !status.Present {
		return false, fmt.Errorf("%w: no session in redis", ErrRevoked)
	}
	return status.Certain, nil
}

// Question is what the store needs to know of a token to tell its status.
func (j *Judge) Question(who *Identity) store.Question {
	q := store.Question{
		ID: who.TokenID, Sum: who.sum, User: who.User,
		Expires: who.Expires.Add(j.config.ClockLeeway), Headers: who.Headers,
	}
	// A foreign sid names a session of somebody else's.
	if who.Issuer.Own {
		q.Session = who.Session
	}
	return q
}

func (i *Identity) refusedBy(status store.Status, leeway time.Duration) error {
	switch {
	case status.Revoked:
		return fmt.Errorf("%w: token", ErrRevoked)
	case status.SessionRevoked:
		return fmt.Errorf("%w: session", ErrRevoked)
	case i.voidedBy(status.VoidBefore, leeway):
		return fmt.Errorf("%w: all tokens of the user", ErrRevoked)
	}
	return nil
}

// voidedBy applies a user's mark (design: void-before). Own tokens carry iat in
// milliseconds of the clock the mark was made with; a foreign iat is whole
// seconds of another clock. A token without iat cannot prove that it is
// younger: its zero time is before every mark.
func (i *Identity) voidedBy(mark int64, leeway time.Duration) bool {
	switch {
	case mark == 0:
		return false
	case i.Issuer.Own:
		return i.Issued.UnixMilli() <= mark
	}
	return i.Issued.Unix()*1000 <= mark+leeway.Milliseconds()
}

// tokenAlphabet is all a compact token can hold.
const tokenAlphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_."

// Compact tells whether a text has none but the characters of a compact token.
func Compact(text string) bool { return strings.Trim(text, tokenAlphabet) == "" }

// Bearer verifies a token that came in a body, for introspection and revocation.
func (v *Verifier) Bearer(ctx context.Context, compact string, now time.Time) (*Identity, error) {
	if !Compact(compact) {
		return nil, token.ErrMalformed
	}
	return v.Verify(ctx, compact, now)
}
