package authsvc

import (
	"context"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/authsvc/config"
	"github.com/sluice-gateway/sluice/authsvc/token"
	"github.com/sluice-gateway/sluice/internal/redistest"
)

// replicas opens several authsvc over one Redis and one key folder.
func replicas(t *testing.T, redis string, n int, change func(*config.Config)) (all []*replica) {
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

// The table of design: away, row "Redis": known and new tokens are served,
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
			r := replicas(t, redis.Addr, 1, func(c *config.Config) {
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
			// A revocation of now would be missed: gateways have to ask again soon.
			if a := r.ask(known.AccessToken); test.known == 200 && !strings.HasPrefix(a.header.Get("Cache-Control"), "private, max-age=1,") {
				t.Errorf("Cache-Control without Redis: %q", a.header.Get("Cache-Control"))
			}
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
	all := replicas(t, redis.Addr, 2, func(c *config.Config) { c.Sessions.Required = true })
	p := all[0].login("u1")
	all[1].wantStatus(p.AccessToken, 200)
	signer, err := all[0].keyDir.Signer(time.Now())
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
