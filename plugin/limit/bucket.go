package limit

import (
	"container/list"
	"sync"
	"time"

	"github.com/sluice-gateway/sluice/plugin/window"
)

// leaseLife is the longest that permits are held without asking again, so
// that resets and other instances' demand are felt within a second.
const leaseLife = int64(1e9)

// lease is a batch of permits granted by one reply and spent from memory.
type lease struct {
	left  int64 // permits; only falls below what Redis granted (I1), guarded by the bucket's mu
	limit int64 // the limit it was granted under; another one has to ask (design: limit-of-a-lease)
	local bool  // set aside of this instance's own share, without Redis (fallback.go)

	// until is the monotonic instant at which the permits die: the end of
	// the window they were granted in, at most leaseLife away. Both are
	// counted from when the call was *sent*: counted from its reply, a slow
	// reply would let the lease reach into the next window (I1).
	until int64
	ends  int64 // the end of the window, without the cap

	generation int64
	index      int64 // the window in which Redis counted them
	next       int64 // by the log rule: the instant (unix us) of the next permit, which names it; else 0
	room       int64 // what was left under the limit beside this lease at that reply
}

// bucket is what this instance knows and holds of one key.
//
// What requests spend by themselves is shared with them, under mu; only the core
// puts another lease or denial in its place. All else is the core's.
type bucket struct {
	limiter *Limiter
	name    string // as Key names it
	shared  bool   // stands for many keys while the table is full (table.go); never asks Redis
	passing bool   // for one request, which found no room in the table

	mu        sync.Mutex
	lease     *lease
	denial    denial
	taken     int64 // permits asked for since demand was estimated last
	unsettled int   // permits whose answer has not decided yet whether they count (design: unsettled-permits)
	used      bool  // since the table's hand passed last

	ledger ledger
	demand demand
	edge   bool  // at its limit: denied, and little room since (denial.go)
	limit  int64 // asked for last
	room   int64 // under it, at Redis's last reply
	again  int64 // monotonic ns before which no report is tried again

	flight *flight   // the call under way; at most one a key, so replies come in order
	queue  []*waiter // those who need the call after it

	debtor    *list.Element // in the core's list of debtors; nil when it is not
	watched   bool          // in the core's list of leases
	reporting bool          // the next call is made to tell what is owed
	atSweep   int64         // lease.left when it was looked at last
	sweepAt   int64         // monotonic ns of the next look
}

// flight is a script call under way, for waiters of one limit and cost.
type flight struct {
	bucket      interface{} // *bucket
	limit, cost int64
	exact       bool // the log rule counts them
	need        int64
	ask         window.Ask
	grant       window.Grant // once it is heard: the answer to ask
	room        int64        // and what is left under the limit beside it
	waiters     []*waiter
	sent        int64 // monotonic ns, not after the call was handed over
	debt        debt
	brings      bool // it brings one along
	timedOut    bool // its waiters are released; a late grant still fills the lease (design: late-replies)
	report      bool // made to tell what is owed, not because somebody waits
}

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
