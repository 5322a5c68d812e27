package identity

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sluice-gateway/sluice/authsvc/token"
)

// Findings are what looking at a token check by check has come to. Until its
// signature has been verified they are what the token claims.
type Findings struct {
	TokenID string
	Issuer  string // its name here
	User    string // as services see him
	Checks  []token.Finding
}

// Add notes a check with what it wants and what it found.
func (f *Findings) Add(check, expected, found string, ok bool) {
	f.Checks = append(f.Checks, token.Finding{Check: check, Expected: expected, Found: found, OK: ok})
}

// Either notes a check that finds one of two things.
func (f *Findings) Either(check, expected, good, bad string, ok bool) {
	found := bad
	if ok {
		found = good
	}
	f.Add(check, expected, found, ok)
}

// Explain looks at each thing that Authenticate asks.
func (j *Judge) Explain(ctx context.Context, presented string, now time.Time) *Findings {
	f := new(Findings)
	j.explainToken(ctx, f, presented, now)
	return f
}

func (j *Judge) explainToken(ctx context.Context, f *Findings, presented string, now time.Time) {
	form := fmt.Sprintf("at most %d bytes, three segments of strict base64url, a header that asks for nothing special", j.config.Tokens.MaxBytes)
	c, err := token.ParseWithin(j.config.Tokens.MaxBytes, presented)
	if err != nil {
		f.Add("form", form, err.Error(), false)
		return
	}
	f.TokenID = token.ID(presented)
	f.Add("form", form, fmt.Sprintf("%d bytes of that form", len(presented)), true)
	claims, err := c.Unproven()
	if err != nil {
		f.Add("claims", "a JSON object with exp", err.Error(), false)
		return
	}
	var by *Issuer
	var known []string
	for _, issuer := range j.issuers {
		known = append(known, issuer.policy.Issuer)
		if issuer.policy.Issuer == claims.Issuer {
			by = issuer
		}
	}
	if by == nil {
		f.Add("issuer", "iss "+strings.Join(known, " or "), "iss "+claims.Issuer, false)
		return
	}
	f.Issuer = by.Name
	f.Add("algorithm", "alg "+strings.Join(by.algorithms, ", "), "alg "+c.Algorithm, by.accepts(c.Algorithm))
	j.explainSignature(f, c, by)
	f.Checks = append(f.Checks, by.policy.Explain(claims, c.Type, now)...)
	who, err := j.identify(by, claims)
	if err != nil {
		f.Add("user", fmt.Sprintf("%s that names a user of issuer %s", by.userClaim, by.Name), err.Error(), false)
		return
	}
	f.User = who.User
	f.Add("user", fmt.Sprintf("%s that names a user of issuer %s", by.userClaim, by.Name), who.User, true)
	who.TokenID = f.TokenID
	j.explainStatus(ctx, f, who)
}

func (v *Verifier) explainSignature(f *Findings, c *token.Compact, by *Issuer) {
	set, ready := by.Source.Keys()
	if !ready {
		f.Add("key", "a key of issuer "+by.Name, "none of its keys has ever arrived", false)
		return
	}
	var kids []string
	for _, key := range set.Restrict(by.algorithms).Keys() {
		if key.ID != "" {
			kids = append(kids, key.ID)
		}
	}
	expected := "a key of issuer " + by.Name
	if len(kids) > 0 {
		expected += ", kid " + strings.Join(kids, " or ")
	}
	candidates := set.Restrict(by.algorithms).Candidates(c.Algorithm, c.KeyID)
	found := "kid " + c.KeyID
	if c.KeyID == "" {
		found = "no kid"
	}
	f.Add("key", expected, found, len(candidates) > 0)
	if len(candidates) == 0 {
		return
	}
	held := slices.ContainsFunc(candidates, func(key token.Key) bool { _, err := c.Verify(key); return err == nil })
	f.Either("signature", "made with that key", "it is", "it is not; what follows is unproven", held)
}

// explainStatus is what Redis and memory know.
func (j *Judge) explainStatus(ctx context.Context, f *Findings, who *Identity) {
	status, err := j.store.Status(ctx, j.Question(who), false)
	if err != nil {
		f.Add("status", "known to redis", err.Error(), j.config.OnRedisFailure == "verify")
	}
	f.Either("token", "not revoked", "not revoked", "revoked", !status.Revoked)
	if who.Issuer.Own {
		f.Either("session", "not ended", "not ended", "ended", !status.SessionRevoked)
	}
	if status.VoidBefore > 0 {
		void := who.voidedBy(status.VoidBefore, j.config.ClockLeeway)
		f.Add("revocation of the user", "iat after "+time.UnixMilli(status.VoidBefore).UTC().Format(time.RFC3339Nano), "iat "+who.Issued.UTC().Format(time.RFC3339Nano), !void)
	}
	if j.config.Sessions.Required {
		f.Either("presence", "in redis (sessions.required)", "there", "not there", status.Present)
	}
}
