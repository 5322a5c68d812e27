package token

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base32"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math"
	"math/big"
	mathrand "math/rand/v2"
	"regexp"
	"strings"
	"testing"

	"github.com/google/uuid"
)

func TestParseKeySetRefuses(t *testing.T) {
	ec, _, _ := signer(t, "ES256").PublicJWK()
	var jwk map[string]any
	if err := json.Unmarshal(ec, &jwk); err != nil {
		t.Fatal(err)
	}
	with := func(name string, value any) string {
		changed := map[string]any{}
		for k, v := range jwk {
			changed[k] = v
		}
		changed[name] = value
		text, _ := json.Marshal(map[string]any{"keys": []any{changed}})
		return string(text)
	}
	second, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	secondSigner, err := NewSigner("ES256", second)
	if err != nil {
		t.Fatal(err)
	}
	other, _, _ := secondSigner.PublicJWK()
	otherOfTheSameName := regexp.MustCompile(`"kid":"[^"]*"`).ReplaceAllString(string(other), fmt.Sprintf(`"kid":%q`, jwk["kid"]))
	small, err := rsa.GenerateKey(rand.Reader, 1024) //nolint:gosec // that is the point
	if err != nil {
		t.Fatal(err)
	}
	rsaJWK := func(n *big.Int, e []byte) string {
		return fmt.Sprintf(`{"keys":[{"kty":"RSA","n":%q,"e":%q}]}`, b64(n.Bytes()), b64(e))
	}
	modulus := privateKeys()["RS256"].(*rsa.PrivateKey).N
	for name, set := range map[string]string{
		"empty":                   ``,
		"no keys":                 `{"keys":[]}`,
		"keys missing":            `{}`,
		"keys null":               `{"keys":null}`,
		"KEYS":                    `{"KEYS":[` + string(ec) + `]}`,
		"duplicate keys":          `{"keys":[],"keys":[` + string(ec) + `]}`,
		"duplicate members":       `{"keys":[{"kty":"EC","kty":"oct","k":"AAAA"}]}`,
		"not an object":           `{"keys":["x"]}`,
		"duplicate kid":           `{"keys":[` + string(ec) + `,` + otherOfTheSameName + `]}`,
		"trailing":                `{"keys":[` + string(ec) + `]} x`,
		"only encryption":         with("use", "enc"),
		"only encrypting":         with("key_ops", []string{"encrypt"}),
		"unknown alg":             with("alg", "ES521"),
		"alg of another type":     with("alg", "RS256"),
		"off the curve":           with("y", jwk["x"]),
		"unknown curve":           with("crv", "secp256k1"),
		"other curve":             with("crv", "P-384"),
		"padded":                  with("x", fmt.Sprint(jwk["x"])+"="),
		"standard alphabet":       with("x", strings.Repeat("+", 43)),
		"no x":                    with("x", ""),
		"RSA 1024":                rsaJWK(small.N, []byte{1, 0, 1}),
		"RSA e=1":                 rsaJWK(modulus, []byte{1}),
		"RSA e=2":                 rsaJWK(modulus, []byte{2}),
		"RSA e=0":                 rsaJWK(modulus, []byte{0}),
		"RSA e wraps to 65537":    rsaJWK(modulus, []byte{1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1}),
		"RSA e of 2^32+1":         rsaJWK(modulus, []byte{1, 0, 0, 0, 1}),
		"RSA even modulus":        rsaJWK(new(big.Int).Lsh(modulus, 1), []byte{1, 0, 1}),
		"RSA 16384":               rsaJWK(new(big.Int).SetBit(new(big.Int).Set(modulus), 16383, 1), []byte{1, 0, 1}),
		"empty secret":            `{"keys":[{"kty":"oct","k":""}]}`,
		"short secret":            `{"keys":[{"kty":"oct","k":"` + b64(make([]byte, 31)) + `"}]}`,
		"short secret for HS512":  `{"keys":[{"kty":"oct","alg":"HS512","k":"` + b64(make([]byte, 63)) + `"}]}`,
		"Ed25519 of wrong length": `{"keys":[{"kty":"OKP","crv":"Ed25519","x":"AAAA"}]}`,
		"X25519":                  `{"keys":[{"kty":"OKP","crv":"X25519","x":"` + b64(make([]byte, 32)) + `"}]}`,
		"too many":                `{"keys":[` + strings.Repeat(`{"kty":"none"},`, maxKeys) + string(ec) + `]}`,
	} {
		if keys, err := ParseKeySet([]byte(set)); err == nil {
			t.Errorf("%s: accepted %d keys", name, keys.Len())
		}
	}
	for name, set := range map[string]string{
		"plain":                 with("kid", "k1"),
		"no alg":                with("alg", ""),
		"no use":                with("use", ""),
		"certificate unread":    with("x5c", []string{"not base64"}),
		"other keys passed by":  `{"keys":[{"kty":"unknown"},{"kty":"RSA","use":"enc"},` + string(ec) + `]}`,
		"members not known yet": with("exp", 17),
		"a secret beside it":    `{"keys":[{"kty":"oct","k":"` + b64(make([]byte, 64)) + `"},` + string(ec) + `]}`,
		"twice the same":        `{"keys":[` + string(ec) + `,` + string(ec) + `]}`,
		"many of no concern":    `{"keys":[` + strings.Repeat(`{"kty":"RSA","use":"enc"},`, maxKeys) + string(ec) + `]}`,
		"malformed ones":        `{"keys":[7,{"kty":"EC"},{"kty":"EC","kty":"OKP"},{"kty":"EC","crv":"P-256","x":"A=","y":""},` + string(ec) + `]}`,
	} {
		if keys, err := ParseKeySet([]byte(set)); err != nil || keys.Len() != 1 || keys.Keys()[0].Symmetric() {
			t.Errorf("%s: %d keys, %v", name, keys.Len(), err)
		}
	}
}

// A published JWK means the same key as the signer, and nothing of its secret.
func TestPublicJWKRoundTrip(t *testing.T) {
	for _, algorithm := range Algorithms {
		s := signer(t, algorithm)
		jwk, public, err := s.PublicJWK()
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(algorithm, "HS") {
			if public || jwk != nil {
				t.Errorf("%s: a secret was published: %s", algorithm, jwk)
			}
			continue
		}
		var members map[string]any
		if err := json.Unmarshal(jwk, &members); err != nil {
			t.Fatal(err)
		}
		for _, secret := range []string{"d", "p", "q", "dp", "dq", "qi", "k"} {
			if _, leaked := members[secret]; leaked {
				t.Errorf("%s: the public JWK holds %q", algorithm, secret)
			}
		}
		keys, err := ParseKeySet(asSet(jwk))
		if err != nil {
			t.Fatal(err)
		}
		if key := keys.Keys()[0]; key.ID != s.KeyID || key.Thumbprint != s.Key().Thumbprint || !key.Accepts(algorithm) {
			t.Errorf("%s: %+v", algorithm, key)
		}
	}
}

func TestParsePEM(t *testing.T) {
	private := privateKeys()["ES256"]
	public, _ := x509.MarshalPKIXPublicKey(signer(t, "ES256").Key().material)
	secret, _ := x509.MarshalPKCS8PrivateKey(private)
	encode := func(kind string, der []byte) string { return string(pem.EncodeToMemory(pemBlock(kind, der))) }
	if keys, err := ParsePEM([]byte("text before\n" + encode("PUBLIC KEY", public))); err != nil || keys.Len() != 1 {
		t.Errorf("public key: %v", err)
	}
	for name, data := range map[string]string{
		"nothing": "", "no block": "abc", "private": encode("PRIVATE KEY", secret), "garbage": encode("PUBLIC KEY", []byte("x")),
		"unknown block": encode("SOMETHING", public), "second is private": encode("PUBLIC KEY", public) + encode("PRIVATE KEY", secret),
	} {
		_, err := ParsePEM([]byte(data))
		if err == nil {
			t.Errorf("%s: accepted", name)
			continue
		}
		if told := strings.Contains(err.Error(), "private key"); told != strings.Contains(name, "private") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestWeakness(t *testing.T) {
	random := make([]byte, 48)
	_, _ = rand.Read(random)
	for secret, weak := range map[string]bool{
		string(random): false,
		"c3f1b6b0e54d0a7a6f3d1b2c9e8877665544332a":  false,
		strings.Repeat("a", 64):                     true,
		strings.Repeat("0123456789abcdef", 4):       true,
		strings.Repeat("qwzxcvbnmplkj!uy", 3):       true, // repeats itself
		"abbabaabbaababbabaababbaabbabaab":          true, // few bytes, no period
		"your-256-bit-secret-your-256-bit-secret":   true,
		"this is my SuperSecret key for the tokens": true,
		"correct horse battery changeme staple zyx": true,
		// of the public list, in text and decoded
		"this is the extremely secret secret":  true,
		"07ee344d-8eb4-455f-8cc3-f641406e8820": true,
		"Kb24t0LDVPoen8jmGXBWdCJTUapSqz1s":     true,
		// of no list, but words and rows of keys all the same
		"MyLongAndSecureApplicationKey4711!":             true,
		"iwillneverforgetthedayiwenttothezoo":            true,
		"correct horse battery staple and some more":     true,
		"qwertyuiopasdfghjklzxcvbnm,./1234567890":        true,
		"00112233445566778899aabbccddeeff":               true,
		"TheQuickBrownFoxJumpsOverTheLazyDog":            true,
		"eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9":           true, // the header of the tokens that it signs
		"f47ac10b-58cc-4372-a567-0e02b2c3d479":           true, // the example of many a page on UUIDs
		"123e4567-e89b-12d3-a456-426614174000-12d3-a456": true, // and of many another
		"ZXZlcnkgZ29vZCBib3kgZGVzZXJ2ZXMgZnVkZ2U=":       true, // words, in base64
		"dc0d5bd7-8d4e-4f8c-9d1b-5c5d3f0f6a1e":           false,
		// separators and padding, which carry nothing, with little between them
		strings.Repeat("-", 32):                        true,
		strings.Repeat(":-", 16):                       true,
		"7" + strings.Repeat("=", 40):                  true,
		"3-f-0-9-c-1-8-e-a-4-7-d-2-b-6-5-":             true,
		"c3:f1:b6:b0:e5:4d:0a:7a:6f:3d:1b:2":           true,
		"dc0d5bd78d4e4f8c9d1b5c5d3f0f6a1e":             false, // 32 digits, the shortest there are
		"UVG4UGBFGC5R23ITFTPNMI33FY======":             false, // as many bytes in base32
		"CBoYbLISuNVeAZCUnyECOIZYloaaiCjOweAunoFbcCE=": false, // random, and refused once
		"hQ2v9LxW4kPz7TnB1mYcR8dJf5GsA3uE6oVi0pKtXbN=": false,
	} {
		keys, err := SecretKeySet([]byte(secret))
		if err != nil {
			t.Errorf("%q: %v", secret, err)
			continue
		}
		if got := keys.Keys()[0].Weakness(); weak != (got != "") {
			t.Errorf("%q: weak %t, want %t: %s", secret, got != "", weak, got)
		}
	}
	var examples struct {
		Vectors []struct{ JWK json.RawMessage }
	}
	readVectors(t, vectors(t, "rfc7515/*.json")[0], &examples)
	for _, example := range examples.Vectors {
		keys, err := ParseKeySet(asSet(example.JWK))
		if err != nil {
			continue
		}
		if keys.Keys()[0].Weakness() == "" {
			t.Errorf("a key of the RFCs is not known: %s", example.JWK)
		}
	}
}

// Random secrets of every spelling are taken, always: they lie so far below what
// is refused that their spread does not reach it.
func TestRandomSecretsAreTaken(t *testing.T) {
	random := mathrand.NewChaCha8([32]byte{1})
	for spelling, spell := range map[string]func([]byte) string{
		"bytes": func(b []byte) string { return string(b) }, "hex": hex.EncodeToString,
		"base64": base64.StdEncoding.EncodeToString, "base64url": base64.RawURLEncoding.EncodeToString, "base32": base32.StdEncoding.EncodeToString,
		"half as many, in hex": func(b []byte) string { return hex.EncodeToString(b[:16]) },
		"UUID": func(b []byte) string {
			id, _ := uuid.FromBytes(b[:16])
			id[6], id[8] = id[6]&0x0f|0x40, id[8]&0x3f|0x80 // version 4
			return id.String()
		},
	} {
		const secrets = 500
		var sum, squares float64
		for range secrets {
			bytes := make([]byte, 32)
			_, _ = random.Read(bytes)
			secret := spell(bytes)
			if weakness := (Key{material: []byte(secret)}).Weakness(); weakness != "" {
				t.Errorf("%s: %q: %s", spelling, secret, weakness)
			}
			known, most := guessable(secret)
			sum, squares = sum+most-known, squares+(most-known)*(most-known)
		}
		mean := sum / secrets
		deviation := math.Sqrt(squares/secrets - mean*mean)
		if far := (leastSaved - mean) / deviation; far < 8 {
			t.Errorf("%s: random secrets save %.1f bits, give or take %.1f: %d are but %.1f standard deviations away", spelling, mean, deviation, leastSaved, far)
		}
	}
}

// What leastSaved is calculated from: after any text the probabilities of all
// bytes sum to 1.
func TestTheCodeIsOne(t *testing.T) {
	for _, text := range []string{"", "s", "The Quick", "\x00\xff", "aaaaaaaaaaaaaaaa", "iwillneverforget", "c3f1b6b0e54d0a7a6f3d"} {
		sum := 0.0
		for c := range 256 {
			r := &coder{learned: habits()}
			for i := range len(text) {
				r.next(text[i])
			}
			sum += r.next(byte(c))
		}
		if math.Abs(sum-1) > 1e-9 {
			t.Errorf("after %q the probabilities sum to %v", text, sum)
		}
	}
}

func TestExposedKey(t *testing.T) {
	ec, _, _ := signer(t, "ES256").PublicJWK()
	exposed := strings.Replace(string(ec), "{", `{"d":"AAAA",`, 1)
	keys, err := ParseKeySet(asSet(json.RawMessage(exposed)))
	if err != nil {
		t.Fatal(err)
	}
	if keys.Keys()[0].Weakness() == "" {
		t.Error("a set with a private key is not complained about")
	}
}

// White space around a secret that is text comes from an editor; of one that is
// not text every byte counts, or one in twenty random secrets would be another
// key here than at its issuer.
func TestSecretKeySetTrimsTextOnly(t *testing.T) {
	text, random := strings.Repeat("0123456789abcdef", 4), strings.Repeat("\x00\xff\x80\x01", 16)
	for written, meant := range map[string]string{
		text: text, text + "\n": text, " " + text + "\r\n": text, text + "\n" + text + "\n": text + "\n" + text,
		random + "\n": random + "\n", " " + random: " " + random, "\t" + random + "\v": "\t" + random + "\v",
	} {
		set, err := SecretKeySet([]byte(written))
		if err != nil {
			t.Fatal(err)
		}
		input := b64([]byte(`{"alg":"HS256"}`)) + "." + b64([]byte(payload))
		if _, err := VerifyCompact(hmacSign(t, "HS256", input, []byte(meant)), set); err != nil {
			t.Errorf("%q does not verify what %q has signed: %v", written, meant, err)
		}
	}
}
