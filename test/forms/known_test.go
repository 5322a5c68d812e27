package forms_test

import (
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/test/forms"
	"github.com/sluice-gateway/sluice/test/harness"
)

// TestKnownIsAnsweredAsNew: what a gate recalls of earlier requests changes no
// answer, and nothing that the service is told. One gate sees all requests of a
// sequence; beside it each meets a gate of its own, which differs in a number that
// decides nothing and so recalls nothing.
func TestKnownIsAnsweredAsNew(t *testing.T) {
	const auth = `auth: {addresses: ["AUTH"]}`
	configs := map[string]string{
		"users":            auth + `, limits: [{name: a, key: user, limit: 12, window: 744h}]`,
		"several":          `auth: {addresses: ["AUTH"], keepAuthorization: true}, limits: [{name: a, key: user, limit: 12, window: 744h, cost: 2}, {name: b, key: user, limit: 9, window: 700h}]`,
		"tiers":            auth + `, limits: [{name: a, key: user, limit: 5, window: 744h, tierHeader: X-User-Plan, tiers: {pro: 30}}]`,
		"addresses":        `limits: [{name: a, key: ip, limit: 12, window: 744h}]`,
		"both":             auth + `, limits: [{name: b, key: user, limit: 7, window: 744h}, {name: a, key: ip, limit: 32, window: 744h}]`,
		"by plan":          auth + `, limits: [{name: a, key: "header:X-User-Plan", limit: 12, window: 744h}, {name: b, key: user, limit: 14, window: 744h}]`,
		"address by tier":  auth + `, limits: [{name: a, key: ip, limit: 5, window: 744h, tierHeader: X-User-Plan, tiers: {pro: 30}}, {name: b, key: ip, limit: 24, window: 740h}]`,
		"global":           auth + `, limits: [{name: a, key: global, limit: 12, window: 744h}, {name: b, key: user, limit: 7, window: 744h}]`,
		"as shipped":       auth + `, limits: [{name: bad-token, key: ip, limit: 5, window: 744h, countStatus: [401], countFrom: gate}, {name: a, key: user, limit: 12, window: 744h, tierHeader: X-User-Plan, tiers: {pro: 30}}, {name: b, key: user, limit: 20, window: 740h}]`,
		"optional":         `auth: {addresses: ["AUTH"], optional: true}, limits: [{name: a, key: user, limit: 5, window: 744h}]`,
		"what answers say": auth + `, limits: [{name: a, key: user, limit: 5, window: 744h, refundStatus: ["5xx"]}]`,
		"a client's key":   auth + `, limits: [{name: a, key: "header:X-Api-Key", limit: 5, window: 744h}, {name: b, key: user, limit: 14, window: 744h}]`,
		"a key or none":    `limits: [{name: a, key: "header:X-Api-Key", limit: 5, window: 744h, onMissingKey: skip}, {name: b, key: "header:Host", limit: 30, window: 744h, onMissingKey: deny}]`,
		"a key or deny":    `limits: [{name: a, key: "header:X-Api-Key", limit: 9, window: 744h, onMissingKey: deny}]`,
		"behind a proxy":   auth + `, trustedProxies: [203.0.113.0/24], ipStrategy: {depth: 1}, exempt: {ips: [198.51.100.7/32], users: [bob]}, legacyHeaders: true, limits: [{name: a, key: ip, limit: 9, window: 744h}, {name: b, key: user, limit: 7, window: 744h}]`,
		"excluded":         `trustedProxies: [203.0.113.0/24], ipStrategy: {excludedIPs: [198.51.100.8/32]}, limits: [{name: a, key: ip, limit: 7, window: 744h}]`,
		"a dry run":        auth + `, dryRun: true, limits: [{name: a, key: ip, limit: 9, window: 744h}, {name: b, key: user, limit: 3, window: 744h}, {name: c, key: user, limit: 5, window: 740h, countStatus: [500]}]`,
		"classic":          `trustUserHeader: true, limits: [{name: a, key: user, limit: 5, window: 744h, tierHeader: X-User-Plan, tiers: {pro: 12}}, {name: b, key: user, limit: 14, window: 740h}]`,
		"classic alone":    `trustUserHeader: true`,
		"five and more":    auth + `, limits: [{name: a, key: user, limit: 21, window: 744h}, {name: b, key: user, limit: 20, window: 743h}, {name: c, key: user, limit: 12, window: 742h}, {name: d, key: ip, limit: 50, window: 741h}, {name: e, key: user, limit: 23, window: 740h}, {name: f, key: global, limit: 60, window: 739h}]`,
	}
	both(t, func(t *testing.T, b *bed) {
		prefix := b.prefix
		for _, name := range slices.Sorted(maps.Keys(configs)) {
			t.Run(name, func(t *testing.T) {
				var passed http.Header
				service := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { passed = r.Header.Clone() })
				b := b.on(t)
				open := func(side string, maxKeys int) http.Handler {
					b.prefix = prefix + strings.ReplaceAll(name, " ", "-") + side
					return b.form.New(t, forms.FromFile(t, b.fill(fmt.Sprintf("{redis: REDIS, maxKeys: %d, %s}", maxKeys, configs[name]))), service)
				}
				one, fresh := open("-one", 1000), open("-each", 1000)
				if strings.Contains(configs[name], "name: a") {
					b.redis.AwaitGateways(prefix+strings.ReplaceAll(name, " ", "-")+"-one", 1)
					b.redis.AwaitGateways(prefix+strings.ReplaceAll(name, " ", "-")+"-each", 1)
				}
				send := func(gate http.Handler, n int) string {
					passed = nil
					w := httptest.NewRecorder()
					r := httptest.NewRequest("GET", "http://shop.example/", nil)
					r.RemoteAddr = []string{"203.0.113.9:1", "203.0.113.9:2", "[2001:db8::1]:3"}[n%3]
					r.Header.Set("Connection", "X-User-ID, close")
					r.Header.Set("X-Forwarded-For", []string{"198.51.100.7", "192.0.2.1, 198.51.100.8"}[n%2])
					r.Header.Set("X-User-ID", []string{"ann", "bob"}[n%2])
					if n%2 == 1 {
						r.Header.Set("X-User-Plan", "pro")
					}
					if n%5 > 1 {
						r.Header.Set("X-Api-Key", []string{"k", " l "}[n%2])
					}
					switch credential := []string{"Bearer user-ann", "Bearer user-ann", "Bearer user-bob.pro", "Bearer bad", "", "twice"}[n%6]; credential {
					case "":
					case "twice":
						r.Header["Authorization"] = []string{"Bearer user-ann", "Bearer user-ann"}
					default:
						r.Header.Set("Authorization", credential)
					}
					gate.ServeHTTP(w, r)
					body := instants.ReplaceAllString(strings.ReplaceAll(w.Body.String(), w.Header().Get("X-Request-Id"), "id"), "t=")
					if w.Code == http.StatusTooManyRequests {
						// Of limits that did not deny the one tells what leases happened to hold, and both
						// those on users alone where it was known who asks.
						w.Header().Del("RateLimit")
						w.Header().Del("RateLimit-Policy")
					}
					return fmt.Sprint(w.Code, describe(w.Header()), " ", body, " -> ", describe(passed))
				}
				for n := range 60 {
					if n > 0 {
						fresh = open("-each", 1000+n)
					}
					if a, b := send(one, n), send(fresh, n); a != b {
						t.Fatalf("request %d:\nknown %s\nnew   %s", n, a, b)
					}
				}
			})
		}
	})
}

// TestPanicWhileAttending: interpreted, a goroutine that panics would end Traefik, and
// those that attend to requests are few. Whatever makes one panic is refused, and as
// many attend to the others as before.
func TestPanicWhileAttending(t *testing.T) {
	if harness.Race {
		t.Skip("Yaegi itself does not pass the race detector")
	}
	b := newBed(t, forms.Interpreted{})
	gate := b.gate("redis: REDIS\nlimits: [{name: l, key: ip, limit: 1000, window: 1h}]")
	for range 4 * runtime.GOMAXPROCS(0) {
		w := httptest.NewRecorder()
		gate.ServeHTTP(w, &http.Request{Method: "GET", RemoteAddr: "203.0.113.7:1", URL: &url.URL{Path: "/"}}) // no server hands on a request without a map of headers
		if w.Code != http.StatusServiceUnavailable {
			t.Fatalf("%d %s", w.Code, w.Body)
		}
	}
	if got := statuses(gate, 3); got != "200 200 200" {
		t.Errorf("after the panics: %s", got)
	}
}

// TestPanicWhileJudging: nor does a question to the auth service, and nobody waits for
// its answer for ever.
func TestPanicWhileJudging(t *testing.T) {
	both(t, func(t *testing.T, b *bed) {
		gate := b.gate(`{redis: REDIS, auth: {addresses: ["AUTH"]}}`)
		for range 4 {
			w := httptest.NewRecorder()
			gate.ServeHTTP(w, &http.Request{Method: "GET", RemoteAddr: "203.0.113.7:1", Header: http.Header{"Authorization": {"Bearer user-ann"}}}) // no server hands on a request without a URL
			if w.Code != http.StatusServiceUnavailable {
				t.Fatalf("%d %s", w.Code, w.Body)
			}
		}
		if got := statuses(gate, 3, as("ann")); got != "200 200 200" {
			t.Errorf("after the panics: %s", got)
		}
	})
}

// TestManyNewcomersAtOnce: each request that waits has a goroutine that finds out about
// it. All are answered, and of these goroutines no more stay than are of use.
func TestManyNewcomersAtOnce(t *testing.T) {
	const many, stay = 400, 128
	both(t, func(t *testing.T, b *bed) {
		gate := b.gate("redis: REDIS\nlimits: [{name: l, key: ip, limit: 1000, window: 1h}]")
		if got := statuses(gate, 3); got != "200 200 200" {
			t.Fatal(got)
		}
		before := runtime.NumGoroutine()
		for round := range 2 {
			b.redis.Freeze()
			var answered sync.WaitGroup
			codes := make(chan int, many)
			for n := range many {
				answered.Go(func() {
					codes <- ask(gate, from(fmt.Sprintf("198.%d.%d.%d:1", 18+round, n/250, n%250))).Code
				})
			}
			time.Sleep(100 * time.Millisecond)
			b.redis.Thaw()
			answered.Wait()
			close(codes)
			for code := range codes {
				if code != http.StatusOK {
					t.Errorf("a request got %d", code)
				}
			}
			harness.Eventually(t, 5*time.Second, "goroutines end", func() error {
				if n := runtime.NumGoroutine() - before; n > stay+10 {
					return fmt.Errorf("%d more than before", n)
				}
				return nil
			})
		}
	})
}

var instants = regexp.MustCompile(`\bt=\d+|^\d+$|"retry_after":\d+`)

// describe is a header without what differs from request to request.
func describe(h http.Header) string {
	text := ""
	for _, name := range slices.Sorted(maps.Keys(h)) {
		switch value := strings.Join(h[name], "|"); name {
		case "X-Request-Id", "Content-Length":
			text += fmt.Sprintf(" %s: %d", name, len(value))
		case "Ratelimit", "Retry-After", "X-Ratelimit-Reset": // seconds pass
			text += fmt.Sprintf(" %s: %s", name, instants.ReplaceAllString(value, "t="))
		default:
			text += fmt.Sprintf(" %s: %s", name, value)
		}
	}
	return text
}
