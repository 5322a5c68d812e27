package authsvc

import (
	"bytes"
	"context"
	"encoding/json"
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
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/authsvc/internal/redistest"
	"github.com/sluice-gateway/sluice/authsvc/token"
)

// replicas opens several authsvc over one Redis and one key folder.
func replicas(t *testing.T, redis string, n int, change func(*Config)) (all []*replica) {
	t.Helper()
	keys := t.TempDir()
	var mu sync.Mutex
	var together sync.WaitGroup
	for range n { // at once: all find an empty key folder
		together.Go(func() {
			c := testConfig(t, redis)
			c.Own.KeyDir = keys
			if change != nil {
				change(c)
			}
			r := open(t, c)
			mu.Lock()
			defer mu.Unlock()
			all = append(all, r)
		})
	}
	together.Wait()
	for _, r := range all {
		r.awaitStream()
	}
	return all
}

// Three replicas behave as one: keys, secrets, tokens, revocations, rotation.
func TestReplicasBehaveAsOne(t *testing.T) {
	redis := redistest.Start(t)
	all := replicas(t, redis.Addr, 3, nil)
	a, b, c := all[0], all[1], all[2]
	if a.AdminToken() != b.AdminToken() || b.IssuerToken() != c.IssuerToken() {
		t.Error("replicas have different secrets")
	}
	if files, _ := filepath.Glob(filepath.Join(a.Config.Own.KeyDir, "*.pem")); len(files) != 1 {
		t.Errorf("%d signing keys after a first start of three", len(files))
	}
	p := a.login("u1")
	for _, r := range all {
		r.wantStatus(p.AccessToken, 200)
	}
	// Revoked at one, refused at all, hot or not.
	if got := b.revoke(p.AccessToken); got.status != 200 {
		t.Fatal(got)
	}
	for i, r := range all {
		redistest.Eventually(t, 2*time.Second, fmt.Sprintf("replica %d refuses", i), func() bool { return r.ask(p.AccessToken).status == 401 })
	}
	// Issued at one, refreshed at the next, reused at the third.
	p = a.login("u1")
	next, _ := b.refreshWith(p.RefreshToken)
	c.wantStatus(next.AccessToken, 200)
	if again, _ := c.refreshWith(p.RefreshToken); again != next {
		t.Error("the third replica repeats another pair")
	}
	if _, got := a.refreshWith(p.RefreshToken); got.status != 400 {
		t.Errorf("reuse: %d", got.status)
	}
	for i, r := range all {
		redistest.Eventually(t, 2*time.Second, fmt.Sprintf("replica %d refuses the session", i), func() bool { return r.ask(next.AccessToken).status == 401 })
	}
	// A user-wide revocation at one, a login at the next, at once.
	if got := a.call("POST", "/v1/users/u1/revoke", ""); got.status != 200 {
		t.Fatal(got)
	}
	fresh := b.login("u1")
	for _, r := range all {
		r.wantStatus(fresh.AccessToken, 200)
	}
}

// The table of DESIGN section 8, row "Redis": known and new tokens are served,
// known revocations hold, writes are refused with 503, nothing waits.
func TestRedisAway(t *testing.T) {
	redis := redistest.Start(t)
	for _, test := range []struct {
		policy           string
		required         bool
		known, unchecked int
	}{
		{"verify", false, 200, 200},
		{"deny", false, 503, 503},
		{"verify", true, 200, 503},
		{"deny", true, 503, 503},
	} {
		t.Run(fmt.Sprintf("%s, sessions %t", test.policy, test.required), func(t *testing.T) {
			if redis.Client().Ping(context.Background()).Err() != nil {
				redis.Restart()
			}
			r := replicas(t, redis.Addr, 1, func(c *Config) {
				c.OnRedisFailure, c.Sessions.Required = test.policy, test.required
			})[0]
			known, revoked, unchecked, voided := r.login("u1"), r.login("u2"), r.login("u3"), r.login("u4")
			r.wantStatus(known.AccessToken, 200)
			r.wantStatus(revoked.AccessToken, 200)
			if a := r.revoke(revoked.AccessToken); a.status != 200 {
				t.Fatal(a)
			}
			if a := r.call("POST", "/v1/users/u4/revoke", ""); a.status != 200 {
				t.Fatal(a)
			}
			redis.Kill()
			redistest.Eventually(t, 10*time.Second, "the breaker opens", func() bool { return r.store.Away() })
			// What was known counts for another second without the stream.
			redistest.Eventually(t, 5*time.Second, "known token", func() bool { return r.ask(known.AccessToken).status == test.known })
			r.wantStatus(unchecked.AccessToken, test.unchecked)
			r.wantStatus(revoked.AccessToken, 401)
			r.wantStatus(voided.AccessToken, 401)
			started := time.Now()
			for range 50 {
				r.ask(known.AccessToken)
			}
			if took := time.Since(started); took > 2*time.Second {
				t.Errorf("50 checks took %s", took)
			}
			for _, call := range [][2]string{
				{"/v1/tokens", `{"user_id":"u"}`}, {"/v1/tokens/refresh", `{"refresh_token":"` + known.RefreshToken + `"}`},
				{"/v1/tokens/revoke", `{"token":"` + known.AccessToken + `"}`}, {"/v1/tokens/revoke", `{"token":"` + known.RefreshToken + `"}`},
				{"/v1/users/u1/revoke", ``},
			} {
				if a := r.call("POST", call[0], call[1]); a.status != 503 || a.header.Get("Retry-After") != "1" {
					t.Errorf("%s: %d %s", call[0], a.status, a.body)
				}
			}
			for path, want := range map[string]int{"/healthz": 200, "/readyz": map[string]int{"verify": 200, "deny": 503}[test.policy]} {
				request, _ := http.NewRequest("GET", r.public+path, nil)
				if a := r.do(request); a.status != want {
					t.Errorf("%s: %d, want %d", path, a.status, want)
				}
			}
			redis.Restart()
			r.awaitStream()
			r.wantStatus(revoked.AccessToken, 401)
			r.wantStatus(voided.AccessToken, 401)
			want := 200
			if test.required { // Redis came back empty: the sessions are gone
				want = 401
			}
			redistest.Eventually(t, 5*time.Second, "known token after the restart", func() bool { return r.ask(known.AccessToken).status == want })
			r.wantStatus(r.login("u1").AccessToken, 200)
		})
	}
}

// sessions.required: a signature is not enough, and logout is deletion.
func TestSessionsRequired(t *testing.T) {
	redis := redistest.Start(t)
	all := replicas(t, redis.Addr, 2, func(c *Config) { c.Sessions.Required = true })
	p := all[0].login("u1")
	all[1].wantStatus(p.AccessToken, 200)
	signer, err := all[0].keyDir.signer(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	stray, err := signer.Issue(token.Grant{
		Issuer: "sluice", Audience: "sluice", Subject: "u1", Session: "s", ID: "j", Issued: time.Now(), TTL: time.Minute,
	})
	if err != nil {
		t.Fatal(err)
	}
	all[0].wantStatus(stray, 401)
	next, _ := all[1].refreshWith(p.RefreshToken)
	all[0].wantStatus(next.AccessToken, 200)
	client := redis.Client()
	defer client.Close()
	client.Del(context.Background(), "sluice:tok:"+token.ID(next.AccessToken))
	for _, r := range all {
		redistest.Eventually(t, 5*time.Second, "deletion is logout", func() bool { return r.ask(next.AccessToken).status == 401 })
	}
}

// Rotation with overlap: the new key is published before it signs, tokens of
// the old one live on, and other replicas follow by the folder alone.
func TestKeyRotation(t *testing.T) {
	redis := redistest.Start(t)
	all := replicas(t, redis.Addr, 2, func(c *Config) { c.Own.PublishAhead = 2 * time.Second })
	old := all[0].login("u1")
	if a := all[0].call("POST", "/v1/keys/rotate", ""); a.status != 200 {
		t.Fatal(a)
	}
	published := func(r *replica) (kids []string) {
		request, _ := http.NewRequest("GET", r.public+"/.well-known/jwks.json", nil)
		var set struct{ Keys []map[string]string }
		a := r.do(request)
		a.json(t, &set)
		for _, key := range set.Keys {
			if key["d"] != "" || key["alg"] != "ES256" || key["use"] != "sig" {
				t.Errorf("published: %v", key)
			}
			kids = append(kids, key["kid"])
		}
		return kids
	}
	kidOf := func(p pair) string {
		c, err := token.Parse(p.AccessToken)
		if err != nil {
			t.Fatal(err)
		}
		return c.KeyID
	}
	for i, r := range all {
		redistest.Eventually(t, 5*time.Second, fmt.Sprintf("replica %d publishes both keys", i), func() bool { return len(published(r)) == 2 })
	}
	if kid := kidOf(all[1].login("u1")); kid != kidOf(old) {
		t.Log("the new key was published for less than publishAhead on a slow machine")
	}
	for i, r := range all {
		redistest.Eventually(t, 10*time.Second, fmt.Sprintf("replica %d signs with the new key", i), func() bool {
			return kidOf(r.login("u1")) != kidOf(old)
		})
	}
	fresh := all[1].login("u2")
	for _, r := range all {
		r.wantStatus(old.AccessToken, 200)
		r.wantStatus(fresh.AccessToken, 200)
	}
	// Redis knows the public half and the schedule (RULES 26), and nothing else.
	client := redis.Client()
	defer client.Close()
	value := ""
	redistest.Eventually(t, 15*time.Second, "the schedule is in Redis", func() bool {
		value = client.Get(context.Background(), "sluice:key:"+kidOf(old)).Val()
		return strings.Contains(value, `"retires"`)
	})
	if strings.Contains(value, `"d"`) {
		t.Errorf("private key in redis: %s", value)
	}
}

// A key whose successor's tokens are all that can be alive is deleted by the
// next rotation, and its tokens are refused.
func TestRetiredKeysDie(t *testing.T) {
	d, err := openKeyDir(&keyDir{path: t.TempDir(), algorithm: "ES256", longest: time.Minute, log: slog.New(slog.DiscardHandler), changed: func() {}})
	if err != nil {
		t.Fatal(err)
	}
	first, _ := d.signer(time.Now())
	if err := d.rotate(time.Now().Add(-time.Hour)); err != nil { // an hour ago: the first retired since
		t.Fatal(err)
	}
	for _, key := range d.living() {
		if key.KeyID == first.KeyID {
			t.Error("a retired key is alive")
		}
	}
	if err := d.rotate(time.Now()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(d.path, first.KeyID+".pem")); !os.IsNotExist(err) {
		t.Errorf("the file of a retired key: %v", err)
	}
	for _, name := range []string{"admin.token"} {
		if _, err := d.secret(name, 24); err != nil {
			t.Fatal(err)
		}
	}
	entries, _ := os.ReadDir(d.path)
	for _, entry := range entries {
		if info, _ := entry.Info(); info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s is readable by others: %s", entry.Name(), info.Mode())
		}
	}
}

func TestEveryOwnAlgorithm(t *testing.T) {
	redis := redistest.Start(t)
	for _, algorithm := range []string{"ES384", "EdDSA", "PS256", "HS256"} {
		c := testConfig(t, redis.Addr)
		c.Own.Algorithm = algorithm
		r := open(t, c)
		r.wantStatus(r.login("u1").AccessToken, 200)
		request, _ := http.NewRequest("GET", r.public+"/.well-known/jwks.json", nil)
		var set struct{ Keys []any }
		a := r.do(request)
		a.json(t, &set)
		// RULES 26: a symmetric key is never published.
		if want := map[bool]int{true: 0, false: 1}[algorithm == "HS256"]; len(set.Keys) != want {
			t.Errorf("%s: %s", algorithm, a.body)
		}
	}
}

// No token, secret, user or key of a limit in any line of the log, whatever
// was asked (RULES 29).
func TestLogHoldsNoSecrets(t *testing.T) {
	r, _ := start(t)
	const user = "user-that-is-nobodys-business"
	p := r.loginWith(`{"user_id":"` + user + `","claims":{"plan":"plan-of-theirs"}}`)
	r.ask(p.AccessToken)
	r.ask(p.AccessToken + "x")
	r.ask("abc.def.ghi")
	next, _ := r.refreshWith(p.RefreshToken)
	r.call("POST", "/v1/tokens/introspect", `{"token":"`+next.AccessToken+`"}`)
	r.call("POST", "/v1/tokens", `{"user_id":"`+user+`","claims":{"sub":"x"}}`)
	r.call("POST", "/v1/users/"+user+"/revoke", "")
	r.call("GET", "/v1/limits/none/user:"+user, "")
	r.call("GET", "/v1/nothing/"+user, "")
	r.ask(next.AccessToken)
	r.callAs("wrong-"+r.AdminToken(), "GET", "/v1/gateways", "")
	log := r.logged()
	for name, secret := range map[string]string{
		"access token": p.AccessToken, "its payload": strings.Split(p.AccessToken, ".")[1], "its signature": strings.Split(p.AccessToken, ".")[2],
		"refresh token": p.RefreshToken, "next access token": next.AccessToken, "admin token": r.AdminToken(), "issuer token": r.IssuerToken(),
		"user": user, "claim": "plan-of-theirs", "garbage token": "abc.def.ghi", "token id": token.ID(p.AccessToken),
	} {
		if strings.Contains(log, secret) {
			t.Errorf("the log holds the %s", name)
		}
	}
	lines := 0
	for line := range strings.Lines(log) {
		var entry map[string]any
		if err := json.Unmarshal([]byte(line), &entry); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		if entry["msg"] == "request" {
			lines++
			for _, member := range []string{"method", "route", "status", "took", "request_id"} {
				if entry[member] == nil {
					t.Errorf("line lacks %s: %s", member, line)
				}
			}
		}
	}
	if lines != 12 {
		t.Errorf("%d request lines for 12 requests", lines)
	}
}

func TestRequestIDIsTheGateways(t *testing.T) {
	r, _ := start(t)
	const id = "3f0c2a52-9a55-4a3c-8d0e-0d4b8b5b1c11"
	for sent, kept := range map[string]bool{id: true, strings.ToUpper(id): false, "x": false, `x","status":200,"y":"`: false, "{" + id + "}": false} {
		request, _ := http.NewRequest("GET", r.public+"/auth", nil)
		request.Header.Set("X-Request-ID", sent)
		var p problem
		a := r.do(request)
		a.json(t, &p)
		if (p.RequestID == sent) != kept || len(p.RequestID) != 36 {
			t.Errorf("sent %q, answered %q", sent, p.RequestID)
		}
	}
}

func TestMetrics(t *testing.T) {
	r, redis := start(t)
	client := redis.Client()
	defer client.Close()
	beat(t, client, "0123456789abcdef")
	p := r.login("somebody")
	r.wantStatus(p.AccessToken, 200)
	r.wantStatus(p.AccessToken, 200)
	r.wantStatus("x", 401)
	request, _ := http.NewRequest("GET", r.inner+"/metrics", nil)
	body := r.do(request).body
	for _, line := range []string{
		`authsvc_requests_total{code="",route="/auth",status="200"} 2`,
		`authsvc_requests_total{code="invalid_token",route="/auth",status="401"} 1`,
		`authsvc_tokens_issued_total 1`,
		`authsvc_verified_hits_total 1`,
		`authsvc_redis_away 0`,
		`authsvc_events_alive 1`,
		`sluice_gateway_up{instance="0123456789abcdef",version="1.2"} 1`,
		`sluice_gateway_allowed_total{instance="0123456789abcdef"} 7`,
		`sluice_gateway_denied_total{instance="0123456789abcdef",limit="per-user"} 3`,
		`sluice_gateway_redis_errors_total{instance="0123456789abcdef",kind="timeout"} 2`,
		`sluice_gateway_events_lost_total{instance="0123456789abcdef"} 9`,
		`sluice_gateway_keys{instance="0123456789abcdef"} 10`,
	} {
		if !strings.Contains(body, line+"\n") {
			t.Errorf("no line %s", line)
		}
	}
	if strings.Contains(body, "somebody") {
		t.Error("a user among the metrics")
	}
}

func TestGatewaysAndLimits(t *testing.T) {
	r, redis := start(t)
	client := redis.Client()
	defer client.Close()
	beat(t, client, "0123456789abcdef")
	if a := r.call("GET", "/v1/gateways", ""); a.status != 200 || a.body != `{"gateways":[`+beatJSON("0123456789abcdef")+"]}\n" {
		t.Errorf("gateways: %s", a.body)
	}
	for path, want := range map[string]int{
		"/v1/limits/per-user/user:u1":          200,
		"/v1/limits/per-user/user:a%2Fb%20c":   200,
		"/v1/limits/per-user/ip:2001:db8::1":   200,
		"/v1/limits/per-user/header:x%25":      200,
		"/v1/limits/per-user/global":           200,
		"/v1/limits/per-user/nonsense":         400,
		"/v1/limits/per-user/ip:nowhere":       400,
		"/v1/limits/unknown/user:u1":           404,
		"/v1/limits/per-user/user:a/b":         200,
		"/v1/limits/..%2f..%2fgateways/user:x": 404,
	} {
		if a := r.call("GET", path, ""); a.status != want {
			t.Errorf("GET %s: %d %s", path, a.status, a.body)
		}
		deleted := want
		if want == 200 {
			deleted = 204
		}
		if a := r.call("DELETE", path, ""); a.status != deleted {
			t.Errorf("DELETE %s: %d %s", path, a.status, a.body)
		}
	}
	if keys := client.Keys(context.Background(), "sluice:lim:1:per-user:60000:{ua%2Fb%20c}").Val(); len(keys) != 1 {
		t.Error("the reset of user `a/b c` is not where gateways look")
	}
}

// RFC 7662, as JSON and as a form.
func TestIntrospection(t *testing.T) {
	r, _ := start(t)
	p := r.loginWith(`{"user_id":"u1","claims":{"scope":"a b"}}`)
	var got introspection
	a := r.call("POST", "/v1/tokens/introspect", `{"token":"`+p.AccessToken+`"}`)
	a.json(t, &got)
	if !got.Active || got.Subject != "u1" || got.Scope != "a b" || got.Issuer != "sluice" || got.TokenType != "Bearer" ||
		got.Expires <= got.Issued || got.TokenID != token.ID(p.AccessToken) {
		t.Errorf("%s", a.body)
	}
	form := func(path, body string) answer {
		request, _ := http.NewRequest("POST", r.inner+path, strings.NewReader(body))
		request.Header.Set("Authorization", "Bearer "+r.AdminToken())
		request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		return r.do(request)
	}
	for body, want := range map[string]string{
		"token=" + p.AccessToken + "&token_type_hint=access_token":   `"active":true`,
		"token=" + p.RefreshToken + "&token_type_hint=refresh_token": `"active":true`,
		"token=" + p.AccessToken + "x":                               `{"active":false}`,
		"token=" + p.RefreshToken + "x":                              `{"active":false}`,
		"token=%00":                                                  `{"active":false}`,
		"token=a&token=b":                                            `invalid_request`,
		"":                                                           `invalid_request`,
		"token=%zz":                                                  `invalid_request`,
		"token=" + strings.Repeat("a", 70_000):                       `"status":413`,
	} {
		if a := form("/v1/tokens/introspect", body); !strings.Contains(a.body, want) {
			t.Errorf("%.40s: %s, want %s", body, a.body, want)
		}
	}
	if a := form("/v1/tokens/refresh", "grant_type=password&refresh_token=x"); !strings.Contains(a.body, "unsupported_grant_type") {
		t.Errorf("other grant: %s", a.body)
	}
	if a := form("/v1/tokens/refresh", "grant_type=refresh_token&refresh_token="+p.RefreshToken); a.status != 200 {
		t.Errorf("refresh by form: %s", a.body)
	}
	if a := form("/v1/tokens/revoke", "client_id=x&token="+p.AccessToken); a.status != 200 {
		t.Errorf("revoke by form: %s", a.body)
	}
	a = r.call("POST", "/v1/tokens/introspect", `{"token":"`+p.AccessToken+`"}`)
	if a.body != "{\"active\":false}\n" {
		t.Errorf("revoked: %s", a.body)
	}
}

// A secret in a file changes without a restart (RULES 41), and emptying the
// file does not open the door.
func TestSecretsChange(t *testing.T) {
	redis := redistest.Start(t)
	path := writeFile(t, filepath.Join(t.TempDir(), "admin"), "the-first-admin-token\n")
	c := testConfig(t, redis.Addr)
	c.AdminTokenFile = path
	r := open(t, c)
	works := func(secret string) bool { return r.callAs(secret, "GET", "/v1/gateways", "").status == 200 }
	if !works("the-first-admin-token") {
		t.Fatal("the first token does not work")
	}
	writeFile(t, path, "the-second-admin-token\n")
	redistest.Eventually(t, 10*time.Second, "the second token works", func() bool { return works("the-second-admin-token") })
	if works("the-first-admin-token") {
		t.Error("the first token still works")
	}
	writeFile(t, path, "")
	stamp := time.Now().Add(time.Hour)
	if err := os.Chtimes(path, stamp, stamp); err != nil {
		t.Fatal(err)
	}
	redistest.Eventually(t, 10*time.Second, "the empty file was looked at", func() bool {
		works("x")
		r.admin.mu.Lock()
		defer r.admin.mu.Unlock()
		return r.admin.stamp.Equal(stamp.Truncate(0)) || r.admin.stamp.After(time.Now())
	})
	if works("") || !works("the-second-admin-token") {
		t.Error("an empty file changed who may enter")
	}
}

// A span a request, in the gateway's trace, without anything secret.
func TestTracing(t *testing.T) {
	var mu sync.Mutex
	var spans bytes.Buffer
	collector := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		mu.Lock()
		defer mu.Unlock()
		spans.WriteString(r.URL.Path)
		spans.Write(body)
	}))
	defer collector.Close()
	redis := redistest.Start(t)
	c := testConfig(t, redis.Addr)
	c.Tracing.Endpoint = collector.URL
	s := &Service{Config: c, Log: slog.New(slog.DiscardHandler)}
	if err := s.Open(context.Background()); err != nil {
		t.Fatal(err)
	}
	request, _ := http.NewRequest("GET", "http://"+s.PublicAddr().String()+"/auth", nil)
	request.Header.Set("Authorization", "Bearer not.a.token")
	request.Header.Set("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
	transport := &http.Transport{DisableKeepAlives: true}
	response, err := (&http.Client{Transport: transport}).Do(request)
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	if err := s.Close(); err != nil { // flushes
		t.Fatal(err)
	}
	mu.Lock()
	defer mu.Unlock()
	got := spans.String()
	for _, want := range []string{"/v1/traces", "GET /auth", "\x0a\xf7\x65\x19\x16\xcd\x43\xdd\x84\x48\xeb\x21\x1c\x80\x31\x9c", "\xb7\xad\x6b\x71\x69\x20\x33\x31", "sluice-authsvc", "invalid_token"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in what was sent", want)
		}
	}
	if strings.Contains(got, "not.a.token") {
		t.Error("the span holds the token")
	}
}

// Slow and malformed requests end, and cost nobody else anything.
func TestSlowRequests(t *testing.T) {
	r, _ := start(t)
	var held []net.Conn
	for range 50 {
		conn, err := net.Dial("tcp", r.AdminAddr().String())
		if err != nil {
			t.Fatal(err)
		}
		held = append(held, conn)
		fmt.Fprintf(conn, "POST /v1/tokens HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{", r.AdminToken())
	}
	r.wantStatus(r.login("u1").AccessToken, 200)
	for _, conn := range held {
		conn.Close()
	}
}

func TestOpenReportsABusyPort(t *testing.T) {
	redis := redistest.Start(t)
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	c := testConfig(t, redis.Addr)
	c.AdminListen = busy.Addr().String()
	err = (&Service{Config: c, Log: slog.New(slog.DiscardHandler)}).Open(context.Background())
	if err == nil || !strings.Contains(err.Error(), "--adminListen") || !strings.Contains(err.Error(), "in use") {
		t.Errorf("busy port: %v", err)
	}
}

func TestListenersCanBeHandedIn(t *testing.T) {
	redis := redistest.Start(t)
	public, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &Service{Config: testConfig(t, redis.Addr), PublicListener: public, Log: slog.New(slog.DiscardHandler)}
	if err := s.Open(context.Background()); err != nil {
		t.Fatal(err)
	}
	if s.PublicAddr().String() != public.Addr().String() {
		t.Errorf("listens at %s", s.PublicAddr())
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}
