package limit

import "github.com/sluice-gateway/sluice/plugin/redis"

// What may become of a call beside what nearly every one comes to, which run does
// itself.

// tooLate takes a grant whose reply came after its window's end: its permits are
// dead, and those who wait for them ask once more while their budget lasts.
func tooLate(c *core, b *bucket, f *flight, h *lease, d denial) {
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
