package window

import (
	"math/big"
	"testing"

	"pgregory.net/rapid"
)

const minute = int64(60e6)

func TestRule(t *testing.T) {
	const start = 1000 * minute
	for _, c := range []struct {
		name                string
		previous, current   int64
		elapsed             int64
		limit, cost         int64
		room                int64
		freeAfter           int64 // from the start of the window; -1: now
		needed, needGranted int64
	}{
		{name: "nothing used", limit: 100, cost: 1, room: 100, freeAfter: -1, needed: 5, needGranted: 5},
		{name: "the last permit", current: 99, limit: 100, cost: 1, room: 1, freeAfter: -1, needed: 2, needGranted: 1},
		{name: "full window frees with the next", current: 100, elapsed: minute / 2, limit: 100, cost: 1, room: 0, freeAfter: minute + minute/100, needed: 1},
		{name: "previous weighs by what is left of it", previous: 100, elapsed: minute / 4, limit: 100, cost: 1, room: 25, freeAfter: -1, needed: 30, needGranted: 25},
		{name: "previous fades", previous: 100, current: 50, elapsed: minute / 2, limit: 100, cost: 1, room: 0, freeAfter: minute * 51 / 100, needed: 1},
		{name: "only whole requests (design: whole-requests)", current: 7, limit: 10, cost: 2, room: 3, freeAfter: -1, needed: 4, needGranted: 2},
		{name: "free is when the whole cost is", current: 97, limit: 100, cost: 5, room: 3, freeAfter: minute + minute*2/97 + 1, needed: 5},
		{name: "over the limit after it was lowered", current: 500, limit: 100, cost: 1, room: 0, freeAfter: minute + minute - 99*minute/500, needed: 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			now := start + c.elapsed
			counts := Counts{Index: start / minute, Granted: c.current, PreviousGranted: c.previous}
			if room := Room(counts, minute, c.limit, now); room != c.room {
				t.Errorf("room %d, want %d", room, c.room)
			}
			want := now
			if c.freeAfter >= 0 {
				want = start + c.freeAfter
			}
			if free := FreeAt(counts, minute, c.limit, c.cost, now); free != want {
				t.Errorf("free after %d us, want %d", free-start, want-start)
			}
			grant, _ := Decide(counts, Ask{Window: minute, Limit: c.limit, Cost: c.cost, Need: c.needed, Instances: 1}, now)
			if grant.Need != c.needGranted {
				t.Errorf("granted %d of %d, want %d", grant.Need, c.needed, c.needGranted)
			}
		})
	}
}

// FreeAt is the first instant: the rule admits there and not a microsecond
// before. So it is for limits that are weighed in microseconds and for a billion
// a month.
func TestFreeAtIsFirst(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := rapid.OneOf(rapid.Int64Range(1e6, 1e9), rapid.Int64Range(1e9, 31*86400e6)).Draw(t, "window")
		limit := rapid.OneOf(rapid.Int64Range(1, 1000), rapid.Int64Range(1, MaxLimit)).Draw(t, "limit")
		cost := rapid.Int64Range(1, limit).Draw(t, "cost")
		index := rapid.Int64Range(1, 1e3).Draw(t, "index")
		c := Counts{
			Index:           index,
			Granted:         rapid.Int64Range(0, 2*limit).Draw(t, "current"),
			PreviousGranted: rapid.Int64Range(0, 2*limit).Draw(t, "previous"),
		}
		now := index*w + rapid.Int64Range(0, w-1).Draw(t, "elapsed")
		free := FreeAt(c, w, limit, cost, now)
		admits := func(at int64) bool { return Room(c.At(at/w), w, limit, at) >= cost }
		if !admits(free) {
			t.Fatalf("refuses at the instant %d", free-now)
		}
		if free > now && admits(free-1) {
			t.Fatalf("admits already at %d", free-1-now)
		}
	})
}

// However large the limit, the rule never admits what exact arithmetic would
// refuse, and is stricter by at most what fades in a unit of time.
func TestRoomAgainstExactArithmetic(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := rapid.SampledFrom([]int64{1e6, 60e6, 3600e6, 30 * 86400e6, 31 * 86400e6}).Draw(t, "window")
		limit := rapid.OneOf(rapid.Int64Range(1, 1e6), rapid.Int64Range(1, MaxLimit)).Draw(t, "limit")
		c := Counts{Index: 7, Granted: rapid.Int64Range(0, limit).Draw(t, "current"), PreviousGranted: rapid.Int64Range(0, 2*limit).Draw(t, "previous")}
		elapsed := rapid.Int64Range(0, w-1).Draw(t, "elapsed")
		exact := func(elapsed int64) *big.Int { // limit - current - previous*(w-elapsed)/w, in permits, rounded down
			if elapsed < 0 {
				elapsed = 0
			}
			free := new(big.Int).Mul(big.NewInt(limit-c.Granted), big.NewInt(w))
			free.Sub(free, new(big.Int).Mul(big.NewInt(c.PreviousGranted), big.NewInt(w-elapsed)))
			free.Div(free, big.NewInt(w))
			if free.Sign() < 0 {
				return new(big.Int)
			}
			return free
		}
		unit := Unit(largest(limit, c.PreviousGranted), w)
		room := big.NewInt(Room(c, w, limit, c.Index*w+elapsed))
		if room.Cmp(exact(elapsed)) > 0 || room.Cmp(exact(elapsed-2*unit)) < 0 {
			t.Fatalf("room %v, exact %v, two units of %d us before %v", room, exact(elapsed), unit, exact(elapsed-2*unit))
		}
		if limit <= 75_000_000 && w <= 60e6 && c.PreviousGranted <= 75_000_000 && (unit != 1 || room.Cmp(exact(elapsed)) != 0) {
			t.Fatalf("%d over %d us is not weighed in microseconds", limit, w)
		}
	})
}

// Returns never make room that was not there, and never go below zero.
func TestSettlementNeverMints(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		stored := drawCounts(t, "stored", 100)
		ask := Ask{
			Window: minute, Limit: 100, Cost: 1, Instances: 1, Seen: drawCounts(t, "seen", 100),
			Owed: Settlement{
				Returned:         rapid.Int64Range(0, 300).Draw(t, "returned"),
				PreviousReturned: rapid.Int64Range(0, 300).Draw(t, "previousReturned"),
			},
		}
		now := 100*minute + rapid.Int64Range(0, 3*minute).Draw(t, "now")
		grant, _ := Decide(stored, ask, now)
		if grant.Counts.Current() < 0 || grant.Counts.Previous() < 0 {
			t.Fatalf("below zero: %+v", grant.Counts)
		}
	})
}

func drawCounts(t *rapid.T, name string, around int64) Counts {
	granted := rapid.Int64Range(0, 200).Draw(t, name+".granted")
	previous := rapid.Int64Range(0, 200).Draw(t, name+".previous")
	return Counts{
		Generation:       rapid.Int64Range(0, 2).Draw(t, name+".generation"),
		Index:            around + rapid.Int64Range(-2, 4).Draw(t, name+".index"),
		Granted:          granted,
		Returned:         rapid.Int64Range(0, granted).Draw(t, name+".returned"),
		PreviousGranted:  previous,
		PreviousReturned: rapid.Int64Range(0, previous).Draw(t, name+".previousReturned"),
	}
}
