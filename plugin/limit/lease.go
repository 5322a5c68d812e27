package limit

import (
	"sync"

	"github.com/sluice-gateway/sluice/plugin/redis"
	"github.com/sluice-gateway/sluice/plugin/window"
)

// leaseLife is the longest that permits are held without asking again, so
// that resets and other instances' demand are felt within a second.
const leaseLife = int64(1e9)

// lease is a batch of permits granted by one reply and spent from memory.
type lease struct {
	left  int64 // permits; only falls below what Redis granted (I1), guarded by the bucket's mu
	limit int64 // the limit it was granted under; another one has to ask (RULES 19)
	alone bool  // set aside of this instance's own share, without Redis (fallback.go)

	// until is the monotonic instant at which the permits die: the end of
	// the window they were granted in, at most leaseLife away. Both are
	// counted from when the call was *sent*: counted from its reply, a slow
	// reply would let the lease reach into the next window (I1).
	until int64
	ends  int64 // the end of the window, without the cap

	generation int64
	index      int64 // the window in which Redis counted them
	room       int64 // what was left under the limit beside this lease at that reply
}

// bucket is what this instance knows and holds of one key.
type bucket struct {
	limiter *Limiter
	name    string // as Key names it
	shared  bool   // stands for many keys while the table is full (table.go); never asks Redis

	mu     sync.Mutex
	lease  *lease
	denial denial
	edge   bool // at its limit: denied, and little room since (denial.go)
	demand demand
	room   int64 // under the limit asked for last, at Redis's last reply

	// seen is the newest Redis has said of this key, plus what this instance
	// has spent and could not report for certain.
	// Invariant (I8): it goes with every call, so a Redis that lost state
	// learns it again.
	seen window.Counts
	owed window.Settlement // by the windows of seen.Index; leaves with the next call

	// alone is what this instance admitted without Redis in the windows of
	// seen.Index, reported or not: while Redis comes and goes it counts in
	// full against the share, else each report would free most of it again.
	alone  window.Settlement
	heard  bool  // Redis has answered about the key
	untold bool  // a report's call failed, and nobody knows whether it ran: tell seen again
	again  int64 // monotonic ns before which the sweeper does not try again

	flight    *flight   // the call under way; at most one a key, so replies come in order
	queue     []*waiter // those who need the call after it
	unsettled int       // permits whose answer has not decided yet whether they count (RULES 16)

	used    bool  // since the table's hand passed last
	evicted bool  // no longer in the table: look the key up again
	swept   bool  // in the sweeper's list of leases
	owing   bool  // in the sweeper's list of debtors
	atSweep int64 // lease.left when the sweeper passed last
}

// spend answers what the key's lease or a remembered denial can answer. It and what
// it calls are functions, not methods, because the interpreter takes four times as
// long for a method.
func spend(ask *Ask, answer *Answer, now int64) {
	b := ask.Limiter.table.known(ask.Key)
	if b == nil {
		return
	}
	answer.bucket = b
	b.mu.Lock()
	b.used = true
	if !spendLocked(b, ask.Limit, ask.Cost, &answer.Outcome, now) {
		deniedLocked(b, ask.Limit, ask.Cost, &answer.Outcome, now)
	}
	b.mu.Unlock()
	if answer.Verdict == Granted && answer.lease.alone {
		countAlone(b.limiter.engine, &answer.Outcome)
	}
}

// join makes the request wait for a call, its own or one that it shares, and
// returns the call to send if there is none under way. Where no call is needed
// after all, or none is possible, answer is decided and both are nil.
func (l *Limiter) join(p *Policy, ask *Ask, answer *Answer, now int64) (*waiter, *redis.Call) {
	b := answer.bucket
	if b == nil {
		b = l.table.find(l, ask.Key)
	}
	b.mu.Lock()
	for b.evicted {
		b.mu.Unlock()
		b = l.table.find(l, ask.Key)
		b.mu.Lock()
	}
	answer.bucket = b
	b.used = true
	defer b.mu.Unlock()
	if ask.Cost > ask.Limit { // only a limitHeader can say so; a configured one is refused at load
		answer.Verdict = Denied
		return nil, nil
	}
	if spendLocked(b, ask.Limit, ask.Cost, &answer.Outcome, now) || deniedLocked(b, ask.Limit, ask.Cost, &answer.Outcome, now) == Denied {
		return nil, nil
	}
	stuck := b.flight != nil && b.flight.timedOut
	if stuck || b.shared || !l.engine.redis.Healthy() {
		l.engine.fallBackLocked(b, p, ask.Limit, ask.Cost, &answer.Outcome, now)
		return nil, nil
	}
	w := &waiter{policy: p, limit: ask.Limit, cost: ask.Cost, deadline: now + l.engine.longest, done: make(chan struct{})}
	b.queue = append(b.queue, w)
	if b.flight != nil {
		w.limitWait(b, now)
		return w, nil
	}
	return w, b.launchLocked(now)
}

// spendLocked takes a permit from the lease, if it has one for such a request.
func spendLocked(b *bucket, limit, cost int64, o *Outcome, now int64) bool {
	h := b.lease
	if h == nil || h.left < cost || h.limit != limit || now >= h.until {
		return false
	}
	h.left -= cost
	b.demand.taken += cost
	grantFrom(h, cost, o, now)
	return true
}

// grantFrom fills in an outcome whose permit comes from lease h.
func grantFrom(h *lease, cost int64, o *Outcome, now int64) {
	o.Verdict = Granted
	o.Remaining = (h.left + h.room) / cost
	o.Reset = duration(h.ends - now) // a reply may come after the window's end
	o.lease = h
	o.cost = cost
}

// dropLeaseLocked ends the lease; what is left of it is owed to Redis.
func (b *bucket) dropLeaseLocked() {
	if h := b.lease; h != nil {
		b.returnLocked(h, h.left)
		h.left = 0
		b.lease = nil
	}
}

// returnLocked takes permits of a lease that is over back to where they came
// from.
func (b *bucket) returnLocked(h *lease, permits int64) {
	if !h.alone {
		b.oweReturnLocked(h.generation, h.index, permits)
	} else if h.generation == b.seen.Generation {
		b.limiter.engine.forgetSpentLocked(b, h.index, permits)
	}
}

// oweReturnLocked notes permits that go back to the window they were granted
// in, if it still counts (RULES 10).
func (b *bucket) oweReturnLocked(generation, index, permits int64) {
	if permits == 0 || generation != b.seen.Generation {
		return
	}
	b.advanceLocked(index)
	switch b.seen.Index - index {
	case 0:
		b.owed.Returned += permits
	case 1:
		b.owed.PreviousReturned += permits
	}
}

// advanceLocked brings seen, and owed with it, to the window with the given
// index.
func (b *bucket) advanceLocked(index int64) {
	if ahead := index - b.seen.Index; ahead > 0 {
		b.owed = b.owed.Shift(ahead)
		b.alone = b.alone.Shift(ahead)
		b.seen = b.seen.At(index)
	}
}
