// Package window is the sliding-window-counter rule, and nothing else: no
// clock, no socket, no lock.
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
// rounded differently there: RULES 36).
//
// The unit is the microsecond for as long as the products allow, which is up to
// 1,737 permits a month or 75 million a minute. Above that it is as many
// microseconds as bring them under MaxProduct: 576 ms for a billion permits a
// month. Time is rounded so that the previous window never weighs less than it
// should: the limit still holds, and a permit comes free at most a unit late.
//
// The rule stands here twice: Decide in Go, which the fallback uses while Redis
// is away, and Script in Lua (lua.go), which is the arbiter while it is there.
// window_test.go drives both with the same schedules and demands equal answers.
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
// window with the given index and in the one before.
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
}

// Current is the number of permits in use in window Index.
func (c Counts) Current() int64 { return c.Granted - c.Returned }

// Previous is the number of permits used in window Index-1.
func (c Counts) Previous() int64 { return c.PreviousGranted - c.PreviousReturned }

// At is what c means once the window with the given index runs.
func (c Counts) At(index int64) Counts {
	switch ahead := index - c.Index; {
	case ahead <= 0:
		return c
	case ahead == 1:
		return Counts{Generation: c.Generation, Index: index, PreviousGranted: c.Granted, PreviousReturned: c.Returned}
	default:
		return Counts{Generation: c.Generation, Index: index}
	}
}

// Settlement is what an instance owes Redis for a key, counted by the windows
// Index and Index-1 of the Counts it goes with.
type Settlement struct {
	Spent            int64 // admitted by the instance alone while Redis was away
	PreviousSpent    int64
	Returned         int64 // granted by Redis but not used
	PreviousReturned int64
}

// Empty says that nothing is owed.
func (s Settlement) Empty() bool {
	return s.Spent == 0 && s.PreviousSpent == 0 && s.Returned == 0 && s.PreviousReturned == 0
}

// Shift is what s means once the windows have moved on by the given number:
// what belongs to windows that no longer count is dropped.
func (s Settlement) Shift(windows int64) Settlement {
	switch {
	case windows <= 0:
		return s
	case windows == 1:
		return Settlement{PreviousSpent: s.Spent, PreviousReturned: s.Returned}
	default:
		return Settlement{}
	}
}

// Plus adds what is owed in t, which goes with the same window.
func (s Settlement) Plus(t Settlement) Settlement {
	return Settlement{
		Spent:            s.Spent + t.Spent,
		PreviousSpent:    s.PreviousSpent + t.PreviousSpent,
		Returned:         s.Returned + t.Returned,
		PreviousReturned: s.PreviousReturned + t.PreviousReturned,
	}
}

// Ask is one reservation. Need and Extra are permits; Need is a multiple of
// Cost.
type Ask struct {
	Window    int64 // microseconds
	Limit     int64
	Cost      int64 // permits one request takes; only whole requests are granted (RULES 3)
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
	now = largest(now, base*w) // a clock that stepped back waits at the edge (RULES 36)

	owed = owed.Shift(base - seen.Index)
	seen = seen.At(base)
	kept := stored.At(base)
	merged := merge(kept, seen)
	if merged.Generation == seen.Generation {
		merged = settle(merged, owed)
	}
	changed = merged != kept

	grant.Need, grant.Extra = reserve(merged, ask, now)
	merged.Granted += grant.Need + grant.Extra
	grant.Counts = merged
	grant.Now = now
	return grant, changed || grant.Need+grant.Extra > 0
}

// reserve is what the rule grants of ask beside what c has in use.
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

// Answers tells whether the grant makes sense as an answer to ask: its counts
// could be those of a key and forget nothing that ask brought along, and it is
// what the rule gives beside them. Whoever answers otherwise, in the right shape
// or not, is not the script.
func (g Grant) Answers(ask Ask) bool {
	c := g.Counts
	if c.Granted > MaxCount || c.PreviousGranted > MaxCount || c.Generation < ask.Seen.Generation || c.Generation > MaxCount ||
		c.Returned < 0 || c.Returned > c.Granted || c.PreviousReturned < 0 || c.PreviousReturned > c.PreviousGranted ||
		g.Now < 0 || g.Now/ask.Window != c.Index || g.Need < 0 || g.Extra < 0 || g.Need > ask.Need || g.Extra > ask.Extra {
		return false
	}
	c.Granted -= g.Need + g.Extra // before the grant
	if c.Generation == ask.Seen.Generation {
		// What is granted comes on top of all that was seen and is owed: one who
		// counts it once would grant it for ever.
		granted, previous := ask.Seen.Granted+ask.Owed.Spent, ask.Seen.PreviousGranted+ask.Owed.PreviousSpent
		switch c.Index - ask.Seen.Index {
		case 0:
			if c.Granted < granted || c.Returned < ask.Seen.Returned || c.PreviousGranted < previous || c.PreviousReturned < ask.Seen.PreviousReturned {
				return false
			}
		case 1:
			if c.PreviousGranted < granted || c.PreviousReturned < ask.Seen.Returned {
				return false
			}
		}
	}
	if c.Granted < 0 {
		return false
	}
	need, extra := reserve(c, ask, g.Now)
	return g.Need == need && g.Extra == extra
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

// settle adds what is owed. A return never brings a window below zero.
func settle(c Counts, owed Settlement) Counts {
	c.Granted += owed.Spent
	c.PreviousGranted += owed.PreviousSpent
	c.Returned += smallest(owed.Returned, c.Current())
	c.PreviousReturned += smallest(owed.PreviousReturned, c.Previous())
	return c
}

// Used is the number of permits that count against limit at the given time,
// which lies in window c.Index: those of that window, and what the previous one
// still weighs, rounded up.
func Used(c Counts, window, limit, now int64) int64 {
	unit := Unit(largest(limit, c.Previous()), window)
	units := (window + unit - 1) / unit
	elapsed := (now - c.Index*window) / unit
	return c.Current() + (c.Previous()*(units-elapsed)+units-1)/units
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
