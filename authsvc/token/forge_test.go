package token

import (
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/authsvc/internal/forge"
)

// victim is what forge attacks: the signer's tokens, as policy wants them.
func victim(t *testing.T, s Signer) forge.Victim {
	t.Helper()
	jwk, _, err := s.PublicJWK()
	if err != nil {
		t.Fatal(err)
	}
	return forge.Victim{
		Algorithm: s.Algorithm, KeyID: s.KeyID, Named: true, Private: s.Private(), JWK: string(jwk), Bait: "http://127.0.0.1:1",
		Claims: map[string]any{"iss": "https://forge.example", "aud": "api", "sub": "u1", "iat": time.Now().Unix()},
	}
}

// TestAttacks tries every forgery on every algorithm, beneath HTTP. What only a
// configuration can judge, which claim is a user and which becomes a header, is
// tried through /auth alone (TestAttacksOverHTTP).
func TestAttacks(t *testing.T) {
	policy := Policy{Issuer: "https://forge.example", Audiences: []string{"api"}, Leeway: 5 * time.Second, MaxLifetime: time.Hour}
	for _, algorithm := range Algorithms {
		t.Run(algorithm, func(t *testing.T) {
			t.Parallel()
			s := signer(t, algorithm)
			keys, v := NewKeySet(s.Key()), victim(t, s)
			judge := func(compact string) error {
				payload, err := VerifyCompact(compact, keys)
				if err != nil {
					return err
				}
				claims, err := ParseClaims(payload)
				if err != nil {
					return err
				}
				c, err := Parse(compact)
				if err != nil {
					return err
				}
				return policy.Check(claims, c.Type, time.Now())
			}
			if err := judge(v.Good()); err != nil {
				t.Fatalf("the valid token: %v", err)
			}
			tried, admitted := map[string]int{}, map[string]int{}
			for _, attack := range v.Attacks() {
				if attack.Class == "identity" {
					continue
				}
				tried[attack.Class]++
				if judge(attack.Compact) == nil {
					admitted[attack.Class]++
					t.Errorf("%s: accepted: %.300q", attack.Class, attack.Compact)
				}
			}
			for _, class := range forge.Classes {
				if class == "identity" {
					continue
				}
				if tried[class] == 0 {
					t.Errorf("nothing was tried of class %s", class)
				}
				t.Logf("class %s: %d tried, %d admitted", class, tried[class], admitted[class])
			}
		})
	}
}
