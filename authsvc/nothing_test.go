package authsvc

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/authsvc/token"
	"github.com/sluice-gateway/sluice/internal/redistest"
)

// commands runs commands beside a running authsvc, as its operator would.
func (r *replica) commands() (environ []string) {
	return []string{"AUTHSVC_ADMINLISTEN=" + r.AdminAddr().String(), "AUTHSVC_OWN_KEYDIR=" + r.Config.Own.KeyDir}
}

// A command that can have meant nothing exits 1 and says what would; what it
// was asked to do is done all the same where that can only refuse.
func TestCommandsThatDoNothing(t *testing.T) {
	f := newFederation(t)
	client := f.redis.Client()
	defer client.Close()
	beat(t, client, "gateway-1")
	known := f.byFile.Token(nil) // of file:42
	f.wantStatus(known, 200)
	redistest.Eventually(t, 10*time.Second, "the user has been noted", func() bool {
		return client.Exists(t.Context(), "sluice:who:file%3A42").Val() == 1
	})
	mine := f.login("bob")
	// Issued by hand, because no command of ours issues it.
	expired := f.byFile.Token(map[string]any{"iat": time.Now().Add(-2 * time.Hour).Unix(), "exp": time.Now().Add(-time.Hour).Unix()})

	for _, test := range []struct {
		args   []string
		status int
		want   string
	}{
		{[]string{"user", "revoke", "42"}, 1, `nothing is known of user "42"`},
		{[]string{"user", "revoke", "42"}, 1, "Did you mean file:42?"},
		{[]string{"user", "revoke", "42"}, 1, "nothing is known"}, // the mark of the last time is not a user
		{[]string{"user", "revoke", "nobody"}, 1, "prefixes: url:, file:, pem:, secret:"},
		{[]string{"user", "revoke", "file:43"}, 1, `nothing is known of user "file:43"`},
		{[]string{"user", "revoke", "file:"}, 1, `nothing is known of user "file:"`},
		{[]string{"user", "revoke", ""}, 1, "400"},
		{[]string{"user", "revoke", known}, 1, "looks like a token"},
		{[]string{"user", "revoke", "file:42"}, 0, "file:42"},
		{[]string{"user", "revoke", "bob"}, 0, "bob"},
		{[]string{"user", "revoke", "bob"}, 0, "bob"},
		{[]string{"token", "revoke", "garbage"}, 1, "nothing was revoked: malformed token"},
		{[]string{"token", "revoke", known + "x"}, 1, "nothing was revoked"},
		{[]string{"token", "revoke", expired}, 1, "expired"},
		{[]string{"token", "revoke", mine.RefreshToken + "x"}, 1, "nothing was revoked"},
		{[]string{"token", "revoke", known}, 0, "token"},
		{[]string{"token", "revoke", mine.RefreshToken}, 0, "session"},
		{[]string{"token", "issue", "file:42"}, 1, `users called "file:..." are those of issuer "file"`},
		{[]string{"limit", "reset", "per-user", "user:bob"}, 1, "Nothing was counted for this key. Users are called as services see them; prefixes: url:"},
		{[]string{"limit", "reset", "per-user", "global"}, 1, "counts by user; write user:<id>, or ip:<address>"},
		{[]string{"limit", "show", "per-user", "header:x"}, 1, "counts by user; write user:<id>, or ip:<address>"},
		{[]string{"limit", "reset", "per-usr", "user:bob"}, 1, "limits: per-user"},
		{[]string{"limit", "show", "per-usr", "user:bob"}, 1, "limits: per-user"},
		{[]string{"token", "issue", ""}, 1, "user_id"},
	} {
		status, out, errs := authsvcCommand(t, f.commands(), "", test.args...)
		if status != test.status || !strings.Contains(out+errs, test.want) {
			t.Errorf("%.60q: %d %s%s, want %d %s", test.args, status, out, errs, test.status, test.want)
		}
		if (status == 0) != (errs == "") {
			t.Errorf("%.60q: %d %s", test.args, status, errs)
		}
	}
	f.wantStatus(known, 401)
	if log := f.logged(); strings.Contains(log, known) || strings.Contains(log, strings.Split(known, ".")[1]) || strings.Contains(log, mine.RefreshToken) {
		t.Error("the log holds a token")
	}
}

// A user of whom nothing is known is void all the same: Redis may have
// forgotten him, and his tokens are good without it.
func TestUnknownUserIsVoidAllTheSame(t *testing.T) {
	r, redis := start(t)
	p := r.login("u1")
	client := redis.Client()
	defer client.Close()
	if err := client.FlushAll(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	if status, _, errs := authsvcCommand(t, r.commands(), "", "user", "revoke", "u1"); status != 1 || !strings.Contains(errs, "void all the same") {
		t.Errorf("%d %s", status, errs)
	}
	r.wantStatus(p.AccessToken, 401)
}

// Whoever throws an access token away means the session, also when the access
// token has expired: its refresh token would go on.
func TestRevokingAnExpiredTokenEndsItsSession(t *testing.T) {
	redis := redistest.Start(t)
	c := testConfig(t, redis.Addr)
	c.ClockLeeway = 0
	r := open(t, c)
	p := r.loginWith(`{"user_id":"u1","ttl":"1s"}`)
	redistest.Eventually(t, 10*time.Second, "the token expires", func() bool { return r.ask(p.AccessToken).status == 401 })
	if a := r.revoke(p.AccessToken); a.status != 200 || a.body != `{"revoked":["session"]}`+"\n" {
		t.Errorf("%d %s", a.status, a.body)
	}
	if _, a := r.refreshWith(p.RefreshToken); a.status != 400 {
		t.Errorf("the session goes on: %d", a.status)
	}
}

// Every action of the admin listener is in the log: who, upon what, with which
// outcome. A credential that was given for something else is not.
func TestAdminActionsAreLogged(t *testing.T) {
	r, redis := start(t)
	client := redis.Client()
	defer client.Close()
	beat(t, client, "gateway-1")
	p, other := r.login("u1"), r.login("u2")
	id := token.ID(p.AccessToken)
	session, _, _ := strings.Cut(other.RefreshToken, ".")
	for _, test := range []struct {
		secret, method, path, body string
		actor, target, outcome     string
	}{
		{r.AdminToken(), "POST", "/v1/tokens", `{"user_id":"u3"}`, "admin", "user u3", "done"},
		{r.IssuerToken(), "POST", "/v1/tokens", `{"user_id":"u3"}`, "issuer", "user u3", "done"},
		{r.IssuerToken(), "POST", "/v1/tokens/revoke", `{"token":"` + p.AccessToken + `"}`, "issuer", "token " + id, "revoked token, session"},
		{r.AdminToken(), "POST", "/v1/tokens/revoke", `{"token":"garbage"}`, "admin", "token", "nothing"},
		{r.AdminToken(), "POST", "/v1/tokens/introspect", `{"token":"` + p.AccessToken + `"}`, "admin", "token " + id, "done"},
		{r.IssuerToken(), "POST", "/v1/tokens/refresh", `{"refresh_token":"` + other.RefreshToken + `"}`, "issuer", "session " + session, "done"},
		{r.IssuerToken(), "POST", "/v1/tokens/refresh", `{"refresh_token":"x.y.z"}`, "issuer", "session", "refused"},
		{r.AdminToken(), "POST", "/v1/users/u2/revoke", "", "admin", "user u2", "done"},
		{r.AdminToken(), "POST", "/v1/users/nobody/revoke", "", "admin", "user nobody", "nothing is known"},
		{r.AdminToken(), "POST", "/v1/users/" + other.AccessToken + "/revoke", "", "admin", "user sha256:", "refused"},
		{r.AdminToken(), "POST", "/v1/users/" + r.IssuerToken() + "/revoke", "", "admin", "user sha256:", "nothing is known"},
		{r.IssuerToken(), "POST", "/v1/users/u2/revoke", "", "issuer", "", "refused"},
		{"wrong", "POST", "/v1/users/u2/revoke", "", "nobody", "", "refused"},
		{r.AdminToken(), "GET", "/v1/limits/per-user/user:u1", "", "admin", "limit per-user user:u1", "done"},
		{r.AdminToken(), "DELETE", "/v1/limits/per-user/ip:203.0.113.7", "", "admin", "limit per-user ip:203.0.113.7", "nothing was counted"},
		{r.AdminToken(), "GET", "/v1/limits/per-user/header:an-api-key", "", "admin", "limit per-user header:sha256:", "refused"},
		{r.AdminToken(), "GET", "/v1/gateways", "", "admin", "gateways", "done"},
		{r.AdminToken(), "POST", "/v1/keys/rotate", "", "admin", "keys", "done"},
	} {
		before := len(r.logged())
		a := r.callAs(test.secret, test.method, test.path, test.body)
		var line struct{ Msg, Actor, From, Target, Outcome string }
		redistest.Eventually(t, 10*time.Second, "the action is in the log", func() bool {
			for text := range strings.Lines(r.logged()[before:]) {
				if json.Unmarshal([]byte(text), &line) == nil && line.Msg == "request" {
					return true
				}
			}
			return false
		})
		if line.Actor != test.actor || line.From != "127.0.0.1" || !strings.HasPrefix(line.Target, test.target) || !strings.HasPrefix(line.Outcome, test.outcome) || test.target == "" && line.Target != "" {
			t.Errorf("%s %.40s: %d %+v, want %s, %s, %s", test.method, test.path, a.status, line, test.actor, test.target, test.outcome)
		}
	}
	log := r.logged()
	for name, secret := range map[string]string{
		"access token": p.AccessToken, "refresh token": other.RefreshToken, "another access token": other.AccessToken,
		"admin token": r.AdminToken(), "issuer token": r.IssuerToken(), "value of a header": "an-api-key",
	} {
		if strings.Contains(log, secret) {
			t.Errorf("the log holds the %s", name)
		}
	}
	if a := r.ask(p.AccessToken); a.status != 401 || strings.Contains(strings.TrimPrefix(r.logged(), log), "actor") {
		t.Error(fmt.Sprint("a request to the public listener has an actor: ", a.status))
	}
}
