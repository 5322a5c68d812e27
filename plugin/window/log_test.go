package window

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

var schedules = flag.Int("schedules", 3000, "how many schedules each of the log rule's tests plays")

// gateway is one that asks by the log rule and remembers what it was told.
type gateway struct{ seen Counts }

func (g *gateway) ask(stored *Counts, limit, w, cost, need, now int64) Grant {
	ask := Ask{Window: w, Limit: limit, Cost: cost, Need: need, Instances: 3, Seen: g.seen}
	grant, changed := Decide(*stored, ask, now)
	if changed {
		*stored = grant.Counts
	}
	g.seen = grant.Counts
	if Exact(limit, w) && !Answers(&grant, &ask) {
		panic(fmt.Sprintf("%+v makes no sense as an answer to %+v", grant, ask))
	}
	return grant
}

// spree is when somebody who wants more than the limit asks next.
func spree(r *rand.Rand, now, w, limit int64, stored Counts, adversarial bool) int64 {
	if !adversarial {
		return now + int64(r.ExpFloat64()*float64(w)/float64(limit)/2)
	}
	end := now/w*w + w
	switch r.IntN(6) {
	case 0:
		return end - 1 - r.Int64N(3) // the last moments of a window
	case 1:
		return end + r.Int64N(3) // and the first of the next
	case 2:
		return now + w - 1 + r.Int64N(3)
	case 3:
		return FreeAt(stored, w, limit, 1, now) - 1 + r.Int64N(3)
	case 4:
		return now + r.Int64N(w)
	}
	return now
}

// Never more than the limit in any interval of the window's length, by Redis's
// clock: half-open ones, as the rule counts them.
func TestLogNeverOver(t *testing.T) {
	for _, adversarial := range []bool{false, true} {
		name := "random"
		if adversarial {
			name = "adversarial"
		}
		t.Run(name, func(t *testing.T) {
			granted, full, denied := 0, 0, 0
			for n := range *schedules {
				r := rand.New(rand.NewPCG(uint64(n), 14))
				limit := []int64{1, 2, 3, 10, 64}[r.IntN(5)]
				w := []int64{10e6, 60e6, 900e6, 86400e6}[r.IntN(4)]
				gateways := make([]gateway, 1+2*r.IntN(2))
				var stored Counts
				var grants []int64 // an instant for each permit
				now := 1_700_000_000e6 + r.Int64N(w)
				for range 2*limit + 20 {
					now = max(now, spree(r, now, w, limit, stored, adversarial))
					cost := int64(1)
					if r.IntN(4) == 0 {
						cost = 1 + r.Int64N(limit)
					}
					waiting := 1 + r.Int64N(3)
					g := gateways[r.IntN(len(gateways))].ask(&stored, limit, w, cost, cost*waiting, now)
					for range g.Need {
						grants = append(grants, now)
					}
					if g.Need == cost*waiting {
						continue
					}
					// Retry-After is exact: at that instant the request is admitted, and not
					// a microsecond before.
					denied++
					free := FreeAt(g.Counts, w, limit, cost, g.Now)
					if at, _ := Decide(stored, Ask{Window: w, Limit: limit, Cost: cost, Need: cost, Instances: 1}, free); at.Need != cost {
						t.Fatalf("schedule %d: refused at the instant %d that was named at %d; %+v", n, free, now, stored)
					}
					if at, _ := Decide(stored, Ask{Window: w, Limit: limit, Cost: cost, Need: cost, Instances: 1}, free-1); free > now && at.Need != 0 {
						t.Fatalf("schedule %d: admitted before the instant %d that was named at %d; %+v", n, free, now, stored)
					}
				}
				for i := range grants {
					if j := i + int(limit); j < len(grants) && grants[j]-grants[i] < w {
						t.Fatalf("schedule %d: %d permits of %d in %d us of %d", n, limit+1, limit, grants[j]-grants[i]+1, w)
					}
					if j := i + int(limit) - 1; j < len(grants) && grants[j]-grants[i] < w {
						full++
					}
				}
				granted += len(grants)
			}
			t.Logf("%d schedules: %d permits, %d intervals with the whole limit in them, %d requests denied", *schedules, granted, full, denied)
			if full == 0 || denied == 0 {
				t.Error("nothing was at its limit")
			}
		})
	}
}

// Whoever stays 1% below a limit that is counted by a log, or two requests a window
// below another, evenly spaced, is never refused, over any number of gateways.
func TestHonestClientIsNeverRefused(t *testing.T) {
	for n := range *schedules / 10 {
		r := rand.New(rand.NewPCG(uint64(n), 41))
		limit := []int64{1, 2, 3, 10, 64, 65, 100, 1000}[r.IntN(8)]
		w := []int64{1e6, 10e6, 60e6, 86400e6}[r.IntN(4)]
		if w == 1e6 && limit < 3 {
			continue
		}
		gap := (w + limit - 3) / max(1, limit-2)
		if Exact(limit, w) {
			gap = (w*101/100 + limit - 1) / limit
		}
		gateways := make([]gateway, 1+r.IntN(10))
		var stored Counts
		now := 1_700_000_000e6 + r.Int64N(w)
		for i := range 200 {
			if g := gateways[r.IntN(len(gateways))].ask(&stored, limit, w, 1, 1, now); g.Need != 1 {
				t.Fatalf("schedule %d: request %d, one each %d us, is refused under %d in %d us", n, i, gap, limit, w)
			}
			now += gap
		}
	}
}

// A store that forgets learns again what any gateway has seen, whoever speaks
// first: afterwards it counts every permit that one of them knows, and each once
// (I8). A store that forgets nothing never counts a permit again that was given
// back, whatever old memories it is told.
func TestLogForgetsNothing(t *testing.T) {
	forgot, returned := 0, 0
	for n := range *schedules {
		r := rand.New(rand.NewPCG(uint64(n), 8))
		const limit, w = 64, int64(60e6)
		forgets := n%2 == 0
		gateways := make([]gateway, 3)
		var stored Counts
		now := int64(1_700_000_000e6) + r.Int64N(w)
		known := map[int64]bool{} // by any gateway, and not given back
		met := 7                  // who has spoken to the store since it forgot, a bit each
		for range 40 {
			now += r.Int64N(w / 50)
			if forgets && r.IntN(10) == 0 {
				if r.IntN(2) == 0 {
					stored = Counts{} // FLUSHALL
				} else {
					stored = gateways[r.IntN(3)].seen // a replica that lagged
				}
				forgot++
				met = 0
			}
			i := r.IntN(3)
			g := &gateways[i]
			if back := g.seen.Instants; !forgets && len(back) > 0 && r.IntN(3) == 0 {
				at := back[r.IntN(len(back))]
				if known[at] && at > now-w {
					delete(known, at)
					returned++
					grant, _ := Decide(stored, Ask{Window: w, Limit: limit, Cost: 1, Instances: 3, Seen: g.seen, Owed: Settlement{ReturnedAt: []int64{at}}}, now)
					stored, g.seen = grant.Counts, grant.Counts
				}
			}
			if got := g.ask(&stored, limit, w, 1, 1, now); got.Need == 1 {
				known[g.seen.Instants[len(g.seen.Instants)-1]] = true
			}
			if met |= 1 << i; met != 7 {
				continue
			}
			for at := range known {
				if at <= now-w {
					delete(known, at)
				} else if !slices.Contains(stored.Instants, at) && at > stored.Instants[0] {
					t.Fatalf("schedule %d: the permit of %d is forgotten: %+v", n, at, stored)
				}
			}
			if len(stored.Instants) > len(known) {
				t.Fatalf("schedule %d: %d permits are counted, %d count", n, len(stored.Instants), len(known))
			}
		}
	}
	t.Logf("%d schedules: forgotten %d times, %d permits given back", *schedules, forgot, returned)
}

// A user who changes between a tier that is counted by a log and one that is not
// keeps what was counted under either: neither rule ever grants what it would not
// have granted had it counted everything itself.
func TestTiersKeepWhatWasCounted(t *testing.T) {
	small, large := 0, 0
	for n := range *schedules {
		r := rand.New(rand.NewPCG(uint64(n), 65))
		w := []int64{10e6, 60e6}[r.IntN(2)]
		var stored Counts
		gateways := make([]gateway, 2)
		var grants []int64
		now := 1_700_000_000e6 + r.Int64N(w)
		for range 60 {
			limit := []int64{10, 64, 100}[r.IntN(3)]
			now = max(now, spree(r, now, w, limit, Counts{}, r.IntN(2) == 0))
			g := gateways[r.IntN(2)].ask(&stored, limit, w, 1, 1+r.Int64N(12), now)
			if g.Need == 0 {
				continue
			}
			within := g.Need
			c := Counts{Index: now / w}
			for _, at := range grants {
				if at > now-w {
					within++
				}
				if at/w == c.Index {
					c.Granted++
				} else if at/w == c.Index-1 {
					c.PreviousGranted++
				}
			}
			if limit <= MaxExact {
				small++
				if within > limit {
					t.Fatalf("schedule %d: %d permits in %d us, granted under %d", n, within, w, limit)
				}
			} else {
				large++
				if room := Room(c, w, limit, now); g.Need > room {
					t.Fatalf("schedule %d: granted %d under %d, where there is room for %d", n, g.Need, limit, room)
				}
			}
			for range g.Need {
				grants = append(grants, now)
			}
		}
	}
	if small == 0 || large == 0 {
		t.Errorf("%d grants by the log, %d by the counter", small, large)
	}
}

// The parts of all instances are never less than what all had spent, and as little
// more as rounding demands, at every instant until the last permit has come free.
func TestLocalByInstants(t *testing.T) {
	for n := range *schedules {
		r := rand.New(rand.NewPCG(uint64(n), 3))
		const w = int64(60e6)
		limit, instances := 1+r.Int64N(MaxExact), 1+r.Int64N(5)
		now := 1_700_000_000e6 + r.Int64N(w)
		seen := Counts{Index: now / w, History: 1}
		for range r.Int64N(limit + 1) {
			seen.Instants = insert(seen.Instants, now-r.Int64N(w))
		}
		for range 5 {
			used := usedLog(seen.Instants, w, now)
			parts := int64(0)
			for rank := range instances {
				share := limit / instances
				if rank < limit%instances {
					share++
				}
				c := Local(seen, &Settlement{}, &Settlement{}, limit, share, w, now)
				part := Used(c, w, share, now)
				if part > share {
					t.Fatalf("%d of %d are %d of a share of %d", used, limit, part, share)
				}
				parts += part
			}
			if parts < used || parts >= used+instances {
				t.Fatalf("%d of %d are %d for %d instances", used, limit, parts, instances)
			}
			now += w / 5
			seen = seen.At(now / w)
		}
	}
}
