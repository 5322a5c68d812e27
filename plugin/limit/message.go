package limit

import "github.com/sluice-gateway/sluice/plugin/redis"

// Messages to the core, beside *job, *redis.Call and *redis.Overdue.
type (
	tick     struct{ now int64 } // time has passed
	nudge    struct{}            // look whether there is something to do
	closing  struct{}            // decide what is under way, then end
	capacity struct {            // a limit may track more keys
		limiter *Limiter
		keys    int
	}
	dropped  struct{ limiter *Limiter } // nobody uses the limit any more
	returned struct {                   // a permit was not used after all
		answer Answer
		now    int64
		done   bool // it is in its lease
	}
	beat struct { // a heartbeat is to leave
		calls []*redis.Call
		now   int64
	}
)

// A job is one request at the limits that memory could not answer for: all are
// decided together (I7).
type job struct {
	policy  *Policy
	asks    []Ask
	answers []Answer
	now     int64 // monotonic ns, when it was asked

	// deadline is the instant beyond which it does not wait for Redis, from when
	// the core heard of it: one budget for all its calls (design: late-replies). It
	// is monotonic time less the core's lag.
	deadline int64
	open     int // answers that are waited for
	done     chan bool
}
