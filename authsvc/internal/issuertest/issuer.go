// Package issuertest plays other issuers for tests: an Issuer signs anything,
// and a Server publishes its keys, or misbehaves.
package issuertest

import (
	"crypto"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/sluice-gateway/sluice/authsvc/config"
	"github.com/sluice-gateway/sluice/authsvc/token"
)

// Issuer is an issuer of the test's own, able to sign anything.
type Issuer struct {
	Name   string
	Signer token.Signer
}

// New makes an issuer with a key of its own.
func New(t testing.TB, name, algorithm string) *Issuer {
	t.Helper()
	private, err := token.GenerateKey(algorithm)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := token.NewSigner(algorithm, private)
	if err != nil {
		t.Fatal(err)
	}
	return &Issuer{Name: name, Signer: signer}
}

// Raw signs JSON as it is, sound or not.
func (i *Issuer) Raw(header, payload string) string {
	input := base64.RawURLEncoding.EncodeToString([]byte(header)) + "." + base64.RawURLEncoding.EncodeToString([]byte(payload))
	signature, err := jwt.GetSigningMethod(i.Signer.Algorithm).Sign(input, i.Signer.Private())
	if err != nil {
		panic(err)
	}
	return input + "." + base64.RawURLEncoding.EncodeToString(signature)
}

// Claims are those of a good token, with changes over them; nil leaves one out.
func (i *Issuer) Claims(changes map[string]any) string {
	claims := map[string]any{
		"iss": "https://" + i.Name + ".example", "aud": "api", "sub": "42",
		"iat": time.Now().Unix(), "exp": time.Now().Add(10 * time.Minute).Unix(),
	}
	for name, value := range changes {
		if value == nil {
			delete(claims, name)
		} else {
			claims[name] = value
		}
	}
	text, err := json.Marshal(claims)
	if err != nil {
		panic(err)
	}
	return string(text)
}

// Token is a good token, with changes to its claims.
func (i *Issuer) Token(changes map[string]any) string {
	header := fmt.Sprintf(`{"alg":%q,"kid":%q,"typ":"JWT"}`, i.Signer.Algorithm, i.Signer.KeyID)
	return i.Raw(header, i.Claims(changes))
}

// JWK is the public key.
func (i *Issuer) JWK() string {
	jwk, public, err := i.Signer.PublicJWK()
	if err != nil || !public {
		panic(err)
	}
	return string(jwk)
}

// PEM is the public key, too.
func (i *Issuer) PEM() string {
	der, err := x509.MarshalPKIXPublicKey(i.Signer.Private().(crypto.Signer).Public())
	if err != nil {
		panic(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

// Config trusts the issuer; where its keys are is to be added.
func (i *Issuer) Config() config.Issuer {
	return config.Issuer{
		Name: i.Name, Issuer: "https://" + i.Name + ".example", Audiences: []string{"api"},
		Algorithms: []string{i.Signer.Algorithm}, UserPrefix: i.Name + ":",
	}
}

// KeySet is the JWK Set of all these issuers' keys.
func KeySet(all ...*Issuer) string {
	var jwks []string
	for _, i := range all {
		jwks = append(jwks, i.JWK())
	}
	return `{"keys":[` + strings.Join(jwks, ",") + `]}`
}

// WriteFile replaces a file as a whole, so that nobody reads half of it, and
// returns its path.
func WriteFile(t testing.TB, path, content string) string {
	t.Helper()
	if err := os.WriteFile(path+".new", []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
	return path
}
