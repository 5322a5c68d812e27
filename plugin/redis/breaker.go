package redis

import (
	"math/rand"
	"sync"
	"sync/atomic"
	"time"
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
	refused              // calls were answered with READONLY, OOM and the like
)

// A breaker stands before one server. Three bad outcomes in a row open it, and
// so does the loss of the connection; calls then fail at once.
//
// A PING proves nothing against refusals: a full or demoted Redis answers it.
// So after each pause one real call is let through, and its good reply closes
// the breaker. If nobody has one during a whole second, a PING decides after
// all: better three more quick refusals than a breaker that waits for traffic
// which waits for the breaker.
type breaker struct {
	changed func() // told, without lock, that open has changed

	open    atomic.Bool
	streak  atomic.Int32  // bad outcomes since the last good one
	trial   atomic.Bool   // one real call may pass
	opened  chan struct{} // wakes the keeper, which probes
	mu      sync.Mutex
	why     cause
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

// bad notes a timeout or a refusal.
func (b *breaker) bad(why cause, calls int) {
	if b.streak.Add(int32(calls)) < tolerated && !b.open.Load() {
		return
	}
	b.mu.Lock()
	if b.open.Load() && b.why == absent {
		b.mu.Unlock() // a late word from a connection already given up
		return
	}
	b.why = why
	b.streak.Store(tolerated)
	turned := b.open.CompareAndSwap(false, true)
	if turned && time.Since(b.closed) > longestWait {
		b.backoff.reset()
	}
	b.mu.Unlock()
	if turned {
		select {
		case b.opened <- struct{}{}:
		default:
		}
		b.changed()
	}
}

// lost opens the breaker until there is a connection again.
func (b *breaker) lost() {
	b.streak.Store(tolerated)
	b.trial.Store(false)
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
	b.trial.Store(false)
	b.mu.Lock()
	b.closed = time.Now()
	turned := b.open.CompareAndSwap(true, false)
	b.mu.Unlock()
	if turned {
		b.changed()
	}
}

// pass takes the one trial that an open breaker may have to give.
func (b *breaker) pass() bool {
	return b.trial.CompareAndSwap(true, false)
}

func (b *breaker) pause() time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.backoff.next()
}

// ping decides, after a pause, whether the keeper should send a PING; if not,
// the next real call is the probe.
func (b *breaker) ping() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.why != refused || (b.trial.Load() && b.backoff.wait >= longestWait) {
		return true
	}
	b.trial.Store(true)
	return false
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
