package token

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"
)

// FuzzVerifyCompact: only what the signer wrote is ever accepted, and whatever
// is accepted has the signer's id.
func FuzzVerifyCompact(f *testing.F) {
	s := signer(f, "ES256")
	keys := NewKeySet(s.Key())
	good := sign(f, s, header(s), payload)
	for _, seed := range []string{good, good + "=", "..", "e30.e30.AA", strings.ToUpper(good), sign(f, s, `{"alg":"none"}`, payload)} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, compact string) {
		got, err := VerifyCompact(compact, keys)
		if err == nil && (ID(compact) != ID(good) || string(got) != payload) {
			t.Fatalf("forged: %q", compact)
		}
	})
}

// FuzzParseClaims: what is accepted is one JSON object that encoding/json
// reads too, whose texts can stand in a header.
func FuzzParseClaims(f *testing.F) {
	for _, seed := range []string{payload, `{"exp":1,"EXP":2}`, `{"exp":1e308}`, `{"exp":1,"aud":["a"],"scope":["x"]}`, "{\"exp\":1,\"\u017fub\":1}"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := ParseClaims(data)
		if err != nil {
			return
		}
		var loose map[string]any
		if !utf8.Valid(data) || json.Unmarshal(data, &loose) != nil {
			t.Fatalf("accepted %q", data)
		}
		if c.Expires.UnixMilli() <= 0 {
			t.Fatalf("no expiry: %q", data)
		}
		for name := range loose {
			text, ok, err := c.Header(name)
			if ok && err == nil && CheckHeaderText(text) != nil {
				t.Fatalf("%q became header %q", data, text)
			}
		}
	})
}

// FuzzParseKeySet: a set that is accepted holds usable keys only.
func FuzzParseKeySet(f *testing.F) {
	for _, algorithm := range []string{"ES256", "RS256", "EdDSA"} {
		jwk, _, _ := signer(f, algorithm).PublicJWK()
		f.Add(asSet(jwk))
	}
	f.Add([]byte(`{"keys":[{"kty":"oct","k":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		set, err := ParseKeySet(data)
		if err != nil {
			return
		}
		if set.Len() == 0 || set.Len() > maxKeys {
			t.Fatalf("%d keys from %q", set.Len(), data)
		}
		for _, key := range set.Keys() {
			if len(key.algorithms) == 0 || len(key.Thumbprint) != 64 {
				t.Fatalf("useless key %+v from %q", key, data)
			}
		}
	})
}
