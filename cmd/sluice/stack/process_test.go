package stack

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// child writes a script that stands in for Traefik and starts it.
func child(t *testing.T, script string) (p *process, noticed func() []string) {
	t.Helper()
	dir := t.TempDir()
	binary := filepath.Join(dir, "traefik")
	if err := os.WriteFile(binary, []byte("#!/bin/sh\n"+script), 0o700); err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var lines []string
	p, err := startProcess("gateway-1", binary, dir, os.Environ(), func(line string) {
		mu.Lock()
		defer mu.Unlock()
		lines = append(lines, line)
	})
	if err != nil {
		t.Fatal(err)
	}
	return p, func() []string {
		mu.Lock()
		defer mu.Unlock()
		return append([]string(nil), lines...)
	}
}

func until(t *testing.T, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !done(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within 10 s: %s", what)
		}
	}
}

func TestProcessStopsWhenAsked(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent()) // that of the plugin's request ids is as old as the process
	p, _ := child(t, "trap 'echo asked; exit 0' TERM; echo up; while :; do sleep 0.01; done")
	until(t, "it is up", func() bool { return strings.Contains(p.lastWords(), "up") })
	if !p.running() {
		t.Fatal("it does not run")
	}
	p.terminate()
	if err := p.stop(); err != nil || p.running() {
		t.Fatalf("running %t, %v", p.running(), err)
	}
	if !strings.Contains(p.lastWords(), "asked") {
		t.Errorf("last words %q", p.lastWords())
	}
	p.terminate() // once more is no error
	if err := stopAll([]*process{p}); err != nil {
		t.Error(err)
	}
}

func TestProcessErrorsAreNoticedAndAccessLogsAreNot(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent()) // that of the plugin's request ids is as old as the process
	p, noticed := child(t, `
echo '2026-01-01T00:00:00Z INF fine'
echo '{"RequestPath":"/ ERR "}'
printf '2026-01-01T00:00:00Z ERR bro'
sleep 0.3
echo 'ken'
echo '2026-01-01T00:00:00Z ERR sluice: misconfigured'
echo '2026-01-01T00:00:00Z INF sluice: Redis counts again: the limits are exact again'
echo 'panic: oh' >&2
exit 3`)
	<-p.ended
	want := []string{"2026-01-01T00:00:00Z ERR broken", "2026-01-01T00:00:00Z ERR sluice: misconfigured", "2026-01-01T00:00:00Z INF sluice: Redis counts again: the limits are exact again", "panic: oh"}
	if got := noticed(); strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("noticed %q", got)
	}
	if words := p.lastWords(); strings.Contains(words, "{") || !strings.HasSuffix(words, "panic: oh") {
		t.Errorf("last words %q", words)
	}
	if p.err == nil || p.err.Error() != "exit status 3" {
		t.Errorf("ended with %v", p.err)
	}
}

func TestLongErrorsAreCut(t *testing.T) {
	p, noticed := child(t, "head -c 5000 /dev/zero | tr '\\0' x; echo ' ERR '; exec true")
	<-p.ended
	if got := noticed(); len(got) != 1 || len(got[0]) != longestNotice {
		t.Errorf("%d lines", len(got))
	}
}

func TestProcessThatCannotStart(t *testing.T) {
	if _, err := startProcess("gateway-1", "/nonexistent", t.TempDir(), nil, nil); err == nil {
		t.Fatal("it started")
	}
}

// TestAwaitTellsOfAnEarlyEnd: a Traefik that ends at once is an error with its
// last words, not a wait of half a minute.
func TestAwaitTellsOfAnEarlyEnd(t *testing.T) {
	p, _ := child(t, "echo 'ERR bind: address already in use'; exit 1")
	err := await(t.Context(), "gateway-1", p, func(context.Context) error { return fmt.Errorf("no answer") })
	if err == nil || !strings.Contains(err.Error(), "exit status 1") || !strings.Contains(err.Error(), "already in use") {
		t.Fatalf("error %v", err)
	}
}

func TestAwaitGivesUpWithTheContext(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	err := await(ctx, "authsvc", nil, func(context.Context) error { return fmt.Errorf("refused") })
	if err == nil || !strings.Contains(err.Error(), "authsvc") || !strings.Contains(err.Error(), "refused") {
		t.Fatalf("error %v", err)
	}
}

func TestProbesAskWhatTheySay(t *testing.T) {
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Method == http.MethodOptions && r.Header.Get("Access-Control-Request-Method") == "GET" && r.Header.Get("Origin") != "":
			w.WriteHeader(http.StatusNoContent)
		case r.Method == http.MethodGet && r.URL.Path == "/moved":
			http.Redirect(w, r, "/", http.StatusFound)
		}
	}))
	defer server.Close()
	for name, ask := range map[string]func(context.Context) error{
		"preflight": routes(server.URL, http.StatusNoContent),
		"get":       answers(server.URL, http.StatusOK),
		"redirect":  answers(server.URL+"/moved", http.StatusFound),
	} {
		if err := ask(t.Context()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if answers(server.URL, http.StatusTeapot)(t.Context()) == nil {
		t.Error("200 is taken for 418")
	}
}

// TestWatchTellsWhoEndedAndWhenNoneIsLeft kills two children in turn.
func TestWatchTellsWhoEndedAndWhenNoneIsLeft(t *testing.T) {
	var log lockedBuffer
	s := &Stack{options: Options{Log: &log}, ended: make(chan error, 1)}
	first, _ := child(t, "exec sleep 60")
	second, _ := child(t, "exec sleep 60")
	s.watch([]*process{first, second})

	kill(t, first)
	until(t, "the end is told", func() bool { return strings.Contains(log.String(), fmt.Sprint(first.pid())) })
	select {
	case err := <-s.Ended():
		t.Fatalf("one is left, yet: %v", err)
	default:
	}
	kill(t, second)
	select {
	case err := <-s.Ended():
		if !strings.Contains(err.Error(), "none is left") {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the last one's end is not told")
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

func kill(t *testing.T, p *process) {
	t.Helper()
	if err := syscall.Kill(p.pid(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-p.ended
}

type lockedBuffer struct {
	mu   sync.Mutex
	text strings.Builder
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}
