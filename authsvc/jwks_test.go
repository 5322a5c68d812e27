package authsvc

import (
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/authsvc/config"
	"github.com/sluice-gateway/sluice/authsvc/token"
	"github.com/sluice-gateway/sluice/internal/redistest"
)

// jwksServer is an issuer's key server that counts and can misbehave.
type jwksServer struct {
	*httptest.Server
	requests atomic.Int64

	mu      sync.Mutex // protects what follows
	body    string
	status  int
	holding chan struct{} // requests wait for it to be closed
}

func newJWKSServer(t testing.TB, body string) *jwksServer {
	s := &jwksServer{body: body, status: 200}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.requests.Add(1)
		s.mu.Lock()
		body, status, holding := s.body, s.status, s.holding
		s.mu.Unlock()
		if holding != nil {
			select {
			case <-holding:
			case <-r.Context().Done():
			}
		}
		w.Header().Set("Location", "/elsewhere")
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *jwksServer) set(status int, body string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status, s.body = status, body
}

// remote opens a key source on a server, with short intervals.
func remote(t *testing.T, server *jwksServer, every, unknown time.Duration) *remoteKeys {
	t.Helper()
	keys := newRemoteKeys(config.Issuer{JWKSURL: server.URL, Algorithms: token.Algorithms}, func() {}, slog.New(slog.DiscardHandler))
	keys.every, keys.unknown = every, unknown
	ctx, cancel := context.WithCancel(context.Background())
	if err := keys.fetch(ctx); err != nil {
		t.Fatal(err)
	}
	var task sync.WaitGroup
	task.Go(func() { keys.watch(ctx) })
	t.Cleanup(func() { cancel(); task.Wait() })
	return keys
}

func (k *remoteKeys) has(f *foreign) bool {
	set, _ := k.keys()
	return len(set.Candidates(f.signer.Algorithm, f.signer.KeyID)) > 0
}

// RULES 45: a key that is absent from two good answers in a row is dead; an
// outage, however long, kills none.
func TestRemovedKeysDie(t *testing.T) {
	a, b := newForeign(t, "a", "ES256"), newForeign(t, "b", "ES256")
	server := newJWKSServer(t, keySet(a, b))
	keys := remote(t, server, 20*time.Millisecond, time.Hour)
	redistest.Eventually(t, 5*time.Second, "keys arrive", func() bool { return keys.has(a) && keys.has(b) })

	for _, bad := range []struct {
		status int
		body   string
	}{
		{500, keySet(b)}, {404, ""}, {302, keySet(b)}, {200, ""}, {200, "{}"}, {200, `{"keys":[]}`}, {200, keySet(b) + "x"},
		{200, `{"keys":[{"kty":"oct","k":"` + strings.Repeat("A", 64) + `"}]}`},
		{200, `{"keys":[],"x":"` + strings.Repeat("a", jwksMaxSize) + `"}`},
	} {
		server.set(bad.status, bad.body)
		n := server.requests.Load()
		redistest.Eventually(t, 5*time.Second, "a few fetches", func() bool { return server.requests.Load() > n+3 })
		if !keys.has(a) || !keys.has(b) {
			t.Errorf("answer %d %.30q killed a key", bad.status, bad.body)
		}
	}
	server.set(200, keySet(b))
	redistest.Eventually(t, 5*time.Second, "the removed key dies", func() bool { return !keys.has(a) })
	if !keys.has(b) {
		t.Error("the other key died as well")
	}
	server.set(200, keySet(a, b))
	redistest.Eventually(t, 5*time.Second, "a key that returns counts", func() bool { return keys.has(a) })
}

func TestMergeKeepsAKeyForOneAbsence(t *testing.T) {
	a, b := newForeign(t, "a", "ES256").signer.Key(), newForeign(t, "b", "ES256").signer.Key()
	both, onlyB := token.NewKeySet(a, b), token.NewKeySet(b)
	set, missing := merge(both, onlyB, nil)
	if set.Len() != 2 {
		t.Error("dead after one absence")
	}
	if set, missing = merge(set, onlyB, missing); set.Len() != 1 || len(missing) != 0 {
		t.Error("alive after two absences")
	}
	replaced := a
	replaced.ID = b.ID
	if set, _ := merge(onlyB, token.NewKeySet(replaced), nil); set.Len() != 1 {
		t.Error("a kid that was given to another key still means the old one, too")
	}
}

// RULES 45: a flood of unknown kids causes one fetch, holds one request, and
// that for a second at most.
func TestUnknownKidFlood(t *testing.T) {
	a, b := newForeign(t, "a", "ES256"), newForeign(t, "b", "ES256")
	server := newJWKSServer(t, keySet(a))
	keys := remote(t, server, time.Hour, time.Hour)
	redistest.Eventually(t, 5*time.Second, "keys arrive", func() bool { return keys.has(a) })
	before := server.requests.Load()

	release := make(chan struct{})
	server.mu.Lock()
	server.holding = release
	server.mu.Unlock()
	var looked, quick atomic.Int64
	var all sync.WaitGroup
	for i := range 200 {
		all.Go(func() {
			started := time.Now()
			ctx, cancel := context.WithTimeout(context.Background(), jwksWait)
			defer cancel()
			if keys.refresh(ctx, fmt.Sprint("unknown", i)) {
				looked.Add(1)
			}
			took := time.Since(started)
			if took < jwksWait/2 {
				quick.Add(1)
			}
			if took > jwksWait+2*time.Second {
				t.Errorf("a token waited %s", took)
			}
		})
	}
	all.Wait()
	if got := server.requests.Load() - before; got != 1 {
		t.Errorf("%d fetches for a flood, want 1", got)
	}
	if looked.Load() != 0 || quick.Load() != 199 {
		t.Errorf("%d looked, %d were told at once; want 0 and 199", looked.Load(), quick.Load())
	}
	close(release)

	// With an honest server the one that asks gets the new key.
	server.set(200, keySet(a, b))
	keys.mu.Lock()
	keys.asked, server.holding = time.Time{}, nil
	keys.mu.Unlock()
	redistest.Eventually(t, 5*time.Second, "the fetch in flight ends", func() bool {
		keys.mu.Lock()
		defer keys.mu.Unlock()
		return keys.done == nil
	})
	if !keys.refresh(context.Background(), b.signer.KeyID) || !keys.has(b) {
		t.Error("a new key is not found by the token that needs it")
	}
	if keys.refresh(context.Background(), b.signer.KeyID) {
		t.Error("a known kid was looked for")
	}
}

// The answer's size is bounded though it would parse (RULES 45).
func TestJWKSAnswerIsBounded(t *testing.T) {
	a := newForeign(t, "a", "ES256")
	large := keySet(a) + strings.Repeat(" ", jwksMaxSize)
	keys := newRemoteKeys(config.Issuer{JWKSURL: newJWKSServer(t, large).URL, Algorithms: token.Algorithms}, func() {}, slog.New(slog.DiscardHandler))
	if err := keys.fetch(context.Background()); err == nil || keys.has(a) {
		t.Errorf("an answer of %d bytes was taken: %v", len(large), err)
	}
}

// A key server that never ends, by size or by time, costs one fetch, which ends:
// the last good set stays, and no token waits longer than jwksWait (RULES 45).
func TestJWKSAnswerEnds(t *testing.T) {
	t.Parallel() // it waits, mostly
	a := newForeign(t, "a", "ES256")
	for name, pause := range map[string]time.Duration{"drop by drop": 100 * time.Millisecond, "without end": 0} {
		t.Run(name, func(t *testing.T) {
			var endless atomic.Bool
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				_, err := io.WriteString(w, keySet(a))
				for endless.Load() && err == nil && r.Context().Err() == nil {
					w.(http.Flusher).Flush()
					_, err = io.WriteString(w, strings.Repeat(" ", 1024))
					time.Sleep(pause) // the server's pace
				}
			}))
			t.Cleanup(server.Close)
			keys := newRemoteKeys(config.Issuer{JWKSURL: server.URL, Algorithms: token.Algorithms}, func() {}, slog.New(slog.DiscardHandler))
			if err := keys.fetch(context.Background()); err != nil {
				t.Fatal(err)
			}
			endless.Store(true)
			started := time.Now()
			if err := keys.fetch(context.Background()); err == nil {
				t.Error("an answer without an end was taken")
			}
			if took := time.Since(started); took > jwksTimeout+5*time.Second {
				t.Errorf("a fetch took %s", took)
			}
			if !keys.has(a) {
				t.Error("the last good set is gone")
			}
		})
	}
}

func TestJWKSRedirectIsNotFollowed(t *testing.T) {
	a := newForeign(t, "a", "ES256")
	elsewhere := newJWKSServer(t, keySet(a))
	redirecting := httptest.NewServer(http.RedirectHandler(elsewhere.URL, http.StatusFound))
	t.Cleanup(redirecting.Close)
	keys := newRemoteKeys(config.Issuer{JWKSURL: redirecting.URL, Algorithms: token.Algorithms}, func() {}, slog.New(slog.DiscardHandler))
	if err := keys.fetch(context.Background()); err == nil || keys.has(a) || elsewhere.requests.Load() != 0 {
		t.Errorf("a redirect was followed: %v", err)
	}
}

// Gateways wait for a second (auth.timeout) and then hold authsvc to be away, for
// every user. One made-up token must not bring that about while key servers hang,
// however many issuers there are.
func TestHungKeyServersLookLikeNoOutage(t *testing.T) {
	const gatewayWaits = time.Second
	c := testConfig(t, redistest.Start(t).Addr)
	release := make(chan struct{})
	defer close(release)
	var servers []*jwksServer
	for i := range 3 {
		f := newForeign(t, fmt.Sprint("slow", i), "ES256")
		server := newJWKSServer(t, keySet(f))
		servers = append(servers, server)
		issuer := f.config()
		issuer.JWKSURL = server.URL
		c.Issuers = append(c.Issuers, issuer)
	}
	r := open(t, c)
	for _, server := range servers {
		server.mu.Lock()
		server.holding = release
		server.mu.Unlock()
	}
	stranger := newForeign(t, "stranger", "ES256")
	begun := time.Now()
	r.wantStatus(stranger.token(nil), 401)
	if took := time.Since(begun); took >= gatewayWaits {
		t.Errorf("the answer took %v", took)
	}
}

// A secret that is published is none, however good it is.
func TestPublishedSecretIsRefused(t *testing.T) {
	secret := newForeign(t, "secret", "HS256").signer.Private().([]byte)
	set := `{"keys":[{"kty":"oct","alg":"HS256","k":"` + base64.RawURLEncoding.EncodeToString(secret) + `"}]}`
	if _, err := token.ParseKeySet([]byte(set)); err != nil {
		t.Fatal(err)
	}
	keys := newRemoteKeys(config.Issuer{JWKSURL: newJWKSServer(t, set).URL, Algorithms: token.Algorithms}, func() {}, slog.New(slog.DiscardHandler))
	if err := keys.fetch(context.Background()); err == nil {
		t.Error("a secret was taken from a key server")
	}
}
