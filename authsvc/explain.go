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

func (e *explanation) add(check, expected, found string, ok bool) {
	e.Checks = append(e.Checks, token.Finding{Check: check, Expected: expected, Found: found, OK: ok})
}

// postExplain is POST /v1/tokens/explain.
func (s *Service) postExplain(c echo.Context) error {
	fields, err := readFields(c)
	if err != nil {
		return err
	}
	presented := fields["token"]
	if presented == "" {
		return invalidRequest("token is missing.", nil)
	}
	s.target(c, s.nameToken(presented, "token"))
	explain := s.explainAccess
	if _, ours := s.sessions.session(presented); ours {
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
	who, certain, err := s.judge(ctx, presented, now)
	if err != nil && refuse(err).status >= http.StatusInternalServerError && !errors.Is(err, errKeysPending) {
		return nil, err
	}
	e.Accepted = err == nil
	if err != nil {
		e.Reason = err.Error()
	}
	s.explainToken(ctx, e, presented, now)
	if err != nil {
		return e, nil
	}
	e.User, e.TokenID, e.Issuer = who.user, who.tokenID, who.issuer.name
	h := make(http.Header)
	s.answer(h, who, certain, now)
	e.Headers = make(map[string]string)
	for name, values := range h {
		e.Headers[name] = strings.Join(values, ", ")
	}
	e.Limits, err = s.limitsOf(ctx, who)
	return e, err
}

func (s *Service) judge(ctx context.Context, presented string, now time.Time) (who *identity, certain bool, err error) {
	if strings.Trim(presented, tokenAlphabet) != "" {
		return nil, false, fmt.Errorf("%w: characters that no token holds", token.ErrMalformed)
	}
	return s.authenticate(ctx, presented, now)
}

func (s *Service) explainToken(ctx context.Context, e *explanation, presented string, now time.Time) {
	form := fmt.Sprintf("at most %d bytes, three segments of strict base64url, a header that asks for nothing special", s.Config.Tokens.MaxBytes)
	c, err := token.ParseWithin(s.Config.Tokens.MaxBytes, presented)
	if err != nil {
		e.add("form", form, err.Error(), false)
		return
	}
	e.TokenID = token.ID(presented)
	e.add("form", form, fmt.Sprintf("%d bytes of that form", len(presented)), true)
	claims, err := c.Unproven()
	if err != nil {
		e.add("claims", "a JSON object with exp", err.Error(), false)
		return
	}
	var by *issuer
	var known []string
	for _, issuer := range s.verifier.issuers {
		known = append(known, issuer.policy.Issuer)
		if issuer.policy.Issuer == claims.Issuer {
			by = issuer
		}
	}
	if by == nil {
		e.add("issuer", "iss "+strings.Join(known, " or "), "iss "+claims.Issuer, false)
		return
	}
	e.Issuer = by.name
	e.add("algorithm", "alg "+strings.Join(by.algorithms, ", "), "alg "+c.Algorithm, by.accepts(c.Algorithm))
	s.explainSignature(e, c, by)
	e.Checks = append(e.Checks, by.policy.Explain(claims, c.Type, now)...)
	who, err := s.verifier.identify(by, claims)
	if err != nil {
		e.add("user", fmt.Sprintf("%s that names a user of issuer %s", by.userClaim, by.name), err.Error(), false)
		return
	}
	e.User = who.user
	e.add("user", fmt.Sprintf("%s that names a user of issuer %s", by.userClaim, by.name), who.user, true)
	who.tokenID = e.TokenID
	s.explainStatus(ctx, e, who)
}

func (s *Service) explainSignature(e *explanation, c *token.Compact, by *issuer) {
	keys, ready := by.source.keys()
	if !ready {
		e.add("key", "a key of issuer "+by.name, "none of its keys has ever arrived", false)
		return
	}
	var kids []string
	for _, key := range keys.Restrict(by.algorithms).Keys() {
		if key.ID != "" {
			kids = append(kids, key.ID)
		}
	}
	expected := "a key of issuer " + by.name
	if len(kids) > 0 {
		expected += ", kid " + strings.Join(kids, " or ")
	}
	candidates := keys.Restrict(by.algorithms).Candidates(c.Algorithm, c.KeyID)
	found := "kid " + c.KeyID
	if c.KeyID == "" {
		found = "no kid"
	}
	e.add("key", expected, found, len(candidates) > 0)
	if len(candidates) == 0 {
		return
	}
	held := slices.ContainsFunc(candidates, func(key token.Key) bool { _, err := c.Verify(key); return err == nil })
	found = "it is not; what follows is unproven"
	if held {
		found = "it is"
	}
	e.add("signature", "made with that key", found, held)
}

// explainStatus is what Redis and memory know.
func (s *Service) explainStatus(ctx context.Context, e *explanation, who *identity) {
	status, err := s.store.Status(ctx, s.question(who), false)
	if err != nil {
		e.add("status", "known to redis", err.Error(), s.Config.OnRedisFailure == "verify")
	}
	e.add("token", "not revoked", yes(!status.Revoked, "not revoked", "revoked"), !status.Revoked)
	if who.issuer.own {
		e.add("session", "not ended", yes(!status.SessionRevoked, "not ended", "ended"), !status.SessionRevoked)
	}
	if status.VoidBefore > 0 {
		void := who.voidedBy(status.VoidBefore, s.Config.ClockLeeway)
		e.add("revocation of the user", "iat after "+time.UnixMilli(status.VoidBefore).UTC().Format(time.RFC3339Nano), "iat "+who.issued.UTC().Format(time.RFC3339Nano), !void)
	}
	if s.Config.Sessions.Required {
		e.add("presence", "in redis (sessions.required)", yes(status.Present, "there", "not there"), status.Present)
	}
}

func yes(ok bool, good, bad string) string {
	if ok {
		return good
	}
	return bad
}

// explainRefresh is the same for a refresh token that authsvc has made.
func (s *Service) explainRefresh(ctx context.Context, presented string) (*explanation, error) {
	session, _ := s.sessions.session(presented)
	e := &explanation{Kind: "refresh token"}
	e.add("form", "made by this authsvc", "it was, in session "+session, true)
	family, err := s.store.LoadFamily(ctx, session)
	if err != nil && !errors.Is(err, store.ErrNoSession) {
		return nil, err
	}
	e.add("session", "alive in redis", yes(err == nil, "alive", "revoked, expired or forgotten"), err == nil)
	if err == nil {
		wrote := s.sessions.wrote(family)
		e.add("entry", "written by authsvc", yes(wrote, "it was", "written by somebody else"), wrote)
		e.User, e.Issuer = s.Config.Own.UserPrefix+family.User, "own"
		current := family.Current == refreshSum(presented)
		e.add("rotation", "the youngest of its session", yes(current, "the youngest", "an older one; showing it ends the session, but for a repeat within "+s.Config.Refresh.Grace.String()), current)
		_, mark, err := s.store.Stamp(ctx, e.User)
		if err != nil {
			return nil, err
		}
		if mark > 0 {
			e.add("revocation of the user", "rotated after "+time.UnixMilli(mark).UTC().Format(time.RFC3339Nano), family.Issued.UTC().Format(time.RFC3339Nano), family.Issued.UnixMilli() > mark)
		}
	}
	e.Accepted = true
	for _, finding := range e.Checks {
		if !finding.OK && e.Accepted {
			e.Accepted, e.Reason = false, finding.Check+": "+finding.Found
		}
	}
	return e, nil
}

// limitsOf are the limits on users that living gateways know, as they apply to
// this one.
func (s *Service) limitsOf(ctx context.Context, who *identity) ([]store.Usage, error) {
	gateways, err := s.store.Gateways(ctx)
	if err != nil && !errors.Is(err, store.ErrAway) {
		return nil, err
	}
	headers := make(map[string]string)
	for _, header := range who.headers {
		headers[header[0]] = header[1]
	}
	var all []store.Usage
	for _, l := range distinct(gateways) {
		if l.Key != "user" {
			continue
		}
		l, because := applied(l, headers, true)
		usage, err := s.store.Usage(ctx, l, "user:"+who.user)
		if err != nil {
			return nil, err
		}
		usage.Because = because
		all = append(all, usage)
	}
	return all, nil
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
