// Package limit enforces sliding-window limits over any number of gateways at
// a small fraction of a Redis call a request.
//
// In the order in which it happens:
//
//	spend      a permit is taken from the key's lease, in memory     spend.go
//	deny       or refused from memory, while Redis's last answer     denial.go
//	           still proves that the rule would refuse it
//	reserve    else the core asks Redis for what the waiting         take.go, run.go
//	           requests need and, away from the limit, what the next
//	           50 ms are likely to need; concurrent requests of a
//	           key share one call
//	fall back  Redis away: leases from this instance's share, by     fallback.go
//	           the last usage it knew, reported when Redis is back
//	give back  permits that nobody used return to Redis              giveback.go, sweep.go
//
// Who does it: a request spends by itself, under its key's mutex. What memory
// cannot answer goes to the core, one goroutine that owns all else that is known
// of keys (bucket.go, ledger.go) and makes every decision (job.go). It gets all that
// happens as messages that carry their time (message.go), and hands calls out through
// a channel: it has no clock, no socket and no lock but the keys' own, and waits for
// nothing but its next message. presence.go keeps the count of live instances,
// table.go bounds memory, engine.go ties them together and start.go has them run.
//
// Types here refer to each other, and Yaegi 0.16.1 cannot keep its hands on a
// map or slice of such a type: it finds []*bucket different from []*bucket.
// Collections of them hold interface{}.
//
// The invariants (docs/design.md) and who keeps them:
//
//	I1 never over       the script decides; a lease dies with its window (bucket.go: until)
//	I2 hardly under     need before extra, extra shrinks with the room, unspent permits return
//	I3 denied is free   denial.go
//	I4 hot is cheap     leases of 50 ms of demand (demand.go)
//	I5 no outage        callers wait for at most one timeout of silence, none while the breaker is open
//	I6 bounded          table.go
//	I7 all or nothing   a job's answers are decided together (job.go)
//	I8 nothing forgets  every call carries what this instance has seen (ledger.go)
package limit

import "time"

// Ask is one request's wish at one limit.
type Ask struct {
	Limiter *Limiter
	Key     string // whom it limits, as Key names it
	Limit   int64  // permits a window; depends on the user's tier
	Cost    int64  // permits this request takes, at most Limit
}

// Verdict is the outcome at one limit.
type Verdict int

// Granted holds a permit, Denied has none to give, Unavailable cannot decide
// (Redis is away and the policy is Deny), Needless was not asked, since another
// limit denies. The zero Verdict is Undecided.
const (
	Undecided Verdict = iota
	Granted
	Denied
	Unavailable
	Needless
)

// Answer is the outcome of one Ask. With limit 10 a second of which 6 are in
// use, a granted answer has Remaining 3.
type Answer struct {
	Outcome
	bucket *bucket
}

// Outcome is what was decided, and the permit that came of it.
type Outcome struct {
	Verdict    Verdict
	Remaining  int64         // whole requests left, never above the truth at Redis's last reply
	Reset      time.Duration // until the running window ends
	RetryAfter time.Duration // of a denial: until the rule could admit; 0 = never (cost above the limit)
	Degraded   bool          // decided without Redis

	lease   *lease // the permit's origin; nil for permits of the fallback
	window  int64  // index of the window a permit of the fallback was taken in
	instant int64  // by the log rule: the first of the permit's instants (unix us); else 0
	cost    int64  // permits; 0 once they are given back
}
