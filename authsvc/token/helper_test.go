package token

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/pem"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/golang-jwt/jwt/v5"
)

func pemBlock(kind string, der []byte) *pem.Block { return &pem.Block{Type: kind, Bytes: der} }

// privateKeys are made once: RSA takes its time.
var privateKeys = sync.OnceValue(func() map[string]any {
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	p256, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	p384, _ := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	p521, _ := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	_, ed, _ := ed25519.GenerateKey(rand.Reader)
	secret := make([]byte, 64)
	_, _ = rand.Read(secret)
	return map[string]any{
		"RS256": rsaKey, "RS384": rsaKey, "RS512": rsaKey, "PS256": rsaKey, "PS384": rsaKey, "PS512": rsaKey,
		"ES256": p256, "ES384": p384, "ES512": p521, "EdDSA": ed, "HS256": secret, "HS384": secret, "HS512": secret,
	}
})

func signer(t testing.TB, algorithm string) Signer {
	t.Helper()
	s, err := NewSigner(algorithm, privateKeys()[algorithm])
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// sign makes a compact token of raw JSON, sound or not.
func sign(t testing.TB, s Signer, header, payload string) string {
	t.Helper()
	input := b64([]byte(header)) + "." + b64([]byte(payload))
	signature, err := methods[s.Algorithm].Sign(input, s.private)
	if err != nil {
		t.Fatal(err)
	}
	return input + "." + b64(signature)
}

func header(s Signer) string {
	return fmt.Sprintf(`{"alg":%q,"kid":%q,"typ":"at+jwt"}`, s.Algorithm, s.KeyID)
}

func hmacSign(t testing.TB, algorithm, input string, secret []byte) string {
	t.Helper()
	signature, err := methods[algorithm].(*jwt.SigningMethodHMAC).Sign(input, secret)
	if err != nil {
		t.Fatal(err)
	}
	return input + "." + b64(signature)
}

func cut(compact string) (header, payload, signature string) {
	parts := strings.Split(compact, ".")
	return parts[0], parts[1], parts[2]
}
