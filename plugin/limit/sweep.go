package limit

// sweepEvery is how long permits may lie unused before they go back.
const sweepEvery = int64(50e6)

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
