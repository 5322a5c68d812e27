package limit

import (
	"container/list"
	"hash/maphash"
	"sync"
)

// The table of a limit's buckets never grows beyond its capacity (I6).
//
// Once it is full a new key takes the place of an old one that has nothing to
// lose: a hand goes round the buckets, passes over those used since it last
// came by, and takes the first whose state Redis knows as well as we do. While
// Redis is away the counts of the running and the previous window live here
// alone, so such buckets stay. A new key that finds no place then shares one of
// overflowBuckets with all keys of its hash: they are limited together, under
// their limit but never over it, and a flood of keys resets nobody's bucket
// (RULES 17).
const (
	overflowBuckets = 256

	// probes bounds the hand's work for one new key.
	probes = 16
)

type table struct {
	mu       sync.RWMutex
	buckets  map[string]interface{} // *bucket, by key
	capacity int
	ring     list.List     // every bucket in the table, in order of arrival
	hand     *list.Element // where it stopped last; nil before the first round
	overflow sync.Map      // hash -> *bucket
	seed     maphash.Seed
}

// allow raises the capacity.
func (t *table) allow(keys int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.capacity == 0 {
		t.seed = maphash.MakeSeed()
		t.buckets = map[string]interface{}{}
	}
	if keys > t.capacity {
		t.capacity = keys
	}
}

func (t *table) size() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.ring.Len()
}

// each calls do for every bucket that is in the table now and then.
func (t *table) each(do func(b *bucket)) {
	t.mu.RLock()
	all := make([]interface{}, 0, len(t.buckets))
	for _, b := range t.buckets {
		all = append(all, b)
	}
	t.mu.RUnlock()
	for _, b := range all {
		do(b.(*bucket))
	}
}

// known is the key's bucket; nil if it has none.
func (t *table) known(key string) *bucket {
	t.mu.RLock()
	b, ok := t.buckets[key]
	t.mu.RUnlock()
	if !ok {
		return nil
	}
	return b.(*bucket)
}

// find returns the key's bucket, made if need be.
func (t *table) find(l *Limiter, key string) *bucket {
	if b := t.known(key); b != nil {
		return b
	}
	return t.place(l, key)
}

func (t *table) place(l *Limiter, key string) *bucket {
	healthy := l.engine.redis.Healthy()
	t.mu.Lock()
	defer t.mu.Unlock()
	if b, ok := t.buckets[key]; ok {
		return b.(*bucket)
	}
	b := &bucket{limiter: l, name: key}
	if t.ring.Len() < t.capacity {
		t.ring.PushBack(b)
		t.buckets[key] = b
		return b
	}
	for i := 0; i < probes; i++ {
		if t.hand = t.nextLocked(); t.hand == nil {
			break
		}
		if old := t.hand.Value.(*bucket); old.leave(l.engine, healthy) {
			delete(t.buckets, old.name)
			t.hand.Value = b
			t.buckets[key] = b
			return b
		}
	}
	if healthy {
		// Redis decides alone: the bucket lives as long as the request.
		return b
	}
	return t.overflowLocked(l, key)
}

// nextLocked is where the hand goes next, round and round.
func (t *table) nextLocked() *list.Element {
	if t.hand != nil && t.hand.Next() != nil {
		return t.hand.Next()
	}
	return t.ring.Front()
}

// overflowLocked is the bucket that the key shares while the table is full.
func (t *table) overflowLocked(l *Limiter, key string) *bucket {
	i := maphash.String(t.seed, key) % overflowBuckets
	if found, ok := t.overflow.Load(i); ok {
		return found.(*bucket)
	}
	b := &bucket{limiter: l, name: key, shared: true}
	t.overflow.Store(i, b)
	return b
}

// leave takes the bucket out of the table if nothing is lost by it.
func (b *bucket) leave(e *Engine, healthy bool) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.used {
		b.used = false
		return false
	}
	if b.flight != nil || len(b.queue) > 0 || b.unsettled > 0 || !b.owed.Empty() || b.untold {
		return false
	}
	if b.lease != nil && b.lease.left > 0 {
		return false
	}
	if !healthy {
		running := e.redisNow(e.clock()) / b.limiter.window
		if counts := b.seen.At(running); counts.Current()+counts.Previous() > 0 {
			return false
		}
	}
	b.evicted = true
	b.denial.until = 0 // a Place may hold it for longer: it answers nothing any more
	return true
}
