package limit

import (
	"math/bits"
	"time"

	"github.com/sluice-gateway/sluice/plugin/window"
)

// awayRetry is what a client is told when nothing better is known: by then the
// breaker has probed Redis again.
const awayRetry = time.Second

// fallBackLocked decides without Redis, as the policy says. What it admits is
// owed to Redis and reported when it returns.
//
// Local enforces share = limit / instances on the instance's own spending and
// its part of what everybody had spent when Redis was last heard. Over all
// instances that is, in any window, at most `limit` by Redis's count before
// the outage plus `limit` by the shares; and `limit` alone for keys that every
// instance knew (RULES 17).
func (e *Engine) fallBackLocked(b *bucket, p *Policy, limit, cost int64, o *Outcome, now int64) {
	countAlone(e, o)
	if p.OnFailure == Deny {
		o.Verdict, o.RetryAfter = Unavailable, awayRetry
		return
	}
	share := limit
	if p.OnFailure == Local {
		share = e.presence.share(limit, p.MinInstances)
	}
	e.decideAloneLocked(b, limit, cost, o, share, p.OnFailure == Allow, now)
}

// byLastNumbersLocked decides by what Redis said last, under this instance's
// share: on a fresh key those numbers are zero everywhere, and under the whole
// limit every instance would admit all of it (RULES 17).
func (e *Engine) byLastNumbersLocked(b *bucket, p *Policy, limit, cost int64, o *Outcome, now int64) {
	countAlone(e, o)
	e.decideAloneLocked(b, limit, cost, o, e.presence.share(limit, p.MinInstances), false, now)
}

// countAlone notes a decision made without Redis.
func countAlone(e *Engine, o *Outcome) {
	e.Degraded.Add(1)
	o.Degraded = true
}

// decideAloneLocked applies the rule to this instance's part of the usage.
func (e *Engine) decideAloneLocked(b *bucket, limit, cost int64, o *Outcome, share int64, regardless bool, now int64) {
	if h := b.lease; h != nil && h.alone {
		if spendLocked(b, limit, cost, o, now) {
			return
		}
		b.dropLeaseLocked() // what is left of it is not usage
	}
	w := b.limiter.window
	clock := e.redisNow(now)
	b.advanceLocked(clock / w)
	index := b.seen.Index
	clock = later(clock, index*w)
	// What Redis granted and nobody spent is not usage, though it could not be
	// told so.
	told := b.alone.Spent - b.owed.Spent // of what we admitted alone seen holds this
	toldBefore := b.alone.PreviousSpent - b.owed.PreviousSpent
	used := window.Counts{
		Index:           index,
		Granted:         part(b.seen.Current()-b.owed.Returned-told, share, limit) + b.alone.Spent,
		PreviousGranted: part(b.seen.Previous()-b.owed.PreviousReturned-toldBefore, share, limit) + b.alone.PreviousSpent,
	}
	room := window.Room(used, w, share, clock)
	o.Reset = time.Duration((index+1)*w-clock) * time.Microsecond
	if room < cost && !regardless {
		o.Verdict, o.Remaining = Denied, 0
		o.RetryAfter = awayRetry
		if cost <= share {
			o.RetryAfter = time.Duration(window.FreeAt(used, w, share, cost, clock)-clock) * time.Microsecond
		}
		return
	}
	if b.owed.Empty() {
		e.oweLocked(b)
	}
	b.owed.Spent += cost
	b.alone.Spent += cost
	o.Verdict = Granted
	o.Remaining = later(0, room-cost) / cost
	o.lease = nil
	o.cost, o.window = cost, index
	b.demand.taken += cost
	if !b.shared && !b.limiter.mixed.Load() && !e.redis.Healthy() {
		b.setAsideLocked(limit, cost, room-cost, o.Reset, now)
	}
}

// setAsideLocked leases to the key what it is likely to need next of this
// instance's own room, so that without Redis too a hot key's permits come from
// memory (Spend). They count as spent from the start, and stop counting when
// the lease ends before they are.
func (b *bucket) setAsideLocked(limit, cost, room int64, reset time.Duration, now int64) {
	extra := b.demand.estimate(now)
	if far := extra * farHorizons; far*plentiful <= room {
		extra = far
	}
	if extra > room {
		extra = room
	}
	extra = extra / cost * cost
	if extra <= 0 {
		return
	}
	b.owed.Spent += extra
	b.alone.Spent += extra
	b.lease = &lease{
		left: extra, limit: limit, alone: true, ends: now + int64(reset), until: now + int64(reset),
		generation: b.seen.Generation, index: b.seen.Index, room: room - extra,
	}
	if latest := now + leaseLife; b.lease.until > latest {
		b.lease.until = latest
	}
	b.atSweep = -1
	b.limiter.engine.watchLocked(b)
}

// part is this instance's part of usage that everybody shares, rounded up: the
// sum over all instances is then never less than the usage.
func part(usage, share, limit int64) int64 {
	if usage <= 0 {
		return 0
	}
	if share >= limit {
		return usage
	}
	high, low := bits.Mul64(uint64(usage), uint64(share)) // the product of two large ones is no int64
	quotient, remainder := bits.Div64(high, low, uint64(limit))
	if remainder > 0 {
		quotient++
	}
	return int64(quotient)
}
