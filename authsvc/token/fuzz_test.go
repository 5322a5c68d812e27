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

// FuzzHeader: a header that is accepted, under a signature that is good, is one
// plain object that names the key's algorithm and asks for nothing.
func FuzzHeader(f *testing.F) {
	s := signer(f, "HS256")
	keys := NewKeySet(s.Key())
	for _, seed := range []string{
		header(s), `{"alg":"HS256"}`, `{"alg":"HS256","alg":"none"}`, `{"alg":"HS256","crit":["exp"]}`, "{\"alg\":\"HS256\",\"\u212aid\":\"x\"}",
		`{"alg":"HS256","jku":"http://127.0.0.1:1"}`, `{"alg":"HS256"}{}`, `{"alg":["HS256"]}`, `{"typ":"JWT","alg":"\u0048S256"}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if _, err := VerifyCompact(sign(t, s, string(data), payload), keys); err != nil {
			return
		}
		var loose map[string]any
		if !utf8.Valid(data) || json.Unmarshal(data, &loose) != nil || loose["alg"] != "HS256" {
			t.Fatalf("accepted header %q", data)
		}
		for name := range loose {
			for refused := range refusedParameters {
				if name == refused {
					t.Fatalf("accepted %q in header %q", name, data)
				}
			}
			for _, known := range []string{"alg", "kid", "typ", "crit", "jwk", "jku"} {
				if name != known && strings.EqualFold(name, known) {
					t.Fatalf("accepted %q beside %q in header %q", name, known, data)
				}
			}
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
