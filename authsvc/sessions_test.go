package authsvc

import (
	"strings"
	"testing"

	"github.com/sluice-gateway/sluice/authsvc/session"
)

func TestRevokedTokensAndSessions(t *testing.T) {
	r, _ := start(t)
	for _, test := range []struct {
		name   string
		revoke func(p session.Pair) answer
	}{
		{"access token", func(p session.Pair) answer { return r.revoke(p.AccessToken) }},
		{"refresh token", func(p session.Pair) answer { return r.revoke(p.RefreshToken) }},
		{"user", func(session.Pair) answer { return r.call("POST", "/v1/users/u%2F%201/revoke", "") }},
	} {
		t.Run(test.name, func(t *testing.T) {
			p, other := r.login("u/ 1"), r.login("u2")
			r.wantStatus(p.AccessToken, 200)
			if a := test.revoke(p); a.status != 200 {
				t.Fatalf("revoke: %d %s", a.status, a.body)
			}
			a := r.wantStatus(p.AccessToken, 401)
			if !strings.Contains(a.header.Get("WWW-Authenticate"), `error="invalid_token"`) {
				t.Error(a.header)
			}
			if _, a := r.refreshWith(p.RefreshToken); a.status != 400 || !strings.Contains(a.body, "invalid_grant") {
				t.Errorf("refresh after revocation: %d %s", a.status, a.body)
			}
			r.wantStatus(other.AccessToken, 200)
			// The next login, in the same second, is good (design: void-before).
			r.wantStatus(r.login("u/ 1").AccessToken, 200)
		})
	}
}

func TestRefreshRotation(t *testing.T) {
	r, _ := start(t)
	first := r.loginWith(`{"user_id":"u1","claims":{"plan":"pro"},"ttl":"5m"}`)
	second, a := r.refreshWith(first.RefreshToken)
	if a.status != 200 || second.ExpiresIn != 300 {
		t.Fatalf("refresh: %d %s", a.status, a.body)
	}
	if got := r.wantStatus(second.AccessToken, 200).header.Get("X-User-Plan"); got != "pro" {
		t.Errorf("plan after refresh: %q", got)
	}
	// A lost reply: the same pair once more.
	again, _ := r.refreshWith(first.RefreshToken)
	if again != second {
		t.Errorf("repeat within the grace period: %+v, want %+v", again, second)
	}
	third, _ := r.refreshWith(second.RefreshToken)
	r.wantStatus(third.AccessToken, 200)
	// Two generations old: somebody else has it.
	if _, a := r.refreshWith(first.RefreshToken); a.status != 400 {
		t.Errorf("reuse: %d %s", a.status, a.body)
	}
	for i, p := range []session.Pair{first, second, third} {
		r.wantStatus(p.AccessToken, 401)
		if _, a := r.refreshWith(p.RefreshToken); a.status != 400 {
			t.Errorf("refresh token %d of a revoked family: %d", i, a.status)
		}
	}
}

// What Redis holds of a session is authsvc's word only under its MAC: whoever can
// write there makes nobody into somebody else, by no field and not by another
// session's record whole (design: status-only).
func TestRewrittenSessionIsRefused(t *testing.T) {
	r, redis := start(t)
	client := redis.Client()
	defer client.Close()
	victim := r.wantStatus(r.login("victim").AccessToken, 200).header.Get("X-Session-ID")
	record, err := client.HGetAll(t.Context(), "sluice:ref:"+victim).Result()
	if err != nil || record["user"] != "victim" {
		t.Fatalf("%v, %v", record, err)
	}
	for name, fields := range map[string]map[string]string{
		"user":           {"user": "victim"},
		"claims":         {"claims": `{"plan":"enterprise"}`},
		"ttl":            {"ttl": "72000000"},
		"no MAC":         {"mac": ""},
		"another's":      {"user": record["user"], "claims": record["claims"], "ttl": record["ttl"], "mac": record["mac"]},
		"shifted bounds": {"user": "mallory{}", "claims": ""},
	} {
		own := r.loginWith(`{"user_id":"mallory","claims":{},"ttl":"5m"}`)
		key := "sluice:ref:" + r.wantStatus(own.AccessToken, 200).header.Get("X-Session-ID")
		if err := client.HSet(t.Context(), key, fields).Err(); err != nil {
			t.Fatal(err)
		}
		if got := r.call("POST", "/v1/tokens/introspect", `{"token":"`+own.RefreshToken+`"}`); strings.Contains(got.body, `"active":true`) {
			t.Errorf("%s: introspection believes it: %s", name, got.body)
		}
		if next, a := r.refreshWith(own.RefreshToken); a.status != 400 {
			t.Errorf("%s: %d, issued %+v", name, a.status, next)
		}
	}
}

// A session stands readable in its access tokens: garbage for it must not
// count as reuse.
func TestGarbageRefreshTokenDoesNotKillTheSession(t *testing.T) {
	r, _ := start(t)
	p := r.login("u1")
	session := r.wantStatus(p.AccessToken, 200).header.Get("X-Session-ID")
	for _, forged := range []string{session, session + ".", session + ".x.y", p.RefreshToken + "A", p.RefreshToken[:len(p.RefreshToken)-1]} {
		if _, a := r.refreshWith(forged); a.status != 400 {
			t.Errorf("%q: %d", forged, a.status)
		}
	}
	r.wantStatus(p.AccessToken, 200)
	if _, a := r.refreshWith(p.RefreshToken); a.status != 200 {
		t.Errorf("the real one: %d %s", a.status, a.body)
	}
}
