package authsvc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/sluice-gateway/sluice/authsvc/identity"
	"github.com/sluice-gateway/sluice/authsvc/refusal"
	"github.com/sluice-gateway/sluice/authsvc/store"
	"github.com/sluice-gateway/sluice/authsvc/token"
)

// explanation says why a token is accepted or not: every check with what it
// wants and what it found, and what would follow. Introspection says neither,
// because RFC 7662 has it answer many; this is for who holds the admin token.
type explanation struct {
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
func (s *Service) postExplain(c echo.Context) error {
	fields, err := readFields(c)
	if err != nil {
		return err
	}
	presented := fields["token"]
	if presented == "" {
		return refusal.InvalidRequest("token is missing.", nil)
	}
	s.target(c, s.nameToken(presented, "token"))
	explain := s.explainAccess
	if _, ours := s.sessions.Session(presented); ours {
		explain = s.explainRefresh
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
func (s *Service) explainAccess(ctx context.Context, presented string) (*explanation, error) {
	now := time.Now()
	e := &explanation{Kind: "access token"}
	who, certain, err := s.judgeToken(ctx, presented, now)
	if err != nil && refusal.Of(err).Status >= http.StatusInternalServerError && !errors.Is(err, identity.ErrKeysPending) {
		return nil, err
	}
	e.Accepted = err == nil
	if err != nil {
		e.Reason = err.Error()
	}
	found := s.judge.Explain(ctx, presented, now)
	e.Checks, e.TokenID, e.Issuer, e.User = found.Checks, found.TokenID, found.Issuer, found.User
	if err != nil {
		return e, nil
	}
	e.User, e.TokenID, e.Issuer = who.User, who.TokenID, who.Issuer.Name
	h := make(http.Header)
	s.judge.Answer(h, who, certain, now)
	e.Headers = make(map[string]string)
	for name, values := range h {
		e.Headers[name] = strings.Join(values, ", ")
	}
	e.Limits, err = s.limitsOf(ctx, who)
	return e, err
}

func (s *Service) judgeToken(ctx context.Context, presented string, now time.Time) (who *identity.Identity, certain bool, err error) {
	if !identity.Compact(presented) {
		return nil, false, fmt.Errorf("%w: characters that no token holds", token.ErrMalformed)
	}
	return s.judge.Authenticate(ctx, presented, now)
}

// explainRefresh is the same for a refresh token that authsvc has made.
func (s *Service) explainRefresh(ctx context.Context, presented string) (*explanation, error) {
	found, err := s.sessions.Explain(ctx, presented)
	if err != nil {
		return nil, err
	}
	e := &explanation{Kind: "refresh token", User: found.User, Issuer: found.Issuer, Checks: found.Checks, Accepted: true}
	for _, finding := range e.Checks {
		if !finding.OK && e.Accepted {
			e.Accepted, e.Reason = false, finding.Check+": "+finding.Found
		}
	}
	return e, nil
}

// limitsOf are the limits on users that living gateways know, as they apply to
// this one.
func (s *Service) limitsOf(ctx context.Context, who *identity.Identity) ([]store.Usage, error) {
	gateways, err := s.store.Gateways(ctx)
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
		usage, err := s.store.Usage(ctx, l, "user:"+who.User)
		if err != nil {
			return nil, err
		}
		usage.Because = because
		all = append(all, usage)
	}
	return all, nil
}

func yes(ok bool, good, bad string) string {
	if ok {
		return good
	}
	return bad
}

// print writes an explanation for a terminal.
func (e *explanation) print(w io.Writer) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(table, "%s\t%s\n", e.Kind, yes(e.Accepted, "accepted", "refused: "+e.Reason))
	for _, line := range [][2]string{{"token id", e.TokenID}, {"issuer", e.Issuer}, {"user", e.User}} {
		if line[1] != "" {
			fmt.Fprintf(table, "%s\t%s\n", line[0], line[1])
		}
	}
	fmt.Fprintf(table, "\ncheck\t\texpected\tfound\n")
	for _, f := range e.Checks {
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\n", f.Check, yes(f.OK, "ok", "NO"), f.Expected, f.Found)
	}
	if len(e.Headers) > 0 {
		fmt.Fprintf(table, "\nheaders\t\n")
	}
	for _, name := range slices.Sorted(maps.Keys(e.Headers)) {
		fmt.Fprintf(table, "%s\t%s\n", name, e.Headers[name])
	}
	if len(e.Limits) > 0 {
		fmt.Fprintf(table, "\nlimit\tin\tused\tleft\tbecause\n")
	}
	for _, l := range e.Limits {
		fmt.Fprintf(table, "%s %d\t%ds\t%d\t%d\t%s\n", l.Name, l.Limit, l.Window, l.Used, l.Remaining, l.Because)
	}
	return table.Flush()
}
