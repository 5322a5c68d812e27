package limit

import (
	"container/list"
	"sync"
	"time"

	"github.com/sluice-gateway/sluice/plugin/redis"
	"github.com/sluice-gateway/sluice/plugin/wait"
)

const (
	// sweepEvery is how long permits may lie unused before they go back.
	sweepEvery = 50 * time.Millisecond

	// settleWithin is how long a permit may wait for the answer that decides
	// whether it counts; then it does. (Given back, a client would have it for
	// sending its body slowly.)
	settleWithin = 30 * time.Second

	// retryReports is how long a key whose call failed waits for its report: a
	// Redis that answers with errors is not asked twenty times a second.
	retryReports = int64(1e9)

	// debtorsPerSweep bounds the reports one pass sends, 4,000 a second: in
	// one write with the calls of waiting requests, a few milliseconds of
	// Redis's time each, they must not use up those requests' timeout.
	debtorsPerSweep = 200
)

// GiveBack returns the permit of a granted answer that was not used after all:
// to the lease it came from while that lives, else to the window it was
// granted in, else nowhere (RULES 10). A permit taken without Redis goes back
// there only if it was reported since. It does so once; an answer without a
// permit changes nothing.
func (e *Engine) GiveBack(a *Answer) {
	b := a.bucket
	if a.Verdict != Granted || b == nil {
		return
	}
	a.bucket = nil
	now := e.clock()
	b.mu.Lock()
	giveBackLocked(e, b, a, now)
	b.mu.Unlock()
}

func giveBackLocked(e *Engine, b *bucket, a *Answer, now int64) {
	h := a.lease
	if h != nil && h == b.lease && now < h.until {
		h.left += a.cost
	} else if h != nil {
		b.returnLocked(h, a.cost)
		b.denial.until = 0 // there may be room now
	} else {
		e.forgetSpentLocked(b, a.window, a.cost)
		return
	}
	if !b.swept {
		e.watchLocked(b)
	}
}

// forgetSpentLocked undoes what was admitted without Redis: what is owed still
// is not reported after all, and what was reported is returned.
func (e *Engine) forgetSpentLocked(b *bucket, index, permits int64) {
	switch b.seen.Index - index {
	case 0:
		if b.alone.Spent < permits {
			return // a reset has made it void
		}
		b.alone.Spent -= permits
		if b.owed.Spent >= permits {
			b.owed.Spent -= permits
			return
		}
		b.owed.Returned += permits
	case 1:
		if b.alone.PreviousSpent < permits {
			return
		}
		b.alone.PreviousSpent -= permits
		if b.owed.PreviousSpent >= permits {
			b.owed.PreviousSpent -= permits
			return
		}
		b.owed.PreviousReturned += permits
	default:
		return
	}
	b.denial.until = 0 // there may be room now
	e.watchLocked(b)
}

// Hold is a permit whose answer decides whether it counts (countStatus,
// refundStatus). It is taken before the request goes on, so that N parallel
// attempts cannot slip past.
type Hold struct {
	engine *Engine
	answer Answer
	since  int64         // monotonic ns
	place  *list.Element // in holds; nil once it is settled, guarded by holds' mu
}

// holds are those that are not settled, for the sweeper, which settles what is
// left of them after settleWithin. (A timer for each would cost a request more
// than all else that a hold does.)
type holds struct {
	mu   sync.Mutex
	open list.List // *Hold, oldest first
}

// Hold takes over the permit of a granted answer, which is not settled yet; nil
// where the answer has none.
func (e *Engine) Hold(a *Answer, now int64) *Hold {
	b := a.bucket
	if a.Verdict != Granted || b == nil {
		return nil
	}
	h := &Hold{engine: e, answer: *a, since: now}
	a.bucket = nil
	b.mu.Lock()
	b.unsettled++
	b.mu.Unlock()
	e.holds.mu.Lock()
	h.place = e.holds.open.PushBack(h)
	first := e.holds.open.Len() == 1
	e.holds.mu.Unlock()
	if first {
		e.sweeper.nudge()
	}
	return h
}

// Settle ends the hold: the permit counts, or goes back. The first call wins.
func (h *Hold) Settle(counts bool) {
	e := h.engine
	e.holds.mu.Lock()
	place := h.place
	if place != nil {
		e.holds.open.Remove(place)
		h.place = nil
	}
	e.holds.mu.Unlock()
	if place == nil {
		return
	}
	now := e.clock()
	b := h.answer.bucket
	b.mu.Lock()
	b.unsettled--
	if !counts {
		giveBackLocked(e, b, &h.answer, now)
	}
	b.mu.Unlock()
}

// settleOldest counts the permits that have waited for too long, and tells
// whether any are waiting still.
func (e *Engine) settleOldest(now int64) bool {
	for {
		e.holds.mu.Lock()
		front := e.holds.open.Front()
		e.holds.mu.Unlock()
		if front == nil {
			return false
		}
		h := front.Value.(*Hold)
		if now-h.since < int64(settleWithin) {
			return true
		}
		h.Settle(true)
	}
}

// sweeper remembers the buckets that hold or owe permits. Nothing runs while
// it knows none.
type sweeper struct {
	wake chan struct{}

	mu      sync.Mutex
	watched list.List // *bucket: leases with permits left, and returns to deliver
	debtors list.List // *bucket: to report to Redis once it is there
}

// watchLocked has the sweeper look after the bucket's lease and returns.
func (e *Engine) watchLocked(b *bucket) {
	if b.swept {
		return
	}
	b.swept = true
	s := &e.sweeper
	s.mu.Lock()
	s.watched.PushBack(b)
	s.mu.Unlock()
	s.nudge()
}

// oweLocked has the sweeper report the bucket to Redis once it is healthy.
func (e *Engine) oweLocked(b *bucket) {
	if b.owing || b.shared {
		return
	}
	b.owing = true
	s := &e.sweeper
	s.mu.Lock()
	s.debtors.PushBack(b)
	s.mu.Unlock()
	s.nudge()
}

func (s *sweeper) nudge() {
	wait.Poke(s.wake)
}

// sweep runs every 50 ms while there is something to look after.
func (e *Engine) sweep() {
	ticker := time.NewTicker(sweepEvery)
	ticker.Stop()
	defer ticker.Stop()
	for {
		if wait.First(e.sweeper.wake, e.stop) == 1 {
			return
		}
		ticker.Reset(sweepEvery)
		for busy := true; busy; {
			if wait.First(ticker.C, e.stop) == 1 {
				return
			}
			busy = e.sweepOnce(e.clock())
		}
		ticker.Stop()
	}
}

// sweepOnce gives back what lay unused since the last pass, all in one write,
// and reports debts; it tells whether anything is left to look after.
func (e *Engine) sweepOnce(now int64) (busy bool) {
	s := &e.sweeper
	var calls []*redis.Call
	for n := s.length(&s.watched); n > 0; n-- { // those who come meanwhile wait for the next pass
		b := s.pop(&s.watched)
		b.mu.Lock()
		call, keep := b.sweepLocked(now)
		b.swept = false
		if keep {
			e.watchLocked(b)
		}
		b.mu.Unlock()
		if call != nil {
			calls = append(calls, call)
		}
	}
	if e.redis.Healthy() {
		n := s.length(&s.debtors)
		if n > debtorsPerSweep {
			n = debtorsPerSweep
		}
		for ; n > 0; n-- {
			b := s.pop(&s.debtors)
			b.mu.Lock()
			b.owing = false
			if now < b.again {
				e.oweLocked(b)
			} else if b.flight == nil { // else what is owed leaves with the next call
				calls = append(calls, b.launchLocked(now))
			}
			b.mu.Unlock()
		}
	}
	if len(calls) > 0 {
		e.redis.Send(calls...)
	}
	held := e.settleOldest(now)
	return held || s.length(&s.watched)+s.length(&s.debtors) > 0
}

func (s *sweeper) length(l *list.List) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return l.Len()
}

// pop takes the first bucket of a list; only the sweeper takes.
func (s *sweeper) pop(l *list.List) *bucket {
	s.mu.Lock()
	defer s.mu.Unlock()
	return l.Remove(l.Front()).(*bucket)
}

// sweepLocked gives back the lease of a bucket if nobody spent from it since
// the last pass, or if it is dead. Where a call is under way what is owed
// leaves with the next.
func (b *bucket) sweepLocked(now int64) (call *redis.Call, keep bool) {
	if h := b.lease; h != nil && h.left > 0 {
		if now < h.until && h.left != b.atSweep {
			b.atSweep = h.left
			return nil, true
		}
		b.dropLeaseLocked()
	}
	if b.owed.Empty() || b.shared {
		return nil, false
	}
	if b.flight != nil {
		return nil, true
	}
	if !b.limiter.engine.redis.Healthy() {
		b.limiter.engine.oweLocked(b)
		return nil, false
	}
	return b.launchLocked(now), false
}
