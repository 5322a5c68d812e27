package limit

import "strconv"

// Reports tell Redis what is owed, and all that is known once it has forgotten. They
// go at a pace of their own, so that no request waits for them: so many buckets are
// looked at with every tick, and a quarter as many reports may be under way, 6,400 a
// second at most. Those who ask for permits wait behind them for half a millisecond
// of Redis's time.
const (
	slowest = 8
	fastest = looksPerTick
)

// retryReports is how long a key whose call failed waits for its report: a Redis
// that answers with errors is not asked twenty times a second.
const retryReports = int64(1e9)

// oweReport has the core report the bucket to Redis once that is healthy.
func oweReport(c *core, b *bucket) {
	if b.debtor != nil || b.shared {
		return
	}
	b.debtor = c.debtors.PushBack(b)
	c.restless = true
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
