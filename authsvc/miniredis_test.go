package authsvc

import (
	"testing"

	"github.com/alicebob/miniredis/v2"
)

// The one-machine stack embeds miniredis, which must know every command and
// script that is used here.
func TestOverMiniredis(t *testing.T) {
	redis := miniredis.RunT(t)
	r := open(t, testConfig(t, redis.Addr()))
	r.awaitStream()
	first := r.login("u1")
	r.wantStatus(first.AccessToken, 200)
	second, a := r.refreshWith(first.RefreshToken)
	if a.status != 200 {
		t.Fatalf("refresh: %d %s", a.status, a.body)
	}
	if again, _ := r.refreshWith(first.RefreshToken); again != second {
		t.Errorf("repeat: %+v", again)
	}
	if a := r.call("POST", "/v1/users/u1/revoke", ""); a.status != 200 {
		t.Errorf("user revoke: %d %s", a.status, a.body)
	}
	r.wantStatus(second.AccessToken, 401)
	third := r.login("u1")
	r.wantStatus(third.AccessToken, 200)
	if a := r.revoke(third.AccessToken); a.status != 200 {
		t.Errorf("revoke: %d %s", a.status, a.body)
	}
	r.wantStatus(third.AccessToken, 401)
	if a := r.call("GET", "/v1/gateways", ""); a.status != 200 || a.body != "{\"gateways\":[]}\n" {
		t.Errorf("gateways: %d %q", a.status, a.body)
	}
}
