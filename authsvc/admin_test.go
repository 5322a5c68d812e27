package authsvc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sluice-gateway/sluice/authsvc/internal/issuertest"
	"github.com/sluice-gateway/sluice/authsvc/token"
	"github.com/sluice-gateway/sluice/internal/redistest"
)

func TestGatewaysAndLimits(t *testing.T) {
	r, redis := start(t)
	client := redis.Client()
	defer client.Close()
	beat(t, client, "0123456789abcdef")
	lastSeen := client.ZScore(context.Background(), "sluice:gw:live", "0123456789abcdef").Val()
	whole := strings.TrimSuffix(beatJSON("0123456789abcdef"), "}") + fmt.Sprintf(`,"stale":false,"last_seen":%.0f}`, lastSeen)
	if a := r.call("GET", "/v1/gateways", ""); a.status != 200 || !sameJSON(t, a.body, `{"gateways":[`+whole+"]}") {
		t.Errorf("gateways: %s", a.body)
	}
	// u1 has used something; what others lack cannot be reset.
	used := fmt.Sprintf("7 %d 50 8 0 0", time.Now().UnixMilli()/60_000)
	if err := client.Set(context.Background(), "sluice:lim:1:per-user:60000:{uu1}", used, 0).Err(); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]int{
		"/v1/limits/per-user/user:u1":          200,
		"/v1/limits/per-user/user:a%2Fb%20c":   200,
		"/v1/limits/per-user/ip:2001:db8::1":   200,
		"/v1/limits/per-user/header:x%25":      400,
		"/v1/limits/per-user/global":           400,
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
			deleted = 404
		}
		if strings.HasSuffix(path, ":u1") && want == 200 {
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
	var got struct {
		Active    bool
		Subject   string `json:"sub"`
		Scope     string
		Issuer    string `json:"iss"`
		TokenType string `json:"token_type"`
		Expires   int64  `json:"exp"`
		Issued    int64  `json:"iat"`
		TokenID   string `json:"token_id"`
	}
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

// A secret in a file changes without a restart (design: secrets).
func TestSecretsChange(t *testing.T) {
	t.Parallel() // it waits, mostly
	redis := redistest.Start(t)
	path := issuertest.WriteFile(t, filepath.Join(t.TempDir(), "admin"), "the-first-admin-token\n")
	c := testConfig(t, redis.Addr)
	c.AdminTokenFile = path
	r := open(t, c)
	works := func(secret string) bool { return r.callAs(secret, "GET", "/v1/gateways", "").status == 200 }
	if !works("the-first-admin-token") {
		t.Fatal("the first token does not work")
	}
	issuertest.WriteFile(t, path, "the-second-admin-token\n")
	redistest.Eventually(t, 10*time.Second, "the second token works", func() bool { return works("the-second-admin-token") })
	if works("the-first-admin-token") {
		t.Error("the first token still works")
	}
}

func TestAdminInterfaceIsClosed(t *testing.T) {
	r, _ := start(t)
	for _, test := range []struct {
		method, path, body string
		admin, issuer      int
	}{
		{"POST", "/v1/tokens", `{"user_id":"u1","claims":{"plan":"pro"}}`, 200, 200},
		{"POST", "/v1/tokens", `{"user_id":"u1","claims":{"role":"admin"}}`, 200, 400},
		{"POST", "/v1/tokens", `{"user_id":"u1","claims":{"sub":"u2"}}`, 400, 400},
		{"POST", "/v1/tokens", `{"user_id":"u1","claims":{"EXP":1}}`, 400, 400},
		{"POST", "/v1/tokens", `{"user_id":"u1","ttl":"25h"}`, 400, 400},
		{"POST", "/v1/tokens", `{"user_id":"u1","ttl":"soon"}`, 400, 400},
		{"POST", "/v1/tokens", `{"user_id":""}`, 400, 400},
		{"POST", "/v1/tokens", `{"user_id":"a\nb"}`, 400, 400},
		{"POST", "/v1/tokens", `{"user_id":"ü"}`, 400, 400},
		{"POST", "/v1/tokens", `{"user_id":"u1","admin":true}`, 400, 400},
		{"POST", "/v1/tokens", `{"user_id":"u1"} {}`, 400, 400},
		{"POST", "/v1/tokens", `{"user_id":"` + strings.Repeat("a", 70_000) + `"}`, 413, 413},
		{"POST", "/v1/tokens/revoke", `{"token":"nonsense"}`, 200, 200},
		{"POST", "/v1/tokens/refresh", `{"refresh_token":"nonsense"}`, 400, 400},
		{"POST", "/v1/tokens/introspect", `{"token":"nonsense"}`, 200, 403},
		{"POST", "/v1/users/u9/revoke", ``, 200, 403},
		{"GET", "/v1/gateways", ``, 200, 403},
		{"GET", "/v1/limits/none/user:u1", ``, 404, 403},
		{"POST", "/v1/keys/rotate", ``, 200, 403},
		{"GET", "/v1/nothing", ``, 404, 403},
	} {
		name := fmt.Sprintf("%s %s %.40s", test.method, test.path, test.body)
		if a := r.callAs(r.AdminToken(), test.method, test.path, test.body); a.status != test.admin {
			t.Errorf("%s as admin: %d %s, want %d", name, a.status, a.body, test.admin)
		}
		if a := r.callAs(r.IssuerToken(), test.method, test.path, test.body); a.status != test.issuer {
			t.Errorf("%s as issuer: %d %s, want %d", name, a.status, a.body, test.issuer)
		}
		for _, secret := range []string{"", "x", r.AdminToken() + "x", r.AdminToken()[1:]} {
			if a := r.callAs(secret, test.method, test.path, test.body); a.status != 401 {
				t.Errorf("%s with %q: %d, want 401", name, secret, a.status)
			}
		}
	}
	if a := r.call("POST", "/v1/tokens", `{"user_id":"u1","ttl":"25h"}`); !strings.Contains(a.body, "ttl: write a duration from 1s to 24h0m0s.") {
		t.Errorf("a token that would live too long: %s", a.body)
	}
	twice, _ := http.NewRequest("GET", r.inner+"/v1/gateways", nil)
	twice.Header["Authorization"] = []string{"Bearer " + r.AdminToken(), "Bearer " + r.AdminToken()}
	if a := r.do(twice); a.status != 400 {
		t.Errorf("two Authorization headers: %d", a.status)
	}
	for _, path := range []string{"/metrics", "/healthz", "/readyz"} {
		request, _ := http.NewRequest("GET", r.inner+path, nil)
		if a := r.do(request); a.status != 200 {
			t.Errorf("%s: %d %s", path, a.status, a.body)
		}
	}
	request, _ := http.NewRequest("POST", r.public+"/v1/tokens", strings.NewReader("{}"))
	request.Header.Set("Authorization", "Bearer "+r.AdminToken())
	if a := r.do(request); a.status != 404 {
		t.Errorf("admin interface on the public listener: %d", a.status)
	}
}

func sameJSON(t *testing.T, a, b string) bool {
	t.Helper()
	var x, y any
	if err := errors.Join(json.Unmarshal([]byte(a), &x), json.Unmarshal([]byte(b), &y)); err != nil {
		t.Fatal(err)
	}
	return reflect.DeepEqual(x, y)
}

// A gateway that Redis refuses cannot tell of it: it is shown by what it told
// last, as stale, and its limits are not taken for living ones. So is one that
// says itself that it decides alone.
func TestGatewaysThatDecideAlone(t *testing.T) {
	r, server := start(t)
	client := server.Client()
	defer client.Close()
	ctx := t.Context()
	now := time.Now()
	for instance, gateway := range map[string]struct {
		silent time.Duration
		alone  string
	}{
		"living": {silent: time.Second},
		"cutoff": {silent: time.Minute},
		"ended":  {silent: 11 * time.Minute},
		"alone":  {alone: `,"alone":{"since":1795480825874,"kind":"noperm","reply":"redis: not permitted: NOPERM no permissions"}}`},
	} {
		text := beatJSON(instance)
		if gateway.alone != "" {
			text = strings.TrimSuffix(text, "}") + gateway.alone
		}
		err := errors.Join(
			client.ZAdd(ctx, "sluice:gw:live", redis.Z{Member: instance, Score: float64(now.Add(-gateway.silent).UnixMilli())}).Err(),
			client.Set(ctx, "sluice:gw:"+instance, text, 0).Err())
		if err != nil {
			t.Fatal(err)
		}
	}
	var list struct {
		Gateways []struct {
			Instance string
			Stale    bool
			LastSeen int64 `json:"last_seen"`
			Alone    *struct{ Kind, Reply string }
		}
	}
	if err := json.Unmarshal([]byte(r.call("GET", "/v1/gateways", "").body), &list); err != nil {
		t.Fatal(err)
	}
	if len(list.Gateways) != 3 || list.Gateways[2].Instance != "cutoff" {
		t.Fatalf("want the living before the cut off: %+v", list)
	}
	for _, g := range list.Gateways {
		if g.Stale != (g.Instance == "cutoff") || (g.Alone != nil) != (g.Instance == "alone") || now.UnixMilli()-g.LastSeen > 60_000 {
			t.Errorf("%+v", g)
		}
	}
	request, _ := http.NewRequest("GET", r.inner+"/metrics", nil)
	body := r.do(request).body
	for _, line := range []string{
		`sluice_gateway_up{instance="living",version="1.2"} 1`,
		`sluice_gateway_up{instance="cutoff",version="1.2"} 0`,
		`sluice_gateway_alone{instance="living"} 0`,
		`sluice_gateway_alone{instance="alone"} 1`,
	} {
		if !strings.Contains(body, line+"\n") {
			t.Errorf("no line %s", line)
		}
	}
	if err := client.ZRem(ctx, "sluice:gw:live", "living", "alone").Err(); err != nil {
		t.Fatal(err)
	}
	if a := r.call("GET", "/v1/limits/per-user/global", ""); a.status != 404 {
		t.Errorf("a limit that no living gateway has: %d %s", a.status, a.body)
	}
}
