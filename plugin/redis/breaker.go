package redis

import (
	"math/rand"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluice-gateway/sluice/plugin/wait"
)

const (
	tolerated   = 3                     // bad outcomes in a row that open the breaker
	firstPause  = 50 * time.Millisecond // before the first probe or redial
	longestWait = time.Second           // doubling stops here
)

// Why a breaker is open decides what proves that it may close.
type cause int

const (
	absent  cause = iota // no connection: the next handshake closes it
	silent               // calls timed out: a PING answered in time closes it
	refused              // calls were answered with READONLY, OOM and the like: a write must be accepted
)

// A breaker stands before one server. Three bad outcomes in a row open it, and
// so does the loss of the connection; calls then fail at once, and the node's
// keeper probes after each pause of the backoff.
//
// A PING proves nothing against refusals: a full or demoted Redis answers it.
// Letting one real call through would, but callers that ask Healthy first never
// send one. So the probe is a write that changes nothing, to the key that was
// refused, because ACL and slot are right there: SETRANGE key 0 "".
type breaker struct {
	changed func() // told, without lock, that open has changed

	open    atomic.Bool
	streak  atomic.Int32  // bad outcomes since the last good one
	opened  chan struct{} // wakes the keeper, which probes
	mu      sync.Mutex
	why     cause
	key     string // of the call last refused
	backoff backoff
	closed  time.Time // when it last closed
}

func newBreaker(changed func()) *breaker {
	b := &breaker{changed: changed, opened: make(chan struct{}, 1)}
	b.open.Store(true) // no connection yet
	return b
}

// good notes an answer in time. Nearly every call ends here, with one load.
func (b *breaker) good() {
	if b.streak.Load() != 0 {
		b.close()
	}
}

// bad notes timeouts, or the refusal of a call with this key.
func (b *breaker) bad(why cause, calls int, key string) {
	if b.streak.Add(int32(calls)) < tolerated && !b.open.Load() {
		return
	}
	b.mu.Lock()
	if b.open.Load() && b.why == absent {
		b.mu.Unlock() // a late word from a connection already given up
		return
	}
	b.why, b.key = why, key
	b.streak.Store(tolerated)
	turned := b.open.CompareAndSwap(false, true)
	if turned && time.Since(b.closed) > longestWait {
		b.backoff.reset()
	}
	b.mu.Unlock()
	if turned {
		wait.Poke(b.opened)
		b.changed()
	}
}

// lost opens the breaker until there is a connection again.
func (b *breaker) lost() {
	b.streak.Store(tolerated)
	b.mu.Lock()
	b.why = absent
	turned := b.open.CompareAndSwap(false, true)
	b.mu.Unlock()
	if turned {
		b.changed()
	}
}

// close lets calls pass again.
func (b *breaker) close() {
	b.streak.Store(0)
	b.mu.Lock()
	b.closed = time.Now()
	turned := b.open.CompareAndSwap(true, false)
	b.mu.Unlock()
	if turned {
		b.changed()
	}
}

func (b *breaker) pause() time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.backoff.next()
}

// probe makes the call whose answer decides whether the breaker may close.
func (b *breaker) probe() *Call {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.why == refused && b.key != "" {
		return &Call{Name: "SETRANGE", Key: b.key, Args: []string{"0", ""}, own: probe}
	}
	return &Call{Name: "PING", own: probe}
}

// A backoff doubles from firstPause to longestWait, half of each pause random,
// so that many gateways do not come back in step.
type backoff struct {
	wait time.Duration // the last one
}

func (b *backoff) next() time.Duration {
	b.wait *= 2
	if b.wait < firstPause {
		b.wait = firstPause
	}
	if b.wait > longestWait {
		b.wait = longestWait
	}
	half := int64(b.wait / 2)
	return time.Duration(half + rand.Int63n(half))
}

func (b *backoff) reset() { b.wait = 0 }
