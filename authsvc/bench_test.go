package authsvc

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/authsvc/token"
	"github.com/sluice-gateway/sluice/internal/redistest"
)

// BenchmarkAuth is one answer of /auth without the network: hot (verified
// before), cold (signature anew, one Redis round trip), forged.
func BenchmarkAuth(b *testing.B) {
	redis := redistest.Start(b)
	c := testConfig(b, redis.Addr)
	c.Log.Level = "error"
	r := open(b, c)
	r.awaitStream()
	handler := r.servers[0].Handler
	compact := r.login("u1").AccessToken
	ask := func(b *testing.B, compact string, want int) {
		request := httptest.NewRequest(http.MethodGet, "/auth", nil)
		request.Header.Set("Authorization", "Bearer "+compact)
		recorder := httptest.NewRecorder()
		handler.ServeHTTP(recorder, request)
		if recorder.Code != want {
			b.Fatalf("%d %s", recorder.Code, recorder.Body)
		}
	}
	b.Run("hot", func(b *testing.B) {
		ask(b, compact, 200)
		before := r.store.RoundTrips()
		for b.Loop() {
			ask(b, compact, 200)
		}
		b.ReportMetric(float64(r.store.RoundTrips()-before)/float64(b.N), "round-trips/op")
	})
	b.Run("cold", func(b *testing.B) {
		tokens := make([]string, 2000)
		for i := range tokens {
			tokens[i] = issueWithoutRedis(b, r)
		}
		before, i := r.store.RoundTrips(), 0
		b.ResetTimer()
		for b.Loop() {
			if i%len(tokens) == 0 {
				r.verifier.verified.Purge()
			}
			ask(b, tokens[i%len(tokens)], 200)
			i++
		}
		b.ReportMetric(float64(r.store.RoundTrips()-before)/float64(b.N), "round-trips/op")
	})
	end := strings.LastIndexByte(compact, '.') + 1
	for name, forged := range map[string]string{
		"forged signature":   compact[:end] + strings.Repeat("A", len(compact)-end),
		"forged at the cap":  compact[:strings.IndexByte(compact, '.')+1] + strings.Repeat("A", token.MaxSize-len(compact)) + compact[end-1:],
		"larger than all":    strings.Repeat("A", token.MaxSize+1),
		"random kid, no key": "eyJhbGciOiJFUzI1NiIsImtpZCI6IngifQ.e30.AAAA",
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				ask(b, forged, 401)
			}
		})
	}
}

func issueWithoutRedis(b *testing.B, r *replica) string {
	answer, _, err := r.mint("u1", newSession(), nil, time.Hour, time.Now())
	if err != nil {
		b.Fatal(err)
	}
	return answer.AccessToken
}

// BenchmarkVerify is the verifier alone.
func BenchmarkVerify(b *testing.B) {
	redis := redistest.Start(b)
	r := open(b, testConfig(b, redis.Addr))
	compact, ctx := issueWithoutRedis(b, r), context.Background()
	b.Run("hot", func(b *testing.B) {
		for b.Loop() {
			if _, err := r.verifier.verify(ctx, compact, time.Now()); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("cold", func(b *testing.B) {
		for b.Loop() {
			r.verifier.verified.Purge()
			if _, err := r.verifier.verify(ctx, compact, time.Now()); err != nil {
				b.Fatal(err)
			}
		}
	})
}
