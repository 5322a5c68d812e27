package limit

import (
	"container/list"
	"sync"
	"time"
)

// settleWithin is how long a permit may wait for the answer that decides
// whether it counts; then it does. (Given back, a client would have it for
// sending its body slowly.)
const settleWithin = 30 * time.Second

// Hold is a permit whose answer decides whether it counts (countStatus,
// refundStatus). It is taken before the request goes on, so that N parallel
// attempts cannot slip past.
type Hold struct {
	engine *Engine
	answer Answer
	since  int64         // monotonic ns
	place  *list.Element // in holds; nil once it is settled, guarded by holds' mu
}

// holds are those that are not settled, for the core, which settles what is
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
	if a.Verdict != Granted || a.cost == 0 {
		return nil
	}
	h := &Hold{engine: e, answer: *a, since: now}
	a.cost = 0
	b.mu.Lock()
	b.unsettled++
	b.mu.Unlock()
	e.holds.mu.Lock()
	h.place = e.holds.open.PushBack(h)
	first := e.holds.open.Len() == 1
	e.holds.mu.Unlock()
	if first {
		e.tell(nudge{})
	}
	return h
}

// Settle ends the hold: the permit counts, or goes back. The first call wins.
func (h *Hold) Settle(counts bool) {
	holds := &h.engine.holds
	holds.mu.Lock()
	place := h.place
	if place != nil {
		holds.open.Remove(place)
		h.place = nil
	}
	holds.mu.Unlock()
	if place == nil {
		return
	}
	b := h.answer.bucket
	b.mu.Lock()
	b.unsettled--
	b.mu.Unlock()
	if !counts {
		h.engine.GiveBack(&h.answer)
	}
}

// settleOldest counts the permits that have waited for too long, and tells
// whether any are waiting still.
func settleOldest(holds *holds, now int64) bool {
	for n := 0; n < looksPerTick; n++ {
		holds.mu.Lock()
		front := holds.open.Front()
		holds.mu.Unlock()
		if front == nil {
			return false
		}
		h := front.Value.(*Hold)
		if now-h.since < int64(settleWithin) {
			return true
		}
		h.Settle(true)
	}
	return true
}

// GiveBack returns the permit of a granted answer that was not used after all:
// to the lease it came from while that lives, else to the window it was
// granted in, else nowhere (design: give-back). A permit taken without Redis goes back
// there only if it was reported since. It does so once; an answer without a
// permit changes nothing.
func (e *Engine) GiveBack(a *Answer) {
	if a.Verdict != Granted || a.cost == 0 {
		return
	}
	back := &returned{answer: *a, now: e.clock()}
	b := a.bucket
	a.cost = 0
	b.mu.Lock()
	back.done = toLease(b, &back.answer, back.now)
	if !back.done {
		b.denial.until = 0 // there may be room now, or will be
	}
	b.mu.Unlock()
	e.tell(back)
}

// toLease puts a permit back into the lease that it came from, while that lives.
func toLease(b *bucket, a *Answer, now int64) bool {
	h := a.lease
	if h == nil || h != b.lease || now >= h.until || a.instant != 0 {
		return false
	}
	h.left += a.cost
	return true
}

// giveBack is GiveBack for the core.
func giveBack(c *core, a *Answer, now int64) {
	b := a.bucket
	b.mu.Lock()
	done := toLease(b, a, now)
	b.mu.Unlock()
	takeBack(c, b, a, done, now)
}

// takeBack notes in the ledger what no lease could take, and sees to it that what
// is back is looked after.
func takeBack(c *core, b *bucket, a *Answer, done bool, now int64) {
	if !done {
		b.mu.Lock()
		b.denial.until = 0 // also of one that was made since the permit was let go
		b.mu.Unlock()
		if a.lease != nil {
			returnTo(b, a.lease, a.cost, a.instant)
		} else {
			b.ledger.forget(a.window, a.cost, a.instant)
		}
	}
	watch(c, b, now)
}
