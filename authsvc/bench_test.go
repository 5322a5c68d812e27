package authsvc

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/authsvc/config"
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
				r.judge.KeysChanged()
			}
			ask(b, tokens[i%len(tokens)], 200)
			i++
		}
		b.ReportMetric(float64(r.store.RoundTrips()-before)/float64(b.N), "round-trips/op")
	})
	for _, forged := range forgeries(compact) {
		b.Run(forged.name, func(b *testing.B) {
			if size := len(forged.compact); strings.Contains(forged.name, "at the cap") && (size > token.MaxSize || size < token.MaxSize-8) {
				b.Fatalf("%d bytes", size)
			}
			for b.Loop() {
				ask(b, forged.compact, 401)
			}
		})
	}
}

// BenchmarkNewToken is one answer of /auth to a token that nobody showed before,
// over one connection on loopback. What the client allocates is counted too, and
// is as little as can be.
func BenchmarkNewToken(b *testing.B) {
	redis := redistest.Start(b)
	r := open(b, testConfig(b, redis.Addr))
	r.awaitStream()
	connection, err := net.Dial("tcp", r.PublicAddr().String())
	if err != nil {
		b.Fatal(err)
	}
	defer connection.Close()
	answers := make([]byte, 4<<10)
	var tokens []string
	before := r.store.RoundTrips()
	b.ReportAllocs()
	for b.Loop() {
		if len(tokens) == 0 {
			b.StopTimer()
			for range 500 {
				tokens = append(tokens, "GET /auth HTTP/1.1\r\nHost: authsvc\r\nAuthorization: Bearer "+issueWithoutRedis(b, r)+"\r\n\r\n")
			}
			b.StartTimer()
		}
		if _, err := io.WriteString(connection, tokens[0]); err != nil {
			b.Fatal(err)
		}
		tokens = tokens[1:]
		n, err := connection.Read(answers) // short as it is, it comes in one piece
		if answer := answers[:n]; err != nil || !bytes.HasPrefix(answer, []byte("HTTP/1.1 200 OK\r\n")) || !bytes.HasSuffix(answer, []byte("\r\n\r\n")) {
			b.Fatalf("%v %s", err, answer)
		}
	}
	b.ReportMetric(float64(r.store.RoundTrips()-before)/float64(b.N), "round-trips/op")
}

type forgery struct{ name, compact string }

// forgeries are tokens that cost as much as their author can make them cost.
func forgeries(compact string) []forgery {
	parts := strings.Split(compact, ".")
	long := strings.Repeat("A", len(parts[2]))
	atTheCap := func(header string) string {
		return header + "." + strings.Repeat("A", (token.MaxSize-2-len(header)-len(long))/4*4) + "." + long
	}
	return []forgery{
		{"forged signature", parts[0] + "." + parts[1] + "." + long},
		{"forged at the cap", atTheCap(parts[0])},
		{"forged at the cap, header as large as it gets", atTheCap(headerOfNames(1 << 10))},
		{"forged at the cap, header larger than that", headerOfNames((token.MaxSize-8-len(long))/4*4) + ".e30A." + long},
		{"larger than the cap", strings.Repeat("A", token.MaxSize+1)},
		{"no key", "eyJhbGciOiJFUzI1NiIsImtpZCI6IngifQ.e30.AAAA"},
	}
}

// headerOfNames is a header segment of so many characters, a multiple of four,
// with as many names in it as fit.
func headerOfNames(size int) string {
	var header strings.Builder
	header.WriteString(`{"alg":"ES256"`)
	for i := 0; header.Len() < size/4*3-len(`,"000":0}`); i++ {
		fmt.Fprintf(&header, `,"%03x":0`, i)
	}
	header.WriteString("}")
	header.WriteString(strings.Repeat(" ", size/4*3-header.Len()))
	return base64.RawURLEncoding.EncodeToString([]byte(header.String()))
}

func issueWithoutRedis(b *testing.B, r *replica) string {
	signer, err := r.keyDir.Signer(time.Now())
	if err != nil {
		b.Fatal(err)
	}
	compact, err := signer.Issue(token.Grant{
		Issuer: "sluice", Audience: "sluice", Subject: "u1", Session: rand.Text(), ID: rand.Text(), Issued: time.Now(), TTL: time.Hour,
	})
	if err != nil {
		b.Fatal(err)
	}
	return compact
}

// BenchmarkVerify is the verifier alone.
func BenchmarkVerify(b *testing.B) {
	redis := redistest.Start(b)
	r := open(b, testConfig(b, redis.Addr))
	compact, ctx := issueWithoutRedis(b, r), context.Background()
	b.Run("hot", func(b *testing.B) {
		for b.Loop() {
			if _, err := r.judge.Verify(ctx, compact, time.Now()); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("cold", func(b *testing.B) {
		for b.Loop() {
			r.judge.KeysChanged()
			if _, err := r.judge.Verify(ctx, compact, time.Now()); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkForgedAtTheBound is what refusing a forged token costs that is as
// large as tokens.maxBytes lets it be: by default, as much as the shipped entry
// point takes, and at most.
func BenchmarkForgedAtTheBound(b *testing.B) {
	redis := redistest.Start(b)
	for _, maxBytes := range []int{token.MaxSize, 32 << 10, config.MaxTokenBytes} {
		c := testConfig(b, redis.Addr)
		c.Tokens.MaxBytes = maxBytes
		r := open(b, c)
		head, rest, _ := strings.Cut(issueWithoutRedis(b, r), ".")
		signature := rest[strings.IndexByte(rest, '.'):]
		forged := head + "." + strings.Repeat("A", (maxBytes-1-len(head)-len(signature))/4*4) + signature
		b.Run(fmt.Sprint(maxBytes, " bytes"), func(b *testing.B) {
			for b.Loop() {
				if _, err := r.judge.Verify(b.Context(), forged, time.Now()); !errors.Is(err, token.ErrSignature) {
					b.Fatal(err)
				}
			}
		})
	}
}
