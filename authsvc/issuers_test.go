package authsvc

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/authsvc/config"
	"github.com/sluice-gateway/sluice/authsvc/internal/issuertest"
	"github.com/sluice-gateway/sluice/authsvc/token"
	"github.com/sluice-gateway/sluice/internal/redistest"
)

func TestEveryKindOfIssuer(t *testing.T) {
	f := newFederation(t)
	for _, issuer := range f.foreign {
		good := issuer.Token(map[string]any{"plan": "pro", "scope": "a b"})
		a := f.wantStatus(good, 200)
		if got := a.header.Get("X-User-ID"); got != issuer.Name+":42" {
			t.Errorf("%s: user %q", issuer.Name, got)
		}
		if a.header.Get("X-User-Plan") != "pro" || a.header.Get("X-User-Scopes") != "a b" {
			t.Errorf("%s: %v", issuer.Name, a.header)
		}
		if a := f.revoke(good); a.status != 200 {
			t.Errorf("%s: revoke %d", issuer.Name, a.status)
		}
		f.wantStatus(good, 401)
		// Another token of the same user, and the user-wide mark (design: void-before).
		other := issuer.Token(map[string]any{"jti": "other"})
		f.wantStatus(other, 200)
		if a := f.call("POST", "/v1/users/"+issuer.Name+":42/revoke", ""); a.status != 200 {
			t.Fatalf("%s: user revoke %d", issuer.Name, a.status)
		}
		f.wantStatus(other, 401)
		f.wantStatus(issuer.Token(map[string]any{"iat": nil}), 401) // cannot prove that it is younger
	}
}

// No issuer speaks for another, with any key of its own.
func TestIssuersAreKeptApart(t *testing.T) {
	f := newFederation(t)
	all := append([]*issuertest.Issuer{}, f.foreign...)
	for _, signer := range all {
		for _, claimed := range all {
			want := 401
			if signer == claimed {
				want = 200
			}
			f.wantStatus(signer.Token(map[string]any{"iss": "https://" + claimed.Name + ".example"}), want)
		}
		for _, changes := range []map[string]any{
			{"iss": "sluice", "aud": "sluice"}, {"aud": "other"}, {"aud": "sluice"}, {"aud": nil}, {"iss": nil},
			{"sub": nil}, {"sub": ""}, {"sub": 42}, {"sub": strings.Repeat("x", 300)}, {"sub": "a\r\nb"},
		} {
			f.wantStatus(signer.Token(changes), 401)
		}
	}
}

// A changed file counts within seconds, a broken one does not count at all,
// and tokens that were verified by a key that is gone are refused.
func TestKeyFilesAreReadAgain(t *testing.T) {
	t.Parallel() // it waits, mostly
	f := newFederation(t)
	next := issuertest.New(t, "file", "PS256")
	old, young := f.byFile.Token(nil), next.Token(nil)
	f.wantStatus(old, 200)
	f.wantStatus(young, 401)
	path := filepath.Join(f.dir, "jwks.json")

	for _, broken := range []string{"", "{", `{"keys":[]}`, `{"keys":[` + strings.Replace(next.JWK(), "{", `{"d":"AAAA",`, 1) + `]}`} {
		issuertest.WriteFile(t, path, broken)
		stamp := time.Now().Add(time.Duration(len(broken)) * time.Second) // another time than before
		if err := os.Chtimes(path, stamp, stamp); err != nil {
			t.Fatal(err)
		}
	}
	redistest.Eventually(t, 10*time.Second, "the broken file is complained about", func() bool {
		return strings.Contains(f.logged(), "changed key file not taken over")
	})
	f.wantStatus(old, 200)

	issuertest.WriteFile(t, path, issuertest.KeySet(next))
	redistest.Eventually(t, 10*time.Second, "the new key counts", func() bool { return f.ask(young).status == 200 })
	f.wantStatus(old, 401)
}

// A rotation at the issuer is found by the first token that bears the new kid.
func TestRotationAtTheIssuer(t *testing.T) {
	f := newFederation(t)
	next := issuertest.New(t, "url", "ES256")
	f.jwks.Set(200, issuertest.KeySet(f.byURL, next))
	f.wantStatus(next.Token(nil), 200)
	f.wantStatus(f.byURL.Token(nil), 200)
}

// An issuer whose keys never arrived: neither yes nor no.
func TestIssuerWithoutKeysYet(t *testing.T) {
	redis := redistest.Start(t)
	issuer := issuertest.New(t, "late", "ES256")
	server := issuertest.NewServer(t, "")
	server.Set(503, "")
	c := testConfig(t, redis.Addr)
	c.Issuers = []config.Issuer{issuer.Config()}
	c.Issuers[0].JWKSURL = server.URL
	r := open(t, c)
	a := r.wantStatus(issuer.Token(nil), 503)
	if a.header.Get("Retry-After") == "" {
		t.Error("503 without Retry-After")
	}
	r.wantStatus(r.login("u1").AccessToken, 200) // the others go on
}

// Gateways wait for a second (auth.timeout) and then hold authsvc to be away, for
// every user. One made-up token must not bring that about while key servers hang,
// however many issuers there are.
func TestHungKeyServersLookLikeNoOutage(t *testing.T) {
	const gatewayWaits = time.Second
	c := testConfig(t, redistest.Start(t).Addr)
	release := make(chan struct{})
	defer close(release)
	var servers []*issuertest.Server
	for i := range 3 {
		f := issuertest.New(t, fmt.Sprint("slow", i), "ES256")
		server := issuertest.NewServer(t, issuertest.KeySet(f))
		servers = append(servers, server)
		issuer := f.Config()
		issuer.JWKSURL = server.URL
		c.Issuers = append(c.Issuers, issuer)
	}
	r := open(t, c)
	for _, server := range servers {
		server.Hold(release)
	}
	stranger := issuertest.New(t, "stranger", "ES256")
	begun := time.Now()
	r.wantStatus(stranger.Token(nil), 401)
	if took := time.Since(begun); took >= gatewayWaits {
		t.Errorf("the answer took %v", took)
	}
}

// What must stop a start, all of it at once.
func TestBadKeysStopTheStart(t *testing.T) {
	redis := redistest.Start(t)
	dir := t.TempDir()
	good := issuertest.New(t, "good", "ES256")
	exposed := `{"keys":[` + strings.Replace(good.JWK(), "{", `{"d":"AAAA",`, 1) + `]}`
	for name, test := range map[string]struct {
		issuer config.Issuer
		want   string
	}{
		"sample secret":   {config.Issuer{Algorithms: []string{"HS256"}, SecretFile: issuertest.WriteFile(t, filepath.Join(dir, "1"), "your-256-bit-secret-your-256-bit")}, "low entropy"},
		"listed secret":   {config.Issuer{Algorithms: []string{"HS256"}, SecretFile: issuertest.WriteFile(t, filepath.Join(dir, "8"), "07ee344d-8eb4-455f-8cc3-f641406e8820\n")}, "public list"},
		"words":           {config.Issuer{Algorithms: []string{"HS256"}, SecretFile: issuertest.WriteFile(t, filepath.Join(dir, "9"), "iwillneverforgetthedayiwenttothezoo")}, "low entropy"},
		"listed in a set": {config.Issuer{Algorithms: []string{"HS256"}, JWKSFile: issuertest.WriteFile(t, filepath.Join(dir, "10"), `{"keys":[{"kty":"oct","k":"`+base64.RawURLEncoding.EncodeToString([]byte("07ee344d-8eb4-455f-8cc3-f641406e8820"))+`"}]}`)}, "public list"},
		"short secret":    {config.Issuer{Algorithms: []string{"HS256"}, SecretFile: issuertest.WriteFile(t, filepath.Join(dir, "2"), "short")}, "at least 32"},
		"empty secret":    {config.Issuer{Algorithms: []string{"HS256"}, SecretFile: issuertest.WriteFile(t, filepath.Join(dir, "3"), "\n")}, "at least 32"},
		"repeated":        {config.Issuer{Algorithms: []string{"HS256"}, SecretFile: issuertest.WriteFile(t, filepath.Join(dir, "4"), strings.Repeat("abcdefghijkl", 4))}, "repetition"},
		"exposed":         {config.Issuer{Algorithms: []string{"ES256"}, JWKSFile: issuertest.WriteFile(t, filepath.Join(dir, "5"), exposed)}, "private half"},
		"no file":         {config.Issuer{Algorithms: []string{"ES256"}, JWKSFile: filepath.Join(dir, "none")}, "no such file"},
		"not a set":       {config.Issuer{Algorithms: []string{"ES256"}, JWKSFile: issuertest.WriteFile(t, filepath.Join(dir, "6"), "x")}, "key set"},
		"other algorithm": {config.Issuer{Algorithms: []string{"RS256"}, JWKSFile: issuertest.WriteFile(t, filepath.Join(dir, "7"), issuertest.KeySet(good))}, "no key fits"},
		"exposed by URL":  {config.Issuer{Algorithms: []string{"ES256"}, JWKSURL: issuertest.NewServer(t, exposed).URL}, "private half"},
	} {
		c := testConfig(t, redis.Addr)
		test.issuer.Name, test.issuer.Issuer, test.issuer.Audiences, test.issuer.UserPrefix = "x", "https://x.example", []string{"api"}, "x:"
		other := good.Config()
		other.JWKSFile = filepath.Join(dir, "none either")
		c.Issuers = []config.Issuer{test.issuer, other}
		s := &Service{Config: c, Log: slog.New(slog.DiscardHandler)}
		err := s.Open(context.Background())
		if err == nil {
			t.Errorf("%s: opened", name)
			_ = s.Close()
			continue
		}
		if !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), "none either") {
			t.Errorf("%s: %v, want %q and the other mistake", name, err, test.want)
		}
	}
}

// With prefixes "" and "ext:" a user of the first must not take a name of the
// second (design: user-prefix).
func TestPrefixesDoNotOverlap(t *testing.T) {
	redis := redistest.Start(t)
	issuer := issuertest.New(t, "ext", "ES256")
	c := testConfig(t, redis.Addr)
	c.Issuers = []config.Issuer{issuer.Config()}
	c.Issuers[0].JWKSFile = issuertest.WriteFile(t, filepath.Join(t.TempDir(), "jwks"), issuertest.KeySet(issuer))
	r := open(t, c)
	r.wantStatus(issuer.Token(nil), 200)
	r.wantStatus(r.login("42").AccessToken, 200)
	if a := r.call("POST", "/v1/tokens", `{"user_id":"ext:42"}`); a.status != 400 || !strings.Contains(a.body, `those of issuer`) {
		t.Errorf("a token for nothing was issued: %d %s", a.status, a.body)
	}
	signer, err := r.keyDir.Signer(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	stray, err := signer.Issue(token.Grant{Issuer: "sluice", Audience: "sluice", Subject: "ext:42", Issued: time.Now(), TTL: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	r.wantStatus(stray, 401)
}

// An issuer's list of algorithms holds although its keys could do more.
func TestIssuerAlgorithms(t *testing.T) {
	redis := redistest.Start(t)
	issuer := issuertest.New(t, "rsa", "RS256")
	unbound := strings.Replace(issuer.JWK(), `"alg":"RS256",`, "", 1)
	c := testConfig(t, redis.Addr)
	c.Issuers = []config.Issuer{issuer.Config()}
	c.Issuers[0].JWKSFile = issuertest.WriteFile(t, filepath.Join(t.TempDir(), "jwks"), `{"keys":[`+unbound+`]}`)
	r := open(t, c)
	r.wantStatus(issuer.Token(nil), 200)
	other, err := token.NewSigner("RS512", issuer.Signer.Private())
	if err != nil {
		t.Fatal(err)
	}
	r.wantStatus((&issuertest.Issuer{Name: "rsa", Signer: other}).Token(nil), 401)
}

// 42 and "42" may be two users at the issuer.
func TestUserClaimIsText(t *testing.T) {
	redis := redistest.Start(t)
	issuer := issuertest.New(t, "ext", "ES256")
	c := testConfig(t, redis.Addr)
	c.Issuers = []config.Issuer{issuer.Config()}
	c.Issuers[0].UserClaim = "https://ext.example/user"
	c.Issuers[0].JWKSFile = issuertest.WriteFile(t, filepath.Join(t.TempDir(), "jwks"), issuertest.KeySet(issuer))
	r := open(t, c)
	user := func(value any) string { return issuer.Token(map[string]any{"https://ext.example/user": value}) }
	if got := r.wantStatus(user("42"), 200).header.Get("X-User-ID"); got != "ext:42" {
		t.Errorf("user %q", got)
	}
	for _, value := range []any{42, true, []string{"42"}, map[string]any{"id": "42"}, "", nil} {
		r.wantStatus(user(value), 401)
	}
}

// Tenants of one provider have one key set and different names.
func TestIssuersMayShareAKey(t *testing.T) {
	redis := redistest.Start(t)
	first := issuertest.New(t, "first", "ES256")
	second := &issuertest.Issuer{Name: "second", Signer: first.Signer}
	path := issuertest.WriteFile(t, filepath.Join(t.TempDir(), "jwks"), issuertest.KeySet(first))
	c := testConfig(t, redis.Addr)
	c.Issuers = []config.Issuer{first.Config(), second.Config()}
	c.Issuers[0].JWKSFile, c.Issuers[1].JWKSFile = path, path
	r := open(t, c)
	for _, issuer := range []*issuertest.Issuer{first, second} {
		if got := r.wantStatus(issuer.Token(nil), 200).header.Get("X-User-ID"); got != issuer.Name+":42" {
			t.Errorf("%s: user %q", issuer.Name, got)
		}
	}
	r.wantStatus((&issuertest.Issuer{Name: "third", Signer: first.Signer}).Token(nil), 401)
}

// A token whose signature is remembered expires all the same.
func TestRememberedTokenExpires(t *testing.T) {
	r, _ := start(t)
	compact, now := r.login("u1").AccessToken, time.Now()
	for range 2 {
		if _, err := r.judge.Verify(t.Context(), compact, now); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := r.judge.Verify(t.Context(), compact, now.Add(r.Config.Own.TTL+time.Minute)); !errors.Is(err, token.ErrExpired) {
		t.Errorf("after its time: %v", err)
	}
}
