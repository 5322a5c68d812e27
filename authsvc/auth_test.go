package authsvc

import (
	"net/http"
	"strings"
	"testing"

	"github.com/sluice-gateway/sluice/authsvc/refusal"
)

func TestAuthAnswersWhoTheBearerIs(t *testing.T) {
	r, _ := start(t)
	p := r.loginWith(`{"user_id":"u1","claims":{"plan":"pro","scope":"read write"},"ttl":"10m"}`)
	if p.TokenType != "Bearer" || p.ExpiresIn != 600 || p.RefreshToken == "" {
		t.Errorf("pair: %+v", p)
	}
	a := r.wantStatus(p.AccessToken, 200)
	for header, want := range map[string]string{
		"X-User-ID": "u1", "X-User-Plan": "pro", "X-User-Scopes": "read write", "Vary": "Authorization",
	} {
		if got := a.header.Get(header); got != want {
			t.Errorf("%s: %q, want %q", header, got, want)
		}
	}
	if id := a.header.Get("X-Token-ID"); len(id) != 64 {
		t.Errorf("X-Token-ID: %q", id)
	}
	if a.header.Get("X-Session-ID") == "" {
		t.Error("no X-Session-ID")
	}
	if got := a.header.Get("Cache-Control"); got != "private, max-age=60, stale-if-error=300" {
		t.Errorf("Cache-Control: %q", got)
	}
}

func TestAuthRefusals(t *testing.T) {
	r, _ := start(t)
	good := r.loginWith(`{"user_id":"u1","claims":{"scope":"read"}}`).AccessToken
	bearer := "Bearer " + good
	for _, test := range []struct {
		name          string
		authorization []string
		scope         string
		status        int
		challenge     string // the exact WWW-Authenticate
	}{
		{"no header", nil, "", 401, `Bearer realm="sluice"`},
		{"another scheme", []string{"Basic dTpw"}, "", 401, `Bearer realm="sluice"`},
		{"empty", []string{""}, "", 401, `Bearer realm="sluice"`},
		{"scheme alone", []string{"Bearer"}, "", 401,
			`Bearer realm="sluice", error="invalid_token", error_description="The credential is not a bearer token."`},
		{"two blanks", []string{"Bearer  " + good}, "", 401,
			`Bearer realm="sluice", error="invalid_token", error_description="The credential is not a bearer token."`},
		{"tab", []string{"Bearer\t" + good}, "", 401, `Bearer realm="sluice"`},
		{"two tokens", []string{bearer + " " + good}, "", 401,
			`Bearer realm="sluice", error="invalid_token", error_description="The credential is not a bearer token."`},
		{"comma", []string{bearer + "," + bearer}, "", 401,
			`Bearer realm="sluice", error="invalid_token", error_description="The credential is not a bearer token."`},
		{"garbage", []string{"Bearer abc"}, "", 401,
			`Bearer realm="sluice", error="invalid_token", error_description="The token is malformed."`},
		{"two headers", []string{bearer, bearer}, "", 400, ""},
		{"scheme in capitals", []string{"BEARER " + good}, "", 200, ""},
		{"scope held", []string{bearer}, "read", 200, ""},
		{"scope lacking", []string{bearer}, "read write", 403,
			`Bearer realm="sluice", error="insufficient_scope", error_description="The token lacks a scope that this needs.", scope="read write"`},
		{"scope that breaks out of quotes", []string{bearer}, `read" evil="`, 400, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			request, _ := http.NewRequest("GET", r.public+"/auth?scope="+strings.NewReplacer(" ", "+", `"`, "%22").Replace(test.scope), nil)
			request.Header["Authorization"] = test.authorization
			a := r.do(request)
			if a.status != test.status || a.header.Get("WWW-Authenticate") != test.challenge {
				t.Fatalf("%d %q\nwant %d %q", a.status, a.header.Get("WWW-Authenticate"), test.status, test.challenge)
			}
			if a.header.Get("Vary") != "Authorization" {
				t.Error("no Vary: Authorization")
			}
			if test.status == 200 {
				return
			}
			if got := a.header.Get("Content-Type"); got != "application/problem+json" {
				t.Errorf("Content-Type: %q", got)
			}
			if a.header.Get("Cache-Control") != "no-store" {
				t.Errorf("Cache-Control: %q", a.header.Get("Cache-Control"))
			}
			var p refusal.Problem
			if a.json(t, &p); p.Status != test.status || p.Type != "about:blank" || p.RequestID == "" {
				t.Errorf("problem: %+v", p)
			}
		})
	}
}

// design: status-only: a warm cache must not admit header.payload with another signature.
func TestWarmCacheRefusesEveryOtherSignature(t *testing.T) {
	r, _ := start(t)
	good := r.login("u1").AccessToken
	r.wantStatus(good, 200)
	r.wantStatus(good, 200)
	end := strings.LastIndexByte(good, '.') + 1
	for i := end; i < len(good); i++ {
		other := byte('A')
		if good[i] == other {
			other = 'B'
		}
		r.wantStatus(good[:i]+string(other)+good[i+1:], 401)
	}
	for _, signature := range []string{"", "AAAA", good[end : len(good)-1], good[end:] + "A", strings.Repeat("A", 86)} {
		r.wantStatus(good[:end]+signature, 401)
	}
	r.wantStatus(good, 200)
}
