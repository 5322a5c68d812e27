package limit

import (
	"container/list"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/sluice-gateway/sluice/plugin/redis"
	"github.com/sluice-gateway/sluice/plugin/window"
)

// looksPerTick bounds the buckets of one kind that are looked at between two
// messages, so that no request waits for more.
const looksPerTick = 256

// core is all that is known and owed of keys, and every decision that memory
// alone cannot make.
type core struct {
	timeout int64 // ns: Redis answers something within this, or is away
	longest int64 // ns: and no request waits longer

	inbox    chan interface{}
	replies  chan interface{} // To of all calls; goes through hear into the inbox
	calls    chan<- *redis.Call
	wake     chan struct{} // asks for a tick
	healthy  func() bool
	log      func(level, message string)
	presence *presence
	exact    *status
	visible  *status
	holds    *holds
	degraded *atomic.Int64
	keys     *atomic.Int64 // in all tables

	// offset is Redis's clock minus this process's monotonic one, in
	// microseconds, as of the last reply: the fallback's windows are Redis's.
	offset     int64
	told       int64 // the same as of the last reply, believed or not
	clockError int64 // how far off it may be, ns: how long that reply was under way
	known      bool  // Redis has told it

	instances int64       // live gateways, for the size of leases
	counted   bool        // Redis has counted a request of ours
	ailing    bool        // something was wrong when it was looked at last
	failing   interface{} // *bucket: of the key that Redis failed to count last

	current  interface{}   // the message that is worked on
	launches []interface{} // *bucket: a call is to be made for each
	settled  []interface{} // *job: nobody is waited for any more
	pending  int           // calls under way
	reports  int           // of them those that somebody owed
	ticking  bool          // a tick has been asked for
	tickFrom int64         // when, ns
	lag      int64         // ns that ticks were late, in all: this process's own, not Redis's
	pace     int           // of reports
	restless bool          // a tick is needed
	closing  bool

	limits  list.List // *Limiter
	waiting list.List // *waiter: for more than one call, first deadline first
	watched list.List // *bucket: leases with permits left, and returns to deliver, first look first
	debtors list.List // *bucket: to report to Redis once it is there

	restoring *list.Element // in limits: Redis is being told all counts; nil when not
	restored  int           // so many of that limit's ring have been looked at
	recalled  int           // keys that it is told of so far
}

// holds are the Holds that are not settled, for the core, which settles what is
// left of them after settleWithin. (A timer for each would cost a request more
// than all else that a hold does.)
type holds struct {
	mu   sync.Mutex
	open list.List // *Hold, oldest first
}

var script = redis.NewScript(window.Script)

var errLate = fmt.Errorf("%w: no reply within redis.timeout", redis.ErrTimeout)

var errBusy = fmt.Errorf("%w: too many calls wait for it", redis.ErrAway)
