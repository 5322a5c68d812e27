package authsvc

import (
	"crypto"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/sluice-gateway/sluice/authsvc/config"
	"github.com/sluice-gateway/sluice/authsvc/token"
	"github.com/sluice-gateway/sluice/internal/redistest"
)

// foreign is an issuer of the test's own, able to sign anything.
type foreign struct {
	name   string
	signer token.Signer
}

func newForeign(t testing.TB, name, algorithm string) *foreign {
	t.Helper()
	private, err := token.GenerateKey(algorithm)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := token.NewSigner(algorithm, private)
	if err != nil {
		t.Fatal(err)
	}
	return &foreign{name: name, signer: signer}
}

// raw signs JSON as it is, sound or not.
func (f *foreign) raw(header, payload string) string {
	input := base64.RawURLEncoding.EncodeToString([]byte(header)) + "." + base64.RawURLEncoding.EncodeToString([]byte(payload))
	signature, err := jwt.GetSigningMethod(f.signer.Algorithm).Sign(input, f.signer.Private())
	if err != nil {
		panic(err)
	}
	return input + "." + base64.RawURLEncoding.EncodeToString(signature)
}

func (f *foreign) header() string {
	return fmt.Sprintf(`{"alg":%q,"kid":%q,"typ":"JWT"}`, f.signer.Algorithm, f.signer.KeyID)
}

// claims are those of a good token, with changes over them; nil leaves one out.
func (f *foreign) claims(changes map[string]any) string {
	claims := map[string]any{
		"iss": "https://" + f.name + ".example", "aud": "api", "sub": "42",
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

func (f *foreign) token(changes map[string]any) string { return f.raw(f.header(), f.claims(changes)) }

func (f *foreign) jwk() string {
	jwk, public, err := f.signer.PublicJWK()
	if err != nil || !public {
		panic(err)
	}
	return string(jwk)
}

func (f *foreign) config() config.Issuer {
	return config.Issuer{
		Name: f.name, Issuer: "https://" + f.name + ".example", Audiences: []string{"api"},
		Algorithms: []string{f.signer.Algorithm}, UserPrefix: f.name + ":",
	}
}

func keySet(all ...*foreign) string {
	var jwks []string
	for _, f := range all {
		jwks = append(jwks, f.jwk())
	}
	return `{"keys":[` + strings.Join(jwks, ",") + `]}`
}

func writeFile(t testing.TB, path, content string) string {
	t.Helper()
	if err := writeWhole(path, []byte(content)); err != nil {
		t.Fatal(err)
	}
	return path
}

// federation is an authsvc with one foreign issuer a kind of key and source.
type federation struct {
	*replica
	redis   *redistest.Server
	dir     string
	byURL   *foreign
	byFile  *foreign
	byPEM   *foreign
	secret  *foreign
	foreign []*foreign
	jwks    *jwksServer
}

func newFederation(t testing.TB) *federation {
	t.Helper()
	f := &federation{
		redis: redistest.Start(t), dir: t.TempDir(),
		byURL: newForeign(t, "url", "ES256"), byFile: newForeign(t, "file", "PS256"),
		byPEM: newForeign(t, "pem", "EdDSA"), secret: newForeign(t, "secret", "HS256"),
	}
	f.foreign = []*foreign{f.byURL, f.byFile, f.byPEM, f.secret}
	f.jwks = newJWKSServer(t, keySet(f.byURL))
	c := testConfig(t, f.redis.Addr)
	c.Issuers = []config.Issuer{f.byURL.config(), f.byFile.config(), f.byPEM.config(), f.secret.config()}
	c.Issuers[0].JWKSURL = f.jwks.URL
	c.Issuers[1].JWKSFile = writeFile(t, filepath.Join(f.dir, "jwks.json"), keySet(f.byFile))
	c.Issuers[2].PEMFile = writeFile(t, filepath.Join(f.dir, "key.pem"), f.byPEM.pem())
	c.Issuers[3].SecretFile = writeFile(t, filepath.Join(f.dir, "secret"), string(f.secret.signer.Private().([]byte)))
	f.replica = open(t, c)
	return f
}

func (f *foreign) pem() string {
	der, err := x509.MarshalPKIXPublicKey(f.signer.Private().(crypto.Signer).Public())
	if err != nil {
		panic(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}
