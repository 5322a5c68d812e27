package plugin

import (
	"crypto/sha256"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluice-gateway/sluice/plugin/config"
)

// decisions keeps the auth service's answers for as long as they allow, as a
// private cache does (RFC 9111), and beyond that while the service is away, if
// they allow that too (stale-if-error, RFC 5861).
//
// An answer is served from memory while it is fresh and the stream of
// revocations (events.go) has been whole since before it was asked for. After
// a loss of the stream it is asked for again at next use; while the stream is
// lost it is fresh for a second at most, so that with Redis away a hot token
// still costs one call a second (design: event-stream).
//
// Only 2xx is kept. Concurrent misses of one credential make one call.
type decisions struct {
	identity string // among all there have been
	auth     *config.AuthSettings
	client   *authClient
	stream   *eventStream
	listener *listener // to it

	mu    sync.Mutex
	ring  []*decision            // in order of arrival; full at cacheSize, then the oldest leaves
	hand  int                    // the oldest of a full ring
	named map[string][]*decision // by what an event may name: token, session and user
	calls map[memoryKey]*call    // under way

	// Each auth section has a memory of its own (shared.go), so a decision for an
	// address or a scope is never used for another. What is in it is written under mu
	// as well, so that whoever holds mu may read it without its own.
	memory *memory

	hits, misses, errors atomic.Int64
	passed               atomic.Int64 // those with a pass who got through: hits that are counted here alone
}

// call is one request to the auth service, and what it came to. Several requests may
// wait for it.
type call struct {
	done     chan struct{}
	decision *decision
	no       *refusal
	away     bool // the service did not answer
	shared   bool // depends on nothing but the credential, so it holds for all who wait
}

func newDecisions(auth *config.AuthSettings, client *authClient, stream *eventStream) *decisions {
	d := &decisions{auth: auth, client: client, stream: stream, named: map[string][]*decision{}, calls: map[memoryKey]*call{}, memory: newMemory()}
	d.listener = &listener{revoked: func(name string) { d.revoke(name) }, changed: func() { d.resync() }}
	stream.listen(d.listener)
	return d
}

func (d *decisions) close() {
	d.stream.unlisten(d.listener)
	d.client.close()
}

// resync takes over the stream's state: the last of several at once the newest.
func (d *decisions) resync() {
	d.mu.Lock()
	d.memory.forget(d.stream.state.Load())
	d.mu.Unlock()
}

// stale is the decision on a credential that may be served while the service is away;
// nil if there is none.
func (d *decisions) stale(key memoryKey) *decision {
	d.memory.mu.RLock()
	defer d.memory.mu.RUnlock()
	if kept := d.memory.decisions[key]; kept != nil && clock() < kept.stale {
		return kept
	}
	return nil
}

// remembered is the decision on a credential that stands without asking again;
// nil if there is none.
func remembered(d *decisions, credential string) *decision {
	m := d.memory
	m.mu.RLock()
	kept := m.decisions[sha256.Sum256([]byte(credential))]
	if kept != nil && clock() >= standsUntil(kept, m.state) {
		kept = nil
	}
	m.mu.RUnlock()
	return kept
}

// forgetLocked takes a decision out of the maps; its place in the ring is
// taken in turn. It ends it too: a request or a pass may hold it, and no event
// finds it any more. It looks through no list: a client decides how many
// answers are kept of him, and a revocation would hold the lock for the square
// of that.
func (d *decisions) forgetLocked(old *decision) {
	d.memory.end(old)
	for i, name := range old.events {
		all := d.named[name]
		last := all[len(all)-1]
		if len(all) == 1 {
			delete(d.named, name)
			continue
		}
		all[old.places[i]] = last
		for j := range last.events {
			if last.events[j] == name {
				last.places[j] = old.places[i]
			}
		}
		all[len(all)-1] = nil
		d.named[name] = all[:len(all)-1]
	}
	old.events = nil // forgotten once: its places are others' now
}

// revoke drops what an event names.
func (d *decisions) revoke(name string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, kept := range append([]*decision(nil), d.named[name]...) { // forgetLocked edits the list
		d.forgetLocked(kept)
	}
}

func authAway() *refusal {
	return unavailable("The authentication service cannot be reached at the moment.", time.Second)
}

// life is how long an answer may be used.
type life struct{ fresh, staleIfError time.Duration }

// cacheLife reads Cache-Control and Age of an answer (RFC 9111, section 5.2.2;
// RFC 5861, section 4). What it does not understand makes it keep less.
func cacheLife(h http.Header) life {
	directives := map[string]string{}
	for _, directive := range strings.Split(strings.Join(h["Cache-Control"], ","), ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(directive), "=")
		name = strings.ToLower(strings.TrimSpace(name))
		if _, twice := directives[name]; twice {
			return life{} // two values for one directive: trust neither
		}
		directives[name] = strings.Trim(strings.TrimSpace(value), `"`)
	}
	for _, forbids := range []string{"no-store", "no-cache"} {
		if _, ok := directives[forbids]; ok {
			return life{}
		}
	}
	l := life{fresh: deltaSeconds(directives["max-age"]) - deltaSeconds(h.Get("Age"))}
	if l.fresh <= 0 {
		return life{}
	}
	if _, ok := directives["must-revalidate"]; !ok {
		l.staleIfError = deltaSeconds(directives["stale-if-error"])
	}
	return l
}

// deltaSeconds reads seconds (RFC 9111, section 1.2.2), 0 when there are none;
// a year is as long as it gets.
func deltaSeconds(text string) time.Duration {
	n, err := strconv.ParseUint(text, 10, 31)
	if err != nil {
		return 0
	}
	if n > 365*24*3600 {
		n = 365 * 24 * 3600
	}
	return time.Duration(n) * time.Second
}
