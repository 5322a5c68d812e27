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
	// still come back: not the end of the window (RULES 16).
	unsettledRetry = int64(time.Second)
)

// denial is why a request of at least this cost under this limit is refused
// without asking: the rule cannot admit it before the instant free, whatever
// other instances do but give back; or it has to wait for the pace.
type denial struct {
	limit int64
	cost  int64
	until int64 // monotonic ns: ask again then
	free  int64 // monotonic ns: the instant at which cost permits come free
	ends  int64 // monotonic ns: the end of the window it was given in
	last  bool  // Redis's last answer denied somebody
}

// deniedLocked refuses from memory what the remembered denial covers, and is
// Undecided about all else.
func deniedLocked(b *bucket, limit, cost int64, o *Outcome, now int64) Verdict {
	if !coveredLocked(b, limit, cost, now) {
		return Undecided
	}
	refuseLocked(b, o, now)
	return Denied
}

// coveredLocked tells whether the remembered denial is of such a request.
func coveredLocked(b *bucket, limit, cost, now int64) bool {
	d := &b.denial
	return now < d.until && limit == d.limit && cost >= d.cost
}

// refuseLocked is the outcome of a denial that has just been found or made.
func refuseLocked(b *bucket, o *Outcome, now int64) {
	reset := b.denial.ends - now
	if reset < 0 {
		reset = 0
	}
	o.Verdict = Denied
	o.Remaining = 0
	o.RetryAfter = time.Duration(retryLocked(b, now))
	o.Reset = time.Duration(reset)
}

// retryLocked is how long to wait until the rule could admit what was denied.
func retryLocked(b *bucket, now int64) int64 {
	retry := b.denial.free - now
	if retry < 0 {
		return 0
	}
	if b.unsettled > 0 && retry > unsettledRetry {
		return unsettledRetry
	}
	return retry
}

// deniedLast tells whether Redis's last answer for the key was a denial.
func (b *bucket) deniedLast() bool {
	if b == nil {
		return false // never asked
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.denial.last
}

// concludeLocked notes what a reply proves about the requests to come.
//
// Where less was granted than needed, or no whole request is left, none can be
// admitted before the instant free. Where some room is left at the limit's
// edge, it is left for the next batch: without the pace each permit that comes
// free would cost a call, and each call would find the next one free.
func (b *bucket) concludeLocked(f *flight, grant window.Grant, room, now int64) {
	w := b.limiter.window
	short := grant.Need < f.need
	b.edge = short || b.edge && room <= edgeRoom(w, f.limit, f.cost)
	d := denial{limit: f.limit, cost: f.cost, last: short}
	// Redis decided halfway between sending and now, as far as one can tell.
	decided := f.sent + (now-f.sent)/2
	d.ends = decided + ((grant.Counts.Index+1)*w-grant.Now)*1000
	if short || room < f.cost {
		free := window.FreeAt(grant.Counts, w, f.limit, f.cost, grant.Now)
		d.free = decided + (free-grant.Now)*1000
		d.until = later(d.free, now+pace(w))
	} else if b.edge {
		d.free = now + pace(w)
		d.until = d.free
	}
	if latest := f.sent + denialLife; d.until > latest {
		d.until = latest
	}
	b.denial = d
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
