package identity

import (
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/authsvc/config"
	"github.com/sluice-gateway/sluice/authsvc/internal/issuertest"
	"github.com/sluice-gateway/sluice/authsvc/keys"
	"github.com/sluice-gateway/sluice/authsvc/token"
)

// A token without kid is tried with maxAttempts keys, however many there are.
func TestAttemptsAreBounded(t *testing.T) {
	var all []*issuertest.Issuer
	for range maxAttempts + 4 {
		all = append(all, issuertest.New(t, "many", "EdDSA"))
	}
	trusted := all[0].Config()
	trusted.JWKSFile = issuertest.WriteFile(t, filepath.Join(t.TempDir(), "jwks.json"), issuertest.KeySet(all...))
	source, err := keys.Open(t.Context(), trusted, func() {}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	v, err := NewVerifier(config.New(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	v.Trust(trusted, source)
	good := func(compact string) bool { _, err := v.Verify(t.Context(), compact, time.Now()); return err == nil }
	first, last := all[0], all[len(all)-1]
	if !good(first.Raw(`{"alg":"EdDSA"}`, first.Claims(nil))) {
		t.Error("the first key was not tried")
	}
	if good(last.Raw(`{"alg":"EdDSA"}`, last.Claims(nil))) {
		t.Error("the last key was tried")
	}
	if !good(last.Token(nil)) { // its kid says which key it is
		t.Error("the last key is not known")
	}
}

// FuzzClaimsToHeaders: whatever claims a trusted issuer signs, what becomes of
// them is a user of its own and headers that HTTP carries unchanged.
func FuzzClaimsToHeaders(f *testing.F) {
	for _, seed := range []string{
		`{"exp":1,"sub":"42","plan":"pro","scope":"a b"}`, `{"exp":1,"sub":"42","plan":["a",1,true],"roles":{"in":["x"]}}`, `{"exp":1,"sub":"42","plan":"pro\r\nX: 1"}`,
		`{"exp":1,"sub":"other:42"}`, `{"exp":1,"sub":42}`, `{"exp":1,"sub":""}`, `{"exp":1,"sub":"42","roles.in":" x"}`,
	} {
		f.Add([]byte(seed))
	}
	ours, other := &Issuer{Name: "ours", userClaim: "sub", UserPrefix: "o:"}, &Issuer{Name: "other", userClaim: "sub", UserPrefix: "o:ther:"}
	c := &config.Config{Cache: config.Cache{Size: 1}, Claims: map[string]string{"plan": "X-User-Plan", "scope": "X-User-Scopes", "roles.in": "X-Roles", "dropped": ""}}
	v, err := NewVerifier(c, slog.New(slog.DiscardHandler))
	if err != nil {
		f.Fatal(err)
	}
	v.issuers = []*Issuer{ours, other}
	f.Fuzz(func(t *testing.T, data []byte) {
		c.ClaimEncoding = map[bool]string{true: "percent", false: "plain"}[len(data)%2 == 0]
		claims, err := token.ParseClaims(data)
		if err != nil {
			return
		}
		who, err := v.identify(ours, claims)
		if err != nil {
			return
		}
		if !strings.HasPrefix(who.User, "o:") || strings.HasPrefix(who.User, "o:ther:") || len(who.User) == 2 || len(who.User) > MaxUser || token.CheckHeaderText(who.User) != nil {
			t.Fatalf("%q became user %q", data, who.User)
		}
		for _, header := range who.Headers {
			if !slices.Contains([]string{"X-User-Plan", "X-User-Scopes", "X-Roles"}, header[0]) || header[1] == "" || token.CheckHeaderText(header[1]) != nil {
				t.Fatalf("%q became header %q", data, header)
			}
		}
	})
}
