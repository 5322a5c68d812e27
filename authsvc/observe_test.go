package authsvc

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/sluice-gateway/sluice/authsvc/refusal"
	"github.com/sluice-gateway/sluice/authsvc/token"
	"github.com/sluice-gateway/sluice/internal/redistest"
)

// No token or secret in any line of the log, whatever was asked, and no user or
// key of a limit in any that is not of an operator's action (design: operator-tokens).
func TestLogHoldsNoSecrets(t *testing.T) {
	r, _ := start(t)
	const user = "user-that-is-nobodys-business"
	p := r.loginWith(`{"user_id":"` + user + `","claims":{"plan":"plan-of-theirs"}}`)
	r.ask(p.AccessToken)
	r.ask(p.AccessToken + "x")
	r.ask("abc.def.ghi")
	next, _ := r.refreshWith(p.RefreshToken)
	r.call("POST", "/v1/tokens/introspect", `{"token":"`+next.AccessToken+`"}`)
	r.call("POST", "/v1/tokens", `{"user_id":"`+user+`","claims":{"sub":"x"}}`)
	r.call("POST", "/v1/users/"+user+"/revoke", "")
	r.call("GET", "/v1/limits/none/user:"+user, "")
	r.call("GET", "/v1/nothing/"+user, "")
	r.ask(next.AccessToken)
	r.callAs("wrong-"+r.AdminToken(), "GET", "/v1/gateways", "")
	log := r.logged()
	for line := range strings.Lines(log) {
		if strings.Contains(line, user) && !strings.Contains(line, `"actor":"admin"`) {
			t.Errorf("names the user: %s", line)
		}
	}
	for name, secret := range map[string]string{
		"access token": p.AccessToken, "its payload": strings.Split(p.AccessToken, ".")[1], "its signature": strings.Split(p.AccessToken, ".")[2],
		"refresh token": p.RefreshToken, "next access token": next.AccessToken, "admin token": r.AdminToken(), "issuer token": r.IssuerToken(),
		"claim": "plan-of-theirs", "garbage token": "abc.def.ghi", "token id": token.ID(p.AccessToken),
	} {
		if strings.Contains(log, secret) {
			t.Errorf("the log holds the %s", name)
		}
	}
	lines := 0
	for line := range strings.Lines(log) {
		var entry map[string]any
		if err := json.Unmarshal([]byte(line), &entry); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		if entry["msg"] == "request" {
			lines++
			for _, member := range []string{"method", "route", "status", "took", "request_id"} {
				if entry[member] == nil {
					t.Errorf("line lacks %s: %s", member, line)
				}
			}
		}
	}
	if lines != 12 {
		t.Errorf("%d request lines for 12 requests", lines)
	}
}

func TestRequestIDIsTheGateways(t *testing.T) {
	r, _ := start(t)
	const id = "3f0c2a52-9a55-4a3c-8d0e-0d4b8b5b1c11"
	for sent, kept := range map[string]bool{id: true, strings.ToUpper(id): false, "x": false, `x","status":200,"y":"`: false, "{" + id + "}": false} {
		request, _ := http.NewRequest("GET", r.public+"/auth", nil)
		request.Header.Set("X-Request-ID", sent)
		var p refusal.Problem
		a := r.do(request)
		a.json(t, &p)
		if (p.RequestID == sent) != kept || len(p.RequestID) != 36 {
			t.Errorf("sent %q, answered %q", sent, p.RequestID)
		}
	}
}

func TestMetrics(t *testing.T) {
	r, redis := start(t)
	client := redis.Client()
	defer client.Close()
	beat(t, client, "0123456789abcdef")
	p := r.login("somebody")
	r.wantStatus(p.AccessToken, 200)
	r.wantStatus(p.AccessToken, 200)
	r.wantStatus("x", 401)
	request, _ := http.NewRequest("GET", r.inner+"/metrics", nil)
	body := r.do(request).body
	for _, line := range []string{
		`authsvc_requests_total{code="",route="/auth",status="200"} 2`,
		`authsvc_requests_total{code="invalid_token",route="/auth",status="401"} 1`,
		`authsvc_tokens_issued_total 1`,
		`authsvc_verified_hits_total 1`,
		`authsvc_redis_away 0`,
		`authsvc_events_alive 1`,
		`sluice_gateway_up{instance="0123456789abcdef",version="1.2"} 1`,
		`sluice_gateway_allowed_total{instance="0123456789abcdef"} 7`,
		`sluice_gateway_denied_total{instance="0123456789abcdef",limit="per-user"} 3`,
		`sluice_gateway_redis_errors_total{instance="0123456789abcdef",kind="timeout"} 2`,
		`sluice_gateway_breaker_opened_total{instance="0123456789abcdef"} 11`,
		`sluice_gateway_events_lost_total{instance="0123456789abcdef"} 9`,
		`sluice_gateway_keys{instance="0123456789abcdef"} 10`,
	} {
		if !strings.Contains(body, line+"\n") {
			t.Errorf("no line %s", line)
		}
	}
	if strings.Contains(body, "somebody") {
		t.Error("a user among the metrics")
	}
}

// A span a request, in the gateway's trace, without anything secret.
func TestTracing(t *testing.T) {
	var mu sync.Mutex
	var spans bytes.Buffer
	collector := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		mu.Lock()
		defer mu.Unlock()
		spans.WriteString(r.URL.Path)
		spans.Write(body)
	}))
	defer collector.Close()
	redis := redistest.Start(t)
	c := testConfig(t, redis.Addr)
	c.Tracing.Endpoint = collector.URL + "/"
	s := &Service{Config: c, Log: slog.New(slog.DiscardHandler)}
	if err := s.Open(context.Background()); err != nil {
		t.Fatal(err)
	}
	request, _ := http.NewRequest("GET", "http://"+s.PublicAddr().String()+"/auth", nil)
	request.Header.Set("Authorization", "Bearer not.a.token")
	request.Header.Set("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
	transport := &http.Transport{DisableKeepAlives: true}
	response, err := (&http.Client{Transport: transport}).Do(request)
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	if err := s.Close(); err != nil { // flushes
		t.Fatal(err)
	}
	mu.Lock()
	defer mu.Unlock()
	got := spans.String()
	for _, want := range []string{"/v1/traces", "GET /auth", "\x0a\xf7\x65\x19\x16\xcd\x43\xdd\x84\x48\xeb\x21\x1c\x80\x31\x9c", "\xb7\xad\x6b\x71\x69\x20\x33\x31", "sluice-authsvc", "invalid_token"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in what was sent", want)
		}
	}
	if strings.Contains(got, "//v1/traces") {
		t.Error("the endpoint's slash is doubled")
	}
	if strings.Contains(got, "not.a.token") {
		t.Error("the span holds the token")
	}
}

// A collector that is away costs the traces, a line in the log, and nothing
// else: authsvc answers, and ends as it should.
func TestCollectorAway(t *testing.T) {
	redis := redistest.Start(t)
	c := testConfig(t, redis.Addr)
	c.Tracing.Endpoint = "http://127.0.0.1:" + redistest.FreePort(t)
	log := new(lockedBuffer)
	s := &Service{Config: c, Log: slog.New(slog.NewJSONHandler(log, nil))}
	if err := s.Open(context.Background()); err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Get("http://" + s.PublicAddr().String() + "/auth")
	if err != nil || response.StatusCode != 401 {
		t.Fatal(response, err)
	}
	response.Body.Close()
	if err := s.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
	if !strings.Contains(log.String(), `"msg":"traces were not sent"`) {
		t.Errorf("the log does not tell:\n%s", log)
	}
}
