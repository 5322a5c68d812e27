package token

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Finding is one thing that is asked of a token, and what the token says.
type Finding struct {
	Check    string `json:"check"`    // a word: "issuer"
	Expected string `json:"expected"` // "iss sluice"
	Found    string `json:"found"`    // "iss shop"
	OK       bool   `json:"ok"`
}

// Explain says of each claim what Check demands of it. It explains alone: Check
// is what decides, and a test holds the two together.
func (p Policy) Explain(c *Claims, typ string, now time.Time) []Finding {
	types := []string{"jwt", "at+jwt", "none"}
	if p.Type != "" {
		types = []string{p.Type}
	}
	found := typ
	if typ == "" {
		found = "none"
	}
	leeway := fmt.Sprintf("%s (now), give or take %s", instant(now), p.Leeway)
	audience := slices.ContainsFunc(c.Audiences, func(a string) bool { return slices.Contains(p.Audiences, a) })
	all := []Finding{
		{"issuer", "iss " + p.Issuer, "iss " + c.Issuer, c.Issuer == p.Issuer},
		{"audience", "aud with one of " + strings.Join(p.Audiences, ", "), "aud " + strings.Join(c.Audiences, ", "), audience},
		{"type", "typ " + strings.Join(types, ", "), "typ " + found, slices.Contains(types, found)},
		{"expiry", "exp after " + leeway, "exp " + instant(c.Expires) + since(c.Expires, now), now.Before(c.Expires.Add(p.Leeway))},
	}
	if !c.NotBefore.IsZero() {
		all = append(all, Finding{"start", "nbf not after " + leeway, "nbf " + instant(c.NotBefore) + since(c.NotBefore, now), !now.Before(c.NotBefore.Add(-p.Leeway))})
	}
	issued := c.Issued
	if issued.IsZero() {
		issued = now
	} else if !p.OtherClock {
		all = append(all, Finding{"issued", "iat not after " + leeway, "iat " + instant(issued) + since(issued, now), !now.Before(issued.Add(-p.Leeway))})
	}
	life := c.Expires.Sub(issued)
	return append(all, Finding{"lifetime", fmt.Sprintf("exp - iat at most %s", p.MaxLifetime), life.String(), life <= p.MaxLifetime})
}

func instant(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// since says how far an instant is from now.
func since(t, now time.Time) string {
	if away := now.Sub(t).Round(time.Second); away > 0 {
		return fmt.Sprintf(", %s ago", away)
	} else if away < 0 {
		return fmt.Sprintf(", in %s", -away)
	}
	return ", now"
}
