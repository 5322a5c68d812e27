package admin

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/sluice-gateway/sluice/authsvc/identity"
	"github.com/sluice-gateway/sluice/authsvc/refusal"
	"github.com/sluice-gateway/sluice/authsvc/store"
	"github.com/sluice-gateway/sluice/authsvc/token"
)

// Explanation says why a token is accepted or not: every check with what it
// wants and what it found, and what would follow. Introspection says neither,
// because RFC 7662 has it answer many; this is for who holds the admin token.
type Explanation struct {
	Accepted bool              `json:"accepted"`
	Reason   string            `json:"reason,omitempty"` // the first thing that refuses it
	Kind     string            `json:"kind"`             // "access token" or "refresh token"
	TokenID  string            `json:"token_id,omitempty"`
	Issuer   string            `json:"issuer,omitempty"` // its name here
	User     string            `json:"user,omitempty"`   // as services see him
	Checks   []token.Finding   `json:"checks"`
	Headers  map[string]string `json:"headers,omitempty"` // of the answer to the gateway
	Limits   []store.Usage     `json:"limits,omitempty"`  // on the user, at this moment
}

// postExplain is POST /v1/tokens/explain.
func (i *Interface) postExplain(c echo.Context) error {
	fields, err := readFields(c)
	if err != nil {
		return err
	}
	presented := fields["token"]
	if presented == "" {
		return refusal.InvalidRequest("token is missing.", nil)
	}
	i.target(c, i.nameToken(presented, "token"))
	explain := i.explainAccess
	if _, ours := i.Sessions.Session(presented); ours {
		explain = i.explainRefresh
	}
	answer, err := explain(c.Request().Context(), presented)
	if err != nil {
		return err
	}
	if answer.Accepted {
		outcome(c, "accepted")
	} else {
		outcome(c, "not accepted: "+answer.Reason)
	}
	c.Response().Header().Set("Cache-Control", "no-store")
	return c.JSON(http.StatusOK, answer)
}

// explainAccess lets authenticate judge, as /auth does, and then looks at each
// thing that was asked. Until the signature has been verified the findings are
// what the token claims.
func (i *Interface) explainAccess(ctx context.Context, presented string) (*Explanation, error) {
	now := time.Now()
	e := &Explanation{Kind: "access token"}
	who, certain, err := i.judgeToken(ctx, presented, now)
	if err != nil && refusal.Of(err).Status >= http.StatusInternalServerError && !errors.Is(err, identity.ErrKeysPending) {
		return nil, err
	}
	e.Accepted = err == nil
	if err != nil {
		e.Reason = err.Error()
	}
	found := i.Judge.Explain(ctx, presented, now)
	e.Checks, e.TokenID, e.Issuer, e.User = found.Checks, found.TokenID, found.Issuer, found.User
	if err != nil {
		return e, nil
	}
	e.User, e.TokenID, e.Issuer = who.User, who.TokenID, who.Issuer.Name
	h := make(http.Header)
	i.Judge.Answer(h, who, certain, now)
	e.Headers = make(map[string]string)
	for name, values := range h {
		e.Headers[name] = strings.Join(values, ", ")
	}
	e.Limits, err = i.limitsOf(ctx, who)
	return e, err
}

func (i *Interface) judgeToken(ctx context.Context, presented string, now time.Time) (who *identity.Identity, certain bool, err error) {
	if !identity.Compact(presented) {
		return nil, false, fmt.Errorf("%w: characters that no token holds", token.ErrMalformed)
	}
	return i.Judge.Authenticate(ctx, presented, now)
}

// explainRefresh is the same for a refresh token that authsvc has made.
func (i *Interface) explainRefresh(ctx context.Context, presented string) (*Explanation, error) {
	found, err := i.Sessions.Explain(ctx, presented)
	if err != nil {
		return nil, err
	}
	e := &Explanation{Kind: "refresh token", User: found.User, Issuer: found.Issuer, Checks: found.Checks, Accepted: true}
	for _, finding := range e.Checks {
		if !finding.OK && e.Accepted {
			e.Accepted, e.Reason = false, finding.Check+": "+finding.Found
		}
	}
	return e, nil
}

// limitsOf are the limits on users that living gateways know, as they apply to
// this one.
func (i *Interface) limitsOf(ctx context.Context, who *identity.Identity) ([]store.Usage, error) {
	gateways, err := i.Store.Gateways(ctx)
	if err != nil && !errors.Is(err, store.ErrAway) {
		return nil, err
	}
	headers := make(map[string]string)
	for _, header := range who.Headers {
		headers[header[0]] = header[1]
	}
	var all []store.Usage
	for _, l := range distinct(gateways) {
		if l.Key != "user" {
			continue
		}
		l, because := applied(l, headers, true)
		usage, err := i.Store.Usage(ctx, l, "user:"+who.User)
		if err != nil {
			return nil, err
		}
		usage.Because = because
		all = append(all, usage)
	}
	return all, nil
}
