package authsvc

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/authsvc/config"
	"github.com/sluice-gateway/sluice/authsvc/internal/issuertest"
	"github.com/sluice-gateway/sluice/internal/redistest"
)

// For the limiter alone authsvc needs Redis and an admin token: no issuers, no
// folder for keys. It shows and resets limits and has the gateways' metrics; it
// issues nothing, and no token is good.
func TestLimiterAlone(t *testing.T) {
	redis := redistest.Start(t)
	client := redis.Client()
	defer client.Close()
	beat(t, client, "gateway-1")
	const secret = "an-admin-token-of-the-test"
	for source, load := range map[string]func() (*config.Config, error){
		"flags": func() (*config.Config, error) {
			return config.Load([]string{"--own.keyDir=", "--adminToken=" + secret}, nil)
		},
		"environment": func() (*config.Config, error) {
			return config.Load(nil, []string{"AUTHSVC_OWN_KEYDIR=", "AUTHSVC_ADMINTOKEN=" + secret})
		},
		"file": func() (*config.Config, error) {
			path := issuertest.WriteFile(t, filepath.Join(t.TempDir(), "authsvc.yml"), "own: {keyDir: \"\"}\nadminToken: "+secret+"\n")
			return config.Load([]string{"--configFile=" + path}, nil)
		},
	} {
		t.Run(source, func(t *testing.T) {
			c, err := load()
			if err != nil || c.Own.KeyDir != "" {
				t.Fatalf("own.keyDir %q: %v", c.Own.KeyDir, err)
			}
			c.Listen, c.AdminListen, c.Redis.Addresses = "127.0.0.1:0", "127.0.0.1:0", []string{redis.Addr}
			c.Redis.Timeout = 2 * time.Second
			t.Chdir(t.TempDir()) // nothing may be made here
			r := open(t, c)
			environ := []string{"AUTHSVC_ADMINLISTEN=" + r.AdminAddr().String(), "AUTHSVC_OWN_KEYDIR=", "AUTHSVC_ADMINTOKEN=" + secret}
			client.Set(t.Context(), "sluice:lim:1:per-user:60000:{uu1}", fmt.Sprintf("7 %d 3 0 0 0", time.Now().UnixMilli()/60_000), 0)
			for args, want := range map[string]string{
				"limit show per-user user:u1":  "remaining",
				"limit reset per-user user:u1": "done",
				"healthcheck":                  "ready",
				"token issue u1":               "own.keyDir is empty",
				"keys rotate":                  "own.keyDir is empty",
				"user revoke u1":               "No issuer",
				"token revoke a.b.c":           "nothing was revoked",
			} {
				if _, out, errs := authsvcCommand(t, environ, "", strings.Fields(args)...); !strings.Contains(out+errs, want) {
					t.Errorf("%s: %s%s, want %s", args, out, errs, want)
				}
			}
			if status, _, errs := authsvcCommand(t, environ[:2], "", "limit", "show", "per-user", "user:u1"); status != 1 || !strings.Contains(errs, "--adminToken") {
				t.Errorf("without the token: %d %s", status, errs)
			}
			for url, want := range map[string]int{r.public + "/readyz": 200, r.inner + "/metrics": 200, r.public + "/.well-known/jwks.json": 200} {
				request, _ := http.NewRequest("GET", url, nil)
				a := r.do(request)
				if a.status != want || strings.HasSuffix(url, "/metrics") && !strings.Contains(a.body, `sluice_gateway_up{instance="gateway-1"`) {
					t.Errorf("%s: %d %s", url, a.status, a.body)
				}
			}
			// The doors that have no secret are shut, also to an empty one.
			for _, bearer := range []string{"", " "} {
				if a := r.callAs(bearer, "POST", "/v1/tokens", `{"user_id":"u1"}`); a.status != 401 {
					t.Errorf("secret %q: %d %s", bearer, a.status, a.body)
				}
			}
			r.wantStatus(issuertest.New(t, "x", "ES256").Token(nil), 401)
			// A refresh token made with the empty key is none of ours.
			body := "0123456789abcdef0123456789abcdef." + strings.Repeat("A", 43)
			mac := hmac.New(sha256.New, nil)
			mac.Write([]byte(body))
			forged := body + "." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
			if _, a := r.refreshWith(forged); a.status != 400 {
				t.Errorf("forged refresh token: %d %s", a.status, a.body)
			}
			if a := r.revoke(forged); !strings.Contains(a.body, `"revoked":[]`) {
				t.Errorf("forged refresh token revoked: %d %s", a.status, a.body)
			}
			if made, err := os.ReadDir("."); err != nil || len(made) > 0 {
				t.Errorf("made %v %v", made, err)
			}
			if !strings.Contains(r.logged(), "every token is refused") {
				t.Error("the log does not say what this authsvc is for")
			}
		})
	}
	if _, err := config.Load([]string{"--own.keyDir="}, nil); err == nil || !strings.Contains(err.Error(), "adminToken") {
		t.Errorf("neither folder nor admin token: %v", err)
	}
}

// A folder for keys is not needed for other issuers' tokens either.
func TestOtherIssuersAlone(t *testing.T) {
	redis := redistest.Start(t)
	issuer := issuertest.New(t, "kc", "ES256")
	c := testConfig(t, redis.Addr)
	c.Own.KeyDir, c.AdminToken = "", "an-admin-token-of-the-test"
	c.Issuers = []config.Issuer{issuer.Config()}
	c.Issuers[0].JWKSFile = issuertest.WriteFile(t, filepath.Join(t.TempDir(), "jwks"), issuertest.KeySet(issuer))
	r := open(t, c)
	r.wantStatus(issuer.Token(nil), 200)
	environ := []string{"AUTHSVC_ADMINLISTEN=" + r.AdminAddr().String(), "AUTHSVC_OWN_KEYDIR=", "AUTHSVC_ADMINTOKEN=" + c.AdminToken}
	if status, _, errs := authsvcCommand(t, environ, "", "user", "revoke", "42"); status != 1 || !strings.Contains(errs, "prefixes: kc:") {
		t.Errorf("%d %s", status, errs)
	}
}

// A server of nobody's that cannot make keys says how to do without.
func TestUnwritableKeyFolderSaysHowToDoWithout(t *testing.T) {
	c := testConfig(t, "127.0.0.1:1")
	c.Own.KeyDir = filepath.Join(issuertest.WriteFile(t, filepath.Join(t.TempDir(), "file"), "x"), "keys")
	err := (&Service{Config: c, Log: slog.New(slog.DiscardHandler)}).Open(context.Background())
	if err == nil || !strings.Contains(err.Error(), "or empty where no tokens are issued") {
		t.Errorf("%v", err)
	}
}
