package limit

import "github.com/sluice-gateway/sluice/plugin/window"

// A ledger is what this instance knows and owes of one key. It decides nothing
// and has no clock; bringing it to a window that runs now is advance's.
type ledger struct {
	// seen is the newest Redis has said of this key, plus what this instance
	// has spent and could not report for certain.
	// Invariant (I8): it goes with every call, so a Redis that lost state
	// learns it again.
	seen window.Counts
	owed window.Settlement // by the windows of seen.Index; leaves with the next call

	// local is what this instance admitted without Redis in the windows of
	// seen.Index, reported or not: while Redis comes and goes it counts in
	// full against the share, else each report would free most of it again.
	local  window.Settlement
	heard  bool // Redis has answered about the key
	untold bool // a report's call failed, and nobody knows whether it ran: tell seen again

	// owing says that some of it is not Redis's word alone: something is owed or
	// untold, or was spent alone. Without it what Redis says next is all there is.
	owing bool
}

// A debt is what left with a call.
type debt struct {
	owed  window.Settlement
	index int64 // owed goes with this window
}

// settled says that Redis knows all that the ledger holds.
func (l *ledger) settled() bool { return l.owed.Empty() && !l.untold }

// advance brings the ledger to the window with the given index.
func (l *ledger) advance(index int64) {
	if ahead := index - l.seen.Index; ahead > 0 {
		l.owed = l.owed.Shift(ahead)
		l.local = l.local.Shift(ahead)
		l.seen = l.seen.At(index)
	}
}

// depart hands out what is owed, to leave with a call. From here on what was
// spent alone is known rather than owed, so that a failing call loses no knowledge
// of it and never reports it twice.
func (l *ledger) depart(span int64) debt {
	d := debt{owed: l.owed, index: l.seen.Index}
	l.seen = window.Fold(l.seen, &d.owed, span)
	l.owed = window.Settlement{}
	return d
}

// undo takes back a debt whose call did not run: what was folded into seen comes
// out again.
func (l *ledger) undo(d debt, span int64) {
	owed := d.owed.Shift(l.seen.Index - d.index)
	l.seen = window.Unfold(l.seen, &owed, span)
	l.owed = l.owed.Plus(owed)
	l.owing = true
}

// uncertain notes that nobody knows whether a debt's call ran. Reported once more it
// might count twice; seen, which holds it, can be told as often as need be, since
// Redis takes the larger number.
func (l *ledger) uncertain(d debt) {
	if d.owed.Spent+d.owed.PreviousSpent > 0 || len(d.owed.SpentAt) > 0 {
		l.owing = true
		l.untold = true
	}
}

// learn replaces what was known of the key by what Redis says now, in answer to a
// call that brought d. Debts made since the call left stay with the window they
// belong to; after a reset, or when the clock has stepped back, they are void.
func learn(l *ledger, told *window.Counts, d *debt) {
	if !l.heard {
		l.heard = true
		if told.Generation != l.seen.Generation {
			// The first that is heard of the key: it was reset before, and Redis
			// took the debts that the call brought for older than that.
			l.owed = l.owed.Plus(d.owed.Shift(l.seen.Index - d.index))
			l.seen.Generation = told.Generation
		}
	}
	l.untold = false
	switch ahead := told.Index - l.seen.Index; {
	case told.Generation != l.seen.Generation || ahead < -1:
		l.owed = window.Settlement{}
		l.local = window.Settlement{}
		l.seen = *told
	case ahead == -1: // a late reply: the fallback has moved on to the next window
		l.seen = told.At(l.seen.Index)
	default:
		l.advance(told.Index)
		l.seen = *told
	}
	l.owing = !l.owed.Empty() || !l.local.Empty()
}

// owe notes permits that go back to the window they were granted in, if it still
// counts (design: give-back), or out of the log, where instant is the first one's.
func (l *ledger) owe(generation, index, permits, instant int64) {
	if permits == 0 || generation != l.seen.Generation {
		return
	}
	l.owing = true
	l.advance(index)
	if instant != 0 {
		l.owed.ReturnedAt = window.With(l.owed.ReturnedAt, instant, permits)
		return
	}
	switch l.seen.Index - index {
	case 0:
		l.owed.Returned += permits
	case 1:
		l.owed.PreviousReturned += permits
	}
}

// spend notes permits that were taken without Redis in the running window, by the
// log rule from an instant on.
func (l *ledger) spend(permits, instant int64) {
	l.owing = true
	if instant != 0 {
		l.owed.SpentAt = window.With(l.owed.SpentAt, instant, permits)
		l.local.SpentAt = window.With(l.local.SpentAt, instant, permits)
		return
	}
	l.owed.Spent += permits
	l.local.Spent += permits
}

// forget undoes what was admitted without Redis in the window with the given
// index, or from an instant on: what is owed still is not reported after all, and
// what was reported is returned. What a reset has made void is nobody's.
func (l *ledger) forget(index, permits, instant int64) {
	if instant != 0 {
		var known bool
		if l.local.SpentAt, known = window.Without(l.local.SpentAt, instant, permits); !known {
			return
		}
		if l.owed.SpentAt, known = window.Without(l.owed.SpentAt, instant, permits); !known {
			l.owed.ReturnedAt = window.With(l.owed.ReturnedAt, instant, permits)
		}
		return
	}
	switch l.seen.Index - index {
	case 0:
		if l.local.Spent < permits {
			return
		}
		l.local.Spent -= permits
		if l.owed.Spent >= permits {
			l.owed.Spent -= permits
		} else {
			l.owed.Returned += permits
		}
	case 1:
		if l.local.PreviousSpent < permits {
			return
		}
		l.local.PreviousSpent -= permits
		if l.owed.PreviousSpent >= permits {
			l.owed.PreviousSpent -= permits
		} else {
			l.owed.PreviousReturned += permits
		}
	}
}

// returning tells whether permits are on their way back to Redis.
func (l *ledger) returning() bool {
	return l.owed.Returned+l.owed.PreviousReturned > 0 || len(l.owed.ReturnedAt) > 0
}

// counting tells whether anything of it counts at the given time (unix us), over
// windows of the given length.
func (l *ledger) counting(clock, window int64) bool {
	index := clock / window
	counts := l.seen.At(index)
	owed := l.owed.Shift(index - l.seen.Index)
	return counts.Current()+counts.Previous() > 0 || owed.Spent+owed.PreviousSpent > 0 || owed.Returned+owed.PreviousReturned > 0 ||
		anySince(owed.SpentAt, clock-window) || anySince(owed.ReturnedAt, clock-window)
}

// anySince tells whether any of a list of instants, ascending, comes after another.
func anySince(instants []int64, at int64) bool {
	return len(instants) > 0 && instants[len(instants)-1] > at
}
