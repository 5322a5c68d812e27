// Package limit enforces sliding-window limits over any number of gateways at
// a small fraction of a Redis call a request.
//
// In the order in which it happens:
//
//	spend      a permit is taken from the key's lease, in memory     lease.go, place.go
//	deny       or refused from memory, while Redis's last answer     denial.go
//	           still proves that the rule would refuse it
//	reserve    else one script call reserves what the waiting        script.go
//	           requests need and, away from the limit, what the next
//	           50 ms are likely to need; concurrent requests of a
//	           key share one call, several keys one write
//	fall back  Redis away: leases from this instance's share, by  fallback.go
//	           the last usage it knew, reported when Redis is back
//	give back  permits that nobody used return to Redis              giveback.go
//
// presence.go keeps the count of live instances, table.go bounds memory.
//
// Types here refer to each other, and Yaegi 0.16.1 cannot keep its hands on a
// map or slice of such a type: it finds []*bucket different from []*bucket.
// Collections of limiters and buckets are therefore sync.Map and list.List.
//
// The invariants (DESIGN section 4) and who keeps them:
//
//	I1 never over       the script decides; a lease dies with its window (lease.go: until)
//	I2 hardly under     need before extra, extra shrinks with the room, unspent permits return
//	I3 denied is free   denial.go
//	I4 hot is cheap     leases of 50 ms of demand (demand.go)
//	I5 no outage        callers wait for at most one timeout of silence, none while the breaker is open
//	I6 bounded          table.go
//	I7 all or nothing   Take, below
//	I8 nothing forgets  every call carries what this instance has seen (window.Counts)
package limit

import (
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluice-gateway/sluice/plugin/redis"
	"github.com/sluice-gateway/sluice/plugin/wait"
	"github.com/sluice-gateway/sluice/plugin/window"
)

// Redis is what the engine needs of redis.Client. No method blocks on the
// network.
type Redis interface {
	Send(calls ...*redis.Call)
	Healthy() bool
}

// Failure says what to answer while Redis is away.
type Failure int

// Local enforces this instance's share, Allow admits, Deny answers 503.
const (
	Local Failure = iota
	Allow
	Deny
)

// Policy is what a middleware wants done without Redis.
type Policy struct {
	OnFailure    Failure
	MinInstances int64 // the share is never larger than limit / MinInstances
}

// Ask is one request's wish at one limit.
type Ask struct {
	Limiter *Limiter
	Key     string // whom it limits, as Key names it
	Limit   int64  // permits a window; depends on the user's tier
	Cost    int64  // permits this request takes, at most Limit
}

// Verdict is the outcome at one limit.
type Verdict int

// Granted holds a permit, Denied has none to give, Unavailable cannot decide
// (Redis is away and the policy is Deny), Needless was not asked, since another
// limit denies. The zero Verdict is Undecided.
const (
	Undecided Verdict = iota
	Granted
	Denied
	Unavailable
	Needless
)

// Answer is the outcome of one Ask. With limit 10 a second of which 6 are in
// use, a granted answer has Remaining 3.
type Answer struct {
	Outcome
	bucket *bucket
}

// Outcome is what was decided, and the permit that came of it.
type Outcome struct {
	Verdict    Verdict
	Remaining  int64         // whole requests left, never above the truth at Redis's last reply
	Reset      time.Duration // until the running window ends
	RetryAfter time.Duration // of a denial: until the rule could admit; 0 = never (cost above the limit)
	Degraded   bool          // decided without Redis

	lease  *lease // the permit's origin; nil for permits of the fallback
	window int64  // index of the window a permit of the fallback was taken in
	cost   int64
}

// Options are what an Engine is made of.
type Options struct {
	Redis    Redis
	Timeout  time.Duration // how long Redis may answer nothing, on the request path
	MaxWait  time.Duration // and how long a request waits for one that is at work; Timeout when less
	Instance string        // identity of this process
	Prefix   string        // of all Redis keys
	Where    string        // the Redis, as the configuration names it
	Report   func() string // the heartbeat's JSON
	Clock    func() int64  // monotonic nanoseconds
	Log      func(level, message string)
}

// Engine holds all limits that share one Redis.
type Engine struct {
	redis    Redis
	timeout  int64 // ns: Redis answers something within this, or is away
	longest  int64 // ns: and no request waits longer
	clock    func() int64
	log      func(level, message string)
	prefix   string
	presence *presence

	// offset is Redis's clock minus this process's monotonic one, in
	// microseconds, as of the last reply: the fallback's windows are Redis's.
	offset atomic.Int64
	told   atomic.Int64 // the same as of the last reply, believed or not
	doubt  atomic.Int64 // how far off it may be, ns: how long that reply was under way

	Degraded atomic.Int64 // answers given without Redis

	exact   *standing    // the limits
	visible *standing    // this gateway, by the others
	counted atomic.Bool  // Redis has counted a request of ours
	failing atomic.Value // *bucket: of the key that Redis failed to count last

	mu       sync.Mutex
	limiters sync.Map         // limiterID -> *Limiter; written under mu
	dropped  map[string]int64 // what limits that are gone denied, by name

	sweeper sweeper
	holds   holds
	stop    chan struct{}
	done    sync.WaitGroup
}

type limiterID struct {
	name   string
	window int64
}

// Limiter is the state of one limit name and window. Middlewares that use the
// same name and window share it: one budget over several routes (RULES 19).
type Limiter struct {
	Name   string
	Denied atomic.Int64 // requests this limit denied

	engine *Engine
	window int64 // microseconds
	prefix string
	table  table

	mu     sync.Mutex
	policy *Policy     // of the first who used it
	mixed  atomic.Bool // others have other policies: none may spend what another's set aside
}

// NewEngine makes an engine; Start lets it talk to Redis.
func NewEngine(o Options) *Engine {
	e := &Engine{
		redis:   o.Redis,
		timeout: int64(o.Timeout),
		longest: later(int64(o.Timeout), int64(o.MaxWait)),
		clock:   o.Clock,
		log:     o.Log,
		prefix:  o.Prefix,
		stop:    make(chan struct{}),
		dropped: map[string]int64{},
	}
	e.offset.Store(time.Now().UnixMicro() - o.Clock()/1000)
	e.doubt.Store(math.MaxInt64)
	e.presence = newPresence(e, o.Instance, o.Report)
	e.exact = newStanding(&o, "Redis does not count the limits", "Redis counts again: the limits are exact again", e.alone)
	e.visible = newStanding(&o, "Redis does not take this gateway's heartbeat", "Redis takes this gateway's heartbeats again", e.unseen)
	e.sweeper.wake = make(chan struct{}, 1)
	return e
}

// Start begins heartbeats and the giving back of permits; Close ends both.
func (e *Engine) Start() {
	e.done.Add(2)
	go e.guard("sweeper", e.sweep)
	go e.guard("heartbeat", e.presence.beat)
}

// Close ends the engine's goroutines. Permits in leases are lost, at most what
// I2 allows; counters in Redis stay.
func (e *Engine) Close() {
	close(e.stop)
	e.done.Wait()
}

// guard runs a loop and starts it again after a panic: in the interpreted form
// a panic in a goroutine would end Traefik itself.
func (e *Engine) guard(name string, loop func()) {
	defer e.done.Done()
	for !e.attempt(name, loop) {
		if wait.First(time.After(time.Second), e.stop) == 1 {
			return
		}
	}
}

func (e *Engine) attempt(name string, loop func()) (finished bool) {
	defer func() {
		if p := recover(); p != nil {
			e.log("error", fmt.Sprintf("the %s panicked and is started again: %v", name, p))
		}
	}()
	loop()
	return true
}

// Limiter returns the state of a limit, made at first use. maxKeys bounds the
// keys it tracks; where several middlewares differ the largest holds.
func (e *Engine) Limiter(name string, span time.Duration, maxKeys int) *Limiter {
	e.mu.Lock()
	defer e.mu.Unlock()
	id := limiterID{name: name, window: window.Span(span)}
	var l *Limiter
	if found, ok := e.limiters.Load(id); ok {
		l = found.(*Limiter)
	} else {
		l = &Limiter{Name: name, engine: e, window: id.window, prefix: limitPrefix(e.prefix, name, span)}
		e.limiters.Store(id, l)
	}
	l.table.allow(maxKeys)
	return l
}

// Use tells under which policy requests will be asked at the limit. Where two
// differ, also through an edit while Redis is away, nothing is set aside for as
// long as the limit lives; what was is spent within a second.
func (l *Limiter) Use(p Policy) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.policy == nil {
		l.policy = &p
	} else if *l.policy != p {
		l.mixed.Store(true)
	}
}

// Allow raises the number of keys that the limit tracks.
func (l *Limiter) Allow(maxKeys int) { l.table.allow(maxKeys) }

// Drop forgets a limit that nobody uses any more. What its keys still hold is
// given back in time; what they counted stays in Redis.
func (e *Engine) Drop(l *Limiter) {
	e.mu.Lock()
	defer e.mu.Unlock()
	id := limiterID{name: l.Name, window: l.window}
	if found, ok := e.limiters.Load(id); ok && found.(*Limiter) == l {
		e.limiters.Delete(id)
		if n := l.Denied.Load(); n > 0 {
			e.rememberLocked(l.Name, n)
		}
	}
}

// rememberLocked keeps what a limit that is gone denied.
func (e *Engine) rememberLocked(name string, denied int64) {
	for other := range e.dropped {
		if len(e.dropped) < mostDropped {
			break
		}
		delete(e.dropped, other)
	}
	e.dropped[name] += denied
}

// mostDropped bounds the names of limits that are gone (I6): the heartbeat
// carries each of them.
const mostDropped = 32

// Denials are the denied requests by limit name, of all time.
func (e *Engine) Denials() map[string]int64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	denials := map[string]int64{}
	for name, n := range e.dropped {
		denials[name] = n
	}
	e.limiters.Range(func(_, l interface{}) bool {
		denials[l.(*Limiter).Name] += l.(*Limiter).Denied.Load()
		return true
	})
	return denials
}

// Keys is the number of keys tracked now.
func (e *Engine) Keys() int64 {
	n := 0
	e.limiters.Range(func(_, l interface{}) bool {
		n += l.(*Limiter).table.size()
		return true
	})
	return int64(n)
}

// Take takes a permit at every limit of asks, or at none (I7), and reports
// whether it did. answers has the length of asks; those that are decided already
// stand. An answer that the outcome of another made needless becomes Needless. It
// waits for a silent Redis at most once a timeout, for a busy one a quarter of a
// second, and never for one that is away.
func (e *Engine) Take(p *Policy, asks []Ask, answers []Answer) bool {
	now := e.clock()
	missing, denied := 0, 0
	for i := range asks {
		// All of them, though one denial decides: the client is told of the
		// limit that denies for longest.
		if answers[i].Verdict == Undecided {
			spend(&asks[i], &answers[i], now)
		}
		switch answers[i].Verdict {
		case Undecided:
			missing++
		case Denied:
			denied++
		}
	}
	if denied > 0 {
		return e.refused(answers)
	}
	if missing == 0 {
		return true
	}
	if len(asks) > 1 {
		// A limit that denied last is asked alone first: else the others
		// would bleed a permit for each request that it refuses (RULES 20).
		for i := range asks {
			if answers[i].Verdict == Undecided && answers[i].bucket.deniedLast() {
				e.reserve(p, asks[i:i+1], answers[i:i+1], now)
				if answers[i].Verdict != Granted {
					return e.refused(answers)
				}
			}
		}
	}
	e.reserve(p, asks, answers, now)
	for i := range answers {
		if answers[i].Verdict != Granted {
			return e.refused(answers)
		}
	}
	return true
}

// refused gives back what the other limits granted.
func (e *Engine) refused(answers []Answer) bool {
	for i := range answers {
		if answers[i].Verdict == Undecided {
			answers[i].Verdict = Needless
		}
		e.GiveBack(&answers[i])
	}
	return false
}

// reserve decides every undecided answer: all calls leave in one write, then
// each is waited for.
func (e *Engine) reserve(p *Policy, asks []Ask, answers []Answer, now int64) {
	var calls []*redis.Call
	waiters := make([]*waiter, len(asks))
	for i := range asks {
		if answers[i].Verdict != Undecided {
			continue
		}
		w, call := asks[i].Limiter.join(p, &asks[i], &answers[i], now)
		waiters[i] = w
		if call != nil {
			calls = append(calls, call)
		}
	}
	if len(calls) > 0 {
		e.redis.Send(calls...)
	}
	for i, w := range waiters {
		if w != nil {
			<-w.done
			answers[i].Outcome = w.outcome
		}
	}
}

// Times that Redis's clock can tell, in microseconds.
const (
	earliest = int64(946684800e6)  // 2000
	latest   = int64(4102444800e6) // 2100
	nearby   = int64(3600e6)       // a clock is believed to have leapt further only once two replies in a row agree
)

// tellTime learns Redis's clock from a reply to what was sent at the given
// instant, and reports whether it makes sense. One that took longer than replies
// may, and longer than the one last believed, tells less than is known.
func (e *Engine) tellTime(micros, sent int64) bool {
	if micros < earliest || micros > latest {
		return false
	}
	offset := micros - sent/1000
	doubt := e.clock() - sent
	known, last := e.doubt.Load() < math.MaxInt64, e.told.Swap(offset)
	if known && !near(offset, e.offset.Load()) && !near(offset, last) {
		return false
	}
	if doubt <= e.timeout || doubt <= e.doubt.Load() {
		e.doubt.Store(doubt)
		e.offset.Store(offset)
	}
	return true
}

func near(a, b int64) bool { return a-b < nearby && b-a < nearby }

// Now is the engine's clock, in monotonic nanoseconds.
func (e *Engine) Now() int64 { return e.clock() }

// redisNow is Redis's clock in unix microseconds, as far as this process
// knows it.
func (e *Engine) redisNow(now int64) int64 { return now/1000 + e.offset.Load() }
