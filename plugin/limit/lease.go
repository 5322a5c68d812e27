package limit

import (
	"time"

	"github.com/sluice-gateway/sluice/plugin/window"
)

// leaseLife is the longest that permits are held without asking again, so
// that resets and other instances' demand are felt within a second.
const leaseLife = int64(1e9)

// spendLocked takes a permit from the lease, if it has one for such a request. It
// and its kind are functions, not methods, because the interpreter takes four
// times as long for a method.
func spendLocked(b *bucket, limit, cost int64, o *Outcome, now int64) bool {
	h := b.lease
	if h == nil || h.left < cost || h.limit != limit || now >= h.until {
		return false
	}
	h.left -= cost
	b.taken += cost
	grantFrom(h, cost, o, now)
	return true
}

// grantFrom fills in an outcome whose permit comes from lease h.
func grantFrom(h *lease, cost int64, o *Outcome, now int64) {
	o.Verdict = Granted
	o.Remaining = (h.left + h.room) / cost
	reset := h.ends - now
	if reset < 0 { // a reply may come after the window's end
		reset = 0
	}
	o.Reset = time.Duration(reset)
	o.lease = h
	o.cost = cost
	if h.next != 0 {
		o.instant = h.next
		h.next += cost
	}
}

// toLease puts a permit back into the lease that it came from, while that lives.
func toLease(b *bucket, a *Answer, now int64) bool {
	h := a.lease
	if h == nil || h != b.lease || now >= h.until || a.instant != 0 {
		return false
	}
	h.left += a.cost
	return true
}

// setLease puts a lease in the place of another; what is left of that is owed to
// Redis.
func setLease(b *bucket, h *lease) {
	b.mu.Lock()
	old := b.lease
	b.lease = h
	left := int64(0)
	if old != nil {
		left = old.left
		old.left = 0
	}
	b.mu.Unlock()
	if left > 0 {
		returnTo(b, old, left, old.next)
	}
}

// returnTo takes permits of a lease that is over back to where they came from.
// instant is the first one's, by the log rule.
func returnTo(b *bucket, h *lease, permits, instant int64) {
	switch {
	case !h.local:
		b.ledger.owe(h.generation, h.index, permits, instant)
	case h.generation == b.ledger.seen.Generation:
		b.ledger.forget(h.index, permits, 0)
	}
}

// adopt brings a lease in line with a generation that has just been learnt of: it
// was set aside before Redis was heard of the key, or a reset has voided what it
// was set aside of, and nobody would report it.
func adopt(b *bucket) {
	b.mu.Lock()
	defer b.mu.Unlock()
	h := b.lease
	if h == nil || !h.local {
		return
	}
	if b.ledger.local.Empty() {
		h.left = 0
	}
	h.generation = b.ledger.seen.Generation
}

// exactly makes a lease of permits that a log has: none is set aside, and no
// window's end is theirs.
func exactly(f *flight, h *lease) {
	c := &f.grant.Counts
	if h.room < f.limit { // the first that comes free
		h.ends = f.sent + (window.FreeAt(*c, f.ask.Window, f.limit, h.room+1, f.grant.Now)-f.grant.Now)*1000
	}
	if h.left > 0 {
		h.next = c.Instants[int64(len(c.Instants))-h.left]
	}
	h.until = f.sent + leaseLife
}
