package forms_test

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/sluice-gateway/sluice/test/forms"
	"github.com/sluice-gateway/sluice/test/harness"
)

// BenchmarkHotPath is what one request costs in each form when its token is
// known and its key holds a lease. "no-op" is the harness alone.
func BenchmarkHotPath(b *testing.B) {
	const auth = "auth: {addresses: [AUTH]}\n"
	for _, form := range forms.All {
		for _, c := range []struct{ name, config string }{
			{"request id", "userHeader: X-User-ID"},
			{"limits", "limits: [{name: a, key: ip, limit: 30000000, window: 60s}]"},
			{"auth", auth},
			{"auth and limits", auth + "limits: [{name: b, key: user, limit: 30000000, window: 60s}]"},
			{"shipped limits", auth + "limits: [{name: bad-token, key: ip, limit: 30000000, window: 60s, countStatus: [401], countFrom: gate}, {name: per-user, key: user, limit: 30000000, window: 60s, tierHeader: X-User-Plan, tiers: {pro: 1000}}, {name: burst, key: user, limit: 1000000, window: 1s}]"},
			{"denied", "limits: [{name: d, key: ip, limit: 1, window: 744h}]"},
		} {
			b.Run(form.String()+"/"+c.name, func(b *testing.B) {
				gate := benchGate(b, form, c.config)
				b.ReportAllocs()
				for b.Loop() {
					gate.ServeHTTP(nowhere{http.Header{}}, hotRequest())
				}
			})
		}
	}
	b.Run("no-op", func(b *testing.B) {
		next := http.Handler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
		b.ReportAllocs()
		for b.Loop() {
			next.ServeHTTP(nowhere{http.Header{}}, hotRequest())
		}
	})
}

// BenchmarkColdPath is what a request costs whose key, or whose token and key, nobody
// has seen before. "no-op" is the harness alone, its auth service included.
func BenchmarkColdPath(b *testing.B) {
	for _, c := range []struct {
		name, config string
		newcomer     func(r *http.Request, n int)
	}{
		{"new key", "limits: [{name: a, key: ip, limit: 100, window: 60s}]", func(r *http.Request, n int) {
			r.RemoteAddr = fmt.Sprintf("%d.%d.%d.9:51234", 20+n>>16&63, n>>8&255, n&255)
		}},
		{"new token and key", "auth: {addresses: [AUTH]}\nlimits: [{name: b, key: header:X-Key, limit: 100, window: 60s}]", func(r *http.Request, n int) {
			r.Header["Authorization"] = []string{fmt.Sprint("Bearer ", n)}
			r.Header["X-Key"] = []string{fmt.Sprint(n)}
		}},
	} {
		measure := func(b *testing.B, gate http.Handler) {
			n := 0
			b.ReportAllocs()
			for b.Loop() {
				r := hotRequest()
				n++
				c.newcomer(r, n)
				gate.ServeHTTP(nowhere{http.Header{}}, r)
			}
		}
		for _, form := range forms.All {
			b.Run(form.String()+"/"+c.name, func(b *testing.B) { measure(b, benchGate(b, form, c.config)) })
		}
		b.Run("no-op/"+c.name, func(b *testing.B) {
			ask := func() {}
			if strings.Contains(c.config, "AUTH") {
				ask = asker(b)
			}
			measure(b, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { ask() }))
		})
	}
}

// asker asks the auth service of the harness for one decision at a time, and
// allocates nothing itself: what it costs is the service's.
func asker(b *testing.B) func() {
	service := benchAuth(b)
	conn, err := net.Dial("tcp", strings.TrimPrefix(service.URL, "http://"))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { conn.Close() })
	question := []byte("GET / HTTP/1.1\r\nHost: authsvc\r\nAuthorization: Bearer 1\r\nX-Forwarded-Method: GET\r\nX-Forwarded-Proto: http\r\n" +
		"X-Forwarded-Host: example.com\r\nX-Forwarded-Uri: /v1/products\r\nX-Forwarded-For: 203.0.113.9\r\nX-Request-Id: 13049ca6-967a-4339-b189-a34d359ddf52\r\n\r\n")
	answer := make([]byte, 4096)
	return func() {
		if _, err := conn.Write(question); err != nil {
			b.Fatal(err)
		}
		for n := 0; !bytes.HasSuffix(answer[:n], []byte("\r\n\r\n")); {
			more, err := conn.Read(answer[n:])
			if err != nil {
				b.Fatal(err)
			}
			n += more
		}
	}
}

// benchAuth knows everybody.
func benchAuth(b *testing.B) *httptest.Server {
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("X-User-ID", "018394e6-1166-4d00-aa3c-8fbbc1133997")
		h.Set("X-Token-ID", "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08")
		h.Set("Cache-Control", "private, max-age=60, stale-if-error=300")
		h.Set("Vary", "Authorization")
	}))
	b.Cleanup(service.Close)
	return service
}

func benchGate(b *testing.B, form forms.Form, config string) http.Handler {
	redis := harness.StartRedis(b)
	prefix := fmt.Sprintf("bench%d", beds.Add(1))
	full := fmt.Sprintf("redis: {addresses: [%q], keyPrefix: %s}\n", redis.Addr, prefix) + config
	fields := forms.FromFile(b, full)
	if auth, ok := fields["auth"].(map[string]any); ok {
		auth["addresses"] = benchAuth(b).URL
	}
	gate := form.New(b, fields, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	if fields["limits"] != nil || fields["auth"] != nil {
		redis.AwaitGateways(prefix, 1)
		redis.StartEvents(b, prefix)
	}
	return gate
}

func hotRequest() *http.Request {
	r := httptest.NewRequest("GET", "/v1/products", nil)
	r.RemoteAddr = "203.0.113.9:51234"
	r.Header = http.Header{
		"Accept":          {"application/json"},
		"Accept-Encoding": {"gzip, br"},
		"Authorization":   {"Bearer eyJhbGciOiJFUzI1NiIsImtpZCI6IjEifQ.eyJpc3MiOiJzbHVpY2UiLCJzdWIiOiIwMTgzOTRlNi0xMTY2In0.7bV2pE0cXcE1lq8m3xN0Ew4rP3mM3f3b7q1m1Z0w3mI0n8oVqV0JcU2m6q8b9l9d2m1k3p5r7t9v1x3z5A7C9E"},
		"User-Agent":      {"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36"},
	}
	return r
}

// nowhere is a response that goes nowhere.
type nowhere struct{ header http.Header }

func (n nowhere) Header() http.Header         { return n.header }
func (n nowhere) Write(p []byte) (int, error) { return len(p), nil }
func (n nowhere) WriteHeader(int)             {}
