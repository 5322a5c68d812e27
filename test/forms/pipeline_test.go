package forms_test

import (
	"crypto/tls"
	"fmt"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

var uuid4 = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)

// TestWhiteSpaceInAQuery: over HTTP/2 it reaches us, and as HTTP/1.1 it would
// end the target. It is refused before anything is asked, hot or not.
func TestWhiteSpaceInAQuery(t *testing.T) {
	query := func(raw string, version int) func(*http.Request) {
		return func(r *http.Request) { r.URL.RawQuery, r.ProtoMajor = raw, version }
	}
	both(t, func(t *testing.T, b *bed) {
		for name, config := range map[string]string{
			"protected":          `{redis: REDIS, auth: {addresses: ["AUTH"]}, limits: [{name: l, key: user, limit: 1000, window: 1h}]}`,
			"public":             `{redis: REDIS, limits: [{name: l, key: ip, limit: 1000, window: 1h}]}`,
			"behind forwardAuth": `{redis: REDIS, trustUserHeader: true, limits: [{name: l, key: ip, limit: 1000, window: 1h}]}`,
		} {
			t.Run(name, func(t *testing.T) {
				b := b.on(t)
				gate := b.gate(config)
				for _, raw := range []string{"a=b&c=%20+d", ""} {
					if w := ask(gate, as("ann"), query(raw, 2)); w.Code != 200 {
						t.Fatalf("%q: %d %s", raw, w.Code, w.Body)
					}
				}
				b.up.Forget()
				for _, raw := range []string{"a=b c", " ", "a= ", " HTTP/1.1", "a=: x"} {
					w := ask(gate, as("ann"), query(raw, 2))
					if w.Code != 400 || w.Header().Get("X-Request-Id") == "" || w.Header().Get("Content-Type") != "application/problem+json" {
						t.Errorf("%q: %d %v %s", raw, w.Code, w.Header(), w.Body)
					}
				}
				if n := len(b.up.Seen()); n > 0 {
					t.Errorf("%d requests reached the service", n)
				}
			})
		}
	})
}

// TestWhatTheServiceReceives is design: what-services-receive and design: stripped-headers: nothing that a
// client says about who it is arrives, and what the auth service says does.
func TestWhatTheServiceReceives(t *testing.T) {
	forged := []func(*http.Request){
		with("X-User-ID", "root"), with("X-User-Plan", "enterprise"), with("X-User-Scopes", "admin"),
		with("X-User-Limit", "1000000"), with("X-Token-ID", "forged"), with("X-Session-ID", "forged"),
		with("X-Request-ID", "11111111-1111-4111-8111-111111111111"),
	}
	protected := `
redis: REDIS
auth: {addresses: ["AUTH"], responseHeaders: [X-User-ID, X-User-Plan, X-User-Scopes, X-User-Limit]}
limits: [{name: l, key: user, limit: 1000, window: 1h, tierHeader: X-User-Plan, tiers: {pro: 2000}, limitHeader: X-User-Limit}]`
	tests := []struct {
		name, config string
		request      []func(*http.Request)
		want         map[string]string // "" is absent
	}{
		{
			name: "protected", config: protected, request: append(slices.Clone(forged), as("ann.pro")),
			want: map[string]string{"X-User-ID": "ann", "X-User-Plan": "pro", "X-User-Scopes": "read write", "X-User-Limit": "", "X-Token-ID": "", "X-Session-ID": "", "Authorization": ""},
		},
		{
			name: "a plan that the auth service does not name", config: protected, request: append(slices.Clone(forged), as("ann")),
			want: map[string]string{"X-User-ID": "ann", "X-User-Plan": "", "X-User-Scopes": "read write"},
		},
		{
			name: "keepAuthorization", config: `{redis: REDIS, auth: {addresses: ["AUTH"], keepAuthorization: true}}`, request: []func(*http.Request){as("ann")},
			want: map[string]string{"X-User-ID": "ann", "Authorization": "Bearer user-ann"},
		},
		{
			name: "anonymous", config: `{redis: REDIS, auth: {addresses: ["AUTH"], optional: true}}`, request: forged,
			want: map[string]string{"X-User-ID": "", "X-User-Plan": "", "X-User-Scopes": "", "X-Token-ID": "", "X-Session-ID": ""},
		},
		{
			name: "public", config: `{redis: REDIS, limits: [{name: l, key: ip, limit: 1000, window: 1h}]}`, request: forged,
			want: map[string]string{"X-User-ID": "", "X-Token-ID": "", "X-Session-ID": ""},
		},
		{
			name: "another userHeader", config: `{redis: REDIS, userHeader: x-account, limits: [{name: l, key: ip, limit: 1000, window: 1h}]}`,
			request: []func(*http.Request){with("X-Account", "root")},
			want:    map[string]string{"X-Account": ""},
		},
		{
			name: "behind forwardAuth", config: `{redis: REDIS, trustUserHeader: true, limits: [{name: l, key: user, limit: 1000, window: 1h}]}`, request: forged,
			want: map[string]string{"X-User-ID": "root", "X-User-Plan": "enterprise", "X-User-Scopes": "admin", "X-Token-ID": "", "X-Session-ID": ""},
		},
		{
			name: "identity in Connection", config: protected, request: []func(*http.Request){as("ann"), with("Connection", "X-User-ID, close", "x-request-id")},
			want: map[string]string{"X-User-ID": "ann", "Connection": "close"},
		},
	}
	both(t, func(t *testing.T, b *bed) {
		for _, tt := range tests {
			t.Run(tt.name, func(t *testing.T) {
				b := b.on(t)
				b.up.Forget()
				if w := ask(b.gate(tt.config), tt.request...); w.Code != 200 {
					t.Fatalf("%d %s", w.Code, w.Body)
				}
				saw := b.up.Last(t).Header
				for name, want := range tt.want {
					if got := saw.Values(name); (want == "" && got != nil) || (want != "" && !slices.Equal(got, []string{want})) {
						t.Errorf("%s: %q, want %q", name, got, want)
					}
				}
				if id := saw.Get("X-Request-ID"); !uuid4.MatchString(id) || id == "11111111-1111-4111-8111-111111111111" {
					t.Errorf("X-Request-ID: %q", id)
				}
			})
		}
	})
}

// TestOrderOfSteps is design: order-of-steps: limits that need no identity, identity, limits
// that do; a refusal settles what was taken before it.
func TestOrderOfSteps(t *testing.T) {
	both(t, func(t *testing.T, b *bed) {
		b.redis.RoomIn(hour, 30*time.Second)
		gate := b.gate(`
redis: REDIS
auth: {addresses: ["AUTH"]}
limits:
- {name: per-user, key: user, limit: 2, window: 1h}
- {name: bad-token, key: ip, limit: 3, window: 1h, countStatus: [401]}
- {name: all, key: global, limit: 100, window: 1h}`)

		// Served requests take nothing from bad-token.
		if got := statuses(gate, 3, as("ann")); got != "200 200 429" {
			t.Fatalf("ann: %s", got)
		}
		if got := statuses(gate, 2, as("bob")); got != "200 200" {
			t.Fatalf("bob: %s", got)
		}
		// Refusals by identity do, with and without a call to the auth service.
		before := len(b.auth.calls())
		if got := statuses(gate, 2, with("Authorization", "Bearer bad")) + " " + statuses(gate, 1); got != "401 401 401" {
			t.Fatalf("bad tokens: %s", got)
		}
		if calls := len(b.auth.calls()) - before; calls != 2 {
			t.Errorf("%d calls for two bad tokens and none", calls)
		}
		// Now the address is out of guesses: the auth service is not asked any
		// more, and a good token does not help.
		before = len(b.auth.calls())
		for _, token := range []string{"Bearer bad", "Bearer user-eve"} {
			w := ask(gate, with("Authorization", token))
			if p := readProblem(t, w); w.Code != 429 || p.Limit != "bad-token" {
				t.Errorf("%s: %d %+v", token, w.Code, p)
			}
		}
		if calls := len(b.auth.calls()) - before; calls != 0 {
			t.Errorf("%d calls by a client that is out of guesses", calls)
		}
		if got := statuses(gate, 1, as("eve"), from("203.0.113.8:1")); got != "200" {
			t.Errorf("another address: %s", got)
		}
	})
}

// TestCountFrom: whose answers count. What counts the gate's alone concerns nobody
// whom the gate knows.
func TestCountFrom(t *testing.T) {
	both(t, func(t *testing.T, b *bed) {
		b.redis.RoomIn(hour, 30*time.Second)
		gate := b.gate(`
redis: REDIS
auth: {addresses: ["AUTH"]}
limits:
- {name: guesses, key: ip, limit: 2, window: 1h, countStatus: [401], countFrom: gate}
- {name: logins, key: ip, limit: 2, window: 1h, countStatus: [401], countFrom: service}
- {name: all, key: global, limit: 1000, window: 1h}`)
		const bad = "Bearer bad"
		if got := statuses(gate, 1, as("ann")); got != "200" {
			t.Fatalf("a stranger with a good token: %s", got)
		}
		// The service's 401 is none of the gate's, and the gate's none of the service's.
		if got := statuses(gate, 2, with("Authorization", bad)); got != "401 401" {
			t.Fatalf("two guesses: %s", got)
		}
		w := ask(gate, with("Authorization", bad))
		if p := readProblem(t, w); w.Code != 429 || p.Limit != "guesses" {
			t.Fatalf("the third guess: %d %+v", w.Code, p)
		}
		if w := ask(gate, as("bob")); w.Code != 429 {
			t.Errorf("a stranger behind an address without guesses: %d, though the gate would have to judge him", w.Code)
		}
		// Who is known is not refused for his neighbours' guesses, nor told of them.
		for range 5 {
			w = ask(gate, as("ann"))
			if policy := w.Header().Get("RateLimit-Policy"); w.Code != 200 || strings.Contains(policy, "guesses") || !strings.Contains(policy, "logins") {
				t.Fatalf("a known token: %d, RateLimit-Policy: %s", w.Code, policy)
			}
		}
		if got := statuses(gate, 2, as("ann"), path("/status/401")); got != "401 401" {
			t.Fatalf("the service's own 401: %s", got)
		}
		w = ask(gate, as("ann"))
		if p := readProblem(t, w); w.Code != 429 || p.Limit != "logins" {
			t.Errorf("after two 401 of the service: %d %+v", w.Code, p)
		}
	})
}

// TestRefusalGivesBackEarlierPermits is I7 over the two groups: what a later
// limit refuses costs the earlier ones nothing.
func TestRefusalGivesBackEarlierPermits(t *testing.T) {
	both(t, func(t *testing.T, b *bed) {
		b.redis.RoomIn(hour, 30*time.Second)
		gate := b.gate(`
redis: REDIS
auth: {addresses: ["AUTH"]}
limits:
- {name: per-ip, key: ip, limit: 10, window: 1h}
- {name: per-user, key: user, limit: 1, window: 1h}`)
		if got := statuses(gate, 1, as("ann")); got != "200" {
			t.Fatal(got)
		}
		if got := statuses(gate, 30, as("ann")); got != strings.TrimSpace(strings.Repeat("429 ", 30)) {
			t.Fatalf("ann beyond her limit: %s", got)
		}
		var passed int
		for i := range 20 {
			if ask(gate, as(fmt.Sprintf("u%d", i))).Code == 200 {
				passed++
			}
		}
		if passed != 9 {
			t.Errorf("%d more requests passed the address's limit of 10, want 9", passed)
		}
	})
}

func TestRequestID(t *testing.T) {
	const sent = "6f1ed002-ab5d-4dc1-9e6e-a5b1e6b1c2d3"
	tests := []struct {
		name    string
		trusted string
		request []func(*http.Request)
		kept    bool
	}{
		{"from anybody", "", []func(*http.Request){with("X-Request-ID", sent)}, false},
		{"from a trusted proxy", "203.0.113.0/24", []func(*http.Request){with("X-Request-ID", sent)}, true},
		{"from a trusted proxy by address", "203.0.113.7", []func(*http.Request){with("X-Request-ID", sent)}, true},
		{"from another network", "198.51.100.0/24", []func(*http.Request){with("X-Request-ID", sent)}, false},
		{"IPv4-mapped peer", "203.0.113.0/24", []func(*http.Request){with("X-Request-ID", sent), from("[::ffff:203.0.113.7]:1")}, true},
		{"not canonical", "203.0.113.0/24", []func(*http.Request){with("X-Request-ID", strings.ToUpper(sent))}, false},
		{"no UUID", "203.0.113.0/24", []func(*http.Request){with("X-Request-ID", "x\" level=error")}, false},
		{"two", "203.0.113.0/24", []func(*http.Request){with("X-Request-ID", sent, sent)}, false},
		{"none", "203.0.113.0/24", nil, false},
	}
	both(t, func(t *testing.T, b *bed) {
		for _, tt := range tests {
			t.Run(tt.name, func(t *testing.T) {
				b := b.on(t)
				b.up.Forget()
				gate := b.gate(fmt.Sprintf("redis: REDIS\ntrustedProxies: [%q]\nlimits: [{name: l, key: ip, limit: 1000, window: 1h}]", tt.trusted))
				w := ask(gate, tt.request...)
				id := w.Header().Get("X-Request-ID")
				if tt.kept != (id == sent) || (!tt.kept && !uuid4.MatchString(id)) {
					t.Errorf("answer: %q", id)
				}
				if on := b.up.Last(t).Header["X-Request-Id"]; !slices.Equal(on, []string{id}) {
					t.Errorf("service: %q, answer %q", on, id)
				}
			})
		}
	})
}

// TestKeysOfTheConnection sends real requests: Go's server keeps some fields
// apart from the others, and not the same ones in HTTP/1.1 and HTTP/2. A host is
// one host however a client spells it.
func TestKeysOfTheConnection(t *testing.T) {
	both(t, func(t *testing.T, b *bed) {
		b.redis.RoomIn(hour, time.Minute)
		gate := b.gate(`
redis: REDIS
limits:
- {name: by-host, key: "header:host", limit: 3, window: 1h, onMissingKey: deny}
- {name: by-length, key: "header:Content-Length", limit: 2, window: 1h, onMissingKey: skip}`)
		server := httptest.NewUnstartedServer(gate)
		server.EnableHTTP2 = true
		server.StartTLS()
		defer server.Close()
		second := server.Client().Transport.(*http.Transport).Clone()
		first := second.Clone()
		first.ForceAttemptHTTP2 = false
		first.TLSNextProto = map[string]func(string, *tls.Conn) http.RoundTripper{}
		first.TLSClientConfig.NextProtos = nil
		send := func(transport *http.Transport, version int, host, body string) int {
			t.Helper()
			r, err := http.NewRequest("GET", server.URL, nil)
			if body != "" {
				r, err = http.NewRequest("POST", server.URL, strings.NewReader(body))
			}
			if err != nil {
				t.Fatal(err)
			}
			r.Host = host
			w, err := transport.RoundTrip(r)
			if err != nil {
				t.Fatal(err)
			}
			defer w.Body.Close()
			if w.ProtoMajor != version {
				t.Fatalf("%s, want HTTP/%d", w.Proto, version)
			}
			return w.StatusCode
		}
		for _, step := range []struct {
			host, body string
			first      int // HTTP/1.1
			second     int // then HTTP/2
		}{
			{"a.example", "", 200, 200},
			{"A.Example:8443", "", 200, 429},
			{"a.example.", "", 429, 429},
			{"b.example", "", 200, 200},
			{"[2001:DB8::1]:443", "", 200, 200},
			{"[2001:db8::1]", "", 200, 429},
			{"c.example", "7 bytes", 200, 200},
			{"d.example", "8 bytes!", 200, 200},
			{"e.example", "7 bytes", 429, 429},
		} {
			if got := send(first, 1, step.host, step.body); got != step.first {
				t.Errorf("%s %q over HTTP/1.1: %d, want %d", step.host, step.body, got, step.first)
			}
			if got := send(second, 2, step.host, step.body); got != step.second {
				t.Errorf("%s %q over HTTP/2: %d, want %d", step.host, step.body, got, step.second)
			}
		}
	})
}

// TestClientAddress is design: client-address: who is the same client as 203.0.113.7, or as
// 2001:db8::1? A limit of one tells.
func TestClientAddress(t *testing.T) {
	xff := func(values ...string) func(*http.Request) { return with("X-Forwarded-For", values...) }
	tests := []struct {
		name, strategy, trusted string
		first, second           []func(*http.Request)
		same                    bool
	}{
		{"the peer", "{depth: 0}", "", []func(*http.Request){from("203.0.113.7:1")}, []func(*http.Request){from("203.0.113.7:2")}, true},
		{"another peer", "{depth: 0}", "", []func(*http.Request){from("203.0.113.7:1")}, []func(*http.Request){from("203.0.113.8:1")}, false},
		{"a forwarded header does not choose the key", "{depth: 0}", "", []func(*http.Request){xff("192.0.2.1")}, []func(*http.Request){xff("192.0.2.2")}, true},
		{"nor with a depth, from anybody", "{depth: 1}", "198.51.100.0/24", []func(*http.Request){xff("192.0.2.1")}, []func(*http.Request){xff("192.0.2.2")}, true},
		{"depth 1 behind a trusted proxy", "{depth: 1}", "203.0.113.0/24", []func(*http.Request){xff("192.0.2.1")}, []func(*http.Request){xff("192.0.2.2")}, false},
		{"depth 1 counts from the right", "{depth: 1}", "203.0.113.0/24", []func(*http.Request){xff("9.9.9.9, 192.0.2.1")}, []func(*http.Request){xff("8.8.8.8", "192.0.2.1")}, true},
		{"depth 2 with one entry is the peer", "{depth: 2}", "203.0.113.0/24", []func(*http.Request){xff("192.0.2.1")}, []func(*http.Request){xff("192.0.2.2")}, true},
		{"IPv4-mapped is IPv4", "{depth: 0}", "", []func(*http.Request){from("203.0.113.7:1")}, []func(*http.Request){from("[::ffff:203.0.113.7]:1")}, true},
		{"one /64 is one client", "{depth: 0}", "", []func(*http.Request){from("[2001:db8::1]:1")}, []func(*http.Request){from("[2001:db8::ffff:1]:1")}, true},
		{"another /64 is another", "{depth: 0}", "", []func(*http.Request){from("[2001:db8::1]:1")}, []func(*http.Request){from("[2001:db8:0:1::1]:1")}, false},
		{"ipv6Subnet 128", "{ipv6Subnet: 128}", "", []func(*http.Request){from("[2001:db8::1]:1")}, []func(*http.Request){from("[2001:db8::2]:1")}, false},
		{"zones do not multiply clients", "{ipv6Subnet: 128}", "", []func(*http.Request){from("[fe80::1%a]:1")}, []func(*http.Request){from("[fe80::1%b]:1")}, true},
		{"nor with networks to pass over, from anybody", "{excludedIPs: [10.0.0.0/8]}", "198.51.100.0/24", []func(*http.Request){xff("192.0.2.1")}, []func(*http.Request){xff("192.0.2.2")}, true},
		{"excluded addresses are passed over", "{excludedIPs: [10.0.0.0/8]}", "203.0.113.0/24", []func(*http.Request){xff("192.0.2.1, 10.1.1.1")}, []func(*http.Request){xff("192.0.2.1, 10.2.2.2")}, true},
		{"and what is left of them counts", "{excludedIPs: [10.0.0.0/8]}", "203.0.113.0/24", []func(*http.Request){xff("192.0.2.1, 10.1.1.1")}, []func(*http.Request){xff("192.0.2.2, 10.1.1.1")}, false},
	}
	both(t, func(t *testing.T, b *bed) {
		b.redis.RoomIn(hour, time.Minute)
		for i, tt := range tests {
			t.Run(tt.name, func(t *testing.T) {
				b := b.on(t)
				gate := b.gate(fmt.Sprintf("redis: REDIS\nipStrategy: %s\ntrustedProxies: [%q]\nlimits: [{name: case-%d, key: ip, limit: 1, window: 1h}]", tt.strategy, tt.trusted, i))
				if got := ask(gate, tt.first...).Code; got != 200 {
					t.Fatalf("first: %d", got)
				}
				if got := ask(gate, tt.second...).Code; (got == 429) != tt.same || (got == 200) == tt.same {
					t.Errorf("second: %d", got)
				}
			})
		}
	})
}

// TestRedisKeys is design: redis-keys: whatever a client writes, the key stays one key.
func TestRedisKeys(t *testing.T) {
	long := strings.Repeat("x", 65)
	tests := []struct {
		rule    string
		request []func(*http.Request)
		want    string
	}{
		{"{name: a, key: user, limit: 9, window: 1h}", []func(*http.Request){as("ann")}, "1:a:3600000:{uann}"},
		{"{name: b, key: user, limit: 9, window: 1h}", []func(*http.Request){as("{u}:x y%")}, "1:b:3600000:{u%7Bu%7D%3Ax%20y%25}"},
		{"{name: c, key: user, limit: 9, window: 1h}", []func(*http.Request){as(long)}, "1:c:3600000:{u~" + sum32(long) + "}"},
		{"{name: d, key: ip, limit: 9, window: 90s}", nil, "1:d:90000:{i203.0.113.7}"},
		{"{name: e, key: ip, limit: 9, window: 1h}", []func(*http.Request){from("[2001:db8:0:1:2::3]:1")}, "1:e:3600000:{i2001%3Adb8%3A0%3A1%3A%3A}"},
		{"{name: f, key: global, limit: 9, window: 1h}", nil, "1:f:3600000:{g}"},
		{"{name: g, key: 'header:X-Api-Key', limit: 9, window: 1h}", []func(*http.Request){with("X-Api-Key", "k:1")}, "1:g:3600000:{hk%3A1}"},
		{"{name: h, key: 'header:X-Api-Key', limit: 9, window: 1h}", nil, "1:h:3600000:{i203.0.113.7}"},
		{"{name: i, key: 'header:Host', limit: 9, window: 1h}", nil, "1:i:3600000:{hshop.example}"},
		{"{name: j, key: 'header:X-User-Plan', limit: 9, window: 1h}", []func(*http.Request){as("ann.pro")}, "1:j:3600000:{hpro}"},
	}
	both(t, func(t *testing.T, b *bed) {
		var wanted []string
		for _, tt := range tests {
			gate := b.gate("redis: REDIS\nauth: {addresses: [\"AUTH\"], optional: true}\nlimits: [" + tt.rule + "]")
			if got := ask(gate, tt.request...).Code; got != 200 {
				t.Errorf("%s: %d", tt.rule, got)
			}
			wanted = append(wanted, tt.want)
		}
		// Each request has made one key, and nothing else has.
		got := b.keys()
		slices.Sort(got)
		slices.Sort(wanted)
		if !slices.Equal(got, wanted) {
			t.Errorf("keys\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(wanted, "\n"))
		}
	})
}
