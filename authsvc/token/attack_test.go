package token

import (
	"bytes"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math"
	"math/big"
	"strings"
	"testing"
)

const payload = `{"iss":"i","sub":"u1","aud":"a","exp":4102444800}`

// TestSignatureEdits: of all strings near a valid token none is accepted, for
// any algorithm, but for the second signature that ECDSA itself leaves open,
// and that one has the same id.
func TestSignatureEdits(t *testing.T) {
	for _, algorithm := range Algorithms {
		t.Run(algorithm, func(t *testing.T) {
			s := signer(t, algorithm)
			keys := NewKeySet(s.Key())
			good := sign(t, s, header(s), payload)
			if got, err := VerifyCompact(good, keys); err != nil || string(got) != payload {
				t.Fatalf("the valid token: %q %v", got, err)
			}
			head, body, tail := cut(good)
			raw, _ := base64.RawURLEncoding.DecodeString(tail)
			tried := 0
			for _, other := range edits(good) {
				if other == good {
					continue
				}
				tried++
				if _, err := VerifyCompact(other, keys); err == nil {
					t.Errorf("accepted: %q", other)
				}
			}
			// Signatures as bytes: every single bit, every truncation, other
			// lengths, zeros, and DER where P1363 belongs.
			for _, signature := range signatures(raw, slow[algorithm]) {
				tried++
				if _, err := VerifyCompact(head+"."+body+"."+b64(signature), keys); err == nil {
					t.Errorf("accepted signature %x", signature)
				}
			}
			spellings := 1
			if twin, ok := victim(t, s).Twin(good); ok {
				if _, err := VerifyCompact(twin, keys); err == nil {
					spellings++
				}
				if ID(twin) != ID(good) {
					t.Error("two spellings of one token have two ids")
				}
			}
			t.Logf("%d edits, none accepted; %d accepted with what the signature scheme leaves open", tried, spellings)
		})
	}
}

// edits changes a compact token as text.
func edits(good string) (all []string) {
	for i := range len(good) {
		for _, c := range "A_=. ?\n+/" {
			all = append(all, good[:i]+string(c)+good[i:]) // inserted
			all = append(all, good[:i]+string(c)+good[i+1:])
		}
		all = append(all, good[:i], good[i:], good[:i]+good[i+1:])
	}
	head, body, tail := cut(good)
	return append(all,
		good+"=", good+"==", good+".", "."+good, good+"."+tail, good+"."+tail+"."+tail, " "+good, good+" ", good+"\n", good+"\x00",
		head+"."+body+".", head+"."+body, head+".."+tail, "."+body+"."+tail, body+"."+head+"."+tail,
		strings.ToUpper(good), strings.ToLower(good), url(good), "..", "...", "",
	)
}

// url is the standard alphabet in place of base64url's.
func url(compact string) string {
	return strings.NewReplacer("-", "+", "_", "/").Replace(compact) + "+"
}

// slow curves get one flipped bit a byte, not eight: each takes a millisecond.
var slow = map[string]bool{"ES384": true, "ES512": true}

func signatures(raw []byte, sparse bool) (all [][]byte) {
	for i := range raw {
		for bit := range 8 {
			if sparse && bit != i%8 {
				continue
			}
			flipped := bytes.Clone(raw)
			flipped[i] ^= 1 << bit
			all = append(all, flipped)
		}
		all = append(all, raw[:i], raw[i+1:])
	}
	half := len(raw) / 2
	der, _ := asn1.Marshal(struct{ R, S *big.Int }{new(big.Int).SetBytes(raw[:half]), new(big.Int).SetBytes(raw[half:])})
	return append(all,
		append(bytes.Clone(raw), 0), append([]byte{0}, raw...), make([]byte, len(raw)), bytes.Repeat([]byte{0xff}, len(raw)),
		append(bytes.Clone(raw), raw...), der,
	)
}

// TestNone: no spelling of no algorithm is an algorithm.
func TestNone(t *testing.T) {
	s := signer(t, "RS256")
	for _, alg := range []string{
		`"none"`, `"None"`, `"NONE"`, `"nOnE"`, `"none "`, `" none"`, `"n\u006fne"`, `"none\u0000"`, `""`, `null`, `0`, `false`,
		`[]`, `["none"]`, `["RS256"]`, `{}`, `{"alg":"RS256"}`, `"rs256"`, `"RS256 "`, `"RS-256"`, `"HS1"`, `"RS1"`, `"ES256K"`, `"ES521"`,
		`"dir"`, `"RSA-OAEP"`, `"EDDSA"`, `"Ed25519"`,
	} {
		head := b64(fmt.Appendf(nil, `{"alg":%s,"kid":%q}`, alg, s.KeyID))
		_, _, tail := cut(sign(t, s, fmt.Sprintf(`{"alg":%s,"kid":%q}`, alg, s.KeyID), payload))
		for _, signature := range []string{"", "AA", tail} {
			if _, err := VerifyCompact(head+"."+b64([]byte(payload))+"."+signature, NewKeySet(s.Key())); err == nil {
				t.Errorf("accepted alg %s, signature %q", alg, signature)
			}
		}
	}
	if _, err := VerifyCompact(b64([]byte(`{"kid":"x"}`))+".e30.AA", NewKeySet(s.Key())); !errors.Is(err, ErrAlgorithm) {
		t.Errorf("no alg at all: %v", err)
	}
}

// TestAlgorithmConfusion (RFC 8725 section 3.1): a public key, in whatever
// form an attacker finds it, is not an HMAC secret; a key of one algorithm
// verifies no other.
func TestAlgorithmConfusion(t *testing.T) {
	for _, algorithm := range []string{"RS256", "PS256", "ES256", "ES512", "EdDSA"} {
		s := signer(t, algorithm)
		for form, secret := range publicForms(t, s) {
			for _, hmac := range []string{"HS256", "HS384", "HS512"} {
				input := b64(fmt.Appendf(nil, `{"alg":%q,"kid":%q}`, hmac, s.KeyID)) + "." + b64([]byte(payload))
				if _, err := VerifyCompact(hmacSign(t, hmac, input, secret), NewKeySet(s.Key())); err == nil {
					t.Errorf("%s key as %s secret in %s form: accepted", algorithm, hmac, form)
				}
			}
		}
	}
	for _, have := range Algorithms {
		s := signer(t, have)
		for _, claimed := range Algorithms {
			if claimed == have {
				continue
			}
			compact := sign(t, s, fmt.Sprintf(`{"alg":%q,"kid":%q}`, claimed, s.KeyID), payload)
			if _, err := VerifyCompact(compact, NewKeySet(s.Key())); !errors.Is(err, ErrNoKey) {
				t.Errorf("key of %s, header %s: %v", have, claimed, err)
			}
			c, err := Parse(compact)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := c.Verify(s.Key()); !errors.Is(err, ErrAlgorithm) {
				t.Errorf("key of %s handed to a token of %s: %v", have, claimed, err)
			}
		}
	}
}

func publicForms(t *testing.T, s Signer) map[string][]byte {
	t.Helper()
	public := s.Key().material
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	jwk, _, err := s.PublicJWK()
	if err != nil {
		t.Fatal(err)
	}
	asPEM := pem.EncodeToMemory(pemBlock("PUBLIC KEY", der))
	forms := map[string][]byte{
		"DER": der, "PEM": asPEM, "PEM without line end": bytes.TrimSpace(asPEM), "PEM with CRLF": bytes.ReplaceAll(asPEM, []byte("\n"), []byte("\r\n")),
		"JWK": jwk, "base64 DER": []byte(base64.StdEncoding.EncodeToString(der)), "empty": {}, "thumbprint": []byte(s.Key().Thumbprint),
	}
	if key, ok := public.(*rsa.PublicKey); ok {
		forms["modulus"] = key.N.Bytes()
		forms["modulus in hex"] = []byte(key.N.Text(16))
		forms["PKCS1"] = x509.MarshalPKCS1PublicKey(key)
	}
	return forms
}

// TestHeaderAttacks: what the header may not ask for, signed with the right key.
func TestHeaderAttacks(t *testing.T) {
	s := signer(t, "ES256")
	keys := NewKeySet(s.Key())
	jwk, _, _ := s.PublicJWK()
	for name, head := range map[string]string{
		"jku":                   `{"alg":"ES256","jku":"http://127.0.0.1:1/jwks"}`,
		"x5u":                   `{"alg":"ES256","x5u":"http://127.0.0.1:1/cert"}`,
		"x5c":                   `{"alg":"ES256","x5c":["MIIB"]}`,
		"jwk":                   fmt.Sprintf(`{"alg":"ES256","jwk":%s}`, jwk),
		"crit":                  `{"alg":"ES256","crit":["exp"]}`,
		"crit empty":            `{"alg":"ES256","crit":[]}`,
		"crit null":             `{"alg":"ES256","crit":null}`,
		"crit in capitals":      `{"alg":"ES256","CRIT":["exp"]}`,
		"b64 false":             `{"alg":"ES256","b64":false,"crit":["b64"]}`,
		"b64 true":              `{"alg":"ES256","b64":true}`,
		"zip":                   `{"alg":"ES256","zip":"DEF"}`,
		"enc":                   `{"alg":"ES256","enc":"A256GCM"}`,
		"two algs":              `{"alg":"none","alg":"ES256"}`,
		"folded alg":            `{"alg":"ES256","ALG":"none"}`,
		"folded alone":          `{"Alg":"ES256"}`,
		"kid number":            `{"alg":"ES256","kid":1}`,
		"kid list":              `{"alg":"ES256","kid":["a"]}`,
		"kid path":              `{"alg":"ES256","kid":"../../../../dev/null"}`,
		"kid SQL":               `{"alg":"ES256","kid":"' OR 1=1 --"}`,
		"kid NUL":               `{"alg":"ES256","kid":"\u0000"}`,
		"typ list":              `{"alg":"ES256","typ":["JWT"]}`,
		"not an object":         `["ES256"]`,
		"string":                `"ES256"`,
		"trailing":              `{"alg":"ES256"}{}`,
		"trailing garbage":      `{"alg":"ES256"}x`,
		"comment":               `{"alg":"ES256"/**/}`,
		"invalid UTF-8":         "{\"alg\":\"ES256\",\"x\":\"\xff\"}",
		"byte order mark":       "\ufeff" + `{"alg":"ES256"}`,
		"UTF-16":                "{\x00}\x00",
		"empty":                 ``,
		"deep":                  `{"alg":"ES256","x":` + strings.Repeat("[", 2000) + strings.Repeat("]", 2000) + `}`,
		"unclosed":              `{"alg":"ES256"`,
		"two names in one fold": "{\"alg\":\"ES256\",\"\u017fig\":1,\"sig\":2}",
	} {
		if _, err := VerifyCompact(sign(t, s, head, payload), keys); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	for name, head := range map[string]string{
		"plain":       `{"alg":"ES256"}`,
		"white space": " { \"alg\" :\n\t\"ES256\" } ",
		"thumbprint":  `{"alg":"ES256","x5t":"abc","x5t#S256":"def"}`,
		"unknown":     `{"alg":"ES256","nonce":"abc","cty":"JWT"}`,
	} {
		if _, err := VerifyCompact(sign(t, s, head, payload), keys); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestSizes: nothing is decoded of what is too long.
func TestSizes(t *testing.T) {
	s := signer(t, "HS256")
	keys := NewKeySet(s.Key())
	for _, size := range []int{1, 1 << 10, 5 << 10} {
		if _, err := VerifyCompact(sign(t, s, header(s), fmt.Sprintf(`{"x":%q}`, strings.Repeat("a", size))), keys); err != nil {
			t.Errorf("payload of %d: %v", size, err)
		}
	}
	for _, size := range []int{8 << 10, 64 << 10, 1 << 20} {
		_, err := VerifyCompact(sign(t, s, header(s), fmt.Sprintf(`{"x":%q}`, strings.Repeat("a", size))), keys)
		if !errors.Is(err, ErrMalformed) {
			t.Errorf("payload of %d: %v", size, err)
		}
	}
	// A long header is refused before its JSON is parsed: the limit is on the
	// segment, so a name more costs nothing.
	for size, want := range map[int]error{600: nil, 2 << 10: ErrMalformed, 4 << 10: ErrMalformed} {
		long := fmt.Sprintf(`{"alg":"HS256","x":%q}`, strings.Repeat("a", size))
		if _, err := VerifyCompact(sign(t, s, long, payload), keys); !errors.Is(err, want) {
			t.Errorf("header of %d: %v, want %v", size, err, want)
		}
	}
	huge := strings.Repeat("A", 1<<20)
	// The runtime allocates beside the test, and that is counted too: it adds
	// to some tries, the least of them is the token's own.
	least := math.Inf(1)
	for range 10 {
		least = min(least, testing.AllocsPerRun(10, func() { _, _ = VerifyCompact(huge, keys) }))
	}
	if least > 5 {
		t.Errorf("a token of 1 MiB costs %v allocations before it is refused", least)
	}
}

// TestCandidatesAreBound: kid chooses among the keys of an algorithm and
// nothing more.
func TestCandidatesAreBound(t *testing.T) {
	ec, rs := signer(t, "ES256"), signer(t, "RS256")
	keys := Join(NewKeySet(ec.Key()), NewKeySet(rs.Key()))
	swapped := sign(t, ec, fmt.Sprintf(`{"alg":"ES256","kid":%q}`, rs.KeyID), payload)
	if _, err := VerifyCompact(swapped, keys); !errors.Is(err, ErrNoKey) {
		t.Errorf("ES256 token with the kid of an RSA key: %v", err)
	}
	without := sign(t, ec, `{"alg":"ES256"}`, payload)
	if _, err := VerifyCompact(without, keys); err != nil {
		t.Errorf("no kid: %v", err)
	}
	if got := keys.Restrict([]string{"RS256"}); got.Len() != 1 || len(got.Candidates("ES256", "")) != 0 {
		t.Error("Restrict keeps what is not allowed")
	}
	if keys.Len() != 2 || len(keys.Candidates("ES256", "")) != 1 {
		t.Error("Restrict changed the set it was called on")
	}
}

// TestNestedAndOtherSerialisations: a token in a token, and JSON forms.
func TestNestedAndOtherSerialisations(t *testing.T) {
	s := signer(t, "ES256")
	inner := sign(t, s, header(s), payload)
	outer := sign(t, s, `{"alg":"ES256","cty":"JWT"}`, inner)
	got, err := VerifyCompact(outer, NewKeySet(s.Key()))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ParseClaims(got); !errors.Is(err, ErrClaims) {
		t.Errorf("nested token read as claims: %v", err)
	}
	head, body, tail := cut(inner)
	flat, _ := json.Marshal(map[string]string{"protected": head, "payload": body, "signature": tail})
	for _, form := range []string{string(flat), b64(flat), "{}", "a.b.c.d.e", inner + "." + tail + "." + tail} {
		if _, err := VerifyCompact(form, NewKeySet(s.Key())); err == nil {
			t.Errorf("accepted %q", form)
		}
	}
}
