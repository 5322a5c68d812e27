package authsvc

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/authsvc/operator"
	"github.com/sluice-gateway/sluice/authsvc/session"
)

// authsvcCommand runs the command and returns what it printed.
func authsvcCommand(t *testing.T, environ []string, stdin string, args ...string) (status int, out, errs string) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	p := &operator.Program{
		Environ: environ, In: strings.NewReader(stdin), Out: &stdout, Err: &stderr, Serve: Serve,
	}
	status = p.Main(context.Background(), args)
	return status, stdout.String(), stderr.String()
}

func TestOperatorCommands(t *testing.T) {
	r, redis := start(t)
	client := redis.Client()
	defer client.Close()
	beat(t, client, "gateway-1")
	// What the service finds, the commands find: the port and the key folder.
	environ := []string{
		"AUTHSVC_ADMINLISTEN=" + r.AdminAddr().String(),
		"AUTHSVC_OWN_KEYDIR=" + r.Config.Own.KeyDir,
	}
	command := func(stdin string, args ...string) string {
		t.Helper()
		status, out, errs := authsvcCommand(t, environ, stdin, args...)
		if status != 0 || errs != "" {
			t.Fatalf("%v: %d %s%s", args, status, out, errs)
		}
		return out
	}
	var p session.Pair
	issued := command("", "token", "issue", "--claims.plan=pro", "u 1", "--ttl", "10m", "--output=json")
	if err := json.Unmarshal([]byte(issued), &p); err != nil || p.ExpiresIn != 600 {
		t.Fatalf("%s: %v", issued, err)
	}
	if got := r.wantStatus(p.AccessToken, 200).header.Get("X-User-Plan"); got != "pro" {
		t.Errorf("plan: %q", got)
	}
	inspected := command("", "token", "inspect", p.AccessToken)
	for _, line := range []string{"active      true\n", "sub         u 1\n", "iss         sluice\n"} {
		if !strings.Contains(inspected, line) {
			t.Errorf("inspect lacks %q:\n%s", line, inspected)
		}
	}
	if out := command(p.RefreshToken+"\n", "token", "inspect", "-", "--output=json"); !strings.Contains(out, `"active":true`) {
		t.Errorf("inspect of a refresh token: %s", out)
	}
	if out := command(p.AccessToken, "token", "revoke", "-"); out != "revoked  token, session\n" {
		t.Errorf("revoke: %q", out)
	}
	r.wantStatus(p.AccessToken, 401)
	if out := command("", "token", "inspect", p.AccessToken); out != "active  false\n" {
		t.Errorf("inspect of a revoked token: %q", out)
	}
	other := r.login("a/b")
	if out := command("", "user", "revoke", "a/b"); !strings.Contains(out, "user_id  a/b\n") {
		t.Errorf("user revoke: %q", out)
	}
	r.wantStatus(other.AccessToken, 401)
	if out := command("", "limit", "show", "per-user", "user:a/b", "--output=json"); !strings.Contains(out, `"remaining":100`) {
		t.Errorf("limit show: %s", out)
	}
	used := fmt.Sprintf("7 %d 50 8 0 0", time.Now().UnixMilli()/60_000)
	client.Set(context.Background(), "sluice:lim:1:per-user:60000:{i2001%3Adb8%3A%3A}", used, 0)
	if out := command("", "limit", "reset", "per-user", "ip:2001:db8::1"); out != "done\n" {
		t.Errorf("limit reset: %q", out)
	}
	if out := command("", "keys", "rotate"); !strings.Contains(out, "activates") {
		t.Errorf("keys rotate: %q", out)
	}
	if out := command("", "healthcheck"); out != "status  ready\n" {
		t.Errorf("healthcheck: %q", out)
	}
}

func TestCommandMistakes(t *testing.T) {
	r, _ := start(t)
	environ := []string{"AUTHSVC_ADMINLISTEN=" + r.AdminAddr().String(), "AUTHSVC_OWN_KEYDIR=" + r.Config.Own.KeyDir}
	for _, test := range []struct {
		args string
		want string // part of the one line on standard error
	}{
		{"nonsense", `no command "nonsense"`},
		{"token", "needs a command"},
		{"token nonsense", `authsvc token has no command "nonsense"`},
		{"token issue", "0 arguments given, 1 needed"},
		{"token issue a b", "2 arguments given, 1 needed"},
		{"token inspect x --colour=red", "colour"},
		{"token inspect x --output=xml", "write text or json"},
		{"token inspect x --timeout=soon", "soon"},
		{"token inspect x --adminToken=wrong", "401"},
		{"token inspect x --adminTokenFile=/nowhere", "--adminToken=TOKEN"},
		{"token inspect x --server=http://127.0.0.1:1", "is authsvc running?"},
		{"limit show none user:u1", "No gateway is alive in redis below redis.keyPrefix"},
		{"limit show", "2 needed"},
		{"healthcheck --server=http://127.0.0.1:1", "refused"},
		{"--listen=nowhere", "listen"},
		{"--configFile=/nowhere.yml", "no such file"},
	} {
		status, _, errs := authsvcCommand(t, environ, "", strings.Fields(test.args)...)
		if status != 1 || !strings.Contains(errs, test.want) || !strings.HasPrefix(errs, "authsvc: ") {
			t.Errorf("%s: %d %q, want %q", test.args, status, errs, test.want)
		}
	}
}

func beatJSON(instance string) string {
	return fmt.Sprintf(`{"instance":%q,"version":"1.2","started":1,"counters":{"allowed":7,"denied":{"per-user":3},"degraded":1,`+
		`"redis_calls":5,"redis_errors":{"timeout":2},"breaker_open":0,"breaker_opened":11,"decision_hits":4,"decision_misses":6,"auth_errors":8,"events_lost":9,"keys":10},`+
		`"limits":[{"name":"per-user","key":"user","window_ms":60000,"limit":100,"cost":1,"tiers":{"pro":1000},"tier_header":"X-User-Plan","ranked":["pro"],"ipv6_subnet":64}]}`, instance)
}
