package limit

import (
	"hash/maphash"
	"sync"
	"sync/atomic"

	"github.com/sluice-gateway/sluice/plugin/window"
)

// Limiter is the state of one limit name and window. Middlewares that use the
// same name and window share it: one budget over several routes (design: limit-of-a-lease).
type Limiter struct {
	Name   string
	Denied atomic.Int64 // requests this limit denied

	window   int64 // microseconds
	prefix   string
	degraded *atomic.Int64 // the engine's
	table    table         // the core's, as what follows
	asked    window.Ask
	head     string // of what was asked last, in window's words

	mu     sync.Mutex
	policy *Policy     // of the first who used it
	mixed  atomic.Bool // others have other policies: none may spend what another's set aside
}

// Use tells under which policy requests will be asked at the limit. Where two
// differ, also through an edit while Redis is away, nothing is set aside for as
// long as the limit lives; what was is spent within a second.
func (l *Limiter) Use(p Policy) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.policy == nil {
		l.policy = &p
	} else if *l.policy != p {
		l.mixed.Store(true)
	}
}

// Failure says what to answer while Redis is away.
type Failure int

// Local enforces this instance's share, Allow admits, Deny answers 503.
const (
	Local Failure = iota
	Allow
	Deny
)

// Policy is what a middleware wants done without Redis.
type Policy struct {
	OnFailure    Failure
	MinInstances int64 // the share is never larger than limit / MinInstances
}

// table holds a limit's buckets, never more than its capacity (table.go).
type table struct {
	buckets  map[string]interface{} // *bucket, by key
	capacity int
	ring     []interface{}          // *bucket: every one in the table, in order of arrival
	hand     int                    // where in it to look next
	overflow map[uint64]interface{} // *bucket, by hash
	seed     maphash.Seed
}

// allow raises the capacity.
func (t *table) allow(keys int) {
	if t.capacity == 0 {
		t.seed = maphash.MakeSeed()
		t.overflow = map[uint64]interface{}{}
	}
	if keys > t.capacity {
		t.capacity = keys
	}
}
