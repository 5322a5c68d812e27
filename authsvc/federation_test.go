package authsvc

import (
	"path/filepath"
	"testing"

	"github.com/sluice-gateway/sluice/authsvc/config"
	"github.com/sluice-gateway/sluice/authsvc/internal/issuertest"
	"github.com/sluice-gateway/sluice/internal/redistest"
)

// federation is an authsvc with one foreign issuer a kind of key and source.
type federation struct {
	*replica
	redis   *redistest.Server
	dir     string
	byURL   *issuertest.Issuer
	byFile  *issuertest.Issuer
	byPEM   *issuertest.Issuer
	secret  *issuertest.Issuer
	foreign []*issuertest.Issuer
	jwks    *issuertest.Server
}

func newFederation(t testing.TB) *federation {
	t.Helper()
	f := &federation{
		redis: redistest.Start(t), dir: t.TempDir(),
		byURL: issuertest.New(t, "url", "ES256"), byFile: issuertest.New(t, "file", "PS256"),
		byPEM: issuertest.New(t, "pem", "EdDSA"), secret: issuertest.New(t, "secret", "HS256"),
	}
	f.foreign = []*issuertest.Issuer{f.byURL, f.byFile, f.byPEM, f.secret}
	f.jwks = issuertest.NewServer(t, issuertest.KeySet(f.byURL))
	c := testConfig(t, f.redis.Addr)
	c.Issuers = []config.Issuer{f.byURL.Config(), f.byFile.Config(), f.byPEM.Config(), f.secret.Config()}
	c.Issuers[0].JWKSURL = f.jwks.URL
	c.Issuers[1].JWKSFile = issuertest.WriteFile(t, filepath.Join(f.dir, "jwks.json"), issuertest.KeySet(f.byFile))
	c.Issuers[2].PEMFile = issuertest.WriteFile(t, filepath.Join(f.dir, "key.pem"), f.byPEM.PEM())
	c.Issuers[3].SecretFile = issuertest.WriteFile(t, filepath.Join(f.dir, "secret"), string(f.secret.Signer.Private().([]byte)))
	f.replica = open(t, c)
	return f
}
