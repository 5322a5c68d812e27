package limit

import (
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
func (e *Engine) fallBackLocked(b *bucket, p *Policy, ask *Ask, answer *Answer, now int64) {
	e.Degraded.Add(1)
	answer.Degraded = true
	if p.OnFailure == Deny {
		answer.Verdict, answer.RetryAfter = Unavailable, awayRetry
		return
	}
	share := ask.Limit
	if p.OnFailure == Local {
		share = e.presence.share(ask.Limit, p.MinInstances)
	}
	e.decideAloneLocked(b, ask, answer, share, p.OnFailure == Allow, now)
}

// byLastNumbersLocked decides by what Redis said last, under the whole limit.
func (e *Engine) byLastNumbersLocked(b *bucket, ask *Ask, answer *Answer, now int64) {
	e.Degraded.Add(1)
	answer.Degraded = true
	e.decideAloneLocked(b, ask, answer, ask.Limit, false, now)
}

// decideAloneLocked applies the rule to this instance's part of the usage.
func (e *Engine) decideAloneLocked(b *bucket, ask *Ask, answer *Answer, share int64, regardless bool, now int64) {
	w := b.limiter.window
	clock := e.redisNow(now)
	b.advanceLocked(clock / w)
	index := b.seen.Index
	clock = later(clock, index*w)
	used := window.Counts{
		Index:           index,
		Granted:         part(b.seen.Current(), share, ask.Limit) + b.owed.Spent,
		PreviousGranted: part(b.seen.Previous(), share, ask.Limit) + b.owed.PreviousSpent,
	}
	room := window.Room(used, w, share, clock)
	answer.Reset = time.Duration((index+1)*w-clock) * time.Microsecond
	if room < ask.Cost && !regardless {
		answer.Verdict, answer.Remaining = Denied, 0
		answer.RetryAfter = awayRetry
		if ask.Cost <= share {
			answer.RetryAfter = time.Duration(window.FreeAt(used, w, share, ask.Cost, clock)-clock) * time.Microsecond
		}
		return
	}
	if b.owed.Empty() {
		e.oweLocked(b)
	}
	b.owed.Spent += ask.Cost
	answer.Verdict = Granted
	answer.Remaining = later(0, room-ask.Cost) / ask.Cost
	answer.bucket, answer.lease = b, nil
	answer.cost, answer.window = ask.Cost, index
}

// part is this instance's part of usage that everybody shares, rounded up: the
// sum over all instances is then never less than the usage.
func part(usage, share, limit int64) int64 {
	if share >= limit || usage == 0 {
		return usage
	}
	return (usage*share + limit - 1) / limit
}
