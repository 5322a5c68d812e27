package limit

import "hash/maphash"

// The table of a limit's buckets never grows beyond its capacity (I6).
//
// Once it is full a new key takes the place of an old one that has nothing to
// lose: a hand goes round the buckets, passes over those used since it last
// came by, and takes the first whose state Redis knows as well as we do. While
// Redis is away the counts of the running and the previous window live here
// alone, so such buckets stay. A new key that finds no place then shares one of
// overflowBuckets with all keys of its hash: they are limited together, under
// their limit but never over it, and a flood of keys resets nobody's bucket
// (design: full-table).
const (
	overflowBuckets = 256

	// probes bounds the hand's work for one new key.
	probes = 16
)

// find returns the key's bucket, made if need be.
func find(c *core, ask *Ask) *bucket {
	l, t := ask.Limiter, &ask.Limiter.table
	if b, ok := t.buckets[ask.Key]; ok {
		return b.(*bucket)
	}
	if len(t.ring) >= t.capacity {
		return makeRoom(c, l, ask, 0)
	}
	b := &bucket{limiter: l, name: ask.Key, limit: ask.Limit}
	t.ring = append(t.ring, b)
	t.buckets[ask.Key] = b
	c.keys.Add(1)
	return b
}

// makeRoom finds a bucket for a new key where the table is full.
func makeRoom(c *core, l *Limiter, ask *Ask, now int64) *bucket {
	t := &l.table
	healthy := c.healthy()
	b := &bucket{limiter: l, name: ask.Key, limit: ask.Limit}
	for i := 0; i < probes && len(t.ring) > 0; i++ {
		at := t.hand % len(t.ring)
		t.hand = at + 1
		if old := t.ring[at].(*bucket); leave(c, old, healthy, now) {
			delete(t.buckets, old.name)
			t.ring[at] = b
			t.buckets[ask.Key] = b
			return b
		}
	}
	if healthy {
		// Redis decides alone: the bucket lives as long as the request.
		b.passing = true
		return b
	}
	return shareRoom(b)
}

// shareRoom is the bucket that stands for all keys of a hash, of which b is one that
// found no room.
func shareRoom(b *bucket) *bucket {
	t := &b.limiter.table
	i := maphash.String(t.seed, b.name) % overflowBuckets
	if found, ok := t.overflow[i]; ok {
		return found.(*bucket)
	}
	shared := &bucket{limiter: b.limiter, name: b.name, limit: b.limit, shared: true}
	t.overflow[i] = shared
	return shared
}

// leave takes the bucket out of the table if nothing is lost by it.
func leave(c *core, b *bucket, healthy bool, now int64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.used {
		b.used = false
		return false
	}
	if b.flight != nil || len(b.queue) > 0 || b.unsettled > 0 || b.watched {
		return false
	}
	if b.lease != nil && b.lease.left > 0 {
		return false
	}
	if (!healthy || !b.ledger.settled()) && b.ledger.counting(c.redisNow(now), b.limiter.window) {
		return false
	}
	if b.debtor != nil { // what it owes is of windows long over
		c.debtors.Remove(b.debtor)
		b.debtor = nil
	}
	b.denial.until = 0 // a Handle may hold it for longer: it answers nothing any more
	return true
}
