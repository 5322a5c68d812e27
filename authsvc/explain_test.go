package authsvc

import (
	"encoding/json"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/authsvc/admin"
	"github.com/sluice-gateway/sluice/authsvc/config"
	"github.com/sluice-gateway/sluice/authsvc/internal/issuertest"
	"github.com/sluice-gateway/sluice/authsvc/token"
	"github.com/sluice-gateway/sluice/internal/redistest"
)

// Each way in which a token may be no good is explained by the check that it
// fails, and the verdict is that of /auth.
func TestTokenExplain(t *testing.T) {
	f := newFederation(t)
	client := f.redis.Client()
	defer client.Close()
	beat(t, client, "gateway-1")
	good := f.byFile.Token(map[string]any{"plan": "pro"})
	other := issuertest.New(t, "file", "PS256")
	revoked, mine, ended := f.byFile.Token(map[string]any{"jti": "r"}), f.login("bob"), f.login("carol")
	f.revoke(revoked)
	f.revoke(ended.RefreshToken)
	hour := time.Hour.Nanoseconds() / 1e9
	now := time.Now().Unix()
	for _, test := range []struct {
		name, text string
		failed     string // the check; empty: accepted
		found      string
	}{
		{"good", good, "", ""},
		{"own", mine.AccessToken, "", ""},
		{"expired", f.byFile.Token(map[string]any{"iat": now - 2*hour, "exp": now - hour}), "expiry", "Z, 1h0m"},
		{"not yet", f.byFile.Token(map[string]any{"nbf": now + 290}), "start", "in 4m"},
		{"of the future", f.byFile.Token(map[string]any{"iat": now + 290}), "issued", "in 4m"},
		{"lives too long", f.byFile.Token(map[string]any{"iat": now, "exp": now + 48*hour}), "lifetime", "48h0m0s"},
		{"another audience", f.byFile.Token(map[string]any{"aud": "shop"}), "audience", "aud shop"},
		{"another issuer", f.byFile.Token(map[string]any{"iss": "https://nobody.example"}), "issuer", "iss https://nobody.example"},
		{"another's issuer", f.byFile.Token(map[string]any{"iss": "https://pem.example"}), "algorithm", "alg PS256"},
		{"another key", other.Token(nil), "key", "kid " + other.Signer.KeyID},
		{"another algorithm", f.byFile.Raw(`{"alg":"PS512","kid":"`+f.byFile.Signer.KeyID+`"}`, f.byFile.Claims(nil)), "algorithm", "alg PS512"},
		{"changed", good[:len(good)-10] + "AAAAAAAAAA"[:6] + good[len(good)-4:], "signature", "it is not"},
		{"another type", f.byFile.Raw(`{"alg":"PS256","kid":"`+f.byFile.Signer.KeyID+`","typ":"dpop+jwt"}`, f.byFile.Claims(nil)), "type", "typ dpop+jwt"},
		{"nobody", f.byFile.Token(map[string]any{"sub": ""}), "user", "does not name a user"},
		{"garbage", "garbage", "form", "not three segments"},
		{"not one at all", "a b", "form", ""},
		{"revoked", revoked, "token", "revoked"},
		{"session ended", ended.AccessToken, "session", "ended"},
		{"refresh token", mine.RefreshToken, "", ""},
		{"dead refresh token", ended.RefreshToken, "session", "revoked"},
	} {
		a := f.call("POST", "/v1/tokens/explain", `{"token":"`+test.text+`"}`)
		var e admin.Explanation
		a.json(t, &e)
		if refresh := e.Kind == "refresh token"; !refresh {
			if status := f.ask(test.text).status; (status == 200) != e.Accepted || (status == 200) != (test.failed == "") {
				t.Errorf("%s: /auth says %d, the explanation %s", test.name, status, a.body)
			}
		}
		var failed []string
		for _, c := range e.Checks {
			if !c.OK {
				failed = append(failed, c.Check)
			}
		}
		at := slices.IndexFunc(e.Checks, func(c token.Finding) bool { return !c.OK })
		if test.failed == "" {
			if at >= 0 || !e.Accepted || e.Reason != "" {
				t.Errorf("%s: %s", test.name, a.body)
			}
			continue
		}
		if at < 0 || e.Checks[at].Check != test.failed || !strings.Contains(e.Checks[at].Found, test.found) || e.Checks[at].Expected == "" || e.Reason == "" {
			t.Errorf("%s: %s failed, want %s: %s\n%s", test.name, failed, test.failed, test.found, a.body)
		}
		if strings.Contains(a.body, test.text) && len(test.text) > 20 {
			t.Errorf("%s: the answer repeats the token", test.name)
		}
	}

	var e admin.Explanation
	f.call("POST", "/v1/tokens/explain", `{"token":"`+good+`"}`).json(t, &e)
	if e.User != "file:42" || e.Issuer != "file" || e.Headers["X-User-Plan"] != "pro" || e.Headers["X-User-Id"] != "file:42" || len(e.Limits) != 1 {
		t.Errorf("%+v", e)
	}
	if l := e.Limits[0]; l.Limit != 1000 || l.Key != "user:file:42" || l.Because != "tier pro, by X-User-Plan: pro" {
		t.Errorf("%+v", l)
	}
	if a := f.callAs(f.IssuerToken(), "POST", "/v1/tokens/explain", `{"token":"x"}`); a.status != 403 {
		t.Errorf("with the issuer token: %d", a.status)
	}
	if a := f.call("POST", "/v1/tokens/explain", `{"token":""}`); a.status != 400 {
		t.Errorf("without a token: %d", a.status)
	}
	for _, secret := range []string{good, strings.Split(good, ".")[1], strings.Split(good, ".")[2], mine.RefreshToken} {
		if strings.Contains(f.logged(), secret) {
			t.Error("the log holds a token or part of one")
		}
	}

	status, out, errs := authsvcCommand(t, f.commands(), "", "token", "explain", f.byFile.Token(map[string]any{"aud": "shop"}))
	if status != 1 || !strings.Contains(errs, "the access token is refused: ") || !strings.Contains(out, "audience   NO  aud with one of api") {
		t.Errorf("%d %s%s", status, out, errs)
	}
	status, out, errs = authsvcCommand(t, f.commands(), good, "token", "explain", "-")
	for _, part := range []string{"access token  accepted", "issuer        file\n", "user          file:42\n", "X-User-Plan    pro", "per-user 1000", "tier pro, by X-User-Plan: pro"} {
		if !strings.Contains(out, part) {
			t.Errorf("explain lacks %q: %d\n%s%s", part, status, out, errs)
		}
	}
	if status, out, _ := authsvcCommand(t, f.commands(), good, "token", "explain", "-", "--output=json"); status != 0 || !json.Valid([]byte(out)) {
		t.Errorf("%d %s", status, out)
	}
}

// What tokens.maxBytes lets in is explained as well.
func TestExplainLargeTokens(t *testing.T) {
	redis := redistest.Start(t)
	issuer := issuertest.New(t, "kc", "ES256")
	c := testConfig(t, redis.Addr)
	c.Tokens.MaxBytes = 16 << 10
	c.Issuers = []config.Issuer{issuer.Config()}
	c.Issuers[0].JWKSFile = issuertest.WriteFile(t, filepath.Join(t.TempDir(), "jwks"), issuertest.KeySet(issuer))
	r := open(t, c)
	for size, accepted := range map[int]bool{10_000: true, 20_000: false} {
		var e admin.Explanation
		a := r.call("POST", "/v1/tokens/explain", `{"token":"`+issuer.Token(map[string]any{"groups": strings.Repeat("a", size)})+`"}`)
		a.json(t, &e)
		if e.Accepted != accepted || e.Checks[0].OK != accepted || !strings.Contains(e.Checks[0].Expected, "at most 16384 bytes") {
			t.Errorf("%d bytes: %s", size, a.body)
		}
	}
}

// `limit show` shows the limit that gateways would apply to this user: his
// tier's, or the one that his token carries.
func TestLimitShowKnowsTiers(t *testing.T) {
	r, redis := start(t)
	client := redis.Client()
	defer client.Close()
	beat(t, client, "gateway-1")
	r.loginWith(`{"user_id":"pia","claims":{"plan":"pro"}}`)
	r.login("fred")
	for key, want := range map[string][2]string{
		"user:pia":       {"limit        1000\n", "because      tier pro, by X-User-Plan: pro\n"},
		"user:fred":      {"limit        100\n", `because      the plain limit: X-User-Plan is ""; tiers: pro 1000` + "\n"},
		"user:nobody":    {"limit        100\n", "because      the plain limit: no token of this user is known, so what he has instead is not; tiers: pro 1000\n"},
		"ip:203.0.113.7": {"limit        100\n", ""},
	} {
		status, out, errs := authsvcCommand(t, r.commands(), "", "limit", "show", "per-user", key)
		if status != 0 || !strings.Contains(out, want[0]) || !strings.Contains(out, want[1]) || (want[1] == "") == strings.Contains(out, "because") {
			t.Errorf("%s: %d\n%s%s", key, status, out, errs)
		}
	}
	// A token that was seen and not issued tells of its user, too.
	f := newFederation(t)
	theirs := f.redis.Client()
	defer theirs.Close()
	beat(t, theirs, "gateway-1")
	f.wantStatus(f.byPEM.Token(map[string]any{"plan": []string{"basic", "pro"}}), 200)
	redistest.Eventually(t, 10*time.Second, "the tier is known", func() bool {
		_, out, _ := authsvcCommand(t, f.commands(), "", "limit", "show", "per-user", "user:pem:42")
		return strings.Contains(out, "limit        1000\n")
	})
}
