package authsvc

import (
	"context"
	"crypto"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/sluice-gateway/sluice/authsvc/internal/redistest"
	"github.com/sluice-gateway/sluice/authsvc/token"
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

func (f *foreign) config() IssuerConfig {
	return IssuerConfig{
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
	c.Issuers = []IssuerConfig{f.byURL.config(), f.byFile.config(), f.byPEM.config(), f.secret.config()}
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

// jwksServer is an issuer's key server that counts and can misbehave.
type jwksServer struct {
	*httptest.Server
	requests atomic.Int64

	mu      sync.Mutex // protects what follows
	body    string
	status  int
	holding chan struct{} // requests wait for it to be closed
}

func newJWKSServer(t testing.TB, body string) *jwksServer {
	s := &jwksServer{body: body, status: 200}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.requests.Add(1)
		s.mu.Lock()
		body, status, holding := s.body, s.status, s.holding
		s.mu.Unlock()
		if holding != nil {
			select {
			case <-holding:
			case <-r.Context().Done():
			}
		}
		w.Header().Set("Location", "/elsewhere")
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *jwksServer) set(status int, body string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status, s.body = status, body
}

func TestEveryKindOfIssuer(t *testing.T) {
	f := newFederation(t)
	for _, issuer := range f.foreign {
		good := issuer.token(map[string]any{"plan": "pro", "scope": "a b"})
		a := f.wantStatus(good, 200)
		if got := a.header.Get("X-User-ID"); got != issuer.name+":42" {
			t.Errorf("%s: user %q", issuer.name, got)
		}
		if a.header.Get("X-User-Plan") != "pro" || a.header.Get("X-User-Scopes") != "a b" {
			t.Errorf("%s: %v", issuer.name, a.header)
		}
		if a := f.revoke(good); a.status != 200 {
			t.Errorf("%s: revoke %d", issuer.name, a.status)
		}
		f.wantStatus(good, 401)
		// Another token of the same user, and the user-wide mark (RULES 9).
		other := issuer.token(map[string]any{"jti": "other"})
		f.wantStatus(other, 200)
		if a := f.call("POST", "/v1/users/"+issuer.name+":42/revoke", ""); a.status != 200 {
			t.Fatalf("%s: user revoke %d", issuer.name, a.status)
		}
		f.wantStatus(other, 401)
		f.wantStatus(issuer.token(map[string]any{"iat": nil}), 401) // cannot prove that it is younger
	}
}

// No issuer speaks for another, with any key of its own.
func TestIssuersAreKeptApart(t *testing.T) {
	f := newFederation(t)
	all := append([]*foreign{}, f.foreign...)
	for _, signer := range all {
		for _, claimed := range all {
			want := 401
			if signer == claimed {
				want = 200
			}
			f.wantStatus(signer.token(map[string]any{"iss": "https://" + claimed.name + ".example"}), want)
		}
		for _, changes := range []map[string]any{
			{"iss": "sluice", "aud": "sluice"}, {"aud": "other"}, {"aud": "sluice"}, {"aud": nil}, {"iss": nil},
			{"sub": nil}, {"sub": ""}, {"sub": 42}, {"sub": strings.Repeat("x", 300)}, {"sub": "a\r\nb"},
		} {
			f.wantStatus(signer.token(changes), 401)
		}
	}
}

// A changed file counts within seconds, a broken one does not count at all,
// and tokens that were verified by a key that is gone are refused.
func TestKeyFilesAreReadAgain(t *testing.T) {
	f := newFederation(t)
	next := newForeign(t, "file", "PS256")
	old, young := f.byFile.token(nil), next.token(nil)
	f.wantStatus(old, 200)
	f.wantStatus(young, 401)
	path := filepath.Join(f.dir, "jwks.json")

	for _, broken := range []string{"", "{", `{"keys":[]}`, `{"keys":[` + strings.Replace(next.jwk(), "{", `{"d":"AAAA",`, 1) + `]}`} {
		writeFile(t, path, broken)
		stamp := time.Now().Add(time.Duration(len(broken)) * time.Second) // another time than before
		if err := os.Chtimes(path, stamp, stamp); err != nil {
			t.Fatal(err)
		}
	}
	redistest.Eventually(t, 10*time.Second, "the broken file is complained about", func() bool {
		return strings.Contains(f.logged(), "changed key file not taken over")
	})
	f.wantStatus(old, 200)

	writeFile(t, path, keySet(next))
	redistest.Eventually(t, 10*time.Second, "the new key counts", func() bool { return f.ask(young).status == 200 })
	f.wantStatus(old, 401)
}

// remote opens a key source on a server, with short intervals.
func remote(t *testing.T, server *jwksServer, every, unknown time.Duration) *remoteKeys {
	t.Helper()
	keys := newRemoteKeys(server.URL, func() {}, slog.New(slog.DiscardHandler))
	keys.every, keys.unknown = every, unknown
	ctx, cancel := context.WithCancel(context.Background())
	if err := keys.fetch(ctx); err != nil {
		t.Fatal(err)
	}
	var task sync.WaitGroup
	task.Go(func() { keys.watch(ctx) })
	t.Cleanup(func() { cancel(); task.Wait() })
	return keys
}

func (k *remoteKeys) has(f *foreign) bool {
	set, _ := k.keys()
	return len(set.Candidates(f.signer.Algorithm, f.signer.KeyID)) > 0
}

// RULES 45: a key that is absent from two good answers in a row is dead; an
// outage, however long, kills none.
func TestRemovedKeysDie(t *testing.T) {
	a, b := newForeign(t, "a", "ES256"), newForeign(t, "b", "ES256")
	server := newJWKSServer(t, keySet(a, b))
	keys := remote(t, server, 20*time.Millisecond, time.Hour)
	redistest.Eventually(t, 5*time.Second, "keys arrive", func() bool { return keys.has(a) && keys.has(b) })

	for _, bad := range []struct {
		status int
		body   string
	}{
		{500, keySet(b)}, {404, ""}, {302, keySet(b)}, {200, ""}, {200, "{}"}, {200, `{"keys":[]}`}, {200, keySet(b) + "x"},
		{200, `{"keys":[{"kty":"oct","k":"` + strings.Repeat("A", 64) + `"}]}`},
		{200, `{"keys":[],"x":"` + strings.Repeat("a", jwksMaxSize) + `"}`},
	} {
		server.set(bad.status, bad.body)
		n := server.requests.Load()
		redistest.Eventually(t, 5*time.Second, "a few fetches", func() bool { return server.requests.Load() > n+3 })
		if !keys.has(a) || !keys.has(b) {
			t.Errorf("answer %d %.30q killed a key", bad.status, bad.body)
		}
	}
	server.set(200, keySet(b))
	redistest.Eventually(t, 5*time.Second, "the removed key dies", func() bool { return !keys.has(a) })
	if !keys.has(b) {
		t.Error("the other key died as well")
	}
	server.set(200, keySet(a, b))
	redistest.Eventually(t, 5*time.Second, "a key that returns counts", func() bool { return keys.has(a) })
}

func TestMergeKeepsAKeyForOneAbsence(t *testing.T) {
	a, b := newForeign(t, "a", "ES256").signer.Key(), newForeign(t, "b", "ES256").signer.Key()
	both, onlyB := token.NewKeySet(a, b), token.NewKeySet(b)
	set, missing := merge(both, onlyB, nil)
	if set.Len() != 2 {
		t.Error("dead after one absence")
	}
	if set, missing = merge(set, onlyB, missing); set.Len() != 1 || len(missing) != 0 {
		t.Error("alive after two absences")
	}
	replaced := a
	replaced.ID = b.ID
	if set, _ := merge(onlyB, token.NewKeySet(replaced), nil); set.Len() != 1 {
		t.Error("a kid that was given to another key still means the old one, too")
	}
}

// RULES 45: a flood of unknown kids causes one fetch, holds one request, and
// that for a second at most.
func TestUnknownKidFlood(t *testing.T) {
	a, b := newForeign(t, "a", "ES256"), newForeign(t, "b", "ES256")
	server := newJWKSServer(t, keySet(a))
	keys := remote(t, server, time.Hour, time.Hour)
	redistest.Eventually(t, 5*time.Second, "keys arrive", func() bool { return keys.has(a) })
	before := server.requests.Load()

	release := make(chan struct{})
	server.mu.Lock()
	server.holding = release
	server.mu.Unlock()
	var looked, quick atomic.Int64
	var all sync.WaitGroup
	for i := range 200 {
		all.Go(func() {
			started := time.Now()
			if keys.refresh(context.Background(), fmt.Sprint("unknown", i)) {
				looked.Add(1)
			}
			took := time.Since(started)
			if took < jwksWait/2 {
				quick.Add(1)
			}
			if took > jwksWait+2*time.Second {
				t.Errorf("a token waited %s", took)
			}
		})
	}
	all.Wait()
	if got := server.requests.Load() - before; got != 1 {
		t.Errorf("%d fetches for a flood, want 1", got)
	}
	if looked.Load() != 0 || quick.Load() != 199 {
		t.Errorf("%d looked, %d were told at once; want 0 and 199", looked.Load(), quick.Load())
	}
	close(release)

	// With an honest server the one that asks gets the new key.
	server.set(200, keySet(a, b))
	keys.mu.Lock()
	keys.asked, server.holding = time.Time{}, nil
	keys.mu.Unlock()
	redistest.Eventually(t, 5*time.Second, "the fetch in flight ends", func() bool {
		keys.mu.Lock()
		defer keys.mu.Unlock()
		return keys.done == nil
	})
	if !keys.refresh(context.Background(), b.signer.KeyID) || !keys.has(b) {
		t.Error("a new key is not found by the token that needs it")
	}
	if keys.refresh(context.Background(), b.signer.KeyID) {
		t.Error("a known kid was looked for")
	}
}

// A rotation at the issuer is found by the first token that bears the new kid.
func TestRotationAtTheIssuer(t *testing.T) {
	f := newFederation(t)
	next := newForeign(t, "url", "ES256")
	f.jwks.set(200, keySet(f.byURL, next))
	f.wantStatus(next.token(nil), 200)
	f.wantStatus(f.byURL.token(nil), 200)
}

// An issuer whose keys never arrived: neither yes nor no.
func TestIssuerWithoutKeysYet(t *testing.T) {
	redis := redistest.Start(t)
	issuer := newForeign(t, "late", "ES256")
	server := newJWKSServer(t, "")
	server.set(503, "")
	c := testConfig(t, redis.Addr)
	c.Issuers = []IssuerConfig{issuer.config()}
	c.Issuers[0].JWKSURL = server.URL
	r := open(t, c)
	a := r.wantStatus(issuer.token(nil), 503)
	if a.header.Get("Retry-After") == "" {
		t.Error("503 without Retry-After")
	}
	r.wantStatus(r.login("u1").AccessToken, 200) // the others go on
}

// What must stop a start, all of it at once.
func TestBadKeysStopTheStart(t *testing.T) {
	redis := redistest.Start(t)
	dir := t.TempDir()
	good := newForeign(t, "good", "ES256")
	exposed := `{"keys":[` + strings.Replace(good.jwk(), "{", `{"d":"AAAA",`, 1) + `]}`
	for name, test := range map[string]struct {
		issuer IssuerConfig
		want   string
	}{
		"sample secret":   {IssuerConfig{Algorithms: []string{"HS256"}, SecretFile: writeFile(t, filepath.Join(dir, "1"), "your-256-bit-secret-your-256-bit")}, "sample text"},
		"short secret":    {IssuerConfig{Algorithms: []string{"HS256"}, SecretFile: writeFile(t, filepath.Join(dir, "2"), "short")}, "at least 32"},
		"empty secret":    {IssuerConfig{Algorithms: []string{"HS256"}, SecretFile: writeFile(t, filepath.Join(dir, "3"), "\n")}, "at least 32"},
		"repeated":        {IssuerConfig{Algorithms: []string{"HS256"}, SecretFile: writeFile(t, filepath.Join(dir, "4"), strings.Repeat("abcdefghijkl", 4))}, "repeats itself"},
		"exposed":         {IssuerConfig{Algorithms: []string{"ES256"}, JWKSFile: writeFile(t, filepath.Join(dir, "5"), exposed)}, "private half"},
		"no file":         {IssuerConfig{Algorithms: []string{"ES256"}, JWKSFile: filepath.Join(dir, "none")}, "no such file"},
		"not a set":       {IssuerConfig{Algorithms: []string{"ES256"}, JWKSFile: writeFile(t, filepath.Join(dir, "6"), "x")}, "key set"},
		"other algorithm": {IssuerConfig{Algorithms: []string{"RS256"}, JWKSFile: writeFile(t, filepath.Join(dir, "7"), keySet(good))}, "no key fits"},
		"exposed by URL":  {IssuerConfig{Algorithms: []string{"ES256"}, JWKSURL: newJWKSServer(t, exposed).URL}, "private half"},
	} {
		c := testConfig(t, redis.Addr)
		test.issuer.Name, test.issuer.Issuer, test.issuer.Audiences, test.issuer.UserPrefix = "x", "https://x.example", []string{"api"}, "x:"
		other := good.config()
		other.JWKSFile = filepath.Join(dir, "none either")
		c.Issuers = []IssuerConfig{test.issuer, other}
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
// second (RULES 27).
func TestPrefixesDoNotOverlap(t *testing.T) {
	redis := redistest.Start(t)
	issuer := newForeign(t, "ext", "ES256")
	c := testConfig(t, redis.Addr)
	c.Issuers = []IssuerConfig{issuer.config()}
	c.Issuers[0].JWKSFile = writeFile(t, filepath.Join(t.TempDir(), "jwks"), keySet(issuer))
	r := open(t, c)
	r.wantStatus(issuer.token(nil), 200)
	r.wantStatus(r.login("42").AccessToken, 200)
	r.wantStatus(r.login("ext:42").AccessToken, 401)
}

// TestAttacksOverHTTP sends the list of RFC 8725 and of the issue to /auth, for
// every kind of key: none is admitted, none is answered with 5xx, and not one
// connection goes to an address that a token names.
func TestAttacksOverHTTP(t *testing.T) {
	f := newFederation(t)
	trap, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer trap.Close()
	var lured atomic.Int64
	go func() {
		for {
			conn, err := trap.Accept()
			if err != nil {
				return
			}
			lured.Add(1)
			conn.Close()
		}
	}()
	bait := "http://" + trap.Addr().String()
	tried := 0
	for _, issuer := range f.foreign {
		alg, kid := issuer.signer.Algorithm, issuer.signer.KeyID
		good := issuer.token(nil)
		f.wantStatus(good, 200)
		parts := strings.Split(good, ".")
		attacks := []string{
			"", "..", "a.b.c", parts[0] + "." + parts[1], parts[0] + "." + parts[1] + ".", good + ".", good + "." + parts[2], good + "=",
			parts[0] + ".." + parts[2], parts[1] + "." + parts[0] + "." + parts[2], strings.ToUpper(good), good[1:], good[:len(good)-1],
			parts[0] + "." + parts[1] + "." + strings.Repeat("A", len(parts[2])), strings.Repeat("A", 9<<10), strings.Repeat("a.", 4000),
			good + "A", parts[0] + "." + parts[1] + "." + parts[2] + parts[2],
		}
		for i := len(parts[0]) + len(parts[1]) + 2; i < len(good); i++ {
			for _, c := range "Az09_-" {
				if edited := good[:i] + string(c) + good[i+1:]; edited != good {
					attacks = append(attacks, edited)
				}
			}
		}
		for _, none := range []string{"none", "None", "NONE", "nOnE", ""} {
			head := base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, `{"alg":%q,"kid":%q}`, none, kid))
			attacks = append(attacks, head+"."+parts[1]+".", head+"."+parts[1]+"."+parts[2])
		}
		for _, member := range []string{
			`"jku":"` + bait + `"`, `"x5u":"` + bait + `"`, `"jwk":{"kty":"oct","k":"AAAA"}`, `"x5c":["AAAA"]`, `"crit":["exp"],"exp":1`,
			`"b64":false,"crit":["b64"]`, `"zip":"DEF"`, `"enc":"A128GCM"`, `"ALG":"none"`, `"alg":"none"`, `"typ":"logout+jwt"`, `"typ":1`,
		} {
			attacks = append(attacks, issuer.raw(fmt.Sprintf(`{"alg":%q,"kid":%q,%s}`, alg, kid, member), issuer.claims(nil)))
		}
		for _, kid := range []string{"../../etc/passwd", "' or 1=1", "\u0000", bait, strings.Repeat("k", 4096), "other"} {
			text, _ := json.Marshal(kid)
			if issuer == f.secret || issuer == f.byPEM { // their keys have no name: any kid will do
				continue
			}
			attacks = append(attacks, issuer.raw(fmt.Sprintf(`{"alg":%q,"kid":%s}`, alg, text), issuer.claims(nil)))
		}
		for _, changes := range []map[string]any{
			{"exp": nil}, {"exp": 0}, {"exp": "0"}, {"exp": 1e308}, {"exp": -1}, {"exp": time.Now().Add(-time.Minute).Unix()},
			{"exp": time.Now().Add(48 * time.Hour).Unix()}, {"nbf": time.Now().Add(time.Hour).Unix()}, {"nbf": "0"},
			{"iat": time.Now().Add(time.Hour).Unix()}, {"iat": "now"}, {"aud": []any{}}, {"aud": 1}, {"aud": []any{"api", 1}}, {"aud": map[string]any{"api": 1}},
			{"iss": []string{"x"}}, {"sub": "x\r\nX-User-Plan: pro"}, {"sub": " 42"}, {"sub": "ü"}, {"SUB": "1"}, {"\u017fub": "1"},
			{"plan": map[string]any{"a": 1}}, {"plan": "pro\r\nX-Admin: 1"}, {"scope": "ü"}, {"x": strings.Repeat("a", 20<<10)}, {"x": strings.Repeat("a", 64<<10)}, {"sid": "a\nb"}, {"jti": 1},
		} {
			attacks = append(attacks, issuer.token(changes))
		}
		attacks = append(attacks,
			issuer.raw(issuer.header(), `{"iss":"x"`), issuer.raw(issuer.header(), issuer.claims(nil)+"{}"), issuer.raw(issuer.header(), "\xff"),
			issuer.raw(issuer.header(), strings.Repeat("[", 3000)), issuer.raw(issuer.header(), good), issuer.raw(issuer.header(), ""),
		)
		if public, ok, _ := issuer.signer.PublicJWK(); ok {
			for _, hmac := range []string{"HS256", "HS384", "HS512"} {
				input := base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, `{"alg":%q,"kid":%q}`, hmac, kid)) + "." + parts[1]
				signature, _ := jwt.GetSigningMethod(hmac).Sign(input, []byte(public))
				attacks = append(attacks, input+"."+base64.RawURLEncoding.EncodeToString(signature))
			}
		}
		for _, attack := range attacks {
			tried++
			want := 401
			if len(attack) > 68<<10 { // more than the listener reads
				want = 431
			}
			if a := f.ask(attack); a.status != want {
				t.Errorf("%s: %d for %.200q", issuer.name, a.status, attack)
			}
		}
		f.wantStatus(good, 200)
	}
	if lured.Load() != 0 {
		t.Errorf("%d connections to addresses that tokens name", lured.Load())
	}
	t.Logf("%d attacks, 0 admitted", tried)
}

// An issuer's list of algorithms holds although its keys could do more.
func TestIssuerAlgorithms(t *testing.T) {
	redis := redistest.Start(t)
	issuer := newForeign(t, "rsa", "RS256")
	unbound := strings.Replace(issuer.jwk(), `"alg":"RS256",`, "", 1)
	c := testConfig(t, redis.Addr)
	c.Issuers = []IssuerConfig{issuer.config()}
	c.Issuers[0].JWKSFile = writeFile(t, filepath.Join(t.TempDir(), "jwks"), `{"keys":[`+unbound+`]}`)
	r := open(t, c)
	r.wantStatus(issuer.token(nil), 200)
	other, err := token.NewSigner("RS512", issuer.signer.Private())
	if err != nil {
		t.Fatal(err)
	}
	r.wantStatus((&foreign{name: "rsa", signer: other}).token(nil), 401)
}

// 42 and "42" may be two users at the issuer.
func TestUserClaimIsText(t *testing.T) {
	redis := redistest.Start(t)
	issuer := newForeign(t, "ext", "ES256")
	c := testConfig(t, redis.Addr)
	c.Issuers = []IssuerConfig{issuer.config()}
	c.Issuers[0].UserClaim = "https://ext.example/user"
	c.Issuers[0].JWKSFile = writeFile(t, filepath.Join(t.TempDir(), "jwks"), keySet(issuer))
	r := open(t, c)
	user := func(value any) string { return issuer.token(map[string]any{"https://ext.example/user": value}) }
	if got := r.wantStatus(user("42"), 200).header.Get("X-User-ID"); got != "ext:42" {
		t.Errorf("user %q", got)
	}
	for _, value := range []any{42, true, []string{"42"}, map[string]any{"id": "42"}, "", nil} {
		r.wantStatus(user(value), 401)
	}
}

// The answer's size is bounded though it would parse (RULES 45).
func TestJWKSAnswerIsBounded(t *testing.T) {
	a := newForeign(t, "a", "ES256")
	large := keySet(a) + strings.Repeat(" ", jwksMaxSize)
	keys := newRemoteKeys(newJWKSServer(t, large).URL, func() {}, slog.New(slog.DiscardHandler))
	if err := keys.fetch(context.Background()); err == nil || keys.has(a) {
		t.Errorf("an answer of %d bytes was taken: %v", len(large), err)
	}
}

// Tenants of one provider have one key set and different names.
func TestIssuersMayShareAKey(t *testing.T) {
	redis := redistest.Start(t)
	first := newForeign(t, "first", "ES256")
	second := &foreign{name: "second", signer: first.signer}
	path := writeFile(t, filepath.Join(t.TempDir(), "jwks"), keySet(first))
	c := testConfig(t, redis.Addr)
	c.Issuers = []IssuerConfig{first.config(), second.config()}
	c.Issuers[0].JWKSFile, c.Issuers[1].JWKSFile = path, path
	r := open(t, c)
	for _, issuer := range []*foreign{first, second} {
		if got := r.wantStatus(issuer.token(nil), 200).header.Get("X-User-ID"); got != issuer.name+":42" {
			t.Errorf("%s: user %q", issuer.name, got)
		}
	}
	r.wantStatus((&foreign{name: "third", signer: first.signer}).token(nil), 401)
}

func TestJWKSRedirectIsNotFollowed(t *testing.T) {
	a := newForeign(t, "a", "ES256")
	elsewhere := newJWKSServer(t, keySet(a))
	redirecting := httptest.NewServer(http.RedirectHandler(elsewhere.URL, http.StatusFound))
	t.Cleanup(redirecting.Close)
	keys := newRemoteKeys(redirecting.URL, func() {}, slog.New(slog.DiscardHandler))
	if err := keys.fetch(context.Background()); err == nil || keys.has(a) || elsewhere.requests.Load() != 0 {
		t.Errorf("a redirect was followed: %v", err)
	}
}
