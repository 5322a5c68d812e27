package plugin

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/sluice-gateway/sluice/internal/redistest"
	"github.com/sluice-gateway/sluice/plugin/config"
)

// What a gate keeps of a credential stands for as long as the decision it came
// of, and for nobody and nowhere else.
func TestPasses(t *testing.T) {
	redis := redistest.Start(t)
	var asked atomic.Int64
	vary, life := "Authorization", "60"
	auth := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "" { // else it is greeted
			asked.Add(1)
		}
		h := w.Header()
		h.Set("Vary", vary)
		h.Set("X-User-ID", strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "))
		h.Set("Cache-Control", "private, max-age="+life)
	}))
	defer auth.Close()
	open := func(t *testing.T, yaml string) (g *gate, send func(user, remote string) *httptest.ResponseRecorder) {
		c := decode(t, []byte(strings.ReplaceAll(yaml, "AUTH", auth.URL)))
		c.Redis = []config.Redis{{Addresses: []string{redis.Addr}, KeyPrefix: strings.ReplaceAll(t.Name(), "/", "-")}}
		handler, err := New(t.Context(), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {}), c, "passes")
		if err != nil {
			t.Fatal(err)
		}
		g = handler.(*gate)
		await(t, "Redis to answer", g.backend.client.Healthy)
		if whole := !strings.HasSuffix(t.Name(), "lost"); whole {
			g.backend.stream.message(`{"epoch":"e","seq":1,"type":"tick"}`)
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
	kept := func(g *gate) int {
		g.memory.mu.RLock()
		defer g.memory.mu.RUnlock()
		return len(g.memory.passes)
	}
	// known sends a request, of which the gate keeps what it found out.
	known := func(t *testing.T, g *gate, send func(string, string) *httptest.ResponseRecorder, user string) {
		t.Helper()
		before := kept(g)
		if w := send(user, home); w.Code != http.StatusOK {
			t.Fatalf("answer %d", w.Code)
		}
		if kept(g) != before+1 {
			t.Fatalf("%d passes are kept of %s", kept(g)-before, user)
		}
	}

	t.Run("a revoked decision", func(t *testing.T) {
		g, send := open(t, users)
		known(t, g, send, "ann")
		before := asked.Load()
		g.decisions.revoke(userName("ann"))
		if send("ann", home); asked.Load() != before+1 {
			t.Errorf("asked %d times after the revocation", asked.Load()-before)
		}
	})
	// A decision that had to make room is in no list that a revocation looks at.
	t.Run("a decision that made room", func(t *testing.T) {
		g, send := open(t, strings.Replace(users, "addresses", "cacheSize: 1, addresses", 1))
		known(t, g, send, "ann")
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
		if asked.Load() != before+5 || kept(g) != 0 {
			t.Errorf("asked %d times in 5, %d passes", asked.Load()-before, kept(g))
		}
	})
	t.Run("the end of its time", func(t *testing.T) {
		life = "1"
		defer func() { life = "60" }()
		g, send := open(t, users)
		known(t, g, send, "ann")
		before := asked.Load()
		await(t, "the gate to ask again", func() bool { send("ann", home); return asked.Load() > before })
	})
	t.Run("events that were missed", func(t *testing.T) {
		g, send := open(t, users)
		known(t, g, send, "ann")
		before := asked.Load()
		g.backend.stream.message(`{"epoch":"e","seq":9,"type":"tick"}`)
		if send("ann", home); asked.Load() != before+1 {
			t.Errorf("asked %d times after the gap", asked.Load()-before)
		}
	})
	// Then an answer is fresh for a second, however long it says.
	t.Run("asked for while the stream is lost", func(t *testing.T) {
		g, send := open(t, `{auth: {addresses: [AUTH]}}`)
		known(t, g, send, "ann")
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
		known(t, g, send, "ann")
		if got := send("ann", away).Header().Get("RateLimit"); !strings.HasPrefix(got, `"b";r=999;`) {
			t.Errorf("RateLimit of an address's first request: %s", got)
		}
	})
	t.Run("addresses alone", func(t *testing.T) {
		g, send := open(t, `{limits: [{name: b, key: ip, limit: 1000, window: 1h}]}`)
		known(t, g, send, "")
		if got := send("", away).Header().Get("RateLimit"); !strings.HasPrefix(got, `"b";r=999;`) {
			t.Errorf("RateLimit of an address's first request: %s", got)
		}
		if w := send("", "no address"); w.Code != http.StatusOK {
			t.Errorf("without an address: %d", w.Code)
		}
	})
	t.Run("behind another of our middlewares", func(t *testing.T) {
		g, send := open(t, users)
		known(t, g, send, "ann")
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
		known(t, g, send, "")
		g.memory.mu.Lock()
		for n := range mostPasses {
			g.memory.passes[memoryKey{byte(n), byte(n >> 8), 1}] = &pass{}
		}
		g.memory.mu.Unlock()
		send("", away)
		if n := kept(g); n != 1 {
			t.Errorf("%d are kept after there was no room", n)
		}
		known(t, g, send, "")
	})
	// A client decides how many passes come of one credential.
	t.Run("a revoked decision with many passes", func(t *testing.T) {
		g, send := open(t, `{auth: {addresses: [AUTH]}, limits: [{name: b, key: ip, limit: 1000, window: 1h}]}`)
		for n := range 20 {
			send("ann", fmt.Sprintf("198.51.100.%d:1", n))
			send("bob", fmt.Sprintf("198.51.100.%d:1", n))
		}
		of := func(user string) (n int) {
			for _, p := range g.memory.passes {
				if p.who.user == user {
					n++
				}
			}
			return n
		}
		ann, bob := of("ann"), of("bob")
		g.decisions.revoke(userName("ann"))
		if ann < 2 || bob < 2 || of("ann") != 0 || of("bob") != bob {
			t.Errorf("%d passes of ann became %d, and %d of bob %d", ann, of("ann"), bob, of("bob"))
		}
	})
	t.Run("a key that made room for others", func(t *testing.T) {
		_, send := open(t, `{maxKeys: 20, limits: [{name: b, key: ip, limit: 1000, window: 1h}]}`)
		address := func(n int) string { return fmt.Sprintf("198.51.%d.%d:1", n/250, n%250) }
		for n := range 1000 {
			if w := send("", address(n)); w.Code != http.StatusOK {
				t.Fatalf("address %d: %d", n, w.Code)
			}
		}
		for n := range 10 { // 2 of 1000 have gone, however often the key had to make room
			w := send("", address(0))
			if got, want := w.Header().Get("RateLimit"), fmt.Sprintf(`"b";r=%d;`, 998-n); !strings.HasPrefix(got, want) {
				t.Errorf("RateLimit: %s, want %s", got, want)
			}
		}
	})
}
