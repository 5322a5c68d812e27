package limit

import (
	"context"
	"fmt"
	"maps"
	"math/rand"
	"sort"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluice-gateway/sluice/internal/redistest"
	"github.com/sluice-gateway/sluice/plugin/redis"
	"github.com/sluice-gateway/sluice/plugin/window"
)

// The simulation runs real engines, goroutines and timers included, on the
// virtual clock of testing/synctest against a Redis that decides with
// window.Decide (which lua_test.go holds equal to the script). Whatever is
// admitted is written down with Redis's time and held against the rule as one
// machine that sees every request would apply it.

// world is one Redis and what every instance did with it.
type world struct {
	mu       sync.Mutex
	rng      *rand.Rand
	start    time.Time
	skew     int64 // of Redis's clock, us
	counters map[string]window.Counts
	live     map[string]int64 // instance -> ms of its last heartbeat
	down     bool
	deaf     bool          // connections stand, but every call is lost on its way, and nobody can tell
	slow     time.Duration // added to every reply
	latency  func(*rand.Rand) time.Duration
	calls    int
	links    []*link

	arrived  []admission // what was asked for
	admitted []admission
	denied   int
	falsely  error            // the first denial that nothing excuses
	outlived error            // the first permit spent after its window
	doubts   int              // calls cut off on their way, run or not
	judged   int              // denials that had to be right to the pace
	changed  map[string]int64 // key -> Redis's clock at which its counters changed last
	returned map[string]int64 // and at which permits were given back last

	steadily atomic.Int64 // requests that Spend decided
}

type admission struct {
	key   string
	at    int64 // Redis's clock, us
	cost  int64
	limit int64
}

func newWorld(seed int64) *world {
	return &world{
		rng: rand.New(rand.NewSource(seed)), start: time.Now(), counters: map[string]window.Counts{}, live: map[string]int64{},
		changed: map[string]int64{}, returned: map[string]int64{},
		latency: func(r *rand.Rand) time.Duration {
			if r.Intn(50) == 0 {
				return 8 * time.Millisecond
			}
			return time.Duration(100+r.Intn(300)) * time.Microsecond
		},
	}
}

func (w *world) clockLocked() int64 {
	return 1_700_000_000e6 + time.Since(w.start).Microseconds() + w.skew
}

func (w *world) clock() int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.clockLocked()
}

// setDown breaks every connection, or lets them be made again.
func (w *world) setDown(down bool) {
	w.mu.Lock()
	w.down = down
	links := append([]*link(nil), w.links...)
	w.mu.Unlock()
	for _, l := range links {
		if down {
			l.cut()
		} else {
			l.engine.Ready()
		}
	}
}

// What happened so far; scenes ask while calls are still under way.
func (w *world) callCount() int { w.mu.Lock(); defer w.mu.Unlock(); return w.calls }
func (w *world) denials() int   { w.mu.Lock(); defer w.mu.Unlock(); return w.denied }
func (w *world) admissions() []admission {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]admission(nil), w.admitted...)
}
func (w *world) falseDenial() error { w.mu.Lock(); defer w.mu.Unlock(); return w.falsely }
func (w *world) spentLate() error   { w.mu.Lock(); defer w.mu.Unlock(); return w.outlived }
func (w *world) doubted() bool      { w.mu.Lock(); defer w.mu.Unlock(); return w.doubts > 0 }
func (w *world) judgements() int    { w.mu.Lock(); defer w.mu.Unlock(); return w.judged }
func (w *world) stored(key string) window.Counts {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.counters[key]
}

func (w *world) allStored() map[string]window.Counts {
	w.mu.Lock()
	defer w.mu.Unlock()
	counters := maps.Clone(w.counters)
	maps.DeleteFunc(counters, func(key string, _ window.Counts) bool { return strings.Contains(key, ":"+rehearsalName+":") })
	return counters
}

// reset puts counts of another generation in a key's place, in the window that
// runs.
func (w *world) reset(key string, span int64, counts window.Counts) {
	w.mu.Lock()
	defer w.mu.Unlock()
	counts.Index = w.clockLocked() / span
	w.counters[key] = counts
}

// forget is FLUSHALL.
func (w *world) forget() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.counters, w.live = map[string]window.Counts{}, map[string]int64{}
}

// link is one instance's connection.
type link struct {
	world   *world
	engine  *Engine
	timeout time.Duration
	mu      sync.Mutex
	flying  map[*redis.Call]bool
}

func (l *link) Healthy() bool {
	l.world.mu.Lock()
	defer l.world.mu.Unlock()
	return !l.world.down
}

// serve is what redis.Serve does.
func (l *link) serve(calls <-chan *redis.Call) {
	for call := range calls {
		if !l.Healthy() {
			l.end(call, "", redis.ErrAway)
			continue
		}
		l.mu.Lock()
		l.flying[call] = true
		l.mu.Unlock()
		go l.fly(call)
	}
}

// end sends a call back.
func (l *link) end(call *redis.Call, line string, err error) {
	call.Line, call.Err, call.At = line, err, l.engine.Now()
	call.To <- call
}

func (l *link) fly(call *redis.Call) {
	w := l.world
	w.mu.Lock()
	there, back := w.latency(w.rng)/2, w.latency(w.rng)/2+w.slow
	w.mu.Unlock()
	time.Sleep(there)
	w.mu.Lock()
	line, err := "", redis.ErrTimeout
	if !w.down && !w.deaf {
		line, err = w.executeLocked(call), nil
	} else {
		w.doubts++
	}
	w.mu.Unlock()
	if there+back > l.timeout {
		time.Sleep(l.timeout - there)
		if l.has(call) {
			call.To <- &redis.Overdue{Calls: []*redis.Call{call}, At: l.engine.Now()}
		}
		back = there + back - l.timeout
	}
	time.Sleep(back)
	if l.take(call) {
		l.end(call, line, err)
	}
}

func (l *link) has(call *redis.Call) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.flying[call]
}

func (l *link) take(call *redis.Call) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	had := l.flying[call]
	delete(l.flying, call)
	return had
}

// cut fails what is under way, executed or not: nobody can tell.
func (l *link) cut() {
	l.mu.Lock()
	flying := l.flying
	l.flying = map[*redis.Call]bool{}
	l.mu.Unlock()
	l.world.mu.Lock()
	l.world.doubts += len(flying)
	l.world.mu.Unlock()
	for call := range flying {
		l.end(call, "", redis.ErrTimeout)
	}
}

func (w *world) executeLocked(call *redis.Call) string {
	w.calls++
	now := w.clockLocked()
	switch call.Script {
	case script:
		line, kept, changed := redistest.Decide(w.counters[call.Key], call.Args[0], now)
		if changed {
			before := w.counters[call.Key].At(kept.Index)
			if kept.Returned > before.Returned || kept.PreviousReturned > before.PreviousReturned {
				w.returned[call.Key] = now
			}
			w.counters[call.Key] = kept
			w.changed[call.Key] = now
		}
		return line
	case beatLua:
		_, known := w.live[call.Args[0]]
		w.live[call.Args[0]] = now / 1000
		fields := []string{strconv.FormatInt(now, 10), "0"}
		if known {
			fields[1] = "1"
		}
		for instance, at := range w.live {
			if now/1000-at > 3000 {
				delete(w.live, instance)
			} else {
				fields = append(fields, instance)
			}
		}
		return strings.Join(fields, " ")
	}
	return "OK"
}

// instance is one gateway.
type instance struct {
	world   *world
	link    *link
	engine  *Engine
	policy  Policy
	gone    atomic.Bool
	handles sync.Map // what is asked -> *Handle, as the plugin keeps them
}

func (w *world) join(name string, policy Policy) *instance {
	l := &link{world: w, timeout: 25 * time.Millisecond, flying: map[*redis.Call]bool{}}
	w.mu.Lock()
	started := time.Now().Add(-time.Duration(w.rng.Int63n(int64(time.Hour)))) // no two clocks agree, nor with Redis's
	w.mu.Unlock()
	calls := make(chan *redis.Call, 1000)
	l.engine = NewEngine(Options{
		Calls: calls, Healthy: l.Healthy, Timeout: l.timeout, Instance: name, Prefix: "sluice",
		Report: func() string { return "{}" },
		Clock:  func() int64 { return int64(time.Since(started)) },
		Log:    func(string, string) {},
	})
	l.engine.Start()
	go l.serve(calls)
	w.mu.Lock()
	w.links = append(w.links, l)
	w.mu.Unlock()
	return &instance{world: w, link: l, engine: l.engine, policy: policy}
}

// leave is a crash: the instance's leases are lost with it, and it answers nobody
// any more.
func (i *instance) leave() {
	i.gone.Store(true)
	i.link.cut()
	i.engine.Close()
}

// take spends where such a request has spent before, and asks Redis where memory does
// not tell: as the plugin does.
func (i *instance) take(asks []Ask) (bool, []Answer) {
	kind := fmt.Sprint(asks)
	var first *Handle
	if found, ok := i.handles.Load(kind); ok {
		first = found.(*Handle)
	}
	answers := make([]Answer, len(asks))
	verdict := spend(first, i.engine.Now(), answers)
	if verdict == Undecided {
		Take(i.engine, &i.policy, asks, answers, i.engine.Now())
		if first == nil {
			lasting := true
			for n := len(asks) - 1; n >= 0; n-- {
				p, keep := NewHandle(&asks[n], &answers[n], first)
				first, lasting = p, lasting && keep
			}
			if lasting {
				i.handles.Store(kind, first)
			}
		} else if Moved(first, answers) {
			i.handles.Delete(kind)
		}
		verdict = spend(first, 0, answers)
	} else {
		i.world.steadily.Add(1)
	}
	if verdict != Granted {
		for n := range answers {
			i.engine.GiveBack(&answers[n])
		}
	}
	return verdict == Granted, answers
}

func spend(first *Handle, now int64, answers []Answer) Verdict {
	s := &Spending{Handles: first, Now: now, Answers: answers}
	Spend(s, nil)
	return s.Verdict
}

// request asks the given limits and writes down what was admitted.
func (i *instance) request(asks []Ask) (bool, []Answer) {
	ok, answers := i.take(asks)
	if i.gone.Load() {
		return false, answers
	}
	w := i.world
	w.mu.Lock()
	defer w.mu.Unlock()
	if !ok {
		w.denied++
		i.excuseLocked(asks, answers)
		return false, answers
	}
	for n, ask := range asks {
		at := w.clockLocked()
		if h := answers[n].lease; h != nil && answers[n].instant == 0 && at/ask.Limiter.window > h.index {
			// With several limits one permit may be taken in the last moment of
			// a window and another's reply come in the next: the permit counts
			// where it was spent.
			if len(asks) == 1 && w.outlived == nil {
				w.outlived = fmt.Errorf("%s: a permit of window %d was spent %d us after its end", ask.Key, h.index, at%ask.Limiter.window)
			}
			at = (h.index+1)*ask.Limiter.window - 1
		}
		if answers[n].instant != 0 {
			at = answers[n].instant // a log's permit, by Redis's clock
		}
		w.admitted = append(w.admitted, admission{key: ask.Limiter.redisKey(ask.Key), at: at, cost: ask.Cost, limit: ask.Limit})
	}
	return true, answers
}

// slowestReply bounds a round trip in worlds whose Redis is not stalled.
const slowestReply = 16 * time.Millisecond

// excuseLocked notes a denial that nothing excuses. A gateway may deny from
// memory what the rule would admit for a pace and a round trip, no longer; but
// where another gave permits back, it need not know for as long as it may
// remember a denial.
func (i *instance) excuseLocked(asks []Ask, answers []Answer) {
	w := i.world
	for n, ask := range asks {
		if answers[n].Verdict != Denied || answers[n].Degraded || w.falsely != nil {
			continue
		}
		key, span, now := ask.Limiter.redisKey(ask.Key), ask.Limiter.window, w.clockLocked()
		patience := pace(span)/1000 + slowestReply.Microseconds()
		if now-w.returned[key] < denialLife/1000+patience {
			patience += denialLife / 1000
		} else {
			w.judged++
		}
		then := now - patience
		c := w.counters[key]
		if w.changed[key] < then && window.Room(c.At(then/span), span, ask.Limit, then) >= ask.Cost {
			w.falsely = fmt.Errorf("%s: denied, with room for %s and more", key, time.Duration(patience)*time.Microsecond)
		}
	}
}

// overLimit is the first admission that one machine would have refused: the
// rule, applied to what was admitted alone (I1).
func overLimit(admitted []admission, w int64) error {
	admitted = append([]admission(nil), admitted...)
	sort.SliceStable(admitted, func(i, j int) bool { return admitted[i].at < admitted[j].at })
	counts := map[string]window.Counts{}
	logs := map[string][]int64{}
	for _, a := range admitted {
		if window.Exact(a.limit, w) {
			for n := int64(0); n < a.cost; n++ {
				logs[a.key] = append(logs[a.key], a.at)
			}
			if log := logs[a.key]; int64(len(log)) > a.limit && log[len(log)-1]-log[int64(len(log))-1-a.limit] < w {
				return fmt.Errorf("%s: admitted %d in %d us, the limit is %d", a.key, a.limit+1, log[len(log)-1]-log[int64(len(log))-1-a.limit]+1, a.limit)
			}
			continue
		}
		c := counts[a.key].At(a.at / w)
		if window.Room(c, w, a.limit, a.at) < a.cost {
			return fmt.Errorf("%s: admitted %d at %d us into its window, with %d there and %d before", a.key, a.cost, a.at%w, c.Current(), c.Previous())
		}
		c.Granted += a.cost
		counts[a.key] = c
	}
	return nil
}

func (w *world) degraded(instances []*instance) int64 {
	n := int64(0)
	for _, i := range instances {
		n += i.engine.Degraded.Load()
	}
	return n
}

// simulate runs scene in a bubble of virtual time with the given instances.
func simulate(t *testing.T, seed int64, instances int, scene func(w *world, gates []*instance)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(seed)
		var gates []*instance
		for i := 0; i < instances; i++ {
			gates = append(gates, w.join(fmt.Sprintf("gate-%02d", i), Policy{MinInstances: 1}))
		}
		time.Sleep(2 * time.Second) // every instance has counted the others
		scene(w, gates)
		for _, g := range gates {
			g.leave()
		}
		time.Sleep(5 * time.Second) // calls still under way land
	})
}

// traffic sends requests with the given gaps, each from a goroutine of its own,
// and waits for all of them.
func (w *world) traffic(ctx context.Context, gap func(*rand.Rand) time.Duration, one func(r *rand.Rand)) {
	var all sync.WaitGroup
	for ctx.Err() == nil {
		w.mu.Lock()
		pause, seed := gap(w.rng), w.rng.Int63()
		w.mu.Unlock()
		time.Sleep(pause)
		all.Add(1)
		go func() {
			defer all.Done()
			one(rand.New(rand.NewSource(seed)))
		}()
	}
	all.Wait()
}

func poisson(rate float64) func(*rand.Rand) time.Duration {
	return func(r *rand.Rand) time.Duration { return time.Duration(r.ExpFloat64() / rate * 1e9) }
}
