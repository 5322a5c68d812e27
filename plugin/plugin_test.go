package plugin

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/internal/dynconf"
	"github.com/sluice-gateway/sluice/plugin/config"
	"github.com/sluice-gateway/sluice/plugin/limit"
	"github.com/sluice-gateway/sluice/plugin/window"
)

// No header makes the client's address choose itself: whatever X-Forwarded-For
// says, an untrusted peer is known by its own address, and a trusted one never
// yields anything but an address.
func FuzzClientAddress(f *testing.F) {
	for _, seed := range []string{"", "203.0.113.9", "203.0.113.9, 10.0.0.1", "[2001:db8::1]:80", "::ffff:10.0.0.1", "fe80::1%eth0", ",,,", "unknown", strings.Repeat("1.1.1.1,", 50)} {
		f.Add(seed, 1)
	}
	f.Fuzz(func(t *testing.T, forwarded string, depth int) {
		if depth < 0 || depth > 100 {
			return
		}
		s := config.AddressSettings{Depth: depth, Subnet: 64, Trusted: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}
		if depth == 0 {
			s.Excluded = s.Trusted
		}
		r := httptest.NewRequest("GET", "/", nil)
		r.Header["X-Forwarded-For"] = []string{forwarded}
		r.RemoteAddr = "203.0.113.200:4711"
		if got := clientOf(&s, r); got != "203.0.113.200" {
			t.Fatalf("an untrusted peer became %q", got)
		}
		r.RemoteAddr = "10.1.2.3:4711"
		got := clientOf(&s, r)
		address, err := netip.ParseAddr(got)
		if err != nil || address.Zone() != "" || address.Is4In6() {
			t.Fatalf("%q is no canonical address: %v", got, err)
		}
		if address.Is6() && address != netip.PrefixFrom(address, 64).Masked().Addr() {
			t.Fatalf("%q reaches into its /64", got)
		}
	})
}

// However a network or an address is written, it holds the clients it names.
func TestNetworks(t *testing.T) {
	for written, inside := range map[string]string{
		"10.0.0.0/8":            "10.1.2.3",
		"10.1.2.3/8":            "10.200.0.1",
		"::ffff:10.0.0.0/104":   "10.1.2.3",
		"203.0.113.7":           "::ffff:203.0.113.7",
		"::ffff:203.0.113.7":    "203.0.113.7",
		"2001:db8::/32":         "2001:db8:1::1",
		"2001:db8::1":           "2001:db8::1",
		"0.0.0.0/0":             "198.51.100.1",
		"203.0.113.8, 10.0.0.1": "10.0.0.1",
	} {
		s, problems := (&Config{Exempt: []config.Exempt{{IPs: []string{written}}}}).Read()
		networks := s.ExemptIPs
		if len(problems) > 0 {
			t.Fatal(problems)
		}
		if !within(networks, parseAddress(inside)) || within(networks[:1], parseAddress("fe80::1")) {
			t.Errorf("%s is read as %v", written, networks)
		}
	}
}

// Two values never share a Redis key, and none can leave its place in it.
func FuzzKey(f *testing.F) {
	for _, seed := range [][2]string{{"a", "b"}, {"a}b", "a%7Db"}, {"~" + strings.Repeat("0", 32), strings.Repeat("x", 65)}, {"a b", "a+b"}, {"", "\x00"}, {"{u1}", "u1"}, {"é", "e"}} {
		f.Add(seed[0], seed[1])
	}
	f.Fuzz(func(t *testing.T, a, b string) {
		ka, kb := limit.Key(limit.UserKey, a), limit.Key(limit.UserKey, b)
		if a != b && ka == kb {
			t.Fatalf("%q and %q are both %q", a, b, ka)
		}
		if len(ka) > 1+64 || strings.ContainsAny(ka, "{}:* \r\n\x00") {
			t.Fatalf("%q gives the key %q", a, ka)
		}
		if limit.Key(limit.IPKey, a) == ka {
			t.Fatal("a user and an address share a key")
		}
	})
}

// Whatever the configuration holds that Traefik can decode, reading it ends in
// settings or in problems that name a path, and what is accepted can be enforced.
func FuzzConfig(f *testing.F) {
	f.Add(`{"limits":[{"name":"per-user","key":"user","limit":100,"window":"60s"}],"redis":{"addresses":"redis:6379"}}`)
	f.Add(`{"limits":[{"name":"x","key":"header:X-Y","limit":"1e9","window":"-1s","cost":0,"tiers":{"pro":"x"},"countStatus":["9xx"]}]}`)
	f.Add(`{"limits":{"name":"l","key":"ip","limit":1,"window":"1h","tiers":"","tierHeader":"X"},"redis":{"addresses":["a:1,b:2"],"cluster":1,"tls":""}}`)
	f.Add(`{"trustedProxies":["1.2.3.4/99"],"ipStrategy":"","exempt":[{"users":"a,b"},{}],"onRedisFailure":"open","redis":""}`)
	f.Fuzz(func(t *testing.T, text string) {
		var raw map[string]interface{}
		if json.Unmarshal([]byte(text), &raw) != nil {
			return
		}
		c := CreateConfig()
		if dynconf.Decode(raw, c) != nil {
			return
		}
		c.Auth = nil // files are not the fuzzer's to name
		for i := range c.Redis {
			c.Redis[i].PasswordFile, c.Redis[i].TLS = "", nil
		}
		s, problems := c.Read()
		for _, problem := range problems {
			if !strings.Contains(problem, ": ") {
				t.Fatalf("a problem without a path: %q", problem)
			}
		}
		if len(problems) > 0 {
			return
		}
		for _, rule := range s.Limits {
			if rule.Limit < 1 || rule.Cost < 1 || rule.Cost > rule.Limit || rule.Window < time.Second || rule.Limit > window.MaxLimit {
				t.Fatalf("accepted %+v", rule)
			}
		}
	})
}

// An answer is never kept for longer than its own words allow.
func FuzzCacheLife(f *testing.F) {
	for _, seed := range []string{"private, max-age=60, stale-if-error=300", "max-age=60, max-age=1", "no-store, max-age=60", `max-age="5"`, "MAX-AGE=7", "max-age=99999999999", "max-age", "max-age=-1", "s-maxage=60"} {
		f.Add(seed, "")
	}
	f.Fuzz(func(t *testing.T, control, age string) {
		l := cacheLife(http.Header{"Cache-Control": {control}, "Age": {age}})
		if l.fresh < 0 || l.staleIfError < 0 || l.fresh > 365*24*time.Hour {
			t.Fatalf("%q: %+v", control, l)
		}
		lower := strings.ToLower(control)
		if l.fresh > 0 && !strings.Contains(lower, "max-age") {
			t.Fatalf("%q is kept for %s", control, l.fresh)
		}
		for _, directive := range strings.Split(lower, ",") {
			if d := strings.TrimSpace(directive); l.fresh > 0 && (d == "no-store" || d == "no-cache") {
				t.Fatalf("%q is kept for %s", control, l.fresh)
			}
		}
	})
}

func TestCacheLife(t *testing.T) {
	for _, c := range []struct {
		control, age string
		fresh, stale int
	}{
		{"private, max-age=60, stale-if-error=300", "", 60, 300},
		{"max-age=60", "20", 40, 0},
		{"max-age=60", "61", 0, 0},
		{"max-age=60, must-revalidate, stale-if-error=300", "", 60, 0},
		{"no-store", "", 0, 0},
		{"private, no-cache, max-age=60", "", 0, 0},
		{"max-age=60, max-age=10", "", 0, 0},
		{`max-age="60"`, "", 60, 0},
		{"stale-if-error=300", "", 0, 0},
		{"", "", 0, 0},
		{"max-age=1.5", "", 0, 0},
	} {
		l := cacheLife(http.Header{"Cache-Control": {c.control}, "Age": {c.age}})
		if want := (life{fresh: time.Duration(c.fresh) * time.Second, staleIfError: time.Duration(c.stale) * time.Second}); l != want {
			t.Errorf("%q with age %q: %+v, want %+v", c.control, c.age, l, want)
		}
	}
}

// The event stream trusts itself only while nothing can have been missed.
func TestEventStreamState(t *testing.T) {
	now := int64(0)
	s := newEventStream(func() int64 { return now }, "events")
	var revoked []string
	s.listen(&listener{revoked: func(name string) { revoked = append(revoked, name) }, changed: func() {}})
	send := func(epoch string, seq int, kind, id string) {
		s.message(fmt.Sprintf(`{"epoch":%q,"seq":%d,"type":%q,"id":%q}`, epoch, seq, kind, id))
	}
	if !s.lost() {
		t.Fatal("whole before the first event")
	}
	send("e1", 7, "tick", "")
	if s.lost() {
		t.Fatal("lost after the first event")
	}
	state := s.state.Load()
	send("e1", 8, "token", "abc")
	send("e1", 9, "surprise", "of a later version")
	if s.state.Load() != state {
		t.Fatal("consecutive events changed the state")
	}
	send("e1", 11, "tick", "")
	if s.state.Load() == state || s.lost() {
		t.Fatal("a gap must begin a new state, and the stream goes on from there")
	}
	state = s.state.Load()
	send("e2", 12, "tick", "")
	if s.state.Load() == state {
		t.Fatal("another epoch went unnoticed")
	}
	s.message(strings.Repeat("x", largestEvent+1))
	s.message("not JSON")
	s.lose()
	if !s.lost() {
		t.Fatal("whole after a loss")
	}
	if len(revoked) != 1 || revoked[0] != tokenName("abc") {
		t.Fatalf("revoked %v", revoked)
	}
}

// A revocation that overtakes an answer keeps it out of the cache (design: event-stream).
func TestRevokedSince(t *testing.T) {
	now := int64(0)
	s := newEventStream(func() int64 { return now }, "events")
	revoke := func(id string) {
		s.message(fmt.Sprintf(`{"epoch":"e","seq":%d,"type":"user","id":%q}`, s.seq+1, id))
	}
	before := s.revocations.Load()
	revoke("ann")
	after := s.revocations.Load()
	if !s.revokedSince(before, []string{userName("bob"), userName("ann")}) {
		t.Error("missed the revocation since")
	}
	if s.revokedSince(after, []string{userName("ann")}) {
		t.Error("a revocation before the question counts against the answer")
	}
	if s.revokedSince(before, []string{userName("bob")}) {
		t.Error("somebody else's revocation counts")
	}
	now += keepRevocations + 1
	revoke("bob")
	if !s.revokedSince(before, []string{userName("carol")}) {
		t.Error("an answer older than the memory must not be kept")
	}
}

// What clients list in Connection never takes our headers from the service.
func TestHopByHop(t *testing.T) {
	for in, want := range map[string]string{
		"close":                           "close",
		"keep-alive, X-User-ID":           "keep-alive",
		"x-user-id":                       "",
		"Upgrade":                         "Upgrade",
		"upgrade, HTTP2-Settings, TE, xx": "upgrade, HTTP2-Settings, TE",
	} {
		if got := strings.Join(hopByHop([]string{in}), ""); got != want {
			t.Errorf("%q became %q, want %q", in, got, want)
		}
	}
}

// Two of our middlewares on one way, as classic wiring has them: the request
// keeps one name, and the inner limits are announced beside the outer ones.
func TestTwoGatesOnOneWay(t *testing.T) {
	var id string
	inner, err := New(t.Context(), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { id = r.Header.Get("X-Request-ID") }), CreateConfig(), "inner")
	if err != nil {
		t.Fatal(err)
	}
	outer, err := New(t.Context(), inner, CreateConfig(), "outer")
	if err != nil {
		t.Fatal(err)
	}
	w := httptest.NewRecorder()
	r := httptest.NewRequest("GET", "/", nil)
	r.Header.Set("X-Request-ID", "00000000-0000-4000-8000-000000000000")
	outer.ServeHTTP(w, r)
	if got := w.Header()["X-Request-Id"]; len(got) != 1 || got[0] != id || !canonicalUUID.MatchString(id) || id == "00000000-0000-4000-8000-000000000000" {
		t.Errorf("the client got %q, the service %q", got, id)
	}
	h := http.Header{"Ratelimit": {`"a";r=1;t=2`}, "Ratelimit-Policy": {`"a";q=3`}}
	joinEarlier(h, &pass{policy: []string{`"b";q=4`}}, `"b";r=3;t=4`)
	if got := h.Get("RateLimit") + " " + h.Get("RateLimit-Policy"); got != `"a";r=1;t=2, "b";r=3;t=4 "a";q=3, "b";q=4` {
		t.Errorf("RateLimit: %s", got)
	}
}

// Nothing a client says about itself passes, on a public route neither.
func TestPublicRouteStripsIdentity(t *testing.T) {
	var got http.Header
	gate, err := New(t.Context(), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { got = r.Header }), CreateConfig(), "public")
	if err != nil {
		t.Fatal(err)
	}
	r := httptest.NewRequest("GET", "/", nil)
	for _, name := range append([]string{"X-Token-ID", "X-Session-ID"}, config.IdentityHeaders...) {
		r.Header.Set(name, "forged")
	}
	gate.ServeHTTP(httptest.NewRecorder(), r)
	for name, values := range got {
		if values[0] == "forged" {
			t.Errorf("%s got through", name)
		}
	}
}

// White space around a value is no other value (RFC 9113, section 8.2.1).
func TestHeaderValue(t *testing.T) {
	for _, sent := range []string{"acme", " acme", "acme\t", " \tacme "} {
		if got := headerValue([]string{sent}); got != "acme" {
			t.Errorf("%q became %q", sent, got)
		}
	}
	if headerValue(nil) != "" || headerValue([]string{" "}) != "" {
		t.Error("nothing became something")
	}
}
