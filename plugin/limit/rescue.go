package limit

import "github.com/sluice-gateway/sluice/plugin/redis"

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
