package limit

import (
	"strconv"
	"time"
)

const (
	// tickEvery is how often the core looks after what has a time of its own,
	// while there is something.
	tickEvery = 10 * time.Millisecond

	// tardy is how late a tick has to be before this process is (design: lag).
	tardy = int64(tickEvery) / 2

	// sweepEvery is how long permits may lie unused before they go back.
	sweepEvery = int64(50e6)

	// retryReports is how long a key whose call failed waits for its report: a
	// Redis that answers with errors is not asked twenty times a second.
	retryReports = int64(1e9)

	// looksPerTick bounds the buckets of one kind that are looked at between two
	// messages, so that no request waits for more.
	looksPerTick = 256

	// Reports go at a pace of their own, so that no request waits for them: so many
	// buckets are looked at with every tick, and a quarter as many reports may be
	// under way, 6,400 a second at most. Those who ask for permits wait behind them
	// for half a millisecond of Redis's time.
	slowest = 8
	fastest = looksPerTick
)

// notice learns from a tick how late this process is. What is late is halved in
// what it does beside requests, which wait for the same processor, and gets more
// by and by where there is room, as TCP does (design: lag).
func notice(c *core, now int64) {
	late := now - c.tickFrom - int64(tickEvery)
	if late <= tardy {
		if c.pace < fastest {
			c.pace += slowest / 2
		}
		return
	}
	c.lag += late
	if c.pace /= 2; c.pace < slowest {
		c.pace = slowest
	}
}

// look does what is due, a part of it at a time: those who wait, leases that lie
// unused, reports to Redis, permits whose answer has not come.
func look(c *core, now int64) {
	for e := c.waiting.Front(); e != nil; e = c.waiting.Front() {
		w := e.Value.(*waiter)
		if !w.released {
			if now-c.lag < deadlineOf(w) {
				break
			}
			outOfBudget(c, w, now)
		}
		c.waiting.Remove(e)
	}
	sweep(c, now)
	restoreSome(c, now)
	report(c, now)
	held := settleOldest(c.holds, now)
	c.restless = held || c.waiting.Len()+c.watched.Len()+c.debtors.Len() > 0 || c.restoring != nil
}

// watch has the core look after the bucket's lease and returns.
func watch(c *core, b *bucket, now int64) {
	if b.watched {
		return
	}
	b.watched = true
	b.sweepAt = now + sweepEvery
	c.watched.PushBack(b)
	c.restless = true
}

// oweReport has the core report the bucket to Redis once that is healthy.
func oweReport(c *core, b *bucket) {
	if b.debtor != nil || b.shared {
		return
	}
	b.debtor = c.debtors.PushBack(b)
	c.restless = true
}

// sweep gives back what lay unused since the last look.
func sweep(c *core, now int64) {
	for n := 0; n < looksPerTick; n++ {
		front := c.watched.Front()
		if front == nil {
			return
		}
		b := front.Value.(*bucket)
		if now < b.sweepAt {
			return
		}
		c.watched.Remove(front)
		b.watched = false
		if sweepOne(c, b, now) {
			watch(c, b, now)
		}
	}
}

// sweepOne gives back the lease of a bucket if nobody spent from it since
// the last look, or if it is dead. Where a call is under way what is owed
// leaves with the next. It tells whether to look again.
func sweepOne(c *core, b *bucket, now int64) bool {
	if h := b.lease; h != nil {
		b.mu.Lock()
		left := h.left
		b.mu.Unlock()
		if left > 0 {
			if now < h.until && left != b.atSweep {
				b.atSweep = left
				return true
			}
			setLease(b, nil)
		}
	}
	if b.ledger.owed.Empty() || b.shared {
		return false
	}
	if b.flight != nil {
		return true
	}
	if now < b.again || !c.healthy() {
		oweReport(c, b)
		return false
	}
	c.launches = append(c.launches, b)
	return false
}

// report tells Redis what is owed, of a few keys at a time.
func report(c *core, now int64) {
	if !c.healthy() {
		return
	}
	for n := 0; n < c.pace && c.reports < c.pace/4; n++ {
		front := c.debtors.Front()
		if front == nil {
			return
		}
		c.debtors.Remove(front)
		b := front.Value.(*bucket)
		b.debtor = nil
		if now < b.again {
			oweReport(c, b)
		} else if b.flight == nil && b.ledger.counting(c.redisNow(now), b.limiter.window) { // else what is owed leaves with the next call, or is void
			b.reporting = true
			c.reports++
			c.launches = append(c.launches, b)
		}
	}
}

// restore has every bucket whose counts still matter tell Redis about them.
func restore(c *core) {
	c.recalled = 0
	c.restoring = c.limits.Front()
	c.restored = 0
	c.restless = true
}

// restoreSome goes on with that, a part of the tables at a time.
func restoreSome(c *core, now int64) {
	for n := 0; n < c.pace && c.restoring != nil; n++ {
		l := c.restoring.Value.(*Limiter)
		if c.restored == len(l.table.ring) {
			c.restored = 0
			c.restoring = c.restoring.Next()
			if c.restoring == nil {
				c.log("warn", "Redis did not know this gateway any more: telling it the counts of "+strconv.Itoa(c.recalled)+" keys")
			}
			continue
		}
		b := l.table.ring[c.restored].(*bucket)
		c.restored++
		if b.ledger.counting(c.redisNow(now), l.window) {
			oweReport(c, b)
			c.recalled++
		}
	}
}

// dismiss takes a limit out of the core's list.
func dismiss(c *core, l *Limiter) {
	for e := c.limits.Front(); e != nil; e = e.Next() {
		if e.Value.(*Limiter) == l {
			if c.restoring == e {
				c.restoring = e.Next()
				c.restored = 0
			}
			c.limits.Remove(e)
			c.keys.Add(-int64(len(l.table.ring)))
			return
		}
	}
}
