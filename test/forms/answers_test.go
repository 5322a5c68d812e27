package forms_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/test/harness"
)

const perUser = `
redis: REDIS
auth: {addresses: ["AUTH"]}
limits:
- {name: per-user, key: user, limit: 3, window: 1h, tierHeader: X-User-Plan, tiers: {pro: 5}}
- {name: burst, key: user, limit: 20, window: 2h}`

// TestRateLimitHeaders is design: answers on what passes: draft-ietf-httpapi-
// ratelimit-headers-11, limits in configured order, r never above the truth.
func TestRateLimitHeaders(t *testing.T) {
	both(t, func(t *testing.T, b *bed) {
		gate, began := b.gate(perUser), time.Now()
		for _, step := range []struct {
			user   string
			status int
			policy string
			r1, r2 int
		}{
			{"ann", 200, `"per-user";q=3;w=3600, "burst";q=20;w=7200`, 2, 19},
			{"ann", 200, `"per-user";q=3;w=3600, "burst";q=20;w=7200`, 1, 18},
			{"bob.pro", 200, `"per-user";q=5;w=3600, "burst";q=20;w=7200`, 4, 19},
			{"ann", 200, `"per-user";q=3;w=3600, "burst";q=20;w=7200`, 0, 17},
			{"eve.unheard-of", 200, `"per-user";q=3;w=3600, "burst";q=20;w=7200`, 2, 19},
		} {
			// These are small limits, counted by a log: room comes back a window
			// after the first request that counts.
			most1, most2 := int64(3600), int64(7200)
			w := ask(gate, as(step.user))
			least1, least2 := most1-int64(time.Since(began).Seconds())-1, most2-int64(time.Since(began).Seconds())-1
			var r1, r2 int
			var t1, t2 int64
			got := w.Header().Get("RateLimit")
			_, err := fmt.Sscanf(got, `"per-user";r=%d;t=%d, "burst";r=%d;t=%d`, &r1, &t1, &r2, &t2)
			if w.Code != step.status || err != nil || r1 != step.r1 || r2 != step.r2 || t1 < least1 || t1 > most1 || t2 < least2 || t2 > most2 {
				t.Errorf("%s: %d, RateLimit: %s, %v; want r %d and %d, t %d to %d and %d to %d", step.user, w.Code, got, err, step.r1, step.r2, least1, most1, least2, most2)
			}
			if got := w.Header().Get("RateLimit-Policy"); got != step.policy {
				t.Errorf("%s: RateLimit-Policy: %s", step.user, got)
			}
			for _, name := range []string{"X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset", "Retry-After"} {
				if got := w.Header().Get(name); got != "" {
					t.Errorf("%s: %s: %s", step.user, name, got)
				}
			}
		}
	})
}

// TestTooMany is design: answers on what does not: header for header, member for member.
func TestTooMany(t *testing.T) {
	both(t, func(t *testing.T, b *bed) {
		gate, began := b.gate(perUser+"\nlegacyHeaders: true"), time.Now()
		if got := statuses(gate, 3, as("ann")); got != "200 200 200" {
			t.Fatal(got)
		}
		w := ask(gate, as("ann"))
		if w.Code != 429 {
			t.Fatalf("%d %s", w.Code, w.Body)
		}
		raw := w.Body.String()
		p := readProblem(t, w)
		// Three of three, by the log rule: the first comes free an hour after it
		// was granted.
		retryAfter, err := strconv.Atoi(w.Header().Get("Retry-After"))
		if err != nil || retryAfter < 1 || retryAfter != p.RetryAfter {
			t.Errorf("Retry-After %q, retry_after %d", w.Header().Get("Retry-After"), p.RetryAfter)
		}
		if free, got := hour-time.Since(began), time.Duration(retryAfter)*time.Second; got < free || got > hour {
			t.Errorf("Retry-After %v, the first permit comes free in %v", got, free)
		}
		if p.Limit != "per-user" || !strings.Contains(p.Detail, "per-user") {
			t.Errorf("problem %+v", p)
		}
		var members map[string]any
		if err := json.Unmarshal([]byte(raw), &members); err != nil {
			t.Fatal(err)
		}
		wanted := []string{"detail", "limit", "request_id", "retry_after", "status", "title", "type"}
		if got := slices.Sorted(maps.Keys(members)); !slices.Equal(got, wanted) {
			t.Errorf("members %q, want %q", got, wanted)
		}
		if got := w.Header().Get("RateLimit-Policy"); got != `"per-user";q=3;w=3600, "burst";q=20;w=7200` {
			t.Errorf("RateLimit-Policy: %s", got)
		}
		if got := w.Header().Get("RateLimit"); !strings.HasPrefix(got, `"per-user";r=0;t=`) {
			t.Errorf("RateLimit: %s", got)
		}
		if w.Header().Get("X-RateLimit-Limit") != "3" || w.Header().Get("X-RateLimit-Remaining") != "0" || w.Header().Get("X-RateLimit-Reset") == "" {
			t.Errorf("legacy headers %v", w.Header())
		}
		if got := w.Header().Get("Content-Length"); got != "" && got != strconv.Itoa(len(raw)) {
			t.Errorf("Content-Length: %s of %d", got, len(raw))
		}
		if got := statuses(gate, 1, as("bob")); got != "200" {
			t.Errorf("another user: %s", got)
		}
	})
}

// TestIdentityRefusals: what the auth service says, and what the plugin says
// when it cannot be asked.
func TestIdentityRefusals(t *testing.T) {
	respond := func(status int, header ...string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			for i := 0; i < len(header); i += 2 {
				w.Header().Add(header[i], header[i+1])
			}
			w.WriteHeader(status)
		}
	}
	token := []func(*http.Request){with("Authorization", "Bearer opaque")}
	tests := []struct {
		name    string
		judge   http.HandlerFunc
		request []func(*http.Request)
		status  int
		header  map[string]string
		body    string // exactly; "" is a problem of the plugin's
		calls   int
	}{
		{name: "no token", status: 401, header: map[string]string{"WWW-Authenticate": `Bearer realm="sluice"`, "Retry-After": ""}, calls: 0},
		{name: "two tokens", request: []func(*http.Request){with("Authorization", "Bearer user-ann", "Bearer user-ann")}, status: 400, header: map[string]string{"WWW-Authenticate": ""}, calls: 0},
		{name: "bad token", request: []func(*http.Request){with("Authorization", "Bearer bad")}, status: 401, calls: 1, body: badTokenBody,
			header: map[string]string{"WWW-Authenticate": `Bearer realm="sluice", error="invalid_token", error_description="the token is bad"`, "Content-Type": "application/problem+json"}},
		{name: "not allowed", request: token, status: 403, calls: 1, body: "{}",
			judge: func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("WWW-Authenticate", `Bearer realm="sluice", error="insufficient_scope"`)
				w.WriteHeader(403)
				fmt.Fprint(w, "{}")
			},
			header: map[string]string{"WWW-Authenticate": `Bearer realm="sluice", error="insufficient_scope"`}},
		{name: "400", request: token, judge: respond(400), status: 503, calls: 1, header: map[string]string{"Retry-After": "1"}},
		{name: "404", request: token, judge: respond(404), status: 503, calls: 1, header: map[string]string{"Retry-After": "1"}},
		{name: "429", request: token, judge: respond(429), status: 503, calls: 1, header: map[string]string{"Retry-After": "1"}},
		{name: "500", request: token, judge: respond(500), status: 503, calls: 1, header: map[string]string{"Retry-After": "1"}},
		{name: "503", request: token, judge: respond(503), status: 503, calls: 1, header: map[string]string{"Retry-After": "1"}},
		{name: "a redirect", request: token, judge: respond(302, "Location", "/elsewhere"), status: 503, calls: 1, header: map[string]string{"Retry-After": "1", "Location": ""}},
		{name: "200 for nobody", request: token, judge: respond(200), status: 503, calls: 1, header: map[string]string{"Retry-After": "1"}},
		{name: "200 for an empty name", request: token, judge: respond(200, "X-User-ID", ""), status: 503, calls: 1, header: map[string]string{"Retry-After": "1"}},
		{name: "200 for two", request: token, judge: respond(200, "X-User-ID", "ann", "X-User-ID", "bob"), status: 503, calls: 1, header: map[string]string{"Retry-After": "1"}},
		{name: "hangs up", request: token, judge: func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, status: 503, calls: 1, header: map[string]string{"Retry-After": "1"}},
	}
	both(t, func(t *testing.T, b *bed) {
		for i, tt := range tests {
			t.Run(tt.name, func(t *testing.T) {
				b := b.on(t)
				b.auth = startFakeAuth(t)
				b.auth.judgeBy(tt.judge)
				gate := b.gate(fmt.Sprintf("redis: REDIS\nauth: {addresses: [\"AUTH\"], cacheSize: %d}", 100+i))
				b.up.Forget()
				w := ask(gate, tt.request...)
				if w.Code != tt.status {
					t.Fatalf("status %d, want %d: %s", w.Code, tt.status, w.Body)
				}
				for name, want := range tt.header {
					if got := strings.Join(w.Header().Values(name), "; "); got != want {
						t.Errorf("%s: %q, want %q", name, got, want)
					}
				}
				if !uuid4.MatchString(w.Header().Get("X-Request-ID")) {
					t.Errorf("X-Request-ID: %q", w.Header().Get("X-Request-ID"))
				}
				if tt.body == "" {
					readProblem(t, w)
				} else if got := w.Body.String(); got != tt.body {
					t.Errorf("body %s", got)
				}
				if got := len(b.auth.calls()); got != tt.calls {
					t.Errorf("%d calls, want %d", got, tt.calls)
				}
				if n := len(b.up.Seen()); n != 0 {
					t.Errorf("%d requests reached the service", n)
				}
			})
		}
	})
}

// TestQuestionToTheAuthService is design: decision-cache: what a foreign auth server may want
// to know, and nothing a client could forge.
func TestQuestionToTheAuthService(t *testing.T) {
	both(t, func(t *testing.T, b *bed) {
		gate := b.gate(`{redis: REDIS, auth: {addresses: ["AUTH"]}}`)
		w := ask(gate, as("ann"), with("Cookie", "session=1"), with("X-Forwarded-For", "192.0.2.1"), with("X-Forwarded-Uri", "/admin"), with("X-User-ID", "root"),
			with("Traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"))
		if w.Code != 200 {
			t.Fatal(w.Code)
		}
		asked := b.auth.calls()[0]
		for name, want := range map[string]string{
			"Authorization": "Bearer user-ann", "X-Forwarded-Method": "GET", "X-Forwarded-Proto": "http", "X-Forwarded-Host": "shop.example",
			"X-Forwarded-Uri": "/v1/products?limit=2", "X-Forwarded-For": "203.0.113.7", "X-Request-Id": w.Header().Get("X-Request-ID"),
			"Traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "Cookie": "", "X-User-Id": "",
		} {
			if got := asked.Get(name); got != want {
				t.Errorf("%s: %q, want %q", name, got, want)
			}
		}
	})
}

// TestDecisionsAreKept: RFC 9111 as far as one credential goes. Each case asks
// twice in a row and counts the calls.
func TestDecisionsAreKept(t *testing.T) {
	good := func(headers ...string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X-User-ID", "ann")
			for i := 0; i < len(headers); i += 2 {
				w.Header().Add(headers[i], headers[i+1])
			}
		}
	}
	tests := []struct {
		name  string
		judge http.HandlerFunc
		calls int
	}{
		{"as authsvc answers", good("Vary", "Authorization", "Cache-Control", "private, max-age=60, stale-if-error=300"), 1},
		{"spelt otherwise", good("Vary", "authorization", "Cache-Control", "Max-Age=60"), 1},
		{"no-store", good("Vary", "Authorization", "Cache-Control", "private, max-age=60, no-store"), 2},
		{"no-cache", good("Vary", "Authorization", "Cache-Control", "no-cache, max-age=60"), 2},
		{"no age", good("Vary", "Authorization"), 2},
		{"age zero", good("Vary", "Authorization", "Cache-Control", "max-age=0"), 2},
		{"nonsense", good("Vary", "Authorization", "Cache-Control", "max-age=sixty"), 2},
		{"no Vary: it may depend on anything", good("Cache-Control", "max-age=60"), 2},
		{"Vary on more", good("Vary", "Authorization, Cookie", "Cache-Control", "max-age=60"), 2},
		{"Vary on everything", good("Vary", "*", "Cache-Control", "max-age=60"), 2},
		{"two Vary lines", good("Vary", "Authorization", "Vary", "X-Forwarded-Uri", "Cache-Control", "max-age=60"), 2},
		{"a refusal", judgeNobody, 2},
	}
	both(t, func(t *testing.T, b *bed) {
		events := b.redis.StartEvents(t, b.prefix)
		for i, tt := range tests {
			t.Run(tt.name, func(t *testing.T) {
				b := b.on(t)
				b.auth = startFakeAuth(t)
				b.auth.judgeBy(tt.judge)
				gate := b.gate(fmt.Sprintf("redis: REDIS\nauth: {addresses: [\"AUTH\"], cacheSize: %d}", 100+i))
				events.AwaitListeners(1)
				statuses(gate, 2, with("Authorization", "Bearer opaque"))
				if got := len(b.auth.calls()); got != tt.calls {
					t.Errorf("%d calls, want %d", got, tt.calls)
				}
			})
		}
	})
}

func judgeNobody(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Vary", "Authorization")
	w.Header().Set("Cache-Control", "max-age=60")
	w.WriteHeader(http.StatusUnauthorized)
}

// TestConcurrentMissesMakeOneCall: requests that come while the first call is
// held share it, and those that come after it are served from memory.
func TestConcurrentMissesMakeOneCall(t *testing.T) {
	const many = 20
	both(t, func(t *testing.T, b *bed) {
		leave := make(chan struct{})
		b.auth.judgeBy(func(w http.ResponseWriter, r *http.Request) {
			<-leave
			judgeToken(w, r)
		})
		gate := b.gate(`{redis: REDIS, auth: {addresses: ["AUTH"], timeout: 20s}}`)
		var answered sync.WaitGroup
		codes := make(chan int, many)
		for range many {
			answered.Go(func() { codes <- ask(gate, as("ann")).Code })
		}
		harness.Eventually(t, 10*time.Second, "the auth service is asked", func() error {
			if len(b.auth.calls()) == 0 {
				return errors.New("not yet")
			}
			return nil
		})
		close(leave)
		answered.Wait()
		close(codes)
		for code := range codes {
			if code != 200 {
				t.Errorf("a request got %d", code)
			}
		}
		if got := len(b.auth.calls()); got != 1 {
			t.Errorf("%d calls", got)
		}
	})
}

// listening waits until the gate has taken an event in: a decision kept before
// the first one has nobody to watch over it and is asked for again.
func (b *bed) listening(gate http.Handler, events *harness.Events) {
	b.t.Helper()
	events.AwaitListeners(1)
	statuses(gate, 1, as("probe"))
	before := len(b.auth.calls())
	events.Say(map[string]any{"type": "user", "id": "probe", "before": time.Now().Add(time.Minute).UnixMilli()})
	harness.Eventually(b.t, 5*time.Second, "an event is taken in", func() error {
		statuses(gate, 1, as("probe"))
		if len(b.auth.calls()) == before {
			return errors.New("the decision is still kept")
		}
		return nil
	})
}

// TestRevocationIsHeard: an event ends a kept decision, whatever it names.
func TestRevocationIsHeard(t *testing.T) {
	sum := func(user string) string {
		w := httptest.NewRecorder()
		r := httptest.NewRequest("GET", "/auth", nil)
		r.Header.Set("Authorization", "Bearer user-"+user)
		judgeToken(w, r)
		return w.Header().Get("X-Token-ID")
	}
	both(t, func(t *testing.T, b *bed) {
		events := b.redis.StartEvents(t, b.prefix)
		gate := b.gate(`{redis: REDIS, auth: {addresses: ["AUTH"]}}`)
		b.listening(gate, events)
		for _, event := range []map[string]any{
			{"type": "token", "id": sum("ann")},
			{"type": "user", "id": "ann", "before": time.Now().Add(time.Minute).UnixMilli()},
			{"type": "session", "id": "session-of-ann"},
		} {
			b.auth.judgeBy(nil)
			if got := statuses(gate, 2, as("ann")) + " " + statuses(gate, 1, as("bob")); got != "200 200 200" {
				t.Fatal(got)
			}
			b.auth.judgeBy(judgeNobody) // from now on only memory says yes
			if heard := events.Say(event); heard != 1 {
				t.Fatalf("%d gateways heard of %v", heard, event)
			}
			harness.Eventually(t, 5*time.Second, fmt.Sprintf("%v takes effect", event), func() error {
				if ask(gate, as("ann")).Code == 200 {
					return errors.New("200")
				}
				return nil
			})
			if got := statuses(gate, 2, as("ann")); got != "401 401" {
				t.Errorf("after %v: %s", event, got)
			}
			if got := statuses(gate, 1, as("bob")); got != "200" {
				t.Errorf("after %v another user got %s", event, got)
			}
		}
	})
}
