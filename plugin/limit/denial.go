package limit

import (
	"time"

	"github.com/sluice-gateway/sluice/plugin/window"
)

const (
	// denialLife bounds how long a denial is remembered, so that a reset, a
	// permit given back elsewhere or a new limit is felt within a second (I3).
	denialLife = int64(1e9)

	// An instance that was granted less than it needed asks again at most
	// 400 times a window, and after 50 ms at the latest (I4): what comes free
	// meanwhile is taken in one batch.
	asksPerWindow = 400
	longestPace   = int64(50e6)

	// unsettledRetry is what a client is told while permits of its key may
	// still come back: not the end of the window (design: unsettled-permits).
	unsettledRetry = int64(time.Second)
)

// deniedLocked refuses from memory what the remembered denial covers, and is
// Undecided about all else.
func deniedLocked(b *bucket, limit, cost int64, o *Outcome, now int64) Verdict {
	if !coveredLocked(b, limit, cost, now) {
		return Undecided
	}
	refuseLocked(b, cost, o, now)
	return Denied
}

// coveredLocked tells whether the remembered denial is of such a request.
func coveredLocked(b *bucket, limit, cost, now int64) bool {
	d := &b.denial
	return now < d.until && limit == d.limit && cost >= d.cost
}

// refuseLocked is the outcome of a denial that has just been found or made.
func refuseLocked(b *bucket, cost int64, o *Outcome, now int64) {
	reset := b.denial.ends - now
	if reset < 0 {
		reset = 0
	}
	o.Verdict = Denied
	o.Remaining = 0
	o.RetryAfter = time.Duration(retryLocked(b, cost, now))
	o.Reset = time.Duration(reset)
}

// retryLocked is how long to wait until the rule could admit a request of the given
// cost that was denied.
func retryLocked(b *bucket, cost, now int64) int64 {
	d := &b.denial
	free := d.free
	if cost > d.cost {
		free = later(free, d.decided+(window.FreeAt(d.counts, b.limiter.window, d.limit, cost, d.clock)-d.clock)*1000)
	}
	retry := free - now
	if retry < 0 {
		return 0
	}
	if b.unsettled > 0 && retry > unsettledRetry {
		return unsettledRetry
	}
	return retry
}

// conclude is what a reply proves about the requests to come.
//
// Where less was granted than needed, or no whole request is left, none can be
// admitted before the instant free. Where some room is left at the limit's
// edge, it is left for the next batch: without the pace each permit that comes
// free would cost a call, and each call would find the next one free.
func conclude(b *bucket, f *flight, now int64) denial {
	w, grant := b.limiter.window, &f.grant
	short := grant.Need < f.need
	// Where a window has fewer permits than it may have calls, each may cost one.
	batches := f.limit > asksPerWindow*f.cost
	b.edge = batches && (short || b.edge && f.room <= edgeRoom(w, f.limit, f.cost))
	d := denial{limit: f.limit, cost: f.cost, last: short, counts: grant.Counts, clock: grant.Now}
	// Redis decided halfway between sending and now, as far as one can tell.
	decided := f.sent + (now-f.sent)/2
	if f.exact {
		decided = now // so that who waits for that long is not refused again
	}
	d.decided = decided
	d.ends = decided + ((grant.Counts.Index+1)*w-grant.Now)*1000
	if short || f.room < f.cost {
		free := window.FreeAt(grant.Counts, w, f.limit, f.cost, grant.Now)
		d.free = decided + (free-grant.Now)*1000
		d.until = d.free
		if f.exact {
			d.ends = d.free
			d.until = f.sent + (free-grant.Now)*1000 // nor because this gateway is late in asking again
		} else if batches {
			d.until = later(d.free, now+pace(w))
		}
	} else if b.edge {
		d.free = now + pace(w)
		d.until = d.free
	}
	if latest := f.sent + denialLife; d.until > latest {
		d.until = latest
	}
	if b.ledger.returning() {
		// Redis had not heard of what is on its way back: it is nobody's denial but
		// of those who asked with this call, and they may come again soon.
		d.until = 0
		if soon := now + unsettledRetry; d.free > soon {
			d.free = soon
		}
	}
	return d
}

// edgeRoom is the room up to which a key that was denied counts as at its
// limit still: what comes free in four paces, and four requests.
func edgeRoom(window, limit, cost int64) int64 {
	return 4 * (limit*(pace(window)/1000)/window + cost)
}

// pace is the shortest time between two calls of a key at its limit, in ns.
func pace(window int64) int64 {
	p := window * 1000 / asksPerWindow
	if p > longestPace {
		return longestPace
	}
	return p
}
