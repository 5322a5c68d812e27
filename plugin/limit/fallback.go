package limit

import (
	"time"

	"github.com/sluice-gateway/sluice/plugin/window"
)

// awayRetry is what a client is told when nothing better is known: by then the
// breaker has probed Redis again.
const awayRetry = time.Second

// fallBack decides without Redis, as the policy says. What it admits is
// owed to Redis and reported when it returns.
//
// Local enforces share = limit / instances on the instance's own spending and
// its part of what everybody had spent when Redis was last heard. Over all
// instances that is, in any window, at most `limit` by Redis's count before
// the outage plus `limit` by the shares; and `limit` alone for keys that every
// instance knew (design: fallback-share).
func fallBack(c *core, j *job, i int, now int64) {
	p, o := j.policy, &j.answers[i].Outcome
	countDegraded(c, o)
	if p.OnFailure == Deny {
		o.Verdict, o.RetryAfter = Unavailable, awayRetry
		return
	}
	share := j.asks[i].Limit
	if p.OnFailure == Local {
		share = c.presence.share(share, p.MinInstances)
	}
	spendLocally(c, j, i, share, p.OnFailure == Allow, now)
}

// byLastNumbers decides by what Redis said last, under this instance's
// share: on a fresh key those numbers are zero everywhere, and under the whole
// limit every instance would admit all of it (design: fallback-share).
func byLastNumbers(c *core, j *job, i int, now int64) {
	countDegraded(c, &j.answers[i].Outcome)
	spendLocally(c, j, i, c.presence.share(j.asks[i].Limit, j.policy.MinInstances), false, now)
}

// countDegraded notes a decision made without Redis.
func countDegraded(c *core, o *Outcome) {
	c.degraded.Add(1)
	o.Degraded = true
}

// spendLocally applies the rule to this instance's part of the usage.
func spendLocally(c *core, j *job, i int, share int64, regardless bool, now int64) {
	limit, cost := j.asks[i].Limit, j.asks[i].Cost
	b, o := j.answers[i].bucket, &j.answers[i].Outcome
	if b.passing { // all requests of such a key have to meet at one
		b = shareRoom(b)
		j.answers[i].bucket = b
	}
	if h := b.lease; h != nil && h.local {
		b.mu.Lock()
		spent := spendLocked(b, limit, cost, o, now)
		b.mu.Unlock()
		if spent {
			return
		}
		setLease(b, nil) // what is left of it is not usage
	}
	w := b.limiter.window
	clock := c.redisNow(now)
	b.ledger.advance(clock / w)
	index := b.ledger.seen.Index
	clock = later(clock, index*w)
	used := window.Local(b.ledger.seen, &b.ledger.owed, &b.ledger.local, limit, share, w, clock)
	room := window.Room(used, w, share, clock)
	exact := window.Exact(limit, w)
	ends := (index + 1) * w
	if exact && room < share { // the first that comes free
		ends = window.FreeAt(used, w, share, room+1, clock)
	}
	o.Reset = time.Duration(ends-clock) * time.Microsecond
	if room < cost && !regardless {
		o.Verdict, o.Remaining = Denied, 0
		o.RetryAfter = awayRetry
		if cost <= share {
			o.RetryAfter = time.Duration(window.FreeAt(used, w, share, cost, clock)-clock) * time.Microsecond
		}
		return
	}
	oweReport(c, b)
	b.limit = limit
	o.instant = 0
	if exact {
		o.instant = window.After(b.ledger.local.SpentAt, clock)
	}
	b.ledger.spend(cost, o.instant)
	o.Verdict = Granted
	o.Remaining = later(0, room-cost) / cost
	o.lease = nil
	o.cost, o.window = cost, index
	b.demand.asked += cost
	if !exact && !b.shared && !b.limiter.mixed.Load() && !c.healthy() {
		setAside(c, b, limit, cost, room-cost, o.Reset, now)
	}
}

// setAside leases to the key what it is likely to need next of this
// instance's own room, so that without Redis too a hot key's permits come from
// memory. They count as spent from the start, and stop counting when
// the lease ends before they are.
func setAside(c *core, b *bucket, limit, cost, room int64, reset time.Duration, now int64) {
	extra := estimate(b, now)
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
	b.ledger.spend(extra, 0)
	h := &lease{
		left: extra, limit: limit, local: true, ends: now + int64(reset), until: now + int64(reset),
		generation: b.ledger.seen.Generation, index: b.ledger.seen.Index, room: room - extra,
	}
	if latest := now + leaseLife; h.until > latest {
		h.until = latest
	}
	setLease(b, h)
	b.atSweep = extra
	watch(c, b, now)
}
