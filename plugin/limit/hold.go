package limit

import (
	"container/list"
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
