package limit

import (
	"context"
	"errors"
	"fmt"
	"math/rand"
	"sync"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/plugin/window"
)

// settledAfter is when nothing unspent is left in any lease.
const settledAfter = 1500 * time.Millisecond

func (i *instance) ask(name string, span time.Duration, key string, limit, cost int64) Ask {
	return Ask{Limiter: i.engine.Limiter(name, span, 1000), Key: Key(UserKey, key), Limit: limit, Cost: cost}
}

// A client that stays 1% below a small limit, or two requests a window below
// another, is never refused, over however many gateways its requests go.
func TestHonestClientIsNeverRefused(t *testing.T) {
	for _, limit := range []int64{1, 2, 3, 10, 64, 65, 1000} {
		for _, span := range []time.Duration{10 * time.Second, time.Minute} {
			for _, instances := range []int{1, 3} {
				simulate(t, limit, instances, func(w *world, gates []*instance) {
					gap := span / time.Duration(limit) * 101 / 100
					if limit > window.MaxExact {
						gap = span / time.Duration(limit-2)
					}
					for n := range 200 {
						g := gates[n%instances]
						if ok, _ := g.request([]Ask{g.ask("l", span, "u", limit, 1)}); !ok {
							t.Errorf("limit %d in %s over %d gateways: request %d is refused", limit, span, instances, n)
							return
						}
						time.Sleep(gap)
					}
				})
			}
		}
	}
}

// With Redis healthy no schedule of traffic, costs, instances, latencies and
// crashes admits more than the rule does.
func TestI1NeverOver(t *testing.T) {
	for seed := int64(1); seed <= 12; seed++ {
		r := rand.New(rand.NewSource(seed))
		instances := []int{1, 3, 10}[r.Intn(3)]
		limit := []int64{1, 5, 20, 100, 1000}[r.Intn(5)]
		span := []time.Duration{time.Second, 2 * time.Second, 10 * time.Second}[r.Intn(3)]
		over := []float64{0.5, 0.95, 1.2, 3, 50}[r.Intn(5)]
		costs := []int64{1}
		if limit >= 20 && r.Intn(2) == 0 {
			costs = []int64{1, 2, 7}
		}
		t.Run(fmt.Sprintf("seed %d: %d instances, %d in %s, load %.2f, costs %v", seed, instances, limit, span, over, costs), func(t *testing.T) {
			simulate(t, seed, instances, func(w *world, gates []*instance) {
				ctx, cancel := context.WithTimeout(context.Background(), 5*span)
				defer cancel()
				w.traffic(ctx, poisson(over*float64(limit)/span.Seconds()), func(r *rand.Rand) {
					i := gates[r.Intn(len(gates))]
					i.request([]Ask{i.ask("l", span, fmt.Sprint("user", r.Intn(2)), limit, costs[r.Intn(len(costs))])})
				})
				if n := w.degraded(gates); n != 0 {
					t.Fatalf("%d degraded decisions with Redis healthy", n)
				}
				if err := errors.Join(overLimit(w.admissions(), window.Span(span)), w.spentLate()); err != nil {
					t.Error(err)
				}
				if len(w.admissions()) == 0 {
					t.Error("nothing was admitted")
				}
			})
		})
	}
}

// A parallel burst over a fresh window admits exactly the limit.
func TestI1BurstIsExact(t *testing.T) {
	for _, limit := range []int64{1, 7, 100} {
		t.Run(fmt.Sprint(limit), func(t *testing.T) {
			simulate(t, limit, 3, func(w *world, gates []*instance) {
				const span = 10 * time.Second
				time.Sleep(span - time.Duration(w.clock()%window.Span(span))*time.Microsecond)
				var all sync.WaitGroup
				for n := int64(0); n < 50*limit; n++ {
					all.Add(1)
					go func() {
						defer all.Done()
						i := gates[int(n)%len(gates)]
						i.request([]Ask{i.ask("l", span, "u", limit, 1)})
					}()
				}
				all.Wait()
				if got := int64(len(w.admissions())); got != limit {
					t.Errorf("admitted %d, want exactly %d", got, limit)
				}
			})
		})
	}
}

// Against one machine that sees every request and answers at once, the net
// shortfall of admitted cost is at most 0.5% of the limit a window.
func TestI2HardlyUnder(t *testing.T) {
	if testing.Short() {
		t.Skip("a long simulation")
	}
	type load struct {
		name      string
		limit     int64
		span      time.Duration
		instances int
		gap       func(limit int64, span time.Duration) func(*rand.Rand) time.Duration
		cost      int64
	}
	around := func(share float64) func(int64, time.Duration) func(*rand.Rand) time.Duration {
		return func(limit int64, span time.Duration) func(*rand.Rand) time.Duration {
			return poisson(share * float64(limit) / span.Seconds())
		}
	}
	for _, l := range []load{
		{"just below the limit", 100, 10 * time.Second, 3, around(0.95), 1},
		{"at twice the limit", 100, 10 * time.Second, 3, around(2), 1},
		{"ten times, ten instances", 1000, 10 * time.Second, 10, around(10), 1},
		{"a short window", 50, time.Second, 3, around(2), 1},
		{"cost 5 at twice the limit (design: whole-requests)", 100, 10 * time.Second, 3, around(0.4), 5},
	} {
		t.Run(l.name, func(t *testing.T) {
			simulate(t, 7, l.instances, func(w *world, gates []*instance) {
				const windows = 20
				w.mu.Lock()
				w.latency = func(*rand.Rand) time.Duration { return 400 * time.Microsecond }
				w.mu.Unlock()
				time.Sleep(l.span - time.Duration(w.clock()%window.Span(l.span))*time.Microsecond)
				var mu sync.Mutex
				var single window.Counts
				wanted := int64(0)
				ctx, cancel := context.WithTimeout(context.Background(), windows*l.span)
				defer cancel()
				w.traffic(ctx, l.gap(l.limit, l.span), func(r *rand.Rand) {
					mu.Lock()
					span := window.Span(l.span)
					g, changed := window.Decide(single, window.Ask{Window: span, Limit: l.limit, Cost: l.cost, Need: l.cost, Instances: 1}, w.clock())
					if changed {
						single = g.Counts
					}
					wanted += g.Need
					mu.Unlock()
					i := gates[r.Intn(len(gates))]
					i.request([]Ask{i.ask("l", l.span, "u", l.limit, l.cost)})
				})
				got := int64(len(w.admissions())) * l.cost
				short := float64(wanted-got) / float64(l.limit*windows)
				t.Logf("admitted %d, one machine %d: %.2f%% of the limit short; %d calls for %d requests", got, wanted, 100*short, w.callCount(), len(w.admissions())+w.denials())
				if short > 0.005 {
					t.Errorf("%.2f%% of the limit short, want at most 0.5%%", 100*short)
				}
			})
		})
	}
}

// A key that is denied asks Redis no more until something can come free, and
// then at most once a pace.
func TestI3DeniedIsFree(t *testing.T) {
	simulate(t, 1, 1, func(w *world, gates []*instance) {
		const span = 20 * time.Second
		g := gates[0]
		time.Sleep(span - time.Duration(w.clock()%window.Span(span))*time.Microsecond)
		for n := 0; n < 12; n++ {
			g.request([]Ask{g.ask("l", span, "u", 10, 1)})
		}
		time.Sleep(300 * time.Millisecond) // unspent permits are back
		g.request([]Ask{g.ask("l", span, "u", 10, 1)})
		before, denied := w.callCount(), w.denials()
		ok, answers := g.request([]Ask{g.ask("l", span, "u", 10, 1)})
		for n := 0; n < 1000; n++ {
			g.request([]Ask{g.ask("l", span, "u", 10, 1)})
		}
		if ok || w.denials() != denied+1001 {
			t.Fatal("admitted beyond the limit")
		}
		if w.callCount() != before {
			t.Errorf("%d calls for 1,001 denied requests", w.callCount()-before)
		}
		if wait := answers[0].RetryAfter; wait < 19*time.Second || wait > 22*time.Second {
			t.Errorf("Retry-After %s; the window of 20 s has just begun, and 10%% of the next has to pass", wait)
		}
	})
}

// A hot key below half its limit costs about 20 calls a second and instance, and
// about 4 where a lease of five horizons is a small part of the room.
func TestI4HotIsCheap(t *testing.T) {
	for _, c := range []struct {
		span  time.Duration
		limit int64
		most  float64 // calls a second, of which two are the heartbeat's
	}{{time.Second, 5000, 26}, {time.Minute, 1_000_000, 8}} {
		simulate(t, 1, 1, func(w *world, gates []*instance) {
			g := gates[0]
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			defer cancel()
			before := w.callCount()
			w.traffic(ctx, poisson(2000), func(*rand.Rand) { g.request([]Ask{g.ask("l", c.span, "u", c.limit, 1)}) })
			calls := float64(w.callCount()-before) / 10
			t.Logf("limit %d a %v: %.1f calls a second for %d requests", c.limit, c.span, calls, len(w.admissions()))
			if calls > c.most {
				t.Errorf("limit %d a %v: %.1f calls a second", c.limit, c.span, calls)
			}
		})
	}
}

// At the limit: at most one call a permit, and at most 400 a window.
func TestI4AtTheLimit(t *testing.T) {
	simulate(t, 1, 1, func(w *world, gates []*instance) {
		g := gates[0]
		const span, windows = 10 * time.Second, 4
		ctx, cancel := context.WithTimeout(context.Background(), windows*span)
		defer cancel()
		before := w.callCount()
		w.traffic(ctx, poisson(1000), func(*rand.Rand) { g.request([]Ask{g.ask("l", span, "u", 1000, 1)}) })
		calls := w.callCount() - before - 2*windows*10 // less the heartbeat
		t.Logf("%d calls in %d windows for %d admitted and %d denied", calls, windows, len(w.admissions()), w.denials())
		if calls > 400*windows {
			t.Errorf("%d calls in %d windows", calls, windows)
		}
		if calls > len(w.admissions()) {
			t.Errorf("%d calls for %d permits", calls, len(w.admissions()))
		}
	})
}

// Redis away: nobody waits longer than the timeout, the instances together
// admit no more than the limit, from what was known when it went, and what
// they admitted is in Redis when it is back.
func TestI5Outage(t *testing.T) {
	const span, limit = 10 * time.Second, 90
	simulate(t, 1, 3, func(w *world, gates []*instance) {
		time.Sleep(span - time.Duration(w.clock()%window.Span(span))*time.Microsecond)
		for n := 0; n < 30; n++ { // every instance knows of 30
			g := gates[n%3]
			g.request([]Ask{g.ask("l", span, "u", limit, 1)})
			time.Sleep(120 * time.Millisecond)
		}
		w.setDown(true)
		longest := time.Duration(0)
		for n := 0; n < 600; n++ {
			g := gates[n%3]
			began := time.Now()
			g.request([]Ask{g.ask("l", span, "u", limit, 1)})
			if d := time.Since(began); d > longest {
				longest = d
			}
		}
		if longest > 25*time.Millisecond {
			t.Errorf("a request waited %s", longest)
		}
		if got := len(w.admissions()); got > limit || got < limit-6 {
			t.Errorf("admitted %d through the outage, want about %d and not more", got, limit)
		}
		w.setDown(false)
		time.Sleep(settledAfter)
		g := gates[0]
		key := g.ask("l", span, "u", limit, 1)
		stored := w.stored(key.Limiter.redisKey(key.Key))
		if used := stored.At(w.clock() / window.Span(span)).Current(); used != int64(len(w.admissions())) {
			t.Errorf("Redis knows of %d permits, %d were used", used, len(w.admissions()))
		}
	})
}

// Permits that lie in a lease when Redis goes, and cannot be given back, are
// this instance's to spend: one gateway alone admits exactly the limit.
func TestI5OutageWithAnUnspentLease(t *testing.T) {
	const span, limit = time.Hour, 80
	simulate(t, 1, 1, func(w *world, gates []*instance) {
		g := gates[0]
		for n := 0; n < 30; n++ {
			g.request([]Ask{g.ask("l", span, "u", limit, 1)})
			time.Sleep(time.Millisecond)
		}
		w.setDown(true)
		time.Sleep(300 * time.Millisecond) // the lease is swept, with nobody to give it back to
		for n := 0; n < 90; n++ {
			g.request([]Ask{g.ask("l", span, "u", limit, 1)})
		}
		if got := len(w.admissions()); got != limit {
			t.Errorf("admitted %d through the outage, want exactly %d", got, limit)
		}
		w.setDown(false)
		time.Sleep(settledAfter)
		if used := w.stored(g.ask("l", span, "u", limit, 1).Limiter.redisKey("uu")).Current(); used != limit {
			t.Errorf("Redis counts %d of %d", used, limit)
		}
	})
}

// Without Redis a hot key is served from memory as with it: few of its requests
// ask for the rule, every one counts as degraded, and neither the shares nor
// what Redis is told in the end differ by a permit.
func TestI5HotWithoutRedis(t *testing.T) {
	const span, limit, rounds = time.Hour, 3000, 6000
	for name, mixed := range map[string]bool{"one policy": false, "policies that differ": true} {
		t.Run(name, func(t *testing.T) {
			simulate(t, 1, 3, func(w *world, gates []*instance) {
				ask := gates[0].ask("l", span, "u", limit, 1)
				for _, g := range gates {
					l := g.ask("l", span, "u", limit, 1).Limiter
					l.Use(Policy{})
					if mixed {
						l.Use(Policy{OnFailure: Deny})
					}
				}
				w.setDown(true)
				fromMemory, unused := 0, 0
				for n := 0; n < rounds; n++ {
					g := gates[n%3]
					ok, answers := g.request([]Ask{g.ask("l", span, "u", limit, 1)})
					if a := answers[0]; ok && a.lease != nil {
						fromMemory++
						if unused == 0 && n > rounds/4 { // one that is not used after all
							g.engine.GiveBack(&answers[0])
							unused = 1
						}
					}
					time.Sleep(time.Millisecond)
					if n%300 == 299 {
						time.Sleep(time.Duration(4 * sweepEvery)) // what was set aside lies unused
					}
				}
				if part := float64(fromMemory) / limit; mixed != (part == 0) || !mixed && part < 0.8 {
					t.Errorf("%.2f of the permits came from memory", part)
				}
				if got := len(w.admissions()); got != limit+unused {
					t.Errorf("admitted %d, want %d and %d that was given back", got, limit, unused)
				}
				if got := w.degraded(gates); got != rounds {
					t.Errorf("%d decisions count as degraded, %d were", got, rounds)
				}
				w.setDown(false)
				time.Sleep(settledAfter)
				if used := w.stored(ask.Limiter.redisKey(ask.Key)).Current(); used != limit {
					t.Errorf("Redis counts %d of %d", used, limit)
				}
			})
		})
	}
}

// A grant that comes while permits are set aside takes their place, and loses
// none of them.
func TestI5LateGrantWhilePermitsAreSetAside(t *testing.T) {
	const span, limit = time.Hour, 3000
	simulate(t, 1, 1, func(w *world, gates []*instance) {
		g := gates[0]
		set := func(down bool, slow time.Duration) { // connections stay
			w.mu.Lock()
			w.down, w.slow = down, slow
			w.mu.Unlock()
		}
		set(false, time.Duration(leaseLife/2))
		for n := 0; n < 4000; n++ {
			g.request([]Ask{g.ask("l", span, "u", limit, 1)}) // the first waits for its timeout, and is answered half a second later
			time.Sleep(time.Millisecond)
			set(n < 3000, 0)
		}
		if got := len(w.admissions()); got > limit || got < limit-2 {
			t.Errorf("admitted %d of %d", got, limit)
		}
	})
}

// A reset voids what was set aside before it: Redis would never hear of it.
func TestI5ResetWhilePermitsAreSetAside(t *testing.T) {
	const span, limit = time.Hour, 100_000
	simulate(t, 1, 1, func(w *world, gates []*instance) {
		g := gates[0]
		ask := g.ask("l", span, "u", limit, 1)
		key := ask.Limiter.redisKey(ask.Key)
		use := func(times int) {
			for range times {
				g.request([]Ask{ask})
				time.Sleep(time.Millisecond)
			}
		}
		use(1) // the key is known from before the reset
		w.setDown(true)
		use(1000)
		w.reset(key, ask.Limiter.window, window.Counts{Generation: 1})
		w.setDown(false)
		use(100) // Redis is heard of again
		before := len(w.admissions())
		use(500)
		after := len(w.admissions()) - before
		time.Sleep(settledAfter)
		if used := w.stored(key).Current(); used < int64(after) {
			t.Errorf("Redis counts %d of %d that were admitted since it is back", used, after)
		}
	})
}

// What was admitted without Redis is reported though the key had been reset
// before this instance ever heard of it, and what was only set aside is not.
func TestI5ReportAfterAResetNobodyTold(t *testing.T) {
	const span, limit = time.Hour, 100_000
	simulate(t, 1, 1, func(w *world, gates []*instance) {
		g := gates[0]
		ask := g.ask("l", span, "u", limit, 1)
		key := ask.Limiter.redisKey(ask.Key)
		w.reset(key, ask.Limiter.window, window.Counts{Generation: 3, Granted: 2})
		w.setDown(true)
		for range 200 {
			g.request([]Ask{ask})
			time.Sleep(time.Millisecond)
		}
		w.setDown(false)
		time.Sleep(settledAfter)
		if used := w.stored(key).Current(); used != 2+int64(len(w.admissions())) {
			t.Errorf("Redis counts %d, want 2 and the %d that were admitted without it", used, len(w.admissions()))
		}
	})
}

// A Redis that comes back only to lose every report does not hand out the
// shares again: what an instance admitted alone counts in full against its
// share, reported or not. And once Redis listens, it is told of at least what
// the best informed admitted: nobody can know which of the lost reports ran.
func TestI5FlappingRedis(t *testing.T) {
	t.Run("by the counter", func(t *testing.T) { flapping(t, 90) })
	t.Run("by the log", func(t *testing.T) { flapping(t, 60) })
}

func flapping(t *testing.T, limit int64) {
	const span = time.Hour
	simulate(t, 1, 3, func(w *world, gates []*instance) {
		deaf := func(is bool) {
			w.mu.Lock()
			w.deaf = is
			w.mu.Unlock()
		}
		deaf(true)
		for round := 0; round < 6; round++ {
			w.setDown(true)
			for n := 0; n < 120; n++ {
				g := gates[n%3]
				g.request([]Ask{g.ask("l", span, "u", limit, 1)})
			}
			w.setDown(false)
			time.Sleep(1300 * time.Millisecond) // reports leave, and are lost
		}
		if got := int64(len(w.admissions())); got != limit {
			t.Errorf("admitted %d through six outages, want the shares' sum of %d", got, limit)
		}
		deaf(false)
		time.Sleep(3 * time.Second)
		if used := w.stored(gates[0].ask("l", span, "u", limit, 1).Limiter.redisKey("uu")).Current(); used < limit/3 {
			t.Errorf("Redis was told of %d in the end, want at least what one instance admitted", used)
		}
	})
}

// A grant whose reply comes after its window's end is dead, and so is what it
// said of the room: those who wait for it are served by the next window.
func TestI2ReplyAfterTheWindowsEnd(t *testing.T) {
	const span, limit = 9 * time.Second, 20
	simulate(t, 1, 1, func(w *world, gates []*instance) {
		g := gates[0]
		w.mu.Lock()
		w.latency = func(*rand.Rand) time.Duration { return 8 * time.Millisecond }
		w.mu.Unlock()
		toEdge := func() time.Duration { return span - time.Duration(w.clock()%window.Span(span))*time.Microsecond }
		time.Sleep(toEdge())
		for n := 0; n < 7; n++ {
			g.request([]Ask{g.ask("l", span, "u", limit, 1)})
		}
		time.Sleep(toEdge() - 13*time.Millisecond)
		// The first asks 13 ms before the edge and is answered 5 ms before it.
		// The others wait for that answer, ask together, are granted 12 in this
		// window and answered in the next.
		var all sync.WaitGroup
		for n := 0; n < 30; n++ {
			all.Add(1)
			go func() {
				defer all.Done()
				g.request([]Ask{g.ask("l", span, "u", limit, 1)})
			}()
		}
		all.Wait()
		if got := len(w.admissions()); got != limit {
			t.Errorf("admitted %d; 8 in one window leave 12 to the start of the next", got)
		}
	})
}

// Started while Redis is away, an instance that knows nobody takes a share of
// minInstances.
func TestI5StartedDuringTheOutage(t *testing.T) {
	simulate(t, 1, 0, func(w *world, _ []*instance) {
		w.setDown(true)
		admitted := 0
		for i := 0; i < 3; i++ {
			g := w.join(fmt.Sprint("late", i), Policy{MinInstances: 3})
			for n := 0; n < 100; n++ {
				if ok, _ := g.request([]Ask{g.ask("l", 10*time.Second, "u", 31, 1)}); ok {
					admitted++
				}
			}
			defer g.leave()
		}
		if admitted != 30 { // nobody vouches for the remainder
			t.Errorf("three instances admitted %d of 31", admitted)
		}
	})
}

// A Redis that answers too late is away for those who wait, but what it
// granted is not lost: it fills the lease.
func TestI5LateGrantFillsTheLease(t *testing.T) {
	simulate(t, 1, 1, func(w *world, gates []*instance) {
		g := gates[0]
		w.mu.Lock()
		w.slow = 200 * time.Millisecond
		w.mu.Unlock()
		began := time.Now()
		_, answers := g.request([]Ask{g.ask("l", 10*time.Second, "u", 100, 1)})
		if waited := time.Since(began); waited != 25*time.Millisecond || !answers[0].Degraded {
			t.Errorf("waited %s, degraded %v; want the timeout, then the fallback", waited, answers[0].Degraded)
		}
		time.Sleep(185 * time.Millisecond)
		if _, answers = g.request([]Ask{g.ask("l", 10*time.Second, "u", 100, 1)}); answers[0].Degraded {
			t.Error("the late grant is not in the lease")
		}
	})
}

// An answer that was long under way says little about Redis's clock: by it the
// fallback would begin windows early and give each share out anew.
func TestI5LateAnswersDoNotMoveTheClock(t *testing.T) {
	simulate(t, 1, 1, func(w *world, gates []*instance) {
		g := gates[0]
		g.request([]Ask{g.ask("l", time.Second, "u", 100, 1)})
		w.mu.Lock()
		w.latency = func(*rand.Rand) time.Duration { return 1800 * time.Millisecond }
		w.mu.Unlock()
		for range 3 {
			g.request([]Ask{g.ask("l", time.Second, "u", 100, 1)})
			time.Sleep(2 * time.Second)
			if off := redisNow(g) - w.clock(); off < -25_000 || off > 25_000 {
				t.Fatalf("the gateway's idea of Redis's clock is off by %v", time.Duration(off)*time.Microsecond)
			}
		}
	})
}

// Several limits: a permit from each or from none, and where one denies, the
// others do not bleed (design: co-limits).
func TestI7AllOrNothing(t *testing.T) {
	const wide, narrow = 10 * time.Second, 5 * time.Second
	simulate(t, 3, 3, func(w *world, gates []*instance) {
		both := func(g *instance) []Ask {
			return []Ask{g.ask("wide", wide, "u", 1000, 1), g.ask("narrow", narrow, "u", 5, 1)}
		}
		time.Sleep(wide - time.Duration(w.clock()%window.Span(wide))*time.Microsecond)
		ctx, cancel := context.WithTimeout(context.Background(), 4*time.Second)
		defer cancel()
		w.traffic(ctx, poisson(200), func(r *rand.Rand) {
			g := gates[r.Intn(3)]
			g.request(both(g))
		})
		time.Sleep(settledAfter)
		admitted := int64(len(w.admissions()) / 2)
		if admitted != 5 {
			t.Errorf("admitted %d, want 5", admitted)
		}
		g := gates[0]
		ask := both(g)[0]
		if used := w.stored(ask.Limiter.redisKey(ask.Key)).At(w.clock() / window.Span(wide)).Current(); used != admitted {
			t.Errorf("the wide limit lost %d permits for %d admitted requests", used, admitted)
		}
	})
}

// FLUSHALL under traffic: Redis learns again from what the instances know.
func TestI8RedisForgets(t *testing.T) {
	const span, limit = 20 * time.Second, 100
	simulate(t, 5, 3, func(w *world, gates []*instance) {
		time.Sleep(span - time.Duration(w.clock()%window.Span(span))*time.Microsecond)
		send := func(n int) {
			for ; n > 0; n-- {
				g := gates[n%3]
				g.request([]Ask{g.ask("l", span, "u", limit, 1)})
				time.Sleep(20 * time.Millisecond)
			}
		}
		send(60)
		w.forget()
		time.Sleep(1100 * time.Millisecond) // one heartbeat
		send(300)
		if got := len(w.admissions()); got > limit {
			t.Errorf("admitted %d of %d in one window after Redis forgot", got, limit)
		}
	})
}

// A permit given back goes to the window it came from, never to a later one
// (design: give-back).
func TestGiveBackDoesNotMint(t *testing.T) {
	const span, limit = 2 * time.Second, 10
	simulate(t, 5, 1, func(w *world, gates []*instance) {
		g := gates[0]
		time.Sleep(2*span - time.Duration(w.clock()%window.Span(span))*time.Microsecond - 20*time.Millisecond)
		var held []Answer
		for n := 0; n < limit; n++ {
			if ok, answers := g.request([]Ask{g.ask("l", span, "u", limit, 1)}); ok {
				held = append(held, answers[0])
			}
		}
		if len(held) != limit {
			t.Fatalf("admitted %d of %d", len(held), limit)
		}
		time.Sleep(40 * time.Millisecond) // into the next window
		for n := range held {
			g.engine.GiveBack(&held[n])
		}
		time.Sleep(100 * time.Millisecond)
		w.mu.Lock()
		w.admitted = nil
		w.mu.Unlock()
		for n := 0; n < 3*limit; n++ {
			g.request([]Ask{g.ask("l", span, "u", limit, 1)})
		}
		if got := len(w.admissions()); got != limit {
			t.Errorf("admitted %d in the next window; all ten came back, so want exactly %d", got, limit)
		}
	})
}

// Parallel attempts hold their permits until their answers are known, and a
// client that is refused meanwhile is not sent away for the whole window
// (design: unsettled-permits).
func TestHoldsSettle(t *testing.T) {
	const span, limit = 10 * time.Minute, 3
	simulate(t, 5, 1, func(w *world, gates []*instance) {
		g := gates[0]
		var holds []*Hold
		for n := 0; n < limit; n++ {
			_, answers := g.request([]Ask{g.ask("l", span, "u", limit, 1)})
			holds = append(holds, g.engine.Hold(&answers[0], g.engine.clock()))
		}
		ok, answers := g.request([]Ask{g.ask("l", span, "u", limit, 1)})
		if ok || answers[0].RetryAfter > time.Second {
			t.Errorf("admitted %v with Retry-After %s while three are unsettled", ok, answers[0].RetryAfter)
		}
		holds[0].Settle(false)
		if ok, _ := g.request([]Ask{g.ask("l", span, "u", limit, 1)}); !ok {
			t.Error("the permit given back does not admit the next request")
		}
		holds[1].Settle(true)
		time.Sleep(31 * time.Second) // holds[2] has no answer yet: its client may be sending slowly
		ok, answers = g.request([]Ask{g.ask("l", span, "u", limit, 1)})
		if ok || answers[0].RetryAfter < time.Minute {
			t.Errorf("admitted %v with Retry-After %s after a permit was unsettled for 30 s, want it to count", ok, answers[0].RetryAfter)
		}
		holds[2].Settle(false)
		if ok, _ := g.request([]Ask{g.ask("l", span, "u", limit, 1)}); ok {
			t.Error("an answer after 30 s gave the permit back")
		}
	})
}

// A permit taken without Redis that turns out not to count comes back, also when
// it has been reported by then: else each outage would leave behind a part of a
// limit on failures, used up by requests that did not fail.
func TestHoldsSettleAfterTheirReport(t *testing.T) {
	t.Run("by the counter", func(t *testing.T) { settleReported(t, 66) })
	t.Run("by the log", func(t *testing.T) { settleReported(t, 6) })
}

func settleReported(t *testing.T, limit int64) {
	const span = 10 * time.Minute
	simulate(t, 5, 1, func(w *world, gates []*instance) {
		g := gates[0]
		g.request([]Ask{g.ask("l", span, "v", limit, 1)}) // Redis's clock is known
		time.Sleep(span - time.Duration(w.clock()%window.Span(span))*time.Microsecond)
		w.setDown(true)
		var holds []*Hold
		for range limit {
			ok, answers := g.request([]Ask{g.ask("l", span, "u", limit, 1)})
			if !ok || !answers[0].Degraded {
				t.Fatalf("admitted %v, degraded %v", ok, answers[0].Degraded)
			}
			holds = append(holds, g.engine.Hold(&answers[0], g.engine.clock()))
		}
		w.setDown(false)
		time.Sleep(settledAfter)
		key := g.ask("l", span, "u", limit, 1)
		used := func() int64 {
			return w.stored(key.Limiter.redisKey(key.Key)).At(w.clock() / window.Span(span)).Current()
		}
		if got := used(); got != limit {
			t.Fatalf("%d of %d permits are reported", got, limit)
		}
		for i, h := range holds {
			h.Settle(i == 0) // one counts
		}
		time.Sleep(settledAfter)
		if got := used(); got != 1 {
			t.Errorf("%d permits are used, one counted", got)
		}
		passed := int64(0)
		for range 2 * limit {
			if ok, _ := g.request([]Ask{key}); ok {
				passed++
			}
		}
		if passed != limit-1 {
			t.Errorf("%d more requests passed, want %d", passed, limit-1)
		}
	})
}

// Another limit for the same key is asked anew: what was granted or denied
// under one says nothing about the other (design: limit-of-a-lease).
func TestTierChanges(t *testing.T) {
	simulate(t, 5, 1, func(w *world, gates []*instance) {
		g := gates[0]
		const span = 10 * time.Second
		for n := 0; n < 11; n++ {
			g.request([]Ask{g.ask("l", span, "u", 10, 1)})
		}
		if ok, _ := g.request([]Ask{g.ask("l", span, "u", 10, 1)}); ok {
			t.Fatal("free: admitted an eleventh")
		}
		for n := 0; n < 20; n++ {
			if ok, _ := g.request([]Ask{g.ask("l", span, "u", 100, 1)}); !ok {
				t.Fatal("pro: denied by the memory of free")
			}
		}
		if ok, _ := g.request([]Ask{g.ask("l", span, "u", 10, 1)}); ok {
			t.Error("free again: admitted from the lease of pro")
		}
	})
}

// A full table away from Redis: new keys share buckets, nobody's bucket is
// reset, and memory stays within the capacity.
func TestI6FloodResetsNobody(t *testing.T) {
	simulate(t, 5, 1, func(w *world, gates []*instance) {
		g := gates[0]
		const span = time.Minute
		w.setDown(true)
		limiter := g.engine.Limiter("l", span, 100)
		take := func(key string) bool {
			ok, _ := g.request([]Ask{{Limiter: limiter, Key: Key(UserKey, key), Limit: 5, Cost: 1}})
			return ok
		}
		for n := 0; n < 5; n++ {
			if !take("victim") {
				t.Fatal("denied below the limit")
			}
		}
		admitted := 0
		for n := 0; n < 100_000; n++ {
			if take(fmt.Sprint("flood", n)) {
				admitted++
			}
		}
		if take("victim") {
			t.Error("the flood reset the victim's bucket")
		}
		if size := g.engine.Keys(); size != 100 {
			t.Errorf("%d buckets, capacity 100", size)
		}
		if most := 99 + overflowBuckets*5; admitted > most {
			t.Errorf("%d flood keys admitted, want at most %d", admitted, most)
		}
	})
}

// With Redis there a full table forgets only what Redis knows.
func TestI6EvictionNeverAdmits(t *testing.T) {
	simulate(t, 5, 1, func(w *world, gates []*instance) {
		g := gates[0]
		const span = time.Minute
		time.Sleep(span - time.Duration(w.clock()%window.Span(span))*time.Microsecond)
		limiter := g.engine.Limiter("l", span, 20)
		for round := 0; round < 4; round++ {
			for n := 0; n < 200; n++ {
				g.request([]Ask{{Limiter: limiter, Key: Key(UserKey, fmt.Sprint(n)), Limit: 2, Cost: 1}})
			}
		}
		if got := len(w.admissions()); got != 400 {
			t.Errorf("admitted %d of 200 keys x 2", got)
		}
		if n := w.degraded(gates); n != 0 {
			t.Errorf("%d degraded decisions", n)
		}
	})
}

// A key whose report was lost on its way, with nobody knowing whether it
// arrived, stays until Redis has been told for certain.
func TestI6UntoldBucketsStay(t *testing.T) {
	simulate(t, 5, 1, func(w *world, gates []*instance) {
		g := gates[0]
		const span = time.Hour
		deaf := func(is bool) {
			w.mu.Lock()
			w.deaf = is
			w.mu.Unlock()
		}
		limiter := g.engine.Limiter("l", span, 20)
		take := func(key string) bool {
			ok, _ := g.request([]Ask{{Limiter: limiter, Key: Key(UserKey, key), Limit: 3, Cost: 1}})
			return ok
		}
		w.setDown(true)
		for n := 0; n < 3; n++ {
			if !take("victim") {
				t.Fatal("denied below the limit")
			}
		}
		deaf(true)
		w.setDown(false)
		time.Sleep(time.Duration(2 * sweepEvery)) // the report leaves, and is lost
		deaf(false)
		for n := 0; n < 200; n++ {
			take(fmt.Sprint("flood", n))
		}
		if take("victim") {
			t.Error("admitted beyond the limit: the flood made us forget what Redis has not been told")
		}
	})
}

// A Handle outlives its bucket's stay in the table. A key that is asked at one
// counts as used, and one that has made room answers nothing more.
func TestI6Handles(t *testing.T) {
	simulate(t, 5, 1, func(w *world, gates []*instance) {
		e := gates[0].engine
		const capacity = 20
		limiter := e.Limiter("l", time.Hour, capacity)
		take := func(key string, cost int64) *Handle { // takes the one permit: the next is denied
			ask, answers := Ask{Limiter: limiter, Key: key, Limit: 1, Cost: cost}, make([]Answer, 1)
			Take(e, &gates[0].policy, []Ask{ask}, answers, e.Now())
			p, _ := NewHandle(&ask, &answers[0], nil)
			return p
		}
		known := func(key string) bool {
			settled(e)
			return limiter.table.buckets[key] != nil
		}
		handles := map[string]*Handle{}
		for n := range capacity {
			handles[fmt.Sprint(n)] = take(fmt.Sprint(n), 1)
		}
		denied := func(key string) bool {
			verdict := spend(handles[key], e.Now(), make([]Answer, 1))
			return verdict == Denied
		}
		for n := 0; known("1"); n++ {
			if !denied("0") {
				t.Fatal("what was denied is not remembered")
			}
			take(fmt.Sprint("new", n), 1)
			if n > capacity {
				t.Fatal("no key made room")
			}
		}
		if !known("0") {
			t.Error("a key in use made room for others")
		}
		if denied("1") {
			t.Error("a key that made room answers still")
		}
		answers := make([]Answer, 1)
		if verdict := spend(take("0", 2), e.Now(), answers); verdict != Denied || answers[0].RetryAfter != 0 {
			t.Error("a request that no waiting helps is told to wait")
		}
	})
}

// A permit that comes with a reply after its window's end has no time left, not
// less than none.
func TestGrantAfterTheEnd(t *testing.T) {
	var o Outcome
	grantFrom(&lease{left: 3, room: 4, ends: 1000}, 1, &o, 2000)
	if o.Verdict != Granted || o.Reset != 0 || o.Remaining != 7 {
		t.Errorf("%+v", o)
	}
}

// redisNow is what the gateway takes for Redis's clock.
func redisNow(i *instance) int64 {
	settled(i.engine)
	return i.engine.core.redisNow(i.engine.Now())
}

// settled waits until the core has done what it was told.
func settled(e *Engine) { Take(e, &Policy{}, nil, nil, e.Now()) }
