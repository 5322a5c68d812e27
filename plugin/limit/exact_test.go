package limit

import (
	"fmt"
	"math/rand"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/plugin/window"
)

// What the log rule (window.Exact) makes of leases, holds, outages and reports. That
// the rule itself is right stands in plugin/window.

// small are the limits that are counted by a log, over this many gateways each.
func small(t *testing.T, scene func(t *testing.T, w *world, gates []*instance, limit int64, span time.Duration)) {
	for _, limit := range []int64{1, 2, 3, 10, 64} {
		for _, span := range []time.Duration{10 * time.Second, time.Minute} {
			for _, instances := range []int{1, 3} {
				t.Run(fmt.Sprintf("%d in %s over %d", limit, span, instances), func(t *testing.T) {
					simulate(t, limit, instances, func(w *world, gates []*instance) { scene(t, w, gates, limit, span) })
				})
			}
		}
	}
}

// log is what Redis counts of a key now.
func (w *world) log(key string, span time.Duration) int64 {
	return window.Used(w.stored(key), window.Span(span), window.MaxExact, w.clock())
}

// Through an outage the gateways together admit what is left of the limit, by what
// each of them knew; a share's Retry-After is kept; and when Redis is back it counts
// every permit at its own instant, so that nobody is admitted over the limit nor
// refused under it afterwards.
func TestExactThroughAnOutage(t *testing.T) {
	small(t, func(t *testing.T, w *world, gates []*instance, limit int64, span time.Duration) {
		ask := func(g *instance) []Ask { return []Ask{g.ask("l", span, "u", limit, 1)} }
		before := limit / 3
		for n := int64(0); n < before; n++ {
			gates[int(n)%len(gates)].request(ask(gates[int(n)%len(gates)]))
			time.Sleep(10 * time.Millisecond)
		}
		for _, g := range gates { // each hears of them
			g.request([]Ask{g.ask("l", span, "u", 1, 1)})
		}
		before = int64(len(w.admissions()))
		w.setDown(true)
		var retry time.Duration
		for n := 0; n < 4*int(limit)+8; n++ {
			g := gates[n%len(gates)]
			if ok, answers := g.request(ask(g)); !ok {
				retry = max(retry, answers[0].RetryAfter)
			}
		}
		alone := int64(len(w.admissions())) - before
		if left := limit - before; alone > left || alone < left-int64(len(gates))+1 && len(gates) > 1 || len(gates) == 1 && alone != left {
			t.Errorf("%d of %d were left, %d were admitted", left, limit, alone)
		}
		if retry > span {
			t.Errorf("Retry-After %s in an outage, the window is %s", retry, span)
		}
		w.setDown(false)
		time.Sleep(settledAfter)
		key := ask(gates[0])[0]
		if used := w.log(key.Limiter.redisKey(key.Key), span); used != before+alone {
			t.Errorf("Redis counts %d permits, %d were used", used, before+alone)
		}
		for n := 0; n < 3*int(limit)+9; n++ {
			g := gates[n%len(gates)]
			g.request(ask(g))
			time.Sleep(span / time.Duration(2*limit))
		}
		if err := overLimit(w.admissions(), window.Span(span)); err != nil {
			t.Error(err)
		}
		if got := int64(len(w.admissions())); got < before+alone+limit {
			t.Errorf("%d admitted in all", got)
		}
	})
}

// Whoever waits for Retry-After is not refused again, whichever gateway he asks then.
// (Where costs differ and gateways are several, one that denies from memory may not
// have heard of what another has granted to a cheaper request since.)
func TestExactRetryAfter(t *testing.T) {
	small(t, func(t *testing.T, w *world, gates []*instance, limit int64, span time.Duration) {
		r := rand.New(rand.NewSource(limit))
		waited := 0
		cost := 1 + r.Int63n(limit)
		for range 10 * limit {
			if len(gates) == 1 {
				cost = 1 + r.Int63n(limit)
			}
			take := func() (bool, []Answer) {
				g := gates[r.Intn(len(gates))]
				return g.request([]Ask{g.ask("l", span, "u", limit, cost)})
			}
			if ok, answers := take(); !ok {
				waited++
				wait := answers[0].RetryAfter
				time.Sleep(wait)
				if ok, answers = take(); !ok {
					t.Errorf("a request of cost %d has waited for %s and is refused: %+v", cost, wait, answers[0].Outcome)
					return
				}
			}
			time.Sleep(time.Duration(r.Int63n(int64(span) / limit)))
		}
		if waited == 0 {
			t.Error("nobody had to wait")
		}
	})
}

// A share's Retry-After is exact: obeyed to the microsecond it is admitted.
func TestExactRetryAfterInAnOutage(t *testing.T) {
	small(t, func(t *testing.T, w *world, gates []*instance, limit int64, span time.Duration) {
		w.setDown(true)
		g, r := gates[0], rand.New(rand.NewSource(limit))
		waited := 0
		for range 5 * limit {
			ask := []Ask{g.ask("l", span, "u", limit, 1)}
			ok, answers := g.request(ask)
			if !ok && len(gates) > 1 && answers[0].RetryAfter == awayRetry && limit < 3 {
				return // it has no share
			}
			if !ok {
				waited++
				time.Sleep(answers[0].RetryAfter)
				if ok, answers = g.request(ask); !ok {
					t.Fatalf("refused again: %+v", answers[0].Outcome)
				}
			}
			time.Sleep(time.Duration(r.Int63n(int64(span) / limit)))
		}
		if waited == 0 {
			t.Error("nobody had to wait")
		}
	})
}

// A permit that does not count after all goes back at its own instant, and another
// gateway grants it to the next who asks.
func TestExactGiveBack(t *testing.T) {
	small(t, func(t *testing.T, w *world, gates []*instance, limit int64, span time.Duration) {
		g, other := gates[0], gates[len(gates)-1]
		key := g.ask("l", span, "u", limit, 1)
		stored := func() int64 { return w.log(key.Limiter.redisKey(key.Key), span) }
		var holds []*Hold
		var instants []int64
		for n := int64(0); n < limit; n++ {
			_, answers := g.request([]Ask{key})
			instants = append(instants, answers[0].instant)
			holds = append(holds, g.engine.Hold(&answers[0], g.engine.clock()))
			time.Sleep(span / time.Duration(4*limit))
		}
		if ok, answers := g.request([]Ask{key}); ok || answers[0].RetryAfter > time.Duration(unsettledRetry) {
			t.Errorf("admitted %v beyond the limit, Retry-After %s", ok, answers[0].RetryAfter)
		}
		which := int(limit) - 1 // its lease lives
		if span > 10*time.Second {
			which = rand.New(rand.NewSource(limit)).Intn(int(limit))
		}
		for n, h := range holds {
			h.Settle(n != which)
		}
		time.Sleep(200 * time.Millisecond)
		if used := stored(); used != limit-1 {
			t.Fatalf("%d of %d count", used, limit)
		}
		for _, at := range w.stored(key.Limiter.redisKey(key.Key)).Instants {
			if at == instants[which] {
				t.Error("another permit went back")
			}
		}
		time.Sleep(time.Duration(denialLife))
		if ok, _ := other.request([]Ask{other.ask("l", span, "u", limit, 1)}); !ok {
			t.Error("the permit that came back is not granted")
		}
		if ok, _ := g.request([]Ask{key}); ok {
			t.Error("it is granted twice")
		}
	})
}

// A grant whose reply comes when nobody waits for it any more goes back: what was
// decided meanwhile counts alone.
func TestExactLateGrant(t *testing.T) {
	small(t, func(t *testing.T, w *world, gates []*instance, limit int64, span time.Duration) {
		g := gates[0]
		key := g.ask("l", span, "u", limit, 1)
		w.mu.Lock()
		w.slow = 200 * time.Millisecond
		w.mu.Unlock()
		g.request([]Ask{key})
		w.mu.Lock()
		w.slow = 0
		w.mu.Unlock()
		time.Sleep(settledAfter)
		if used := w.log(key.Limiter.redisKey(key.Key), span); used != int64(len(w.admissions())) {
			t.Errorf("Redis counts %d permits, %d were used", used, len(w.admissions()))
		}
	})
}

// A Redis that has lost everything counts again what any gateway knows, once each of
// them has spoken: no interval admits more than the limit then.
func TestExactAfterFlush(t *testing.T) {
	small(t, func(t *testing.T, w *world, gates []*instance, limit int64, span time.Duration) {
		for n := int64(0); n < limit; n++ {
			g := gates[int(n)%len(gates)]
			if ok, _ := g.request([]Ask{g.ask("l", span, "u", limit, 1)}); !ok {
				t.Fatalf("request %d of %d refused", n, limit)
			}
			time.Sleep(20 * time.Millisecond)
		}
		w.forget()
		time.Sleep(2500 * time.Millisecond) // the heartbeats find out
		key := gates[0].ask("l", span, "u", limit, 1)
		if used := w.log(key.Limiter.redisKey(key.Key), span); used != limit {
			t.Errorf("Redis counts %d of %d permits that are known", used, limit)
		}
		for n := 0; n < 4*int(limit)+12; n++ {
			g := gates[n%len(gates)]
			g.request([]Ask{g.ask("l", span, "u", limit, 1)})
			time.Sleep(span / time.Duration(3*limit+3))
		}
		if err := overLimit(w.admissions(), window.Span(span)); err != nil {
			t.Error(err)
		}
	})
}

// A key that is counted by a log costs at most one call a permit; what is denied
// costs one a second at most.
func TestExactCalls(t *testing.T) {
	small(t, func(t *testing.T, w *world, gates []*instance, limit int64, span time.Duration) {
		time.Sleep(3 * time.Second) // what rehearses ends
		before, began := w.callCount(), time.Now()
		const rounds = 2000
		for n := range rounds {
			g := gates[n%len(gates)]
			g.request([]Ask{g.ask("l", span, "u", limit, 1)})
			time.Sleep(2 * span / rounds)
		}
		seconds := int(time.Since(began)/time.Second) + 1
		heartbeats := 2 * seconds * len(gates)
		denied := (seconds + 1) * len(gates)
		if calls := w.callCount() - before - heartbeats; calls > len(w.admissions())+denied {
			t.Errorf("%d calls for %d admitted and %d denied in %d s", calls, len(w.admissions()), w.denials(), seconds)
		}
	})
}

// What a client is told of the time (RateLimit's t) is when the first of its permits
// comes free, with Redis and without.
func TestExactReset(t *testing.T) {
	small(t, func(t *testing.T, w *world, gates []*instance, limit int64, span time.Duration) {
		g := gates[0]
		ask := []Ask{g.ask("l", span, "u", limit, 1)}
		g.request(ask)
		began := time.Now()
		for _, down := range []bool{false, true, false} {
			w.setDown(down)
			time.Sleep(3 * time.Second)
			_, answers := g.request(ask)
			left := span - time.Since(began)
			if off := answers[0].Reset - left; off < -slowestReply || off > slowestReply {
				t.Errorf("Redis away: %v: told %s, the first permit comes free in %s", down, answers[0].Reset, left)
			}
			if limit < 4 || len(gates) > 1 {
				return // no more fits, or which permits are in its share is its own affair
			}
		}
	})
}
