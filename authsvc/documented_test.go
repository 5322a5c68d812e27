package authsvc

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/authsvc/config"
	"github.com/sluice-gateway/sluice/authsvc/internal/issuertest"
	"github.com/sluice-gateway/sluice/internal/docs"
	"github.com/sluice-gateway/sluice/internal/redistest"
)

// TestDocsProviders gives authsvc, configured as docs/identity-providers.md says,
// tokens of the form that each provider documents.
func TestDocsProviders(t *testing.T) {
	documents, err := docs.Load("..")
	if err != nil {
		t.Fatal(err)
	}
	redis := redistest.Start(t)
	issuer := issuertest.New(t, "provider", "RS256")
	jwks := issuertest.WriteFile(t, filepath.Join(t.TempDir(), "jwks"), issuertest.KeySet(issuer))
	open := func(name string) *replica {
		for _, block := range docs.Find(documents, "docs/identity-providers.md").Blocks() {
			if block.Kind() != "yaml authsvc" || !strings.Contains(block.Text, "- name: "+name+"\n") {
				continue
			}
			file := issuertest.WriteFile(t, filepath.Join(t.TempDir(), "authsvc.yml"), block.Text)
			c, err := config.Load([]string{"--configFile=" + file}, nil)
			if err != nil {
				t.Fatal(err)
			}
			own := testConfig(t, redis.Addr)
			c.Listen, c.AdminListen, c.Redis, c.Own.KeyDir = own.Listen, own.AdminListen, own.Redis, own.Own.KeyDir
			c.Issuers[0].JWKSURL, c.Issuers[0].JWKSFile = "", jwks
			return open(t, c)
		}
		t.Fatalf("no block for %s", name)
		return nil
	}
	type claims = map[string]any
	issued := time.Now()
	for _, c := range []struct {
		provider, what string
		header         string // members beside alg and kid
		claims         claims // beside iat and exp
		user           string // empty: it is refused
		headers        map[string]string
		says           string // what explains it
	}{
		{"keycloak", "with the mapper", `"typ":"JWT"`, claims{"iss": "https://id.example.com/realms/shop", "aud": []string{"shop-api", "account"}, "sub": "f3", "typ": "Bearer", "azp": "web",
			"realm_access": claims{"roles": []string{"offline_access", "pro"}}, "scope": "openid email"}, "kc:f3", map[string]string{"X-User-Plan": "offline_access pro", "X-User-Scopes": "openid email"}, ""},
		{"keycloak", "of a new realm", `"typ":"JWT"`, claims{"iss": "https://id.example.com/realms/shop", "aud": "account", "sub": "f3"}, "", nil, "aud"},
		{"keycloak", "without audience", `"typ":"JWT"`, claims{"iss": "https://id.example.com/realms/shop", "aud": nil, "sub": "f3"}, "", nil, "aud claim is required"},
		{"keycloak", "without the scope basic", `"typ":"JWT"`, claims{"iss": "https://id.example.com/realms/shop", "aud": "shop-api", "sub": nil}, "", nil, "does not name a user"},
		{"keycloak", "ID token", `"typ":"JWT"`, claims{"iss": "https://id.example.com/realms/shop", "aud": "web", "sub": "f3", "typ": "ID"}, "", nil, "aud"},
		{"auth0", "Auth0 profile", `"typ":"JWT"`, claims{"iss": "https://example.eu.auth0.com/", "aud": []string{"https://api.example.com", "https://example.eu.auth0.com/userinfo"}, "sub": "auth0|123456",
			"azp": "my_client_id", "scope": "openid read:patients", "https://example.com/plan": "pro"}, "auth0:auth0|123456", map[string]string{"X-User-Plan": "pro"}, ""},
		{"auth0", "RFC 9068 profile", `"typ":"at+jwt"`, claims{"iss": "https://example.eu.auth0.com/", "aud": "https://api.example.com", "sub": "abc@clients", "client_id": "abc"}, "auth0:abc@clients", nil, ""},
		{"auth0", "a day long", `"typ":"JWT"`, claims{"iss": "https://example.eu.auth0.com/", "aud": "https://api.example.com", "exp": issued.Add(24 * time.Hour).Unix(), "iat": issued.Unix()}, "auth0:42", nil, ""},
		{"auth0", "a month long", `"typ":"JWT"`, claims{"iss": "https://example.eu.auth0.com/", "aud": "https://api.example.com", "exp": issued.Add(30 * 24 * time.Hour).Unix(), "iat": issued.Unix()}, "", nil, "at most 24h0m0s"},
		{"auth0", "no slash", `"typ":"JWT"`, claims{"iss": "https://example.eu.auth0.com", "aud": "https://api.example.com"}, "", nil, "to the last slash"},
		{"okta", "custom server", ``, claims{"iss": "https://example.okta.com/oauth2/default", "aud": "api://default", "sub": "ada@example.com", "uid": "00u1", "cid": "0oa1", "scp": []string{"openid", "orders"}},
			"okta:00u1", map[string]string{"X-User-Scopes": "openid orders"}, ""},
		{"okta", "machine", ``, claims{"iss": "https://example.okta.com/oauth2/default", "aud": "api://default", "sub": "0oa1", "cid": "0oa1"}, "", nil, "does not name a user"},
		{"okta", "org server", `"typ":"application/okta-internal-at+jwt"`, claims{"iss": "https://example.okta.com", "aud": "https://example.okta.com", "uid": "00u1"}, "", nil, "names issuer"},
		{"okta", "its type", `"typ":"application/okta-internal-at+jwt"`, claims{"iss": "https://example.okta.com/oauth2/default", "aud": "api://default", "uid": "00u1"}, "", nil, "typ"},
		{"entra", "version 2", `"typ":"JWT","x5t":"abc"`, claims{"iss": "https://login.microsoftonline.com/aaaabbbb-0000-cccc-1111-dddd2222eeee/v2.0", "aud": "00001111-aaaa-2222-bbbb-3333cccc4444", "ver": "2.0",
			"oid": "o-1", "sub": "pairwise", "tid": "aaaabbbb-0000-cccc-1111-dddd2222eeee", "scp": "orders.read orders.write"}, "entra:o-1", map[string]string{"X-User-Scopes": "orders.read orders.write"}, ""},
		{"entra", "version 1", `"typ":"JWT","x5t":"abc"`, claims{"iss": "https://sts.windows.net/aaaabbbb-0000-cccc-1111-dddd2222eeee/", "aud": "api://00001111-aaaa-2222-bbbb-3333cccc4444", "ver": "1.0", "oid": "o-1"}, "", nil, "names issuer"},
		{"google", "ID token", `"typ":"JWT"`, claims{"iss": "https://accounts.google.com", "aud": "1234567890-abc.apps.googleusercontent.com", "azp": "1234567890-abc.apps.googleusercontent.com", "sub": "10769150350006150715113082367",
			"hd": "example.com", "email": "ada@example.com", "email_verified": true}, "google:10769150350006150715113082367", map[string]string{"X-User-Plan": "example.com"}, ""},
		{"google", "issuer without https", `"typ":"JWT"`, claims{"iss": "accounts.google.com", "aud": "1234567890-abc.apps.googleusercontent.com"}, "", nil, "names issuer"},
		{"zitadel", "JWT", `"typ":"JWT"`, claims{"iss": "https://example-abcdef.zitadel.cloud", "aud": []string{"274190600000000000", "274190521234567890"}, "sub": "274190700000000000", "jti": "V2_1",
			"urn:zitadel:iam:org:project:roles": claims{"admin": claims{"1": "example"}}}, "zitadel:274190700000000000", nil, ""},
		{"cognito", "ID token", ``, claims{"iss": "https://cognito-idp.eu-central-1.amazonaws.com/eu-central-1_AbCdEfGhI", "aud": "1example23456789", "token_use": "id", "sub": "s-1", "cognito:username": "ada",
			"cognito:groups": []string{"pro"}}, "cognito:s-1", map[string]string{"X-User-Plan": "pro"}, ""},
		{"cognito", "access token", ``, claims{"iss": "https://cognito-idp.eu-central-1.amazonaws.com/eu-central-1_AbCdEfGhI", "aud": nil, "client_id": "1example23456789", "token_use": "access", "sub": "s-1"}, "", nil, "aud claim is required"},
		{"cognito", "access token with the trigger", ``, claims{"iss": "https://cognito-idp.eu-central-1.amazonaws.com/eu-central-1_AbCdEfGhI", "aud": "1example23456789", "client_id": "1example23456789", "token_use": "access", "sub": "s-1", "scope": "orders"},
			"cognito:s-1", map[string]string{"X-User-Scopes": "orders"}, ""},
	} {
		t.Run(c.provider+"/"+c.what, func(t *testing.T) {
			r := open(c.provider)
			header := fmt.Sprintf(`{"alg":%q,"kid":%q`, issuer.Signer.Algorithm, issuer.Signer.KeyID)
			if c.header != "" {
				header += "," + c.header
			}
			header += "}"
			token := issuer.Raw(header, issuer.Claims(c.claims))
			a := r.ask(token)
			if c.user == "" {
				explained := r.call("POST", "/v1/tokens/explain", `{"token":"`+token+`"}`).body
				if a.status != 401 || !strings.Contains(explained, c.says) {
					t.Errorf("%d %s, want 401 and %q in\n%s", a.status, a.body, c.says, explained)
				}
				return
			}
			if got := a.header.Get("X-User-Id"); a.status != 200 || got != c.user {
				t.Errorf("%d, user %q, want %q; %s", a.status, got, c.user, a.body)
			}
			for name, want := range c.headers {
				if got := a.header.Get(name); got != want {
					t.Errorf("%s: %q, want %q", name, got, want)
				}
			}
		})
	}
	// What is opaque or encrypted is malformed, whatever else it looks like.
	r := open("auth0")
	for _, opaque := range []string{"ya29.a0AfH6SMBx", "nWq5eoL8", "eyJhbGciOiJkaXIiLCJlbmMiOiJBMjU2R0NNIn0..x.y.z"} {
		if a := r.ask(opaque); a.status != 401 || !strings.Contains(a.body, "malformed") {
			t.Errorf("%s: %d %s", opaque, a.status, a.body)
		}
	}
}

// TestDocsQuoteRefusals: what the table of refusals quotes is what is said.
func TestDocsQuoteRefusals(t *testing.T) {
	documents, err := docs.Load("..")
	if err != nil {
		t.Fatal(err)
	}
	var source strings.Builder
	for _, pattern := range []string{"*.go", "*/*.go"} {
		files, _ := filepath.Glob(pattern)
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if !strings.HasSuffix(file, "_test.go") {
				source.Write(text)
			}
		}
	}
	lines := docs.Find(documents, "docs/identity-providers.md").Section("When a token is refused")
	quotes := regexp.MustCompile("(?m)^\\| (`[^|]+`) \\|").FindAllStringSubmatch(strings.Join(lines, "\n"), -1)
	if len(quotes) < 5 {
		t.Fatalf("%d lines", len(quotes))
	}
	for _, row := range quotes {
		for _, quote := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(row[1], -1) {
			for _, part := range regexp.MustCompile(`\.\.\.|24h0m0s|aud claim is required|: `).Split(quote[1], -1) {
				if part = strings.Trim(part, ", "); !strings.Contains(source.String(), part) {
					t.Errorf("nothing says %q", part)
				}
			}
		}
	}
}
