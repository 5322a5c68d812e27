package limit

import "time"

const (
	// tickEvery is how often the core looks after what has a time of its own,
	// while there is something.
	tickEvery = 10 * time.Millisecond

	// tardy is how late a tick has to be before this process is (design: lag).
	tardy = int64(tickEvery) / 2
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
