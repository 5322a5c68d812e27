package accuracy

import (
	"cmp"
	"hash/fnv"
	"math"
	"math/rand/v2"
	"slices"
	"sort"
	"time"
)

// quota is the limit that a table is about.
type quota struct {
	name   string
	limit  int64
	window time.Duration

	windows int // how many a synthetic traffic lasts
}

// rate is the requests a second that the quota allows in the long run.
func (q quota) rate() float64 { return float64(q.limit) / q.window.Seconds() }

// arrival is one request. No two of a traffic arrive at the same nanosecond:
// two events at one instant of virtual time would run in an order that nobody
// has chosen, and two runs would differ.
type arrival struct {
	at   time.Duration // since an instant at which a window begins
	key  int
	gate int // the gateway it goes to, if there are several
}

// traffic is what all subjects are given.
type traffic struct {
	name     string
	span     time.Duration // whole windows
	arrivals []arrival     // in order
	byKey    [][]int       // the indices of each key's arrivals, in order
}

// gateways that arrivals are spread over.
const gateways = 3

// clients of a traffic are independent of each other.
const clients = 10

// traffics are those that the rule is compared by, for one quota.
func traffics(q quota, seed uint64) []traffic {
	span := time.Duration(q.windows) * q.window
	all := []traffic{
		perClient("steady, 1.2 x the limit", span, seed, q, func(r *rand.Rand, send func(time.Duration)) {
			// Each within the first tenth of its gap: with gaps that are equal to
			// the nanosecond every request may fall on a limiter's rounding edge.
			gap := time.Duration(float64(time.Second) / (1.2 * q.rate()))
			for at := time.Duration(r.Int64N(int64(gap))); at < span-gap; at += gap {
				send(at + time.Duration(r.Int64N(int64(gap/10))))
			}
		}),
	}
	for _, p := range []struct {
		name string
		load float64
	}{
		{"Poisson, 0.5 x", 0.5}, {"Poisson, 0.9 x", 0.9}, {"Poisson, 1.0 x", 1}, {"Poisson, 1.1 x", 1.1}, {"Poisson, 2 x", 2},
	} {
		all = append(all, perClient(p.name, span, seed, q, func(r *rand.Rand, send func(time.Duration)) {
			poisson(r, p.load*q.rate(), 0, span, send)
		}))
	}
	return append(all,
		perClient("on-off, 5 x for 0.3 windows, then 0.9 of silence", span, seed, q, func(r *rand.Rand, send func(time.Duration)) {
			on, off := q.window*3/10, q.window*9/10
			for at := -time.Duration(r.Int64N(int64(on + off))); at < span; at += on + off {
				poisson(r, 5*q.rate(), max(at, 0), min(at+on, span), send)
			}
		}),
		perClient("window-edge attack", span, seed, q, edgeAttack(q, span)),
		perClient("honest bursts of the whole limit, 1.02 windows apart", span, seed, q, func(r *rand.Rand, send func(time.Duration)) {
			for at := time.Duration(0); at+q.window/100 < span; at += q.window * 102 / 100 {
				evenly(r, int(q.limit), at, at+q.window/100, send)
			}
		}),
		zipf(q, seed),
	)
}

// edgeAttack asks for twice the limit in the last hundredth of a window, whose
// predecessor was silent, and hammers through the next: what the rule is worst
// at (bounds.go).
func edgeAttack(q quota, span time.Duration) func(*rand.Rand, func(time.Duration)) {
	return func(r *rand.Rand, send func(time.Duration)) {
		for start := q.window; start+2*q.window <= span; start += 3 * q.window {
			edge := start + q.window
			evenly(r, int(2*q.limit), edge-q.window/100, edge, send)
			evenly(r, int(4*q.limit), edge, edge+q.window, send)
		}
	}
}

// zipf is 10,000 users of whom the n-th comes 1/n as often as the first; some
// twelve of them go beyond the limit.
func zipf(q quota, seed uint64) traffic {
	const users = 10_000
	span := time.Duration(q.windows/2) * q.window
	total := 120 * q.rate() // the first user then sends 12 x the limit
	cumulative := make([]float64, users)
	sum := 0.0
	for i := range cumulative {
		sum += 1 / float64(i+1)
		cumulative[i] = sum
	}
	name := "Zipf, 10,000 users"
	r := source(name, q, seed)
	var all []arrival
	poisson(r, total, 0, span, func(at time.Duration) {
		user := sort.SearchFloat64s(cumulative, r.Float64()*sum)
		all = append(all, arrival{at: at, key: min(user, users-1), gate: r.IntN(gateways)})
	})
	return newTraffic(name, span, all)
}

// perClient makes a traffic of independent clients, all of one behaviour.
func perClient(name string, span time.Duration, seed uint64, q quota, behave func(r *rand.Rand, send func(time.Duration))) traffic {
	r := source(name, q, seed)
	var all []arrival
	for key := range clients {
		behave(r, func(at time.Duration) {
			all = append(all, arrival{at: at, key: key, gate: r.IntN(gateways)})
		})
	}
	return newTraffic(name, span, all)
}

// source is a traffic's own random numbers: another traffic more or less
// changes none of its figures.
func source(name string, q quota, seed uint64) *rand.Rand {
	hash := fnv.New64a()
	hash.Write([]byte(q.name + "/" + name))
	return rand.New(rand.NewPCG(seed, hash.Sum64()))
}

// newTraffic sorts arrivals, keeps them apart and finds each key's own.
func newTraffic(name string, span time.Duration, all []arrival) traffic {
	slices.SortStableFunc(all, func(a, b arrival) int { return cmp.Compare(a.at, b.at) })
	keys := 0
	for i := range all {
		if i > 0 && all[i].at <= all[i-1].at {
			all[i].at = all[i-1].at + 1
		}
		keys = max(keys, all[i].key+1)
	}
	byKey := make([][]int, keys)
	for i, a := range all {
		byKey[a.key] = append(byKey[a.key], i)
	}
	return traffic{name: name, span: span, arrivals: all, byKey: byKey}
}

// poisson sends at random, at the given rate a second.
func poisson(r *rand.Rand, rate float64, from, to time.Duration, send func(time.Duration)) {
	for at := from; ; {
		at += time.Duration(math.Ceil(r.ExpFloat64() / rate * 1e9))
		if at >= to {
			return
		}
		send(at)
	}
}

// evenly sends n requests over a span, each at random within its n-th of it.
func evenly(r *rand.Rand, n int, from, to time.Duration, send func(time.Duration)) {
	step := (to - from) / time.Duration(n)
	for i := range n {
		send(from + time.Duration(i)*step + time.Duration(r.Int64N(int64(step))))
	}
}
