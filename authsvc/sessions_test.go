package authsvc

import (
	"strings"
	"testing"
)

func TestRevokedTokensAndSessions(t *testing.T) {
	r, _ := start(t)
	for _, test := range []struct {
		name   string
		revoke func(p pair) answer
	}{
		{"access token", func(p pair) answer { return r.revoke(p.AccessToken) }},
		{"refresh token", func(p pair) answer { return r.revoke(p.RefreshToken) }},
		{"user", func(pair) answer { return r.call("POST", "/v1/users/u%2F%201/revoke", "") }},
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
			// The next login, in the same second, is good (RULES 9).
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
	for i, p := range []pair{first, second, third} {
		r.wantStatus(p.AccessToken, 401)
		if _, a := r.refreshWith(p.RefreshToken); a.status != 400 {
			t.Errorf("refresh token %d of a revoked family: %d", i, a.status)
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
