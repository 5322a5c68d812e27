package limit

import (
	"fmt"
	"time"

	"github.com/sluice-gateway/sluice/plugin/redis"
	"github.com/sluice-gateway/sluice/plugin/window"
)

var script = redis.NewScript(window.Script)

var errLate = fmt.Errorf("%w: no reply within redis.timeout", redis.ErrTimeout)

var (
	errReply = fmt.Errorf("%w: the reply is not what this version's script answers", redis.ErrProtocol)
	errSense = fmt.Errorf("%w: the numbers of the reply make no sense", redis.ErrProtocol)
)

// waiter is a request that waits for a call's answer.
type waiter struct {
	policy   *Policy
	limit    int64
	cost     int64
	deadline int64 // monotonic ns: it waits no longer, whatever Redis answers

	outcome  Outcome
	done     chan struct{} // closed once outcome stands
	released bool          // guarded by the bucket's mu
	timer    *time.Timer
}

// flight is a script call under way, for waiters of one limit and cost.
type flight struct {
	limit, cost int64
	need        int64
	ask         window.Ask
	waiters     []*waiter
	sent        int64 // monotonic ns, taken before the call is handed over
	owed        window.Settlement
	index       int64 // owed goes with this window
	timedOut    bool  // its waiters are released; a late grant still fills the lease (RULES 4)
}

// release hands the answer to the request, once.
func (w *waiter) release() {
	if w.timer != nil {
		w.timer.Stop()
	}
	w.released = true
	close(w.done)
}

// limitWait releases a waiter that has to wait for more than one call when its
// budget ends: one that waits for the first is released by that call's answer
// or time-out and needs no timer.
func (w *waiter) limitWait(b *bucket, now int64) {
	if w.timer == nil {
		w.timer = time.AfterFunc(duration(w.deadline-now), func() { b.limiter.engine.outOfBudget(b, w) })
	}
}

// launchLocked makes the call for the first in the queue and all who want the
// same; nil when nobody waits and nothing is owed.
func (b *bucket) launchLocked(now int64) *redis.Call {
	f := &flight{sent: now, limit: 1, cost: 1}
	if len(b.queue) > 0 {
		f.limit, f.cost = b.queue[0].limit, b.queue[0].cost
		var others []*waiter
		for _, w := range b.queue {
			if w.limit == f.limit && w.cost == f.cost {
				f.waiters = append(f.waiters, w)
				f.need += f.cost
			} else {
				others = append(others, w)
			}
		}
		b.queue = others
		b.demand.taken += f.need
		// Permits left over count towards the need: given back in the call
		// that asks, they are there to be granted (RULES 3).
		b.dropLeaseLocked()
	}
	extra, instances := int64(0), b.limiter.engine.presence.instances()
	if f.need > 0 {
		extra = b.reserveLocked(now, instances) / f.cost * f.cost
	}
	ask := window.Ask{
		Window: b.limiter.window, Limit: f.limit, Cost: f.cost,
		Need: f.need, Extra: extra, Instances: instances,
		Seen: b.seen, Owed: b.owed,
	}
	f.ask, f.owed, f.index = ask, b.owed, b.seen.Index
	b.flight = f
	// From here on what was spent alone is known rather than owed, so that a
	// failing call loses no knowledge of it and never reports it twice.
	b.seen.Granted += f.owed.Spent
	b.seen.PreviousGranted += f.owed.PreviousSpent
	b.owed = window.Settlement{}
	e := b.limiter.engine
	return &redis.Call{
		Key: b.limiter.redisKey(b.name), Script: script, Args: []string{ask.String()},
		Done:     func(reply redis.Reply, err error) { e.landed(b, f, reply, err) },
		TimedOut: func() { e.timedOut(b, f) },
	}
}

// landed takes a call's reply.
func (e *Engine) landed(b *bucket, f *flight, reply redis.Reply, err error) {
	grant, err := e.parse(reply, err, f.ask, f.sent)
	now := e.clock()
	b.mu.Lock()
	b.flight = nil
	if err != nil {
		e.crashedLocked(b, f, err, now)
	} else {
		b.learnLocked(f, grant)
		e.distributeLocked(b, f, grant, now)
	}
	next := e.nextLocked(b, now)
	b.mu.Unlock()
	if err != nil {
		e.fails(b, err, now)
	} else if grant.Need+grant.Extra > 0 {
		e.wrote(f.sent)
	}
	if next != nil {
		e.redis.Send(next)
	}
}

// parse reads a reply to ask. What makes no sense is an error, as if Redis were
// away: a server that has lost its mind does not decide (and may have counted).
func (e *Engine) parse(reply redis.Reply, err error, ask window.Ask, sent int64) (window.Grant, error) {
	if err != nil {
		return window.Grant{}, err
	}
	numbers, err := reply.Ints()
	if err != nil {
		return window.Grant{}, err
	}
	grant, ok := window.ParseGrant(numbers)
	if !ok {
		return window.Grant{}, errReply
	}
	if !grant.Answers(ask) || !e.tellTime(grant.Now, sent) {
		return window.Grant{}, fmt.Errorf("%w: %v", errSense, numbers)
	}
	return grant, nil
}

// learnLocked replaces what was known of the key by what Redis says now. Debts
// made since the call left stay with the window they belong to.
func (b *bucket) learnLocked(f *flight, grant window.Grant) {
	counts := grant.Counts
	if !b.heard && counts.Generation != b.seen.Generation {
		// The first that is heard of the key: it was reset before, and Redis
		// took the debts that the call brought for older than that.
		b.owed = b.owed.Plus(f.owed.Shift(b.seen.Index - f.index))
		b.seen.Generation = counts.Generation
		if h := b.lease; h != nil {
			h.generation = counts.Generation
		}
	}
	b.heard = true
	switch ahead := counts.Index - b.seen.Index; {
	case counts.Generation != b.seen.Generation || ahead < -1:
		b.owed = window.Settlement{} // a reset, or a clock stepped back: those windows are gone
		b.alone = window.Settlement{}
		if h := b.lease; h != nil && h.alone {
			h.left = 0 // nobody would report it
		}
	case ahead == -1: // a late reply: the fallback has moved on to the next window
		counts = counts.At(b.seen.Index)
	case ahead > 0:
		b.owed = b.owed.Shift(ahead)
		b.alone = b.alone.Shift(ahead)
	}
	b.seen = counts
	b.untold = false
}

// distributeLocked turns a grant into a lease, the waiters served first.
func (e *Engine) distributeLocked(b *bucket, f *flight, grant window.Grant, now int64) {
	w := b.limiter.window
	ends := f.sent + ((grant.Counts.Index+1)*w-grant.Now)*1000
	h := &lease{
		left: grant.Need + grant.Extra, limit: f.limit, ends: ends, until: ends,
		generation: grant.Counts.Generation, index: grant.Counts.Index,
		room: window.Room(grant.Counts, w, f.limit, grant.Now),
	}
	if latest := f.sent + leaseLife; h.until > latest {
		h.until = latest
	}
	if f.need > 0 {
		b.room = h.room
		b.concludeLocked(f, grant, h.room, now)
	}
	if now >= h.until && h.left > 0 {
		// The reply came after its window's end: its permits are dead, and
		// those who wait for them ask once more while their budget lasts.
		b.oweReturnLocked(h.generation, h.index, h.left)
		h.left = 0
		b.denial.until = 0 // it counts those permits, which are coming back
		for _, w := range f.waiters {
			if !w.released {
				w.limitWait(b, now)
				b.queue = append(b.queue, w)
			}
		}
		return
	}
	for _, w := range f.waiters {
		if w.released {
			continue
		}
		if h.left >= f.cost {
			h.left -= f.cost
			grantFrom(h, f.cost, &w.outcome, now)
		} else {
			refuseLocked(b, &w.outcome, now)
		}
		w.release()
	}
	if f.need > 0 {
		b.dropLeaseLocked() // one set aside while the call was under way
		b.lease = h
		b.atSweep = -1
		if h.left > 0 {
			e.watchLocked(b)
		}
	}
}

// nextLocked serves those who queued while the call was under way, and makes
// the next call for those whom its answer does not serve.
func (e *Engine) nextLocked(b *bucket, now int64) *redis.Call {
	queue := b.queue
	b.queue = nil
	for _, w := range queue {
		switch {
		case w.released:
		case spendLocked(b, w.limit, w.cost, &w.outcome, now) || deniedLocked(b, w.limit, w.cost, &w.outcome, now) == Denied:
			w.release()
		case !e.redis.Healthy():
			e.fallBackLocked(b, w.policy, w.limit, w.cost, &w.outcome, now)
			w.release()
		default:
			w.limitWait(b, now)
			b.queue = append(b.queue, w)
		}
	}
	if len(b.queue) > 0 {
		return b.launchLocked(now)
	}
	if b.owed != (window.Settlement{}) {
		e.watchLocked(b)
	}
	return nil
}

// crashedLocked is the end of a call without an answer.
func (e *Engine) crashedLocked(b *bucket, f *flight, err error, now int64) {
	if redis.NotExecuted(err) {
		// Nothing ran, so everything is owed still: what was folded into
		// seen comes out again.
		moved := b.seen.Index - f.index
		owed := f.owed.Shift(moved)
		b.seen.Granted -= owed.Spent
		b.seen.PreviousGranted -= owed.PreviousSpent
		b.owed = b.owed.Plus(owed)
	} else if f.owed.Spent+f.owed.PreviousSpent > 0 {
		// Redis may have counted it or not. Reported once more it might count
		// twice; seen, which holds it, can be told as often as need be, since
		// Redis takes the larger number.
		b.untold = true
	}
	b.again = now + retryReports
	for _, w := range f.waiters {
		if !w.released {
			e.fallBackLocked(b, w.policy, w.limit, w.cost, &w.outcome, now)
			w.release()
		}
	}
	if !b.owed.Empty() || b.untold {
		e.oweLocked(b)
	}
}

// timedOut releases those who wait for a call whose time is up. The call stays
// under way: its reply may still bring what it was asked for.
func (e *Engine) timedOut(b *bucket, f *flight) {
	now := e.clock()
	e.fails(b, errLate, now)
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.flight != f {
		return
	}
	f.timedOut = true
	waiters := append(f.waiters, b.queue...) // the queue's call would have to wait for this one
	b.queue = nil
	for _, w := range waiters {
		if !w.released {
			e.fallBackLocked(b, w.policy, w.limit, w.cost, &w.outcome, now)
			w.release()
		}
	}
}

// outOfBudget decides for a request that queued behind a call and has waited
// for as long as it may: by the last numbers known if Redis answers, else as
// without Redis (RULES 4).
func (e *Engine) outOfBudget(b *bucket, w *waiter) {
	now := e.clock()
	b.mu.Lock()
	defer b.mu.Unlock()
	if w.released {
		return
	}
	if b.flight != nil && b.flight.timedOut || !e.redis.Healthy() {
		e.fallBackLocked(b, w.policy, w.limit, w.cost, &w.outcome, now)
	} else {
		e.byLastNumbersLocked(b, w.policy, w.limit, w.cost, &w.outcome, now)
	}
	w.release()
}

func duration(ns int64) time.Duration {
	if ns < 0 {
		return 0
	}
	return time.Duration(ns)
}

func later(a, b int64) int64 {
	if a > b {
		return a
	}
	return b
}
