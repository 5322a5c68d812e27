package limit

import (
	"github.com/sluice-gateway/sluice/plugin/redis"
	"github.com/sluice-gateway/sluice/plugin/window"
)

// adopt brings a lease in line with a generation that has just been learnt of: it
// was set aside before Redis was heard of the key, or a reset has voided what it
// was set aside of, and nobody would report it.
func adopt(b *bucket) {
	b.mu.Lock()
	defer b.mu.Unlock()
	h := b.lease
	if h == nil || !h.local {
		return
	}
	if b.ledger.local.Empty() {
		h.left = 0
	}
	h.generation = b.ledger.seen.Generation
}

// exactly makes a lease of permits that a log has: none is set aside, and no
// window's end is theirs.
func exactly(f *flight, h *lease) {
	c := &f.grant.Counts
	if h.room < f.limit { // the first that comes free
		h.ends = f.sent + (window.FreeAt(*c, f.ask.Window, f.limit, h.room+1, f.grant.Now)-f.grant.Now)*1000
	}
	if h.left > 0 {
		h.next = c.Instants[int64(len(c.Instants))-h.left]
	}
	h.until = f.sent + leaseLife
}

// tooLate takes a grant whose reply came after its window's end: its permits are
// dead, and those who wait for them ask once more while their budget lasts.
func tooLate(c *core, b *bucket, f *flight, h *lease, d denial, now int64) {
	b.mu.Lock()
	b.denial = d
	b.denial.until = 0 // it counts those permits, which are coming back
	b.mu.Unlock()
	b.ledger.owe(h.generation, h.index, h.left, h.next)
	for _, w := range f.waiters {
		if !w.released {
			limitWait(c, w)
			b.queue = append(b.queue, w)
		}
	}
}

// next serves those who queued while the call was under way, and makes
// the next call for those whom its answer does not serve.
func next(c *core, b *bucket, now int64) {
	queue := b.queue
	b.queue = nil
	for _, w := range queue {
		switch {
		case w.released:
		case answerFromMemory(c, w.job.(*job), w.at, now):
			release(c, w)
		case !c.healthy():
			decideWithout(c, w, now)
		default:
			limitWait(c, w)
			b.queue = append(b.queue, w)
		}
	}
	if len(b.queue) > 0 {
		c.launches = append(c.launches, b)
	} else if !b.ledger.owed.Empty() {
		watch(c, b, now)
	}
}

// crash is the end of a call without an answer that makes sense.
func crash(c *core, b *bucket, f *flight, err error, now int64) {
	if redis.NotExecuted(err) {
		b.ledger.undo(f.debt, b.limiter.window) // nothing ran, so everything is owed still
	} else {
		b.ledger.uncertain(f.debt)
	}
	b.again = now + retryReports
	for _, w := range f.waiters {
		if !w.released {
			decideWithout(c, w, now)
		}
	}
	if !b.ledger.settled() {
		oweReport(c, b)
	}
	fails(c, b, err, now)
}

// timedOut releases those who wait for calls whose time is up. The calls stay
// under way: their replies may still bring what they were asked for.
func timedOut(c *core, o *redis.Overdue, now int64) {
	for _, call := range o.Calls {
		f, ok := call.Tag.(*flight)
		if !ok || f.bucket == nil {
			continue
		}
		b := f.bucket.(*bucket)
		f.timedOut = true
		waiters := append(f.waiters, b.queue...) // the queue's call would have to wait for this one
		b.queue = nil
		for _, w := range waiters {
			if !w.released {
				decideWithout(c, w, now)
			}
		}
		fails(c, b, errLate, now)
	}
}

// fails notes that Redis has not counted a request of the key.
func fails(c *core, b *bucket, err error, now int64) {
	if c.closing {
		return // it was told to end
	}
	c.failing = b
	c.ailing = true
	c.exact.failed(err, now)
}

// wrote notes that Redis has counted a request by a call sent at the given
// instant.
func wrote(c *core, sent int64) {
	c.counted = true
	c.exact.served(sent)
	c.ailing = c.exact.trouble() != nil
}

// other takes the messages that are rare, and tells the time by then.
func other(c *core, message interface{}, now int64) int64 {
	switch m := message.(type) {
	case tick:
		now = later(now, m.now)
		c.ticking = false
		notice(c, now)
		look(c, now)
	case nudge:
		c.restless = true
	case *returned:
		now = later(now, m.now)
		takeBack(c, m.answer.bucket, &m.answer, m.done, now)
	case *beat:
		now = later(now, m.now)
		if !c.counted || c.exact.trouble() != nil {
			m.calls = append(m.calls, rehearse(c, now)...)
		}
		for _, call := range m.calls {
			send(c, call, now)
		}
	case *capacity:
		if m.limiter.table.capacity == 0 {
			c.limits.PushBack(m.limiter)
		}
		m.limiter.table.allow(m.keys)
	case *dropped:
		dismiss(c, m.limiter)
	case closing:
		c.closing = true
	}
	return now
}

// send hands out a call of the core's own.
func send(c *core, call *redis.Call, now int64) {
	call.To = c.replies
	if len(c.calls) < cap(c.calls) {
		c.pending++
		c.calls <- call
		return
	}
	call.Err = errBusy
	if f, ok := call.Tag.(*flight); ok {
		rehearsed(c, call, f, now)
	} else {
		beaten(c, call, now)
	}
}

// rescue ends what was being done when the core panicked: nobody waits for ever.
func rescue(c *core) {
	switch m := c.current.(type) {
	case *job:
		giveUp(m)
	case *redis.Call:
		if f, ok := m.Tag.(*flight); ok && f.bucket != nil {
			giveUpAll(f.bucket.(*bucket))
		}
	}
	if len(c.settled) > 0 {
		giveUp(c.settled[0].(*job))
		c.settled = c.settled[1:]
	}
	if len(c.launches) > 0 {
		giveUpAll(c.launches[0].(*bucket))
		c.launches = c.launches[1:]
	}
}

// giveUpAll ends the jobs that wait for a key's call, and forgets that.
func giveUpAll(b *bucket) {
	waiters := b.queue
	if b.flight != nil {
		waiters = append(waiters, b.flight.waiters...)
	}
	for _, w := range waiters {
		if !w.released {
			w.released = true
			giveUp(w.job.(*job))
		}
	}
	b.queue = nil
	b.flight = nil
}

// giveUp answers a job that nothing can be said about.
func giveUp(j *job) {
	for i := range j.answers {
		if j.answers[i].Verdict == Undecided {
			j.answers[i].Verdict = Unavailable
			j.answers[i].RetryAfter = awayRetry
		}
	}
	if j.open >= 0 {
		j.open = givenUp
		// What it waits for still is written where nobody looks: these are another
		// request's soon.
		j.asks = append([]Ask(nil), j.asks...)
		j.answers = append([]Answer(nil), j.answers...)
		if len(j.done) == 0 {
			j.done <- false
		}
	}
}

// givenUp is more answers than come, so that nobody answers the job again.
const givenUp = -1
