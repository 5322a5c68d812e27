package token

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestIssueIsAcceptedByItsOwnPolicy(t *testing.T) {
	issued := time.UnixMilli(1_800_000_000_789)
	for _, algorithm := range Algorithms {
		s := signer(t, algorithm)
		compact, err := s.Issue(Grant{
			Issuer: "i", Audience: "a", Subject: "u1", Session: "s1", ID: "j1", Issued: issued, TTL: time.Minute,
			Claims: map[string]any{"plan": "pro", "scope": "x y"},
		})
		if err != nil {
			t.Fatalf("%s: %v", algorithm, err)
		}
		payload, err := VerifyCompact(compact, NewKeySet(s.Key()))
		if err != nil {
			t.Fatalf("%s: %v", algorithm, err)
		}
		c, err := ParseClaims(payload)
		if err != nil {
			t.Fatalf("%s: %v", algorithm, err)
		}
		p := Policy{Issuer: "i", Audiences: []string{"a"}, Type: AccessTokenType, MaxLifetime: time.Minute}
		if err := p.Check(c, AccessTokenType, issued); err != nil {
			t.Errorf("%s: %v", algorithm, err)
		}
		// design: void-before: milliseconds survive; the token never lives longer than promised.
		if !c.Issued.Equal(issued) || c.Expires.After(issued.Add(time.Minute)) {
			t.Errorf("%s: iat %s, exp %s", algorithm, c.Issued, c.Expires)
		}
		if c.Subject != "u1" || c.Session != "s1" || c.ID != "j1" {
			t.Errorf("%s: %+v", algorithm, c)
		}
	}
}

func TestIssueRefuses(t *testing.T) {
	s := signer(t, "ES256")
	grant := func(claims map[string]any) Grant {
		return Grant{Issuer: "i", Audience: "a", Subject: "u1", Session: "s", ID: "j", Issued: noon, TTL: time.Minute, Claims: claims}
	}
	for name, claims := range map[string]map[string]any{
		"iss": {"iss": "other"}, "exp": {"exp": 1}, "SUB": {"SUB": "u2"}, "iat": {"iat": 0}, "sid": {"sid": "x"}, "jti": {"jti": "x"},
		"long s": {"\u017fid": "x"}, "too large": {"x": strings.Repeat("a", MaxSize)}, "folded twins": {"role": 1, "ROLE": 2},
		"imitates scope": {"SCOPE": "x"},
	} {
		if compact, err := s.Issue(grant(claims)); err == nil {
			t.Errorf("%s: issued %s", name, compact)
		}
	}
	if _, err := NewSigner("RS256", privateKeys()["ES256"]); err == nil {
		t.Error("an EC key became an RS256 signer")
	}
	if _, err := GenerateKey("none"); !errors.Is(err, ErrAlgorithm) {
		t.Errorf("GenerateKey none: %v", err)
	}
}

// Whatever claims are issued come back as they were.
func TestIssueRoundTrip(t *testing.T) {
	s := signer(t, "HS256")
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.StringMatching(`[a-z]{4,12}`).Draw(t, "name")
		value := rapid.String().Draw(t, "value")
		if ReservedClaim(name) || strings.Contains(value, "\ufffd") {
			t.Skip("reserved, or not text")
		}
		compact, err := s.Issue(Grant{
			Issuer: "i", Audience: "a", Subject: "u", Session: "s", ID: "j", Issued: noon, TTL: time.Minute,
			Claims: map[string]any{name: value},
		})
		if err != nil {
			t.Fatal(err)
		}
		payload, err := VerifyCompact(compact, NewKeySet(s.Key()))
		if err != nil {
			t.Fatal(err)
		}
		var claims map[string]any
		if err := json.Unmarshal(payload, &claims); err != nil || claims[name] != value {
			t.Fatalf("%q became %q: %v", value, claims[name], err)
		}
	})
}

func TestIssueKeepsToMaxBytes(t *testing.T) {
	grant := Grant{Issuer: "i", Audience: "a", Subject: "u1", Issued: time.Now(), TTL: time.Minute, MaxBytes: 1 << 10}
	if _, err := signer(t, "ES256").Issue(grant); err != nil {
		t.Error(err)
	}
	grant.Claims = map[string]any{"long": strings.Repeat("x", 1<<10)}
	if _, err := signer(t, "ES256").Issue(grant); !errors.Is(err, ErrTooLarge) {
		t.Errorf("a token beyond the bound: %v", err)
	}
}
