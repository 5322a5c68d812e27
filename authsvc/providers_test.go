package authsvc

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/authsvc/config"
	"github.com/sluice-gateway/sluice/authsvc/identity"
	"github.com/sluice-gateway/sluice/authsvc/internal/issuertest"
	"github.com/sluice-gateway/sluice/authsvc/token"
	"github.com/sluice-gateway/sluice/internal/redistest"
)

// fetcher is a key source that asks a server: now, not in minutes.
type fetcher interface{ Fetch(context.Context) error }

// What real providers publish beside the keys that count.
const (
	ed448JWK     = `{"kty":"OKP","crv":"Ed448","kid":"ed448","use":"sig","x":"X9dEm1m0Yf0s54fsYWrUah2hNCSFpw4fig6nXYDpZ3jt8SR2m0bHBhvWeD3x5Q9s0foavq_oJWGA"}`
	secp256k1JWK = `{"kty":"EC","crv":"secp256k1","kid":"k1","x":"eb5mfvncu6xVoGKVzocLBwKb_NstzijZWfKBWxb4F5g","y":"SDradyajxGVdpPv8DhEIqP0XtEimhVQZnEfQj_sQ1Lg"}`
	es256kJWK    = `{"kty":"EC","crv":"secp256k1","alg":"ES256K","kid":"k2","x":"eb5mfvncu6xVoGKVzocLBwKb_NstzijZWfKBWxb4F5g","y":"SDradyajxGVdpPv8DhEIqP0XtEimhVQZnEfQj_sQ1Lg"}`
	encJWK       = `{"kty":"RSA","use":"enc","alg":"RSA-OAEP","kid":"enc","n":"AQAB","e":"AQAB"}`
	shortRSAJWK  = `{"kty":"RSA","kid":"short","n":"u1SU1LfVLPHCozMxH2Mo4lgOEePzNm0tRgeLezV6ffAt0gunVTLw7onLRnrq0_IzW7yWR7QkrmBL7jTKEn5u-qKhbwKfBstIs-bMY2Zkp18gnTxKLxoS2tFczGkPLPgizskuemMghRniWaoLcyehkd3qqGElvW_VDL5AaWTg0nLVkjRo9z-40RQzuVaE8AkAFmxZzow3x-VJYKdjykkJ0iT9wCS0DRTXu269V264Vf_3jvredZiKRkgwlL9xNAwxXFg0x_XFw005UWVRIkdgcKWTjpBP2dPwVZ4WWC-9aGVd-Gyn1o0CLelf4rEjGoXbAAEgAqeGUxrcIlbjXfbc","e":"AQAB"}`
	oddlyTyped   = `{"kty":"RSA","kid":7,"n":"AQAB","e":"AQAB"}`
	twiceNamed   = `{"kty":"EC","kty":"RSA","kid":"twice"}`
)

// underOneKid publishes a key as some providers do: once an algorithm, always
// with the same kid.
func underOneKid(jwk string, algorithms ...string) string {
	var all []string
	for _, algorithm := range algorithms {
		var members map[string]any
		if err := json.Unmarshal([]byte(jwk), &members); err != nil {
			panic(err)
		}
		members["alg"], members["kid"] = algorithm, "one"
		text, _ := json.Marshal(members)
		all = append(all, string(text))
	}
	return strings.Join(all, ",")
}

// RFC 7517 section 5: keys that cannot be used are left out, the others serve;
// each that is left out is named once, with its reason.
func TestUnusableKeysAreLeftOut(t *testing.T) {
	t.Parallel() // it waits, mostly
	good := issuertest.New(t, "real", "RS256")
	shared := issuertest.New(t, "real", "RS256")
	for name, beside := range map[string]struct{ jwk, reason string }{
		"Ed448":                  {ed448JWK, `crv \"Ed448\"`},
		"secp256k1":              {secp256k1JWK, `crv \"secp256k1\"`},
		"secp256k1 with its alg": {es256kJWK, `alg \"ES256K\"`},
		"for encryption":         {encJWK, ""},
		"short RSA":              {shortRSAJWK, "at least 2048"},
		"kid is a number":        {oddlyTyped, "kid"},
		"members twice":          {twiceNamed, "two spellings"},
		"not an object":          {`"x"`, "not a JSON object"},
		"its private half":       {strings.Replace(issuertest.New(t, "x", "RS256").JWK(), "{", `{"d":"AAAA",`, 1), "private half"},
		"a secret":               {`{"kty":"oct","kid":"secret","k":"` + strings.Repeat("Ab3d", 20) + `"}`, "secret"},
		"one kid, three alg":     {underOneKid(shared.JWK(), "RS256", "RS384", "RS512"), ""},
	} {
		t.Run(name, func(t *testing.T) {
			set := `{"keys":[` + beside.jwk + `,` + good.JWK() + `]}`
			for _, by := range []string{"URL", "file"} {
				c := testConfig(t, redistest.Start(t).Addr)
				issuer := good.Config()
				issuer.Algorithms = []string{"RS256", "RS384", "RS512"}
				var server *issuertest.Server
				if by == "URL" {
					server = issuertest.NewServer(t, set)
					issuer.JWKSURL = server.URL
				} else {
					issuer.JWKSFile = issuertest.WriteFile(t, filepath.Join(t.TempDir(), "jwks.json"), set)
				}
				c.Issuers = []config.Issuer{issuer}
				r := open(t, c)
				r.wantStatus(good.Token(nil), 200)
				if name == "one kid, three alg" {
					for _, algorithm := range issuer.Algorithms {
						signer, err := token.NewSigner(algorithm, shared.Signer.Private())
						if err != nil {
							t.Fatal(err)
						}
						f := &issuertest.Issuer{Name: "real", Signer: signer}
						r.wantStatus(f.Raw(`{"alg":"`+algorithm+`","kid":"one"}`, f.Claims(nil)), 200)
					}
				}
				logged := strings.Count(r.logged(), "key left out")
				if want := map[bool]int{true: 0, false: 1}[beside.reason == ""]; logged != want || !strings.Contains(r.logged(), beside.reason) {
					t.Errorf("by %s: %d lines about keys left out, want %d with %s in:\n%s", by, logged, want, beside.reason, r.logged())
				}
				if server == nil {
					continue
				}
				// Said once, not at every fetch.
				source := r.judge.Issuers()[1].Source.(fetcher)
				for range 3 {
					if err := source.Fetch(t.Context()); err != nil {
						t.Fatal(err)
					}
				}
				if again := strings.Count(r.logged(), "key left out"); again != logged {
					t.Errorf("said %d times after more fetches, first %d", again, logged)
				}
			}
		})
	}
}

// Only what becomes the user's id may refuse a token.
func TestClaimsThatCannotBeHeaders(t *testing.T) {
	issuer := issuertest.New(t, "kc", "ES256")
	sixty := make([]string, 60)
	for i := range sixty {
		sixty[i] = strings.Repeat("r", 20)
	}
	claims := map[string]any{
		"plan": "pro", "name": "José", "roles": []string{"team lead", "admin"}, "address": map[string]any{"city": "Köln", "zip": 1},
		"groups": sixty, "jti": "naïve", "sid": "naïve", "share": "100%", "huge": strings.Repeat("h", 5000),
	}
	for _, encoding := range []string{"plain", "percent"} {
		c := testConfig(t, redistest.Start(t).Addr)
		c.ClaimEncoding, c.Tokens.MaxBytes = encoding, 32<<10
		c.Claims = map[string]string{
			"plan": "X-User-Plan", "name": "X-User-Name", "roles": "X-User-Roles", "address": "X-User-Address",
			"groups": "X-User-Groups", "share": "X-Share", "huge": "X-Huge",
		}
		c.Issuers = []config.Issuer{issuer.Config()}
		c.Issuers[0].JWKSFile = issuertest.WriteFile(t, filepath.Join(t.TempDir(), "jwks"), issuertest.KeySet(issuer))
		r := open(t, c)
		a := r.wantStatus(issuer.Token(claims), 200)
		want := map[string]string{
			"X-User-Id": "kc:42", "X-User-Plan": "pro", "X-User-Groups": strings.Join(sixty, " "), "X-Share": "100%",
			"X-User-Name": "", "X-User-Roles": "", "X-User-Address": "", "X-Session-Id": "", "X-Huge": "",
		}
		if encoding == "percent" {
			want["X-User-Name"], want["X-User-Roles"], want["X-Share"] = "Jos%C3%A9", "team%20lead admin", "100%25"
			want["X-User-Address"] = `{"city":"K%C3%B6ln","zip":1}`
		}
		for header, value := range want {
			if got := a.header.Get(header); got != value {
				t.Errorf("%s: %s is %q, want %q", encoding, header, got, value)
			}
		}
		for range 5 { // counted each time, said once a minute
			r.wantStatus(issuer.Token(map[string]any{"name": "José", "huge": claims["huge"], "jti": time.Now().String()}), 200)
		}
		if got := strings.Count(r.logged(), `"claim":"huge"`); got != 1 {
			t.Errorf("%s: %d lines about claim huge, want 1:\n%s", encoding, got, r.logged())
		}
		if metrics := r.call("GET", "/metrics", "").body; !strings.Contains(metrics, `authsvc_claims_left_out_total{claim="huge",issuer="kc"} 6`) {
			t.Errorf("%s: the metrics do not count claim huge:\n%s", encoding, metrics)
		}
		if strings.Contains(r.logged(), "José") {
			t.Error("the log holds a claim's value")
		}
		// Neither does an id of another type, where another claim names the user.
		if a := r.wantStatus(issuer.Token(map[string]any{"jti": 7, "sid": 7}), 200); a.header.Get("X-Session-Id") != "" {
			t.Errorf("%s: the session is called %q", encoding, a.header.Get("X-Session-Id"))
		}
		if !strings.Contains(r.call("GET", "/metrics", "").body, `authsvc_claims_left_out_total{claim="sid",issuer="kc"} 2`) {
			t.Errorf("%s: the metrics do not count claim sid", encoding)
		}
		// What becomes the user's id still refuses.
		for _, sub := range []any{"José", " 42", strings.Repeat("x", identity.MaxUser), map[string]any{}} {
			r.wantStatus(issuer.Token(map[string]any{"sub": sub}), 401)
		}
	}
}

// The bound of all headers together: later claims, by name, are left out.
func TestHeadersHaveABoundOfTheirOwn(t *testing.T) {
	issuer := issuertest.New(t, "kc", "ES256")
	c := testConfig(t, redistest.Start(t).Addr)
	c.Tokens.MaxBytes = 32 << 10
	c.Claims = map[string]string{"a": "X-A", "b": "X-B", "c": "X-C", "d": "X-D"}
	c.Issuers = []config.Issuer{issuer.Config()}
	c.Issuers[0].JWKSFile = issuertest.WriteFile(t, filepath.Join(t.TempDir(), "jwks"), issuertest.KeySet(issuer))
	r := open(t, c)
	full := strings.Repeat("x", token.MaxHeaderText)
	a := r.wantStatus(issuer.Token(map[string]any{"a": full, "b": full, "c": full, "d": "small"}), 200)
	for header, want := range map[string]string{"X-A": full, "X-B": full, "X-C": "", "X-D": ""} {
		if got := a.header.Get(header); got != want {
			t.Errorf("%s: %d bytes, want %d", header, len(got), len(want))
		}
	}
}

// A claim scope that no header can hold decides all the same.
func TestScopesAreNoHeaders(t *testing.T) {
	issuer := issuertest.New(t, "kc", "ES256")
	c := testConfig(t, redistest.Start(t).Addr)
	c.Issuers = []config.Issuer{issuer.Config()}
	c.Issuers[0].JWKSFile = issuertest.WriteFile(t, filepath.Join(t.TempDir(), "jwks"), issuertest.KeySet(issuer))
	c.Tokens.MaxBytes = 32 << 10
	r := open(t, c)
	long := strings.Repeat("scope-of-some-length ", 300) + "orders:write"
	if a := r.askFor(issuer.Token(map[string]any{"scope": long}), "orders:write"); a.status != 200 {
		t.Errorf("a long list of scopes: %d %s", a.status, a.body)
	}
	if a := r.askFor(issuer.Token(map[string]any{"scope": []any{"orders:write", "größer"}}), "orders:write"); a.status != 200 {
		t.Errorf("beside a scope that no header can hold: %d %s", a.status, a.body)
	}
	for _, scope := range []any{"orders:writeé", "größer", []any{"a orders:write"}, map[string]any{"orders:write": true}} {
		if a := r.askFor(issuer.Token(map[string]any{"scope": scope}), "orders:write"); a.status != 403 {
			t.Errorf("scope %v: %d", scope, a.status)
		}
	}
}

// 400 groups as a directory service gives them: refused by default, with the
// option's name in the log; taken where tokens.maxBytes allows.
func TestTokensMaxBytes(t *testing.T) {
	issuer := issuertest.New(t, "entra", "RS256")
	groups := make([]string, 200)
	for i := range groups {
		groups[i] = "0a1b2c3d-0000-4000-8000-0123456789ab"
	}
	large := issuer.Token(map[string]any{"groups": groups})
	for maxBytes, want := range map[int]int{0: 401, len(large) - 1: 401, len(large): 200, config.MaxTokenBytes: 200} {
		c := testConfig(t, redistest.Start(t).Addr)
		if maxBytes != 0 {
			c.Tokens.MaxBytes = maxBytes
		}
		c.Issuers = []config.Issuer{issuer.Config()}
		c.Issuers[0].JWKSFile = issuertest.WriteFile(t, filepath.Join(t.TempDir(), "jwks"), issuertest.KeySet(issuer))
		r := open(t, c)
		r.wantStatus(large, want)
		if want != 200 {
			if !strings.Contains(r.logged(), "tokens.maxBytes") {
				t.Errorf("the log does not name tokens.maxBytes:\n%s", r.logged())
			}
			continue
		}
		if a := r.call("POST", "/v1/tokens/introspect", `{"token":"`+large+`"}`); a.status != http.StatusOK || !strings.Contains(a.body, `"active":true`) {
			t.Errorf("introspection: %d %s", a.status, a.body)
		}
		if a := r.revoke(large); a.status != http.StatusOK {
			t.Errorf("revocation: %d %s", a.status, a.body)
		}
		r.wantStatus(large, 401)
	}
}

// Own tokens are held to the same bound when they are issued: what would be
// refused is given to nobody.
func TestOwnTokensKeepToMaxBytes(t *testing.T) {
	c := testConfig(t, redistest.Start(t).Addr)
	c.Tokens.MaxBytes = 2 << 10
	c.Claims["long"] = "X-Long"
	r := open(t, c)
	r.wantStatus(r.login("u1").AccessToken, 200)
	body := `{"user_id":"u1","claims":{"long":"` + strings.Repeat("x", 3000) + `"}}`
	if a := r.call("POST", "/v1/tokens", body); a.status == http.StatusOK {
		t.Errorf("a token beyond tokens.maxBytes was issued: %s", a.body)
	}
}

// A key server that never answered is named: in the log, with the issuer and
// what it means, in the metrics, by /readyz and by what refuses a token.
func TestIssuerWithoutKeysIsNamed(t *testing.T) {
	issuer := issuertest.New(t, "kc", "ES256")
	server := issuertest.NewServer(t, "")
	server.Set(500, "")
	c := testConfig(t, redistest.Start(t).Addr)
	c.Issuers = []config.Issuer{issuer.Config()}
	c.Issuers[0].JWKSURL = server.URL
	r := open(t, c)
	readyz := func() answer {
		request, err := http.NewRequest(http.MethodGet, r.public+"/readyz", nil)
		if err != nil {
			t.Fatal(err)
		}
		return r.do(request)
	}
	if a := readyz(); a.status != 503 || !strings.Contains(a.body, "issuer kc") {
		t.Errorf("/readyz without the issuer's keys: %d %s", a.status, a.body)
	}
	r.wantStatus(issuer.Token(nil), 503)
	for _, want := range []string{`"issuer":"kc","url":"` + server.URL, "none ever was", "503", "never been fetched: kc"} {
		if !strings.Contains(r.logged(), want) {
			t.Errorf("the log lacks %s:\n%s", want, r.logged())
		}
	}
	if strings.Contains(r.logged(), "the last good one stays") {
		t.Error("the log speaks of a last good one, and there was none")
	}
	if metrics := r.call("GET", "/metrics", "").body; !strings.Contains(metrics, `authsvc_issuer_keys{issuer="kc"} 0`) {
		t.Error("the metrics do not name the issuer")
	}
	// Later the others' users count more than this issuer's.
	r.health.Since = r.health.Since.Add(-time.Minute)
	if a := readyz(); a.status != 200 || !strings.Contains(a.body, "issuer kc") {
		t.Errorf("/readyz a minute later: %d %s", a.status, a.body)
	}

	source := r.judge.Issuers()[1].Source.(fetcher)
	for range 3 {
		_ = source.Fetch(t.Context())
	}
	if got := strings.Count(r.logged(), "none ever was"); got != 1 {
		t.Errorf("said %d times within a minute", got)
	}
	server.Set(200, issuertest.KeySet(issuer))
	if err := source.Fetch(t.Context()); err != nil {
		t.Fatal(err)
	}
	if a := readyz(); a.status != 200 || a.body != "ready\n" {
		t.Errorf("/readyz with the keys: %d %s", a.status, a.body)
	}
	r.wantStatus(issuer.Token(nil), 200)
	server.Set(500, "")
	_ = source.Fetch(t.Context())
	if !strings.Contains(r.logged(), "the last good one stays") {
		t.Errorf("an outage after that is not in the log:\n%s", r.logged())
	}
	server.Set(200, issuertest.KeySet(issuer))
	if err := source.Fetch(t.Context()); err != nil || !strings.Contains(r.logged(), "fetched again") {
		t.Errorf("nor its end (%v):\n%s", err, r.logged())
	}
}

// A key server whose certificate a private authority has signed.
func TestKeyServerOfAPrivateAuthority(t *testing.T) {
	issuer := issuertest.New(t, "kc", "ES256")
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, issuertest.KeySet(issuer)) }))
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)
	defer server.Close()
	dir := t.TempDir()
	ca := issuertest.WriteFile(t, filepath.Join(dir, "ca.pem"), string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})))
	c := testConfig(t, redistest.Start(t).Addr)
	c.Issuers = []config.Issuer{issuer.Config()}
	c.Issuers[0].JWKSURL = server.URL
	without := open(t, c)
	without.wantStatus(issuer.Token(nil), 503)
	if !strings.Contains(without.logged(), "certificate signed by unknown authority") {
		t.Errorf("the log does not say why:\n%s", without.logged())
	}
	with := *c
	with.Own.KeyDir = t.TempDir()
	with.Issuers = []config.Issuer{c.Issuers[0]}
	with.Issuers[0].CA = ca
	r := open(t, &with)
	r.wantStatus(issuer.Token(nil), 200)
	// The file may change, and its loss leaves the keys.
	source := r.judge.Issuers()[1].Source.(fetcher)
	issuertest.WriteFile(t, ca, "no certificate")
	if err := source.Fetch(t.Context()); err == nil || !strings.Contains(err.Error(), "no certificate in PEM") {
		t.Errorf("without a certificate: %v", err)
	}
	r.wantStatus(issuer.Token(map[string]any{"jti": "2"}), 200)

	for name, bad := range map[string]string{"missing": filepath.Join(dir, "none.pem"), "no certificate": ca} {
		broken := with
		broken.Issuers = []config.Issuer{with.Issuers[0]}
		broken.Issuers[0].CA = bad
		s := &Service{Config: &broken, Log: slog.New(slog.DiscardHandler)}
		if err := s.Open(t.Context()); err == nil || !strings.Contains(err.Error(), "issuers[0]") || !strings.Contains(err.Error(), bad) {
			t.Errorf("%s: %v", name, err)
			_ = s.Close()
		}
	}
}

// Both issuers are named to the operator: what the token says, and whose key it is.
func TestBothIssuersAreNamed(t *testing.T) {
	f := newFederation(t)
	f.wantStatus(f.byURL.Token(map[string]any{"iss": "https://url.example/"}), 401)
	for _, want := range []string{`names issuer \"https://url.example/\"`, "is of url (https://url.example)", "issuers[].issuer"} {
		if !strings.Contains(f.logged(), want) {
			t.Errorf("the log lacks %s:\n%s", want, f.logged())
		}
	}
}

// Two tenants of one provider are two issuers with one set of keys, each
// fetched at its own time.
func TestIssuersThatShareTheirKeys(t *testing.T) {
	first, second := issuertest.New(t, "first", "ES256"), issuertest.New(t, "second", "ES256")
	next := issuertest.New(t, "second", "ES256")
	firstServer, secondServer := issuertest.NewServer(t, issuertest.KeySet(second)), issuertest.NewServer(t, "")
	secondServer.Set(500, "")
	c := testConfig(t, redistest.Start(t).Addr)
	c.Issuers = []config.Issuer{first.Config(), second.Config()}
	c.Issuers[0].JWKSURL, c.Issuers[1].JWKSURL = firstServer.URL, secondServer.URL
	r := open(t, c)
	// The first issuer vouches for the signature, and cannot speak for the
	// second, of whose keys nothing is known yet.
	r.wantStatus(second.Token(nil), 503)
	source := func(i int) fetcher { return r.judge.Issuers()[i].Source.(fetcher) }
	secondServer.Set(200, issuertest.KeySet(second))
	if err := source(2).Fetch(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.wantStatus(second.Token(nil), 200)
	// After a rotation the one that was fetched sooner must not keep the other
	// from being asked.
	firstServer.Set(200, issuertest.KeySet(next))
	secondServer.Set(200, issuertest.KeySet(next))
	if err := source(1).Fetch(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.wantStatus(next.Token(nil), 200)
}
