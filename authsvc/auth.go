package authsvc

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/sluice-gateway/sluice/authsvc/config"
	"github.com/sluice-gateway/sluice/authsvc/store"
	"github.com/sluice-gateway/sluice/authsvc/token"
)

// errRevoked is the cause of refusing a token that was good once.
var errRevoked = errors.New("revoked")

// auth is GET /auth: who is the bearer?
func (s *Service) auth(c echo.Context) error {
	// A cache in front must not answer one credential with another's identity,
	// whatever the answer is.
	c.Response().Header().Set("Vary", "Authorization")
	scope, err := demanded(c.Request())
	if err != nil {
		return err
	}
	compact, err := credential(c.Request().Header)
	if err != nil {
		return err
	}
	now := time.Now()
	who, certain, err := s.authenticate(c.Request().Context(), compact, now)
	if err != nil {
		return err
	}
	c.Set(issuerKey, who.issuer.name)
	for _, word := range strings.Fields(scope) {
		if !slices.Contains(who.scopes, word) {
			return insufficientScope(scope)
		}
	}
	s.answer(c.Response().Header(), who, certain, now)
	return c.NoContent(http.StatusOK)
}

// credential is the one bearer token of a request. Two Authorization headers
// are an attempt to have the gateway and authsvc look at different ones. More
// than one blank is refused because the gateway's cache is keyed by the whole
// credential: one token should have one spelling.
func credential(h http.Header) (string, error) {
	values := h.Values("Authorization")
	switch {
	case len(values) == 0:
		return "", noCredential
	case len(values) > 1:
		return "", invalidRequest("There is more than one Authorization header.", nil)
	}
	scheme, compact, found := strings.Cut(values[0], " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return "", noCredential
	}
	if !found || compact == "" || strings.Trim(compact, tokenAlphabet) != "" {
		return "", invalidToken("The credential is not a bearer token.", nil)
	}
	return compact, nil
}

// tokenAlphabet is all a compact token can hold.
const tokenAlphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_."

// demanded reads ?scope=a+b. A gateway asks for the same scope every time, so
// a malformed one is its configuration's mistake.
func demanded(r *http.Request) (string, error) {
	scope := r.URL.Query().Get("scope")
	for i := range len(scope) {
		// scope-token of RFC 6749 section 3.3, and blanks between them
		if c := scope[i]; c < 0x20 || c > 0x7e || c == '"' || c == '\\' {
			return "", invalidRequest("The demanded scope holds a character that no scope can hold.", nil)
		}
	}
	return strings.Join(strings.Fields(scope), " "), nil
}

// authenticate verifies a token and asks for its status. It is certain unless a
// revocation may have been missed.
func (s *Service) authenticate(ctx context.Context, compact string, now time.Time) (who *identity, certain bool, err error) {
	who, err = s.verifier.verify(ctx, compact, now)
	if err != nil {
		return nil, false, err
	}
	certain, err = s.checkStatus(ctx, who)
	return who, certain, err
}

func (s *Service) checkStatus(ctx context.Context, who *identity) (certain bool, err error) {
	required := s.Config.Sessions.Required
	status, err := s.store.Status(ctx, s.question(who), !required)
	if refused := who.refusedBy(status, s.Config.ClockLeeway); refused != nil {
		return false, refused // whatever Redis could add, it could not make this good
	}
	if err != nil {
		s.metrics.degraded.Inc()
		// What was present a moment ago is served on, as any known token is
		// (DESIGN section 8); a token nobody has vouched for is not.
		if s.Config.OnRedisFailure == "deny" || required && !status.Present {
			return false, err
		}
		return false, nil
	}
	if required && !status.Present {
		return false, fmt.Errorf("%w: no session in redis", errRevoked)
	}
	return status.Certain, nil
}

func (s *Service) question(who *identity) store.Question {
	q := store.Question{
		ID: who.tokenID, Sum: who.sum, User: who.user,
		Expires: who.expires.Add(s.Config.ClockLeeway), Headers: who.headers,
	}
	// A foreign sid names a session of somebody else's.
	if who.issuer.own {
		q.Session = who.session
	}
	return q
}

func (i *identity) refusedBy(status store.Status, leeway time.Duration) error {
	switch {
	case status.Revoked:
		return fmt.Errorf("%w: token", errRevoked)
	case status.SessionRevoked:
		return fmt.Errorf("%w: session", errRevoked)
	case i.voidedBy(status.VoidBefore, leeway):
		return fmt.Errorf("%w: all tokens of the user", errRevoked)
	}
	return nil
}

// answer writes who the bearer is and how long that may be believed (RULES 7):
// stale-if-error counts from the end of freshness (RFC 5861), so both together
// must not outlive the token. What is not certain is fresh for a second at most:
// the gateway, whose own stream of events may be whole, would otherwise keep for
// cache.maxAge what this replica could not know.
func (s *Service) answer(h http.Header, who *identity, certain bool, now time.Time) {
	h[config.HeaderUserID] = []string{who.user}
	h[config.HeaderTokenID] = []string{who.tokenID}
	if who.session != "" {
		h[config.HeaderSessionID] = []string{who.session}
	}
	for _, header := range who.headers {
		h.Set(header[0], header[1])
	}
	cache := s.Config.Cache
	if !certain {
		cache.MaxAge = min(cache.MaxAge, uncertainAge)
	}
	h.Set("Cache-Control", cacheControl(who.expires.Sub(now), cache))
}

// uncertainAge is how long an answer is fresh that may have missed a revocation.
const uncertainAge = time.Second

func cacheControl(left time.Duration, c config.Cache) string {
	life := int64(left / time.Second)
	maxAge := min(int64(c.MaxAge/time.Second), life)
	if maxAge < 1 {
		return "no-store"
	}
	stale := min(int64(c.StaleIfError/time.Second), life-maxAge)
	return fmt.Sprintf("private, max-age=%d, stale-if-error=%d", maxAge, stale)
}

// bearer reads a token that came in a body, for introspection and revocation.
func (s *Service) bearer(ctx context.Context, compact string, now time.Time) (*identity, error) {
	if strings.Trim(compact, tokenAlphabet) != "" {
		return nil, token.ErrMalformed
	}
	return s.verifier.verify(ctx, compact, now)
}
