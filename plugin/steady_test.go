package plugin

import (
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/internal/redistest"
)

// serveSteady and the pipeline give equal answers and hand on equal requests,
// whatever the request: one gate with it and one without see the same sequence.
func TestSteadyIsThePipeline(t *testing.T) {
	redis := redistest.Start(t)
	auth := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Vary", "Authorization")
		user, plan, _ := strings.Cut(strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "), ".")
		if user == "bad" {
			h.Set("WWW-Authenticate", "Bearer")
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		h.Set("X-User-ID", user)
		if plan != "" {
			h.Set("X-User-Plan", plan)
		}
		h.Set("Cache-Control", "private, max-age=60")
	}))
	defer auth.Close()

	for name, yaml := range map[string]string{
		"users":            `{auth: {addresses: [AUTH]}, limits: [{name: a, key: user, limit: 12, window: 744h}]}`,
		"several":          `{auth: {addresses: [AUTH], keepAuthorization: true}, limits: [{name: a, key: user, limit: 12, window: 744h, cost: 2}, {name: b, key: user, limit: 9, window: 700h}]}`,
		"tiers":            `{auth: {addresses: [AUTH]}, limits: [{name: a, key: user, limit: 5, window: 744h, tierHeader: X-User-Plan, tiers: {pro: 30}}]}`,
		"addresses":        `{limits: [{name: a, key: ip, limit: 12, window: 744h}]}`,
		"both":             `{auth: {addresses: [AUTH]}, limits: [{name: b, key: user, limit: 7, window: 744h}, {name: a, key: ip, limit: 32, window: 744h}]}`,
		"both, by address": `{auth: {addresses: [AUTH]}, limits: [{name: a, key: ip, limit: 5, window: 744h}, {name: b, key: user, limit: 32, window: 744h}]}`,
		"by plan":          `{auth: {addresses: [AUTH]}, limits: [{name: a, key: "header:X-User-Plan", limit: 12, window: 744h}, {name: b, key: user, limit: 14, window: 744h}]}`,
		"address, tiers":   `{auth: {addresses: [AUTH]}, limits: [{name: a, key: ip, limit: 5, window: 744h, tierHeader: X-User-Plan, tiers: {pro: 30}}, {name: b, key: ip, limit: 24, window: 740h}]}`,
		"never steady":     `{auth: {addresses: [AUTH]}, limits: [{name: a, key: global, limit: 12, window: 744h}, {name: b, key: user, limit: 7, window: 744h}]}`,
		"as shipped":       `{auth: {addresses: [AUTH]}, limits: [{name: bad-token, key: ip, limit: 5, window: 744h, countStatus: [401], countFrom: gate}, {name: a, key: user, limit: 12, window: 744h, tierHeader: X-User-Plan, tiers: {pro: 30}}, {name: b, key: user, limit: 20, window: 740h}]}`,
		"optional":         `{auth: {addresses: [AUTH], optional: true}, limits: [{name: a, key: user, limit: 5, window: 744h}]}`,
		"what answers say": `{auth: {addresses: [AUTH]}, limits: [{name: a, key: user, limit: 5, window: 744h, refundStatus: ["5xx"]}]}`,
	} {
		t.Run(name, func(t *testing.T) {
			open := func(prefix string) (*gate, *http.Header) {
				passed := new(http.Header)
				config := decode(t, []byte(strings.ReplaceAll(yaml, "AUTH", auth.URL)))
				config.Redis = []Redis{{Addresses: []string{redis.Addr}, KeyPrefix: prefix}}
				handler, err := New(t.Context(), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { *passed = r.Header.Clone() }), config, prefix)
				if err != nil {
					t.Fatal(err)
				}
				g := handler.(*gate)
				for deadline := time.Now().Add(5 * time.Second); !g.backend.client.Healthy(); time.Sleep(time.Millisecond) {
					if time.Now().After(deadline) {
						t.Fatal("Redis does not answer")
					}
				}
				return g, passed
			}
			prefix := strings.ReplaceAll(name, " ", "-")
			with, passedWith := open(prefix + "-with")
			without, passedWithout := open(prefix + "-without")
			without.steady = false
			if want := name != "never steady"; with.steady != want {
				t.Fatalf("steady is %v", with.steady)
			}
			for n := 0; n < 60; n++ {
				credential := []string{"Bearer ann", "Bearer ann", "Bearer bob.pro", "Bearer bad", "", "twice"}[n%6]
				remote := []string{"203.0.113.9:1", "203.0.113.9:2", "[2001:db8::1]:3"}[n%3]
				send := func(g *gate, passed *http.Header) string {
					*passed = nil
					w := httptest.NewRecorder()
					r := httptest.NewRequest("GET", "/", nil)
					r.RemoteAddr = remote
					r.Header.Set("X-User-ID", "forged")
					r.Header.Set("Connection", "X-User-ID, close")
					switch credential {
					case "":
					case "twice":
						r.Header["Authorization"] = []string{"Bearer ann", "Bearer ann"}
					default:
						r.Header.Set("Authorization", credential)
					}
					g.ServeHTTP(w, r)
					body := instants.ReplaceAllString(strings.ReplaceAll(w.Body.String(), w.Header().Get("X-Request-Id"), "id"), "t=")
					if w.Code == http.StatusTooManyRequests {
						w.Header().Del("RateLimit") // of the limits that did not deny it tells what leases happened to hold
					}
					return fmt.Sprint(w.Code, describe(w.Header()), " ", body, " -> ", describe(*passed))
				}
				if a, b := send(with, passedWith), send(without, passedWithout); a != b {
					t.Fatalf("request %d (%q from %s):\nsteady   %s\npipeline %s", n, credential, remote, a, b)
				}
			}
		})
	}
}

var instants = regexp.MustCompile(`\bt=\d+|^\d+$|"retry_after":\d+`)

// describe is a header without what differs from request to request.
func describe(h http.Header) string {
	text := ""
	for _, name := range slices.Sorted(maps.Keys(h)) {
		switch value := strings.Join(h[name], "|"); name {
		case "X-Request-Id", "Content-Length":
			text += fmt.Sprintf(" %s: %d", name, len(value))
		case "Ratelimit", "Retry-After": // seconds pass
			text += fmt.Sprintf(" %s: %s", name, instants.ReplaceAllString(value, "t="))
		default:
			text += fmt.Sprintf(" %s: %s", name, value)
		}
	}
	return text
}

// What a gate keeps of a credential stands for as long as the decision it came
// of, and for nobody and nowhere else.
func TestStandings(t *testing.T) {
	redis := redistest.Start(t)
	var asked atomic.Int64
	vary, life := "Authorization", "60"
	auth := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		h := w.Header()
		h.Set("Vary", vary)
		h.Set("X-User-ID", strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "))
		h.Set("Cache-Control", "private, max-age="+life)
	}))
	defer auth.Close()
	open := func(t *testing.T, yaml string) (g *gate, send func(user, remote string) *httptest.ResponseRecorder) {
		config := decode(t, []byte(strings.ReplaceAll(yaml, "AUTH", auth.URL)))
		config.Redis = []Redis{{Addresses: []string{redis.Addr}, KeyPrefix: strings.ReplaceAll(t.Name(), "/", "-")}}
		handler, err := New(t.Context(), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {}), config, "standings")
		if err != nil {
			t.Fatal(err)
		}
		g = handler.(*gate)
		await(t, "Redis to answer", g.backend.client.Healthy)
		if whole := !strings.HasSuffix(t.Name(), "lost"); whole {
			g.backend.stream.message(`{"epoch":"e","seq":1,"type":"tick"}`)
		}
		if !g.steady {
			t.Fatal("the gate has no steady state")
		}
		return g, func(user, remote string) *httptest.ResponseRecorder {
			w, r := httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil)
			r.RemoteAddr = remote
			if user != "" {
				r.Header.Set("Authorization", "Bearer "+user)
			}
			g.ServeHTTP(w, r)
			return w
		}
	}
	const home, away = "203.0.113.9:1", "203.0.113.99:1"
	const users = `{auth: {addresses: [AUTH]}, limits: [{name: a, key: user, limit: 100000, window: 1h}]}`
	// steady sends until the gate keeps what it found out.
	steady := func(t *testing.T, g *gate, send func(string, string) *httptest.ResponseRecorder, user string) {
		t.Helper()
		await(t, "a standing of "+user, func() bool {
			if w := send(user, home); w.Code != http.StatusOK {
				t.Fatalf("answer %d", w.Code)
			}
			return g.standings.size.Load() > 0
		})
	}

	t.Run("a revoked decision", func(t *testing.T) {
		g, send := open(t, users)
		steady(t, g, send, "ann")
		before := asked.Load()
		g.decisions.revoke(userName("ann"))
		if send("ann", home); asked.Load() != before+1 {
			t.Errorf("asked %d times after the revocation", asked.Load()-before)
		}
	})
	// A decision that had to make room is in no list that a revocation looks at.
	t.Run("a decision that made room", func(t *testing.T) {
		g, send := open(t, strings.Replace(users, "addresses", "cacheSize: 1, addresses", 1))
		steady(t, g, send, "ann")
		send("bob", home)
		before := asked.Load()
		g.decisions.revoke(userName("ann"))
		if send("ann", home); asked.Load() != before+1 {
			t.Errorf("asked %d times after the revocation", asked.Load()-before)
		}
	})
	t.Run("an answer that may not be kept", func(t *testing.T) {
		vary = "Cookie"
		defer func() { vary = "Authorization" }()
		g, send := open(t, users)
		before := asked.Load()
		for range 5 {
			send("ann", home)
		}
		if asked.Load() != before+5 || g.standings.size.Load() != 0 {
			t.Errorf("asked %d times in 5, %d standings", asked.Load()-before, g.standings.size.Load())
		}
	})
	t.Run("the end of its time", func(t *testing.T) {
		life = "1"
		defer func() { life = "60" }()
		g, send := open(t, users)
		steady(t, g, send, "ann")
		before := asked.Load()
		await(t, "the gate to ask again", func() bool { send("ann", home); return asked.Load() > before })
	})
	t.Run("events that were missed", func(t *testing.T) {
		g, send := open(t, users)
		steady(t, g, send, "ann")
		before := asked.Load()
		g.backend.stream.message(`{"epoch":"e","seq":9,"type":"tick"}`)
		if send("ann", home); asked.Load() != before+1 {
			t.Errorf("asked %d times after the gap", asked.Load()-before)
		}
	})
	// Then an answer is fresh for a second, however long it says.
	t.Run("asked for while the stream is lost", func(t *testing.T) {
		g, send := open(t, `{auth: {addresses: [AUTH]}}`)
		steady(t, g, send, "ann")
		before := asked.Load()
		await(t, "the gate to ask again", func() bool { send("ann", home); return asked.Load() > before })
	})
	t.Run("what is counted", func(t *testing.T) {
		g, send := open(t, strings.Replace(users, "100000", "50", 1))
		before := asked.Load()
		for range 60 {
			send("ann", home)
		}
		misses := asked.Load() - before
		for _, when := range []string{"in use", "closed"} {
			c := g.backend.counters()
			if c.Allowed != 50 || c.Denied["a"] != 10 || c.DecisionMisses != misses || c.DecisionHits != 60-misses {
				t.Errorf("%s: %d allowed, %d denied, %d misses of %d, %d hits", when, c.Allowed, c.Denied["a"], c.DecisionMisses, misses, c.DecisionHits)
			}
			g.backend.forget(g.decisions)
		}
	})
	t.Run("another address", func(t *testing.T) {
		g, send := open(t, `{auth: {addresses: [AUTH]}, limits: [{name: b, key: ip, limit: 1000, window: 1h}, {name: a, key: user, limit: 100000, window: 1h}]}`)
		steady(t, g, send, "ann")
		if got := send("ann", away).Header().Get("RateLimit"); !strings.HasPrefix(got, `"b";r=999;`) {
			t.Errorf("RateLimit of an address's first request: %s", got)
		}
	})
	t.Run("addresses alone", func(t *testing.T) {
		g, send := open(t, `{limits: [{name: b, key: ip, limit: 1000, window: 1h}]}`)
		steady(t, g, send, "")
		if got := send("", away).Header().Get("RateLimit"); !strings.HasPrefix(got, `"b";r=999;`) {
			t.Errorf("RateLimit of an address's first request: %s", got)
		}
		if w := send("", "no address"); w.Code != http.StatusOK {
			t.Errorf("without an address: %d", w.Code)
		}
	})
	t.Run("behind another of our middlewares", func(t *testing.T) {
		g, send := open(t, users)
		steady(t, g, send, "ann")
		w, r := httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil)
		r.RemoteAddr = home
		r.Header.Set("Authorization", "Bearer ann")
		w.Header().Set("RateLimit", `"outer";r=1;t=1`)
		g.ServeHTTP(w, r)
		if got := w.Header().Get("RateLimit"); !strings.HasPrefix(got, `"outer";r=1;t=1, "a";r=`) {
			t.Errorf("RateLimit: %s", got)
		}
	})
	t.Run("more than there is room for", func(t *testing.T) {
		g, send := open(t, `{limits: [{name: b, key: ip, limit: 1000, window: 1h}]}`)
		steady(t, g, send, "")
		g.standings.size.Store(mostStandings)
		for g.standings.size.Load() >= mostStandings {
			send("", away)
		}
		kept := 0
		g.standings.kept.Range(func(any, any) bool { kept++; return true })
		if kept != 1 {
			t.Errorf("%d are kept after there was no room", kept)
		}
		steady(t, g, send, "")
	})
}
