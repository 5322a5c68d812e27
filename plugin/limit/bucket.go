package limit

import (
	"container/list"
	"sync"

	"github.com/sluice-gateway/sluice/plugin/window"
)

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

	// What the answer was made of, for those who cost more and wait for longer.
	counts  window.Counts
	decided int64 // monotonic ns
	clock   int64 // Redis's at that instant, us
}

// demand estimates the permits that a key will ask of this instance within the
// horizon: a moving average that forgets at the horizon's pace.
type demand struct {
	last    int64   // monotonic ns of the last estimate; 0 before the first request
	asked   int64   // permits asked of Redis for those who waited since
	average float64 // permits a horizon
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

// waiter is a job's wish at one limit, and waits for a call's answer.
type waiter struct {
	job      interface{} // *job
	at       int         // of the ask in the job
	released bool
	limited  bool // in the core's list of waiters
}
