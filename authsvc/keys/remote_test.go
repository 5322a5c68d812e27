package keys

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
	"github.com/sluice-gateway/sluice/authsvc/internal/issuertest"
	"github.com/sluice-gateway/sluice/authsvc/token"
	"github.com/sluice-gateway/sluice/internal/redistest"
)

// remote opens a key source on a server, with short intervals.
func remote(t *testing.T, server *issuertest.Server, every, unknown time.Duration) *remoteKeys {
	t.Helper()
	keys := newRemoteKeys(config.Issuer{JWKSURL: server.URL, Algorithms: token.Algorithms}, func() {}, slog.New(slog.DiscardHandler))
	keys.every, keys.unknown = every, unknown
	ctx, cancel := context.WithCancel(context.Background())
	if err := keys.Fetch(ctx); err != nil {
		t.Fatal(err)
	}
	var task sync.WaitGroup
	task.Go(func() { keys.Watch(ctx) })
	t.Cleanup(func() { cancel(); task.Wait() })
	return keys
}

func (k *remoteKeys) has(f *issuertest.Issuer) bool {
	set, _ := k.Keys()
	return len(set.Candidates(f.Signer.Algorithm, f.Signer.KeyID)) > 0
}

// design: key-sets: a key that is absent from two good answers in a row is dead; an
// outage, however long, kills none.
func TestRemovedKeysDie(t *testing.T) {
	a, b := issuertest.New(t, "a", "ES256"), issuertest.New(t, "b", "ES256")
	server := issuertest.NewServer(t, issuertest.KeySet(a, b))
	keys := remote(t, server, 20*time.Millisecond, time.Hour)
	redistest.Eventually(t, 5*time.Second, "keys arrive", func() bool { return keys.has(a) && keys.has(b) })

	for _, bad := range []struct {
		status int
		body   string
	}{
		{500, issuertest.KeySet(b)}, {404, ""}, {302, issuertest.KeySet(b)}, {200, ""}, {200, "{}"}, {200, `{"keys":[]}`}, {200, issuertest.KeySet(b) + "x"},
		{200, `{"keys":[{"kty":"oct","k":"` + strings.Repeat("A", 64) + `"}]}`},
		{200, `{"keys":[],"x":"` + strings.Repeat("a", jwksMaxSize) + `"}`},
	} {
		server.Set(bad.status, bad.body)
		n := server.Requests.Load()
		redistest.Eventually(t, 5*time.Second, "a few fetches", func() bool { return server.Requests.Load() > n+3 })
		if !keys.has(a) || !keys.has(b) {
			t.Errorf("answer %d %.30q killed a key", bad.status, bad.body)
		}
	}
	server.Set(200, issuertest.KeySet(b))
	redistest.Eventually(t, 5*time.Second, "the removed key dies", func() bool { return !keys.has(a) })
	if !keys.has(b) {
		t.Error("the other key died as well")
	}
	server.Set(200, issuertest.KeySet(a, b))
	redistest.Eventually(t, 5*time.Second, "a key that returns counts", func() bool { return keys.has(a) })
}

func TestMergeKeepsAKeyForOneAbsence(t *testing.T) {
	a, b := issuertest.New(t, "a", "ES256").Signer.Key(), issuertest.New(t, "b", "ES256").Signer.Key()
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

// design: key-sets: a flood of unknown kids causes one fetch, holds one request, and
// that for a second at most.
func TestUnknownKidFlood(t *testing.T) {
	a, b := issuertest.New(t, "a", "ES256"), issuertest.New(t, "b", "ES256")
	server := issuertest.NewServer(t, issuertest.KeySet(a))
	keys := remote(t, server, time.Hour, time.Hour)
	redistest.Eventually(t, 5*time.Second, "keys arrive", func() bool { return keys.has(a) })
	before := server.Requests.Load()

	release := make(chan struct{})
	server.Hold(release)
	var looked, quick atomic.Int64
	var all sync.WaitGroup
	for i := range 200 {
		all.Go(func() {
			started := time.Now()
			ctx, cancel := context.WithTimeout(context.Background(), RefreshWait)
			defer cancel()
			if keys.Refresh(ctx, fmt.Sprint("unknown", i)) {
				looked.Add(1)
			}
			took := time.Since(started)
			if took < RefreshWait/2 {
				quick.Add(1)
			}
			if took > RefreshWait+2*time.Second {
				t.Errorf("a token waited %s", took)
			}
		})
	}
	all.Wait()
	if got := server.Requests.Load() - before; got != 1 {
		t.Errorf("%d fetches for a flood, want 1", got)
	}
	if looked.Load() != 0 || quick.Load() != 199 {
		t.Errorf("%d looked, %d were told at once; want 0 and 199", looked.Load(), quick.Load())
	}
	close(release)

	// With an honest server the one that asks gets the new key.
	server.Set(200, issuertest.KeySet(a, b))
	server.Hold(nil)
	keys.mu.Lock()
	keys.asked = time.Time{}
	keys.mu.Unlock()
	redistest.Eventually(t, 5*time.Second, "the fetch in flight ends", func() bool {
		keys.mu.Lock()
		defer keys.mu.Unlock()
		return keys.done == nil
	})
	if !keys.Refresh(context.Background(), b.Signer.KeyID) || !keys.has(b) {
		t.Error("a new key is not found by the token that needs it")
	}
	if keys.Refresh(context.Background(), b.Signer.KeyID) {
		t.Error("a known kid was looked for")
	}
}

// The answer's size is bounded though it would parse (design: key-sets).
func TestJWKSAnswerIsBounded(t *testing.T) {
	a := issuertest.New(t, "a", "ES256")
	large := issuertest.KeySet(a) + strings.Repeat(" ", jwksMaxSize)
	keys := newRemoteKeys(config.Issuer{JWKSURL: issuertest.NewServer(t, large).URL, Algorithms: token.Algorithms}, func() {}, slog.New(slog.DiscardHandler))
	if err := keys.Fetch(context.Background()); err == nil || keys.has(a) {
		t.Errorf("an answer of %d bytes was taken: %v", len(large), err)
	}
}

// A key server that never ends, by size or by time, costs one fetch, which ends:
// the last good set stays, and no token waits longer than RefreshWait (design: key-sets).
func TestJWKSAnswerEnds(t *testing.T) {
	t.Parallel() // it waits, mostly
	a := issuertest.New(t, "a", "ES256")
	for name, pause := range map[string]time.Duration{"drop by drop": 100 * time.Millisecond, "without end": 0} {
		t.Run(name, func(t *testing.T) {
			var endless atomic.Bool
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				_, err := io.WriteString(w, issuertest.KeySet(a))
				for endless.Load() && err == nil && r.Context().Err() == nil {
					w.(http.Flusher).Flush()
					_, err = io.WriteString(w, strings.Repeat(" ", 1024))
					time.Sleep(pause) // the server's pace
				}
			}))
			t.Cleanup(server.Close)
			keys := newRemoteKeys(config.Issuer{JWKSURL: server.URL, Algorithms: token.Algorithms}, func() {}, slog.New(slog.DiscardHandler))
			if err := keys.Fetch(context.Background()); err != nil {
				t.Fatal(err)
			}
			endless.Store(true)
			started := time.Now()
			if err := keys.Fetch(context.Background()); err == nil {
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
	a := issuertest.New(t, "a", "ES256")
	elsewhere := issuertest.NewServer(t, issuertest.KeySet(a))
	redirecting := httptest.NewServer(http.RedirectHandler(elsewhere.URL, http.StatusFound))
	t.Cleanup(redirecting.Close)
	keys := newRemoteKeys(config.Issuer{JWKSURL: redirecting.URL, Algorithms: token.Algorithms}, func() {}, slog.New(slog.DiscardHandler))
	if err := keys.Fetch(context.Background()); err == nil || keys.has(a) || elsewhere.Requests.Load() != 0 {
		t.Errorf("a redirect was followed: %v", err)
	}
}

// A secret that is published is none, however good it is.
func TestPublishedSecretIsRefused(t *testing.T) {
	secret := issuertest.New(t, "secret", "HS256").Signer.Private().([]byte)
	set := `{"keys":[{"kty":"oct","alg":"HS256","k":"` + base64.RawURLEncoding.EncodeToString(secret) + `"}]}`
	if _, err := token.ParseKeySet([]byte(set)); err != nil {
		t.Fatal(err)
	}
	keys := newRemoteKeys(config.Issuer{JWKSURL: issuertest.NewServer(t, set).URL, Algorithms: token.Algorithms}, func() {}, slog.New(slog.DiscardHandler))
	if err := keys.Fetch(context.Background()); err == nil {
		t.Error("a secret was taken from a key server")
	}
}
