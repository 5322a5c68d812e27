package e2e

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/cmd/sluice/stack"
	"github.com/sluice-gateway/sluice/test/harness"
)

// part is what a gateway, or several, have to show.
type part struct {
	name string
	test func(*site)
}

// show tries the parts on gateways with the plugin compiled and interpreted.
func show(t *testing.T, wiring string, gateways int, parts ...part) {
	for _, form := range forms {
		t.Run(form, func(t *testing.T) {
			t.Parallel() // it waits, mostly
			s := open(t, form, wiring, gateways)
			for _, p := range parts {
				t.Run(p.name, func(t *testing.T) { p.test(s.on(t)) })
			}
		})
	}
}

// TestFast is everything that one gateway in the shipped wiring promises.
func TestFast(t *testing.T) {
	show(t, stack.Fast, 1, part{"tour", tour}, part{"headers", whatServicesReceive}, part{"forged identity", forgedIdentity}, part{"refused tokens", refusedTokens},
		part{"tampered tokens", tamperedTokens}, part{"logout", logout}, part{"streams", streams}, part{"exact limit", exactLimit}, part{"reload", reload},
		part{"outage", outage}) // last: it empties Redis
}

// TestTwoGateways: one Redis, one limit.
func TestTwoGateways(t *testing.T) {
	show(t, stack.Fast, 2, part{"exact limit", exactLimit}, part{"front door", frontDoor}, part{"reload", reload}, part{"outage", outage})
}

// TestClassic is the smoke test of the other wiring: identity by Traefik's
// forwardAuth, limits by the plugin (design: classic-wiring).
func TestClassic(t *testing.T) {
	show(t, stack.Classic, 1, part{"tour", tour}, part{"headers", whatServicesReceive}, part{"forged identity", forgedIdentity}, part{"refused tokens", refusedTokens},
		part{"tampered tokens", tamperedTokens}, part{"streams", streams}, part{"exact limit", exactLimit})
}

var uuid4 = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)

// person is a user as register and login answer.
type person struct {
	User struct{ ID, Email, Name string }
	tokens
}

func (s *site) register(email string) person {
	s.t.Helper()
	got := s.post("/v1/users/register", map[string]string{"email": email, "password": "correct horse", "name": "Ann"})
	if got.Status != 201 {
		s.t.Fatalf("register: %s", got)
	}
	var who person
	got.Into(s.t, &who)
	return who
}

// tour is what `sluice up` invites to: register, log in, read, order, and meet
// the limit.
func tour(s *site) {
	t := s.t
	ann, bob := s.register("ann@example.org"), s.register("bob@example.org")
	if got := s.post("/v1/users/register", map[string]string{"email": "ANN@example.org", "password": "correct horse", "name": "Ann"}); got.Status != 409 {
		t.Errorf("a known email: %s", got)
	}
	var again person
	got := s.post("/v1/users/login", map[string]string{"email": "ann@example.org", "password": "correct horse"})
	if got.Into(t, &again); got.Status != 200 || again.User.ID != ann.User.ID {
		t.Errorf("login: %s", got)
	}
	if got := s.post("/v1/users/login", map[string]string{"email": "ann@example.org", "password": "wrong horse"}); got.Status != 401 || !strings.Contains(got.Header.Get("RateLimit-Policy"), `"login-failures";q=10;w=900`) {
		t.Errorf("a wrong password: %s", got)
	}

	got = s.get("/v1/users/"+ann.User.ID, bearer(ann.AccessToken))
	if got.Status != 200 || !strings.Contains(string(got.Body), "ann@example.org") {
		t.Errorf("her own record: %s", got)
	}
	if got := s.get("/v1/users/"+bob.User.ID, bearer(ann.AccessToken)); got.Status != 404 {
		t.Errorf("another user's record: %s", got)
	}
	var page struct{ Items []struct{ ID string } }
	got = s.get("/v1/products", bearer(ann.AccessToken))
	if got.Into(t, &page); got.Status != 200 || len(page.Items) == 0 {
		t.Fatalf("products: %s", got)
	}
	if got.Header.Get("RateLimit") == "" || !strings.Contains(got.Header.Get("RateLimit-Policy"), `"per-user";q=100;w=60, "burst";q=20;w=1`) || !uuid4.MatchString(got.Header.Get("X-Request-ID")) {
		t.Errorf("headers: %v", got.Header)
	}
	if got := s.send("HEAD", s.url("/v1/products/"+page.Items[0].ID), nil, bearer(ann.AccessToken)); got.Status != 200 {
		t.Errorf("HEAD: %s", got)
	}

	got = s.post("/v1/orders", map[string]any{"items": []any{map[string]any{"product_id": page.Items[0].ID, "quantity": 2}}}, bearer(ann.AccessToken), header("Idempotency-Key", "first"))
	var order struct {
		ID     string `json:"id"`
		UserID string `json:"user_id"`
		Total  int    `json:"total_cents"`
	}
	if got.Into(t, &order); got.Status != 201 || order.UserID != ann.User.ID || order.Total <= 0 || got.Header.Get("Location") != "/v1/orders/"+order.ID {
		t.Fatalf("order: %s", got)
	}
	if got := s.get("/v1/orders/"+order.ID, bearer(ann.AccessToken)); got.Status != 200 {
		t.Errorf("her order: %s", got)
	}
	if got := s.get("/v1/orders/"+order.ID, bearer(bob.AccessToken)); got.Status != 404 {
		t.Errorf("another user's order: %s", got)
	}
	if got := s.get("/v1/orders/"+order.ID, bearer(bob.AccessToken), header("X-User-ID", ann.User.ID)); got.Status != 404 {
		t.Errorf("another user's order with a forged X-User-ID: %s", got)
	}

	// Twenty a second: of sixty at once some are refused, and each refusal says
	// for how long.
	for _, got = range s.ask(60, []string{s.url("/v1/products")}, bearer(bob.AccessToken)) {
		if got.Status == 429 {
			break
		}
	}
	var problem struct {
		Limit      string `json:"limit"`
		RetryAfter int    `json:"retry_after"`
	}
	if got.Status != 429 {
		t.Fatalf("the limit was never met: %s", got)
	}
	if got.Into(t, &problem); problem.Limit != "burst" || got.Header.Get("Retry-After") != fmt.Sprint(problem.RetryAfter) || problem.RetryAfter < 1 {
		t.Errorf("the limit: %s", got)
	}
}

// whatServicesReceive is design: what-services-receive.
func whatServicesReceive(s *site) {
	t := s.t
	token := s.token("carol", "claims", map[string]any{"plan": "pro", "scope": "read write"})
	s.echo.Forget()
	got := s.get("/echo/here?x=1", bearer(token), header("X-Forwarded-For", "192.0.2.1"), header("X-Request-ID", "11111111-1111-4111-8111-111111111111"))
	if got.Status != 200 {
		t.Fatal(got)
	}
	saw := s.echo.Last(t)
	for name, want := range map[string]string{
		"X-User-ID": "carol", "X-User-Plan": "pro", "X-User-Scopes": "read write", "X-Forwarded-For": s.address, "X-Request-ID": got.Header.Get("X-Request-ID"),
	} {
		if values := saw.Header.Values(name); !slices.Equal(values, []string{want}) {
			t.Errorf("%s: %q, want %q", name, values, want)
		}
	}
	for _, name := range []string{"Authorization", "X-Token-ID", "X-Session-ID"} {
		if values := saw.Header.Values(name); values != nil {
			t.Errorf("%s: %q", name, values)
		}
	}
	if id := saw.Header.Get("X-Request-ID"); !uuid4.MatchString(id) || strings.HasPrefix(id, "11111111") {
		t.Errorf("X-Request-ID: %q", id)
	}
	if saw.Path != "/echo/here?x=1" || saw.Method != "GET" {
		t.Errorf("%s %s", saw.Method, saw.Path)
	}
	if policy := got.Header.Get("RateLimit-Policy"); !strings.Contains(policy, `"per-user";q=1000;w=60`) {
		t.Errorf("a pro's RateLimit-Policy: %s", policy)
	}
}

// forgedIdentity: what a client says about itself never arrives, on a public
// route and on a protected one, in the spelling that services read and in those
// that some of them fold onto it.
func forgedIdentity(s *site) {
	t := s.t
	token := s.token("dave")
	forged := []harness.Option{header("X-User-ID", "root"), header("X-User-Plan", "enterprise"), header("X-User-Scopes", "admin"), header("X-Token-ID", "forged"), header("X-Session-ID", "forged")}
	for _, front := range s.fronts {
		for _, route := range []struct{ path, user string }{{"/public", ""}, {"/echo", "dave"}} {
			url := front.base + route.path
			s.echo.Forget()
			if got := s.get(url, append(forged, bearer(token))...); got.Status != 200 || got.Proto != front.proto {
				t.Fatalf("%s: %s %s", url, got.Proto, got)
			}
			saw := s.echo.Last(t).Header
			if got := strings.Join(saw.Values("X-User-ID"), ","); got != route.user {
				t.Errorf("%s: X-User-ID: %q", url, got)
			}
			for name, values := range saw {
				for _, lie := range []string{"root", "enterprise", "admin", "forged", token} {
					if line := strings.Join(values, ","); strings.Contains(line, lie) {
						t.Errorf("%s: %s: %s arrived", url, name, line)
					}
				}
			}
			for _, alias := range []string{"X_User_ID", "X.User.ID", "x_user-id"} {
				s.echo.Forget()
				got := s.get(url, bearer(token), func(r *http.Request) { r.Header[alias] = []string{"root"} })
				for _, seen := range s.echo.Seen() {
					t.Errorf("%s: %s arrived: %v", url, alias, seen.Header)
				}
				if got.Status != 400 {
					t.Errorf("%s: %s: %s", url, alias, got)
				}
			}
		}
	}
}

// refusedTokens: none, expired, two. The guard of guesses counts each, so there
// are few here.
func refusedTokens(s *site) {
	t := s.t
	short := s.token("erin", "ttl", "1s")
	challenge := func(got harness.Reply) string { return got.Header.Get("WWW-Authenticate") }

	got := s.get("/echo")
	if got.Status != 401 || challenge(got) == "" || !strings.HasPrefix(got.Header.Get("Content-Type"), "application/problem+json") {
		t.Errorf("no token: %s", got)
	}
	if s.ready.Wiring == stack.Fast && challenge(got) != `Bearer realm="sluice"` {
		t.Errorf("no token: %s", challenge(got))
	}
	if got := s.get("/v1/products", header("Authorization", "Basic YTpi")); got.Status != 401 {
		t.Errorf("another scheme: %s", got)
	}
	if got := s.get("/echo", header("Authorization", "Bearer a", "Bearer b")); got.Status != 400 && (got.Status != 401 || s.ready.Wiring == stack.Fast) {
		t.Errorf("two tokens: %s", got)
	}
	// Expired, after it was good and while the gateway may remember that.
	if got := s.get("/exact", bearer(short)); got.Status != 200 {
		t.Fatalf("not yet expired: %s", got)
	}
	harness.Eventually(t, 20*time.Second, "the token expires", func() error {
		if got := s.get("/exact", bearer(short)); got.Status != 401 || !strings.Contains(challenge(got), `error="invalid_token"`) {
			return fmt.Errorf("%s", got)
		}
		return nil
	})
	if got := s.get("/v1/products", bearer(short)); got.Status != 401 {
		t.Errorf("expired, on another route: %s", got)
	}
}

// tamperedTokens is design: status-only: every part of a token counts, before the gateway
// knows the true one and after.
func tamperedTokens(s *site) {
	t := s.t
	token := s.token("frank")
	part := strings.Split(token, ".")
	var claims map[string]any
	payload, err := base64.RawURLEncoding.DecodeString(part[1])
	if err != nil {
		t.Fatal(err)
	}
	(harness.Reply{Body: payload}).Into(t, &claims)
	tampered := map[string]string{
		"no signature":              part[0] + "." + part[1] + ".",
		"first byte of signature":   part[0] + "." + part[1] + "." + flip(part[2], 0),
		"middle of signature":       part[0] + "." + part[1] + "." + flip(part[2], len(part[2])/2),
		"late in signature":         part[0] + "." + part[1] + "." + flip(part[2], len(part[2])-3),
		"longer signature":          token + "AA",
		"another subject":           part[0] + "." + base64.RawURLEncoding.EncodeToString([]byte(strings.Replace(string(payload), "frank", "grace", 1))) + "." + part[2],
		"algorithm none":            base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none"}`)) + "." + part[1] + ".",
		"white space":               part[0] + "." + part[1] + " ." + part[2],
		"somebody else's signature": part[0] + "." + part[1] + "." + strings.Split(s.token("heidi"), ".")[2],
	}
	refuseAll := func(when string) {
		for name, token := range tampered {
			s.echo.Forget()
			if got := s.get("/exact", bearer(token)); got.Status != 401 {
				t.Errorf("%s, %s: %s", when, name, got)
			}
			if n := len(s.echo.Seen()); n > 0 {
				t.Errorf("%s, %s: reached the service", when, name)
			}
		}
	}
	refuseAll("cold")
	for range 3 {
		if got := s.get("/exact", bearer(token)); got.Status != 200 {
			t.Fatalf("the true token: %s", got)
		}
	}
	refuseAll("warm")
	if got := s.get("/exact", bearer(token)); got.Status != 200 {
		t.Errorf("the true token, afterwards: %s", got)
	}
}

// flip changes one character of base64url for another.
func flip(text string, at int) string {
	other := byte('A')
	if text[at] == other {
		other = 'Q'
	}
	return text[:at] + string(other) + text[at+1:]
}

// logout ends a session everywhere: access and refresh token.
func logout(s *site) {
	t := s.t
	who := s.register("ivan@example.org")
	var fresh tokens
	got := s.post("/v1/users/refresh", map[string]string{"refresh_token": who.RefreshToken})
	if got.Into(t, &fresh); got.Status != 200 || fresh.AccessToken == "" || fresh.RefreshToken == who.RefreshToken {
		t.Fatalf("refresh: %s", got)
	}
	if got := s.get("/exact", bearer(fresh.AccessToken)); got.Status != 200 {
		t.Fatalf("the fresh token: %s", got)
	}
	if got := s.post("/v1/users/logout", nil, bearer(fresh.AccessToken)); got.Status != 204 {
		t.Fatalf("logout: %s", got)
	}
	harness.Eventually(t, 5*time.Second, "the access token is void", func() error {
		if got := s.get("/exact", bearer(fresh.AccessToken)); got.Status != 401 {
			return fmt.Errorf("%s", got)
		}
		return nil
	})
	if got := s.post("/v1/users/refresh", map[string]string{"refresh_token": fresh.RefreshToken}); got.Status != 401 {
		t.Errorf("refresh after logout: %s", got)
	}
}

// streams is design: answer-wrapper and design: streams through Traefik itself: server-sent events one by
// one, and a WebSocket.
func streams(s *site) {
	t := s.t
	token := s.token("judy")
	s.echo.Stream(t, s.client, s.url("/events"), bearer(token))
	s.echo.Socket(t, s.ready.HTTP, "Authorization: Bearer "+token+"\r\n")
	if got := s.echo.Last(t).Header.Get("X-User-ID"); got != "judy" {
		t.Errorf("the upgrade carried X-User-ID %q", got)
	}
}
