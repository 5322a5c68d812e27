package harness

import (
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"
)

// Traffic is requests that keep coming while a test does something.
type Traffic struct {
	stop func()
	wait sync.WaitGroup

	mu   sync.Mutex // protects seen
	seen []Sighting
}

// Sighting is one answer of it.
type Sighting struct {
	Asker int // counted from 0
	Reply Reply
	Err   error
}

// Asker asks the same again and again.
type Asker struct {
	URL   string
	Token string
}

// KeepAsking lets each ask once a pace, one after the other, until End or the
// test's end.
func KeepAsking(t testing.TB, client *http.Client, pace time.Duration, askers ...Asker) *Traffic {
	stopped := make(chan struct{})
	a := &Traffic{stop: sync.OnceFunc(func() { close(stopped) })}
	t.Cleanup(func() { a.End() })
	for i, asker := range askers {
		a.wait.Go(func() {
			ticks := time.NewTicker(pace)
			defer ticks.Stop()
			for {
				select {
				case <-stopped:
					return
				case <-ticks.C:
				}
				got, err := Ask(client, "GET", asker.URL, nil, Bearer(asker.Token))
				a.mu.Lock()
				a.seen = append(a.seen, Sighting{i, got, err})
				a.mu.Unlock()
			}
		})
	}
	return a
}

// Seen lists the answers so far.
func (a *Traffic) Seen() []Sighting {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.seen)
}

// End stops it and lists all answers.
func (a *Traffic) End() []Sighting {
	a.stop()
	a.wait.Wait()
	return a.seen
}
