// Package window is the two rules by which limits are counted, and nothing else:
// no clock, no socket, no lock.
//
// A small limit over a window that is not short (Exact) is counted by a sliding
// log: the instants of its grants are kept, and a request is admitted while
// fewer than the limit lie within the last window. That is the limit itself, in
// every interval of the window's length, and costs a few bytes a permit
// (log.go). Every other limit is counted by a sliding-window counter, below.
// Counts holds what either knows of a key, and who asks this package need not
// know which rule holds.
//
// Time is cut into windows of W microseconds, aligned to the epoch of Redis's
// clock. Of each key two counters are kept, for the window that runs and for
// the one before it. The previous window is taken to have been used evenly, so
// the part of it that still lies within the last W microseconds weighs
// (W-elapsed)/W, and a request of some cost is admitted when
//
//	previous*(W-elapsed) + (current+cost)*W <= limit*W
//
// in whole units of time. There is no division in the comparison and no sum
// above 2^53, so Lua's doubles and Go's int64 give the same answer on every
// architecture (a float formula may be fused into one multiply-add on arm64 and
// rounded differently there: design: integers).
//
// The unit is the microsecond for as long as the products allow, which is up to
// 1,737 permits a month or 75 million a minute. Above that it is as many
// microseconds as bring them under MaxProduct: 576 ms for a billion permits a
// month. Time is rounded so that the previous window never weighs less than it
// should: the limit still holds, and a permit comes free at most a unit late.
//
// The rules stand here twice: Decide in Go, whose parts the fallback uses while Redis
// is away, and Script in Lua (lua.go), which is the arbiter while it is there.
// lua_test.go drives both with the same schedules and demands equal answers.
package window

import "time"

// MaxProduct bounds permits * window, in units of time. Below it every
// intermediate sum stays exact in a float64, and quotients round to the right
// integer.
const MaxProduct = int64(1) << 52

// MaxLimit is the largest limit: a window still has 4,503 units then.
const MaxLimit = int64(1e12)

// MaxWindow is the longest window, in microseconds.
const MaxWindow = int64(31 * 86400e6)

// MaxCount is more than any counter can come to.
const MaxCount = int64(1) << 52

// Unit is the unit of time, in microseconds, in which the rule weighs so many
// permits over a window. Both twins round the product to a float64 first, which
// is no matter: it is far from MaxProduct or needs no unit but one.
func Unit(permits, window int64) int64 {
	return int64(float64(permits)*float64(window)/float64(MaxProduct)) + 1
}

// Counts is what is known of one key: permits granted and given back, in the
// window with the given index and in the one before. Both rules keep these, so
// that a key may change from one to the other.
type Counts struct {
	Generation int64 // grows by one with every reset; a newer one replaces all that was known
	Index      int64 // unix microseconds / window: which window Granted and Returned belong to

	// Invariant (I8): within one generation and index each of these only
	// grows, so of two memories the larger is the newer and nothing is
	// forgotten by taking the maximum of both.
	Granted          int64
	Returned         int64
	PreviousGranted  int64 // of window Index-1
	PreviousReturned int64

	History  int64   // names the log that Instants are of (log.go); 0: there is none, the counter rule counted last
	Instants []int64 // unix microseconds of the permits that count, ascending, no two alike; never written to

	Told string // the reply that said all this, to be handed back as it is; empty once anything was changed
}

// Current is the number of permits in use in window Index.
func (c Counts) Current() int64 { return c.Granted - c.Returned }

// Previous is the number of permits used in window Index-1.
func (c Counts) Previous() int64 { return c.PreviousGranted - c.PreviousReturned }

// At is what c means once the window with the given index runs.
func (c Counts) At(index int64) Counts {
	ahead := index - c.Index
	if ahead <= 0 {
		return c
	}
	c.Index = index
	c.PreviousGranted, c.PreviousReturned = c.Granted, c.Returned
	if ahead > 1 {
		c.PreviousGranted, c.PreviousReturned = 0, 0
	}
	c.Granted, c.Returned = 0, 0
	return c
}

// sameNumbers tells whether a and b count the same.
func sameNumbers(a, b *Counts) bool {
	return a.Generation == b.Generation && a.Index == b.Index && a.Granted == b.Granted && a.Returned == b.Returned &&
		a.PreviousGranted == b.PreviousGranted && a.PreviousReturned == b.PreviousReturned
}

// Settlement is what an instance owes Redis for a key: by the windows Index and
// Index-1 of the Counts it goes with, or by its instant where the log rule holds.
type Settlement struct {
	Spent            int64 // admitted by the instance alone while Redis was away
	PreviousSpent    int64 // the same, of window Index-1
	Returned         int64 // granted by Redis but not used
	PreviousReturned int64

	SpentAt    []int64 // unix microseconds of each permit, ascending; these are not in the numbers above
	ReturnedAt []int64
}

// Empty says that nothing is owed.
func (s Settlement) Empty() bool {
	return s.Spent == 0 && s.PreviousSpent == 0 && s.Returned == 0 && s.PreviousReturned == 0 && len(s.SpentAt) == 0 && len(s.ReturnedAt) == 0
}

// Shift is what s means once the windows have moved on by the given number:
// what belongs to windows that no longer count is dropped. Instants stay; the
// rule drops those that are too old.
func (s Settlement) Shift(windows int64) Settlement {
	switch {
	case windows <= 0:
		return s
	case windows == 1:
		return Settlement{PreviousSpent: s.Spent, PreviousReturned: s.Returned, SpentAt: s.SpentAt, ReturnedAt: s.ReturnedAt}
	default:
		return Settlement{SpentAt: s.SpentAt, ReturnedAt: s.ReturnedAt}
	}
}

// Plus adds what is owed in t, which goes with the same window.
func (s Settlement) Plus(t Settlement) Settlement {
	return Settlement{
		Spent:            s.Spent + t.Spent,
		PreviousSpent:    s.PreviousSpent + t.PreviousSpent,
		Returned:         s.Returned + t.Returned,
		PreviousReturned: s.PreviousReturned + t.PreviousReturned,
		SpentAt:          together(s.SpentAt, t.SpentAt),
		ReturnedAt:       together(s.ReturnedAt, t.ReturnedAt),
	}
}

// Ask is one reservation. Need and Extra are permits; Need is a multiple of
// Cost.
type Ask struct {
	Window    int64 // microseconds
	Limit     int64
	Cost      int64 // permits one request takes; only whole requests are granted (design: whole-requests)
	Need      int64 // for the requests that wait now
	Extra     int64 // wanted on top, for those about to come
	Instances int64 // live gateways: Extra gets at most 1/(2*Instances) of the room that is left
	Seen      Counts
	Owed      Settlement
}

// Grant is the answer: with limit 100 a minute, 96 in use, cost 2 and
// Ask{Need: 6}, Need is 4 and one of three requests has to wait.
type Grant struct {
	Need   int64  // permits granted of Ask.Need, a multiple of Ask.Cost
	Extra  int64  // permits granted of Ask.Extra, a multiple of Ask.Cost
	Now    int64  // Redis's clock in unix microseconds when it decided
	Counts Counts // after the grant
}

// Decide answers ask from what is stored of its key, at the given time (unix
// microseconds). changed tells whether the Counts of the answer say more than
// stored did, i.e. whether they have to be kept.
func Decide(stored Counts, ask Ask, now int64) (grant Grant, changed bool) {
	w := ask.Window
	index := now / w
	stored = rebase(stored, index)
	seen := rebase(ask.Seen, index)
	owed := ask.Owed
	base := largest(index, largest(stored.Index, seen.Index))
	now = largest(now, base*w) // a clock that stepped back waits at the edge (design: integers)

	owed = owed.Shift(base - seen.Index)
	seen = seen.At(base)
	kept := stored.At(base)
	merged := merge(kept, seen)
	exact, anew := Exact(ask.Limit, w), false
	if exact {
		anew = recall(&merged, &kept, &seen, w, now)
	} else {
		merged.History = 0
		merged.Instants = nil // not in one assignment: Yaegi takes no nil there
	}
	if merged.Generation == seen.Generation && !ask.Owed.Empty() {
		merged = settle(merged, owed, w)
		if exact {
			merged.Instants = settleLog(merged.Instants, &owed, merged.Current(), w, now)
			anew = true
		}
	}
	merged.Told = ""

	if exact {
		grant.Need = reserveLog(merged.Instants, &ask)
		merged.Instants = grantLog(merged.Instants, grant.Need, now)
	} else {
		grant.Need, grant.Extra = reserve(merged, ask, now)
	}
	merged.Granted += grant.Need + grant.Extra
	grant.Counts = merged
	grant.Now = now
	return grant, anew || !sameNumbers(&merged, &kept)
}

// reserve is what the counter rule grants of ask beside what c has in use.
func reserve(c Counts, ask Ask, now int64) (need, extra int64) {
	room := Room(c, ask.Window, ask.Limit, now)
	if room <= 0 {
		return 0, 0
	}
	need = smallest(ask.Need, room) / ask.Cost * ask.Cost
	if need == ask.Need && ask.Extra > 0 {
		spare := (room - need) / (2 * ask.Instances)
		extra = smallest(ask.Extra, spare) / ask.Cost * ask.Cost
	}
	return need, extra
}

// Brought is how many permits of the window that a's counts are of, and of the one
// before, an answer to a has to count: what was seen and what is told.
func Brought(a *Ask) (granted, previous int64) {
	_, spent := byWindow(a.Owed.SpentAt, a.Seen.Index+1, a.Window) // not what lies a microsecond after it
	_, before := byWindow(a.Owed.SpentAt, a.Seen.Index, a.Window)
	return a.Seen.Granted + a.Owed.Spent + spent, a.Seen.PreviousGranted + a.Owed.PreviousSpent + before
}

// rebase takes counts that lie more than one window ahead of the clock, as a
// step of the clock forward and back leaves them, as those of the window that
// runs: without it the key would be stuck until the clock gets there.
func rebase(c Counts, index int64) Counts {
	if c.Index > index+1 {
		c.Index = index
	}
	return c
}

// merge takes the newest of two memories of one key at the same index (I8).
func merge(a, b Counts) Counts {
	if a.Generation > b.Generation {
		return a
	}
	if b.Generation > a.Generation {
		return b
	}
	a.Granted = largest(a.Granted, b.Granted)
	a.Returned = largest(a.Returned, b.Returned)
	a.PreviousGranted = largest(a.PreviousGranted, b.PreviousGranted)
	a.PreviousReturned = largest(a.PreviousReturned, b.PreviousReturned)
	return a
}

// settle adds what is owed, over windows of the given length. A return never
// brings a window below zero.
func settle(c Counts, owed Settlement, window int64) Counts {
	spent, previousSpent := byWindow(owed.SpentAt, c.Index, window)
	returned, previousReturned := byWindow(owed.ReturnedAt, c.Index, window)
	c.Granted += owed.Spent + spent
	c.PreviousGranted += owed.PreviousSpent + previousSpent
	c.Returned += smallest(owed.Returned+returned, c.Current())
	c.PreviousReturned += smallest(owed.PreviousReturned+previousReturned, c.Previous())
	return c
}

// byWindow is how many of the instants lie in the window with the given index, or
// after it, and in the one before.
func byWindow(instants []int64, index, window int64) (current, previous int64) {
	current, previous = 0, 0 // Yaegi hands over what a caller's loop had in their place
	for _, at := range instants {
		if at >= index*window {
			current++
		} else if at >= (index-1)*window {
			previous++
		}
	}
	return current, previous
}

// Fold is c once what is owed has been told: what was spent alone is seen from then
// on, so that it is not told twice. Unfold takes it out again.
func Fold(c Counts, owed *Settlement, window int64) Counts {
	return fold(c, owed, window, 1)
}

// Unfold is c without what was folded in, by the windows of its index.
func Unfold(c Counts, owed *Settlement, window int64) Counts {
	return fold(c, owed, window, -1)
}

func fold(c Counts, owed *Settlement, window, sign int64) Counts {
	spent, previous := byWindow(owed.SpentAt, c.Index, window)
	spent += owed.Spent
	previous += owed.PreviousSpent
	if spent+previous == 0 {
		return c
	}
	fresh := c.Current()+c.Previous() == 0
	c.Granted += sign * spent
	c.PreviousGranted += sign * previous
	c.Told = ""
	switch {
	case owed.Spent+owed.PreviousSpent > 0 || c.History == 0 && !fresh:
		c.History = 0 // some instants are not known
		c.Instants = nil
	case sign < 0:
		for _, at := range owed.SpentAt {
			c.Instants = remove(c.Instants, at)
		}
	default:
		// A memory of no history that the store can know: it looks for each of
		// them, and nothing is lost or counted twice.
		c.History = owed.SpentAt[0]%histories + 1
		for _, at := range owed.SpentAt {
			c.Instants = insert(c.Instants, at)
		}
		c.Instants = newest(c.Instants)
	}
	return c
}

// Used is the number of permits that count against limit at the given time,
// which lies in window c.Index: by the log rule those of the last window's length,
// else those of that window and what the previous one still weighs, rounded up.
func Used(c Counts, window, limit, now int64) int64 {
	if c.History != 0 {
		return usedLog(c.Instants, window, now)
	}
	return c.Granted - c.Returned + Weight(c.PreviousGranted-c.PreviousReturned, window, limit, now-c.Index*window)
}

// Weight is what so many permits of the previous window still weigh against limit,
// elapsed microseconds into the one that runs, rounded up.
func Weight(previous, window, limit, elapsed int64) int64 {
	if previous == 0 {
		return 0
	}
	unit := Unit(largest(limit, previous), window)
	units := (window + unit - 1) / unit
	return (previous*(units-elapsed/unit) + units - 1) / units
}

// Room is the number of permits the rule has left under limit at the given
// time, which lies in window c.Index; never below zero.
func Room(c Counts, window, limit, now int64) int64 {
	return largest(0, limit-Used(c, window, limit, now))
}

// FreeAt is the first instant (unix microseconds) at which the rule would
// admit a request of the given cost, if nothing is granted or returned
// meanwhile; cost is at most limit.
func FreeAt(c Counts, window, limit, cost, now int64) int64 {
	if c.History != 0 {
		return freeLog(c.Instants, window, limit, cost, now)
	}
	c = c.At(now / window)
	if Room(c, window, limit, largest(now, c.Index*window)) >= cost {
		return now
	}
	// Within this window the previous one has to fade far enough; where the
	// current one alone is too full, the same holds one window on.
	used := c.Previous()
	start := c.Index * window
	free := limit - c.Current() - cost
	if free < 0 {
		used = c.Current() // not in one assignment with the next: Yaegi loses a value beside a call
		start += window
		free = limit - cost
	}
	if used <= free {
		return start
	}
	unit := Unit(largest(limit, used), window)
	units := (window + unit - 1) / unit
	return smallest(start+window, start+(units-free*units/used)*unit)
}

// Span is a duration in whole microseconds, as the rule counts.
func Span(d time.Duration) int64 { return int64(d / time.Microsecond) }

// Yaegi v0.16.1 has no builtin min and max.
func smallest(a, b int64) int64 {
	if a < b {
		return a
	}
	return b
}

func largest(a, b int64) int64 {
	if a > b {
		return a
	}
	return b
}
