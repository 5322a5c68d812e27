package plugin

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/internal/redistest"
)

// BenchmarkGate is what the policy adds to a request whose token is known and
// whose key holds a lease: the hot path, over a real Redis.
func BenchmarkGate(b *testing.B) {
	for _, bench := range []struct{ name, yaml string }{
		{"limits", `limits: [{name: a, key: ip, limit: 30000000, window: 60s}]`},
		{"auth and limits", `{auth: {addresses: ["AUTH"]}, limits: [{name: b, key: user, limit: 30000000, window: 60s}]}`},
		{"three limits", `{auth: {addresses: ["AUTH"]}, limits: [{name: bad-token, key: ip, limit: 30000000, window: 60s, countStatus: [401], countFrom: gate}, {name: per-user, key: user, limit: 30000000, window: 60s, tierHeader: X-User-Plan, tiers: {pro: 1000}}, {name: burst, key: user, limit: 1000000, window: 1s}]}`},
		{"denied", `limits: [{name: d, key: ip, limit: 1, window: 744h}]`},
	} {
		b.Run(bench.name, func(b *testing.B) {
			gate := openGate(b, bench.yaml)
			b.ReportAllocs()
			for b.Loop() {
				w := nowhere{header: http.Header{}}
				gate.ServeHTTP(w, hotRequest())
			}
			b.StopTimer()
			if degraded := gate.engine.Degraded.Load(); degraded > 0 {
				b.Logf("%d degraded decisions", degraded)
			}
		})
	}
	// What the loop itself costs, to be subtracted. It calls a handler as well:
	// else request and response would not leave the stack.
	b.Run("nothing", func(b *testing.B) {
		next := http.Handler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
		b.ReportAllocs()
		for b.Loop() {
			w := nowhere{header: http.Header{}}
			next.ServeHTTP(w, hotRequest())
		}
	})
}

// openGate is a gate over a Redis and an auth service of the benchmark's own,
// ready to serve.
func openGate(b *testing.B, yaml string) *gate {
	redis := redistest.Start(b)
	auth := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("X-User-ID", "018394e6-1166-4d00-aa3c-8fbbc1133997")
		h.Set("X-Token-ID", "token-1")
		h.Set("Cache-Control", "private, max-age=60, stale-if-error=300")
		h.Set("Vary", "Authorization")
	}))
	b.Cleanup(auth.Close)
	config := decode(b, []byte(yaml))
	config.Redis = []Redis{{Addresses: []string{redis.Addr}}}
	if config.Auth != nil {
		config.Auth[0].Addresses = []string{auth.URL}
	}
	handler, err := New(b.Context(), http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}), config, "bench")
	if err != nil {
		b.Fatal(err)
	}
	g := handler.(*gate)
	for deadline := time.Now().Add(5 * time.Second); !g.backend.client.Healthy(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			b.Fatal("Redis does not answer")
		}
	}
	ticks := time.NewTicker(500 * time.Millisecond)
	b.Cleanup(ticks.Stop)
	tick := func(seq int) { g.backend.stream.message(fmt.Sprintf(`{"epoch":"e","seq":%d,"type":"tick"}`, seq)) }
	tick(1)
	go func() {
		for seq := 2; ; seq++ {
			select {
			case <-b.Context().Done():
				return
			case <-ticks.C:
				tick(seq)
			}
		}
	}()
	return g
}

// hotRequest is a browser's request with a token.
func hotRequest() *http.Request {
	return &http.Request{
		Method: "GET", URL: &url.URL{Path: "/v1/products"}, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Host: "api.example.com", RemoteAddr: "203.0.113.9:51234",
		Header: http.Header{
			"Accept":          {"application/json"},
			"Accept-Encoding": {"gzip, br"},
			"Authorization":   {hotCredential},
			"User-Agent":      {"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36"},
		},
	}
}

const hotCredential = "Bearer eyJhbGciOiJFUzI1NiIsImtpZCI6IjEiLCJ0eXAiOiJhdCtqd3QifQ.eyJpc3MiOiJzbHVpY2UiLCJhdWQiOiJzbHVpY2UiLCJzdWIiOiIwMTgzOTRlNi0xMTY2LTRkMDAtYWEzYy04ZmJiYzExMzM5OTciLCJleHAiOjE3OTU0OTM2NzYsImlhdCI6MTc5NTQ5Mjc3Ni41NjgsImp0aSI6IjEifQ.7bV2pE0cXcE1lq8m3xN0Ew4rP3mM3f3b7q1m1Z0w3mI0n8oVqV0JcU2m6q8b9l9d2m1k3p5r7t9v1x3z5A7C9E"

// nowhere is a response that goes nowhere.
type nowhere struct{ header http.Header }

func (n nowhere) Header() http.Header         { return n.header }
func (n nowhere) Write(p []byte) (int, error) { return len(p), nil }
func (n nowhere) WriteHeader(int)             {}
