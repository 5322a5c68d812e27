package window

import "math/bits"

// The log rule (design: two-rules). Of each permit the instant is kept at which it was granted, and a
// request of some cost is admitted when
//
//	instants within the last window + cost <= limit
//
// An instant t is within the last window at now when t > now - window, so a permit
// comes free exactly a window after it was granted. Instants of one key differ, by
// a microsecond where need be: so an instant names its permit, the permit can be
// given back by it, and of two memories of a key the union is what both know.
//
// A permit that was given back would return with any memory from before that. So a
// log has a name, its history: a memory of the same history that misses no more
// permits in the store than were given back since is merely old, and is not asked.
// A store that turns out to have lost permits (restarted empty, or a replica that
// lagged) takes what it is told and begins a new history, so that everyone else's
// memory is looked through once. A permit given back may count again then, for a
// window at most: in doubt the log decides against the client.

const (
	// MaxExact is the largest limit that is counted by a log.
	MaxExact = int64(64)

	// ShortestExact is the shortest window of such a limit, in microseconds: below
	// it permits that are set aside pay for themselves, and a log has none.
	ShortestExact = int64(10e6)

	// histories is how many names of logs there are. One is drawn from the clock's
	// microseconds.
	histories = int64(1e6)
)

// Exact tells whether a limit over a window (microseconds) is counted by a log.
func Exact(limit, window int64) bool { return limit <= MaxExact && window >= ShortestExact }

// recall is the log of merged, which is what kept and seen know together, at the
// same index. It reports whether that is more than kept had, or other than it had.
func recall(merged, kept, seen *Counts, window, now int64) (changed bool) {
	of, other := kept, seen
	if seen.Generation > kept.Generation {
		of, other = seen, kept
	}
	instants, moved := instantsOf(of, window, now)
	history := of.History
	if other.Generation == of.Generation {
		others, _ := instantsOf(other, window, now)
		all := union(instants, others)
		if more := len(all) - len(instants); more > 0 && lost(merged, kept, seen, int64(more)) {
			instants, history, moved = all, 0, true
		}
	}
	merged.Instants = newest(instants)
	merged.History = history
	if history == 0 {
		merged.History = now%histories + 1
	}
	return moved || history == 0 && len(instants) > 0
}

// lost tells whether a store that holds kept has lost some of the permits, more in
// number, that seen holds beside.
func lost(merged, kept, seen *Counts, more int64) bool {
	switch {
	case kept.History == 0 || seen.History == 0:
		return !sameNumbers(merged, kept)
	case kept.History != seen.History:
		return true
	default:
		return more > kept.Returned+kept.PreviousReturned-seen.Returned-seen.PreviousReturned
	}
}

// instantsOf are the permits of a memory that count at now. Where the counter rule
// counted last nobody knows their instants: they are taken to be the latest that
// they can have been. One that lies more than a window ahead, as a step of the clock
// forward and back leaves it, is taken to be now, and moved tells so.
func instantsOf(c *Counts, window, now int64) (instants []int64, moved bool) {
	instants = nil // as in byWindow
	if c.History == 0 {
		for n := int64(0); n < smallest(c.Previous(), MaxExact); n++ {
			instants = append(instants, c.Index*window+n)
		}
		for n := int64(0); n < smallest(c.Current(), MaxExact); n++ {
			instants = insert(instants, now)
		}
		return newest(instants), false
	}
	ahead := 0
	for _, at := range c.Instants {
		if at > now+window {
			ahead++
		} else if at > now-window {
			instants = append(instants, at)
		}
	}
	for n := 0; n < ahead; n++ {
		instants = insert(instants, now)
	}
	return instants, ahead > 0
}

// settleLog adds what is owed to a log: what was spent at an instant that is not
// known, or makes no sense, counts as spent now. So do permits of the running
// window, as many as there are by the counts, that the log had no place for before
// others were given back.
func settleLog(instants []int64, owed *Settlement, current, window, now int64) []int64 {
	for _, at := range owed.SpentAt {
		if at > now+window {
			at = now
		}
		if at > now-window {
			instants = insert(instants, at)
		}
	}
	for n := smallest(owed.Spent+owed.PreviousSpent, MaxExact); n > 0; n-- {
		instants = insert(instants, now)
	}
	for _, at := range owed.ReturnedAt {
		instants = remove(instants, at)
	}
	instants = newest(instants)
	for int64(len(instants)) < smallest(current, MaxExact) {
		instants = insert(instants, now)
	}
	return instants
}

// reserveLog is what the log rule grants of ask beside a log of permits that all
// count. It sets nothing aside: each permit is for a request that waits.
func reserveLog(instants []int64, ask *Ask) int64 {
	room := ask.Limit - int64(len(instants))
	if room <= 0 {
		return 0
	}
	return smallest(ask.Need, room) / ask.Cost * ask.Cost
}

// grantLog notes permits that are granted now.
func grantLog(instants []int64, permits, now int64) []int64 {
	first := firstGranted(instants, now)
	all := append([]int64(nil), instants...)
	for n := int64(0); n < permits; n++ {
		all = append(all, first+n)
	}
	return all
}

// firstGranted is the first of the instants, one after the other, that permits
// granted now beside the log are given.
func firstGranted(instants []int64, now int64) int64 {
	if n := len(instants); n > 0 && instants[n-1] >= now {
		return instants[n-1] + 1
	}
	return now
}

// Answers tells whether a log is what the rule gives in answer to ask, whose
// numbers have been looked at: the permits that were there, all of them in the last
// window, and then those that were granted.
func Answers(g *Grant, ask *Ask) bool {
	instants := g.Counts.Instants
	before := len(instants) - int(g.Need)
	current := g.Counts.Current() - g.Need
	if g.Counts.History < 1 || g.Counts.History > histories || int64(len(instants)) > MaxExact ||
		before < 0 || int64(before) < smallest(current, MaxExact) || g.Extra != 0 {
		return false
	}
	last := g.Now - ask.Window
	for i, at := range instants {
		if at <= last || i == before && at < g.Now || i > before && at != last+1 {
			return false
		}
		last = at
	}
	return last <= g.Now+ask.Window+MaxExact && g.Need == reserveLog(instants[:before], ask)
}

// Local is what one instance counts while Redis is away: its share of what everybody
// had spent when Redis was heard last, rounded up, and all that it has spent by itself
// since. Over all instances that is never less than the usage. What Redis granted
// and nobody spent is not usage, though it could not be told so. seen goes with the
// window that runs now, at now; local is what the instance has spent, of which owed
// has not been told yet.
func Local(seen Counts, owed, local *Settlement, limit, share, window, now int64) Counts {
	told := Unfold(Fold(seen, owed, window), local, window) // what the others spent, and this one with Redis
	if !Exact(limit, window) {
		spent, previous := byWindow(local.SpentAt, seen.Index, window)
		returned, previousReturned := byWindow(owed.ReturnedAt, seen.Index, window)
		return Counts{
			Index:           seen.Index,
			Granted:         part(told.Current()-owed.Returned-returned, share, limit) + local.Spent + spent,
			PreviousGranted: part(told.Previous()-owed.PreviousReturned-previousReturned, share, limit) + local.PreviousSpent + previous,
		}
	}
	instants, _ := instantsOf(&told, window, now)
	for _, at := range owed.ReturnedAt {
		instants = remove(instants, at)
	}
	// Of the newest n instants, for every n, its part of n: so the part is right
	// whenever the older ones have come free.
	var ours []int64
	for n := int64(len(instants)); n > 0; n-- {
		if part(n, share, limit) > part(n-1, share, limit) {
			ours = append(ours, instants[int64(len(instants))-n])
		}
	}
	for _, at := range local.SpentAt {
		if at > now-window {
			ours = insert(ours, at)
		}
	}
	for n := smallest(local.Spent+local.PreviousSpent, MaxExact); n > 0; n-- {
		ours = insert(ours, now)
	}
	return Counts{Index: seen.Index, History: 1, Instants: ours}
}

// part is one instance's part of usage that everybody shares, rounded up.
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

// usedLog is the number of permits of a log that count at now.
func usedLog(instants []int64, window, now int64) int64 {
	used := len(instants)
	for _, at := range instants {
		if at > now-window {
			break
		}
		used--
	}
	return int64(used)
}

// freeLog is the first instant at which so many of a log's permits have come free
// that there is room for cost more.
func freeLog(instants []int64, window, limit, cost, now int64) int64 {
	used := usedLog(instants, window, now)
	over := used + cost - limit
	if over <= 0 {
		return now
	}
	return instants[int64(len(instants))-used+over-1] + window
}

// together is all of two lists of instants, ascending.
func together(a, b []int64) []int64 {
	if len(b) == 0 {
		return a
	}
	all := append([]int64(nil), a...)
	for _, at := range b {
		i := len(all)
		all = append(all, at)
		for ; i > 0 && all[i-1] > at; i-- {
			all[i] = all[i-1]
		}
		all[i] = at
	}
	return all
}

// union is what a or b hold, both ascending.
func union(a, b []int64) []int64 {
	all := make([]int64, 0, len(a)+len(b))
	for len(a) > 0 || len(b) > 0 {
		switch {
		case len(b) == 0 || len(a) > 0 && a[0] < b[0]:
			all = append(all, a[0])
			a = a[1:]
		case len(a) == 0 || b[0] < a[0]:
			all = append(all, b[0])
			b = b[1:]
		default:
			all = append(all, a[0])
			a = a[1:]
			b = b[1:]
		}
	}
	return all
}

// insert adds an instant, or the first after it that is not taken.
func insert(instants []int64, at int64) []int64 {
	i := len(instants)
	for i > 0 && instants[i-1] > at {
		i--
	}
	if i > 0 && instants[i-1] == at {
		at++
		for i < len(instants) && instants[i] == at {
			at++
			i++
		}
	}
	all := make([]int64, 0, len(instants)+1)
	all = append(all, instants[:i]...)
	all = append(all, at)
	return append(all, instants[i:]...)
}

// remove takes an instant out, if it is there.
func remove(instants []int64, at int64) []int64 {
	for i := range instants {
		if instants[i] == at {
			return append(append(make([]int64, 0, len(instants)), instants[:i]...), instants[i+1:]...)
		}
	}
	return instants
}

// With is a list of instants and so many permits more, a microsecond apart, from
// the given one on: as many of the newest as can matter.
func With(instants []int64, first, permits int64) []int64 {
	for n := int64(0); n < permits; n++ {
		instants = insert(instants, first+n)
	}
	return newest(instants)
}

// Without takes back what With added, and reports whether all of it was there.
func Without(instants []int64, first, permits int64) ([]int64, bool) {
	left := instants
	for n := int64(0); n < permits; n++ {
		left = remove(left, first+n)
	}
	if int64(len(instants)-len(left)) < permits {
		return instants, false
	}
	return left, true
}

// After is where With may begin: now, or the first instant that comes after all of
// a list.
func After(instants []int64, now int64) int64 { return firstGranted(instants, now) }

// newest are the last MaxExact of a log: no more can matter to any limit that is
// counted by one.
func newest(instants []int64) []int64 {
	if over := len(instants) - int(MaxExact); over > 0 {
		return instants[over:]
	}
	return instants
}
