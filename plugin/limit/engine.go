package limit

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluice-gateway/sluice/plugin/redis"
	"github.com/sluice-gateway/sluice/plugin/wait"
	"github.com/sluice-gateway/sluice/plugin/window"
)

// Options are what an Engine is made of.
type Options struct {
	Calls    chan<- *redis.Call // to Redis; whoever serves them sends each back to its To, and waits for nothing else
	Healthy  func() bool        // Redis is there
	Timeout  time.Duration      // how long Redis may answer nothing, on the request path
	MaxWait  time.Duration      // and how long a request waits for one that is at work; Timeout when less
	Instance string             // identity of this process
	Prefix   string             // of all Redis keys
	Where    string             // the Redis, as the configuration names it
	Report   func() string      // the heartbeat's JSON
	Clock    func() int64       // monotonic nanoseconds, which replies are stamped with too
	Log      func(level, message string)
}

// Engine holds all limits that share one Redis.
type Engine struct {
	core     *core
	clock    func() int64
	healthy  func() bool
	log      func(level, message string)
	prefix   string
	report   func() string // the heartbeat's JSON
	presence *presence

	Degraded atomic.Int64 // answers given without Redis
	keys     atomic.Int64 // in all tables

	exact   *status // the limits
	visible *status // this gateway, by the others

	door   sync.RWMutex // to the core's inbox
	closed bool
	ended  chan struct{} // closed when the core's goroutine has ended

	mu       sync.Mutex
	limiters sync.Map         // limiterID -> *Limiter; written under mu
	dropped  map[string]int64 // what limits that are gone denied, by name

	holds holds
	stop  chan struct{}
}

type limiterID struct {
	name   string
	window int64
}

// mostMessages is how many messages may wait for the core. More requests than
// that wait at its door.
const mostMessages = 1 << 12

// NewEngine makes an engine; Start lets it talk to Redis.
func NewEngine(o Options) *Engine {
	e := &Engine{
		clock:   o.Clock,
		healthy: o.Healthy,
		log:     o.Log,
		prefix:  o.Prefix,
		report:  o.Report,
		stop:    make(chan struct{}),
		ended:   make(chan struct{}),
		dropped: map[string]int64{},
	}
	e.presence = newPresence(o.Prefix, o.Instance)
	e.exact = newStatus(&o, "Redis does not count the limits", "Redis counts again: the limits are exact again", e.withoutRedis)
	e.visible = newStatus(&o, "Redis does not take this gateway's heartbeat", "Redis takes this gateway's heartbeats again", e.unseen)
	e.core = &core{
		timeout:   int64(o.Timeout),
		longest:   later(int64(o.Timeout), int64(o.MaxWait)),
		inbox:     make(chan interface{}, mostMessages),
		replies:   make(chan interface{}, mostMessages),
		calls:     o.Calls,
		wake:      make(chan struct{}, 1),
		healthy:   o.Healthy,
		log:       o.Log,
		presence:  e.presence,
		exact:     e.exact,
		visible:   e.visible,
		holds:     &e.holds,
		degraded:  &e.Degraded,
		keys:      &e.keys,
		instances: 1,
		pace:      slowest,
		ailing:    true,
		offset:    time.Now().UnixMicro() - o.Clock()/1000,
	}
	return e
}

// Start begins to decide, to send heartbeats and to give permits back.
func (e *Engine) Start() {
	go e.guard("heartbeat", e.beat)
	go e.guard("metronome", e.tick)
	go hear(e.core.replies, e.core.inbox)
	go e.decide()
}

// Close has the engine's goroutines end once the calls that are under way have,
// and does not wait for it. Permits in leases are lost, at most what
// I2 allows; counters in Redis stay.
func (e *Engine) Close() {
	close(e.stop)
	e.door.Lock()
	e.closed = true
	e.core.inbox <- closing{}
	e.door.Unlock()
}

// decide is the core's goroutine.
func (e *Engine) decide() {
	defer close(e.ended)
	defer close(e.core.calls)
	defer close(e.core.replies)
	defer close(e.core.wake)
	for !e.attempt("engine", func() { run(e.core) }) {
		rescue(e.core)
	}
}

// tick tells the core the time, a while after it has asked for it.
func (e *Engine) tick() {
	for {
		_, ok := <-e.core.wake
		if !ok {
			return
		}
		time.Sleep(tickEvery)
		e.core.inbox <- tick{now: e.clock()} // the core waits for it before it ends
	}
}

// tell sends the core a message, unless it has been told to end.
func (e *Engine) tell(message interface{}) (told bool) {
	e.door.RLock()
	told = !e.closed
	if told {
		e.core.inbox <- message
	}
	e.door.RUnlock()
	return told
}

// guard runs a loop and starts it again after a panic: in the interpreted form
// a panic in a goroutine would end Traefik itself.
func (e *Engine) guard(name string, loop func()) {
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

// Take takes a permit at every limit of asks, or at none (I7), and reports
// whether it did. answers has the length of asks; those that are decided already
// stand. An answer that the outcome of another made needless becomes Needless. It
// waits for a silent Redis at most once a timeout, for a busy one a quarter of a
// second, and never for one that is away.
func Take(e *Engine, p *Policy, asks []Ask, answers []Answer, now int64) bool {
	j := &job{policy: p, asks: asks, answers: answers, now: now, done: make(chan bool, 1)}
	e.door.RLock()
	closed := e.closed
	if !closed {
		e.core.inbox <- j
	}
	e.door.RUnlock()
	if closed {
		return takeLocally(e, j)
	}
	granted := <-j.done
	return granted
}

// takeLocally decides for a request that has outlived its configuration.
func takeLocally(e *Engine, j *job) bool {
	<-e.ended
	e.door.Lock()
	defer e.door.Unlock()
	return decideLocally(e.core, j)
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
		l.table.buckets = map[string]interface{}{}
		e.limiters.Store(id, l)
	}
	l.Allow(maxKeys)
	return l
}

// Drop forgets a limit that nobody uses any more. What its keys still hold is
// given back in time; what they counted stays in Redis.
func (e *Engine) Drop(l *Limiter) {
	e.mu.Lock()
	defer e.mu.Unlock()
	id := limiterID{name: l.Name, window: l.window}
	if found, ok := e.limiters.Load(id); ok && found.(*Limiter) == l {
		e.limiters.Delete(id)
		e.tell(&dropped{limiter: l})
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
func (e *Engine) Keys() int64 { return e.keys.Load() }

// Now is the engine's clock, in monotonic nanoseconds.
func (e *Engine) Now() int64 { return e.clock() }

// Ready has the engine greet a Redis that is back: heartbeat and reports go
// out now.
func (e *Engine) Ready() {
	wait.Poke(e.presence.ready)
	e.tell(nudge{})
}

func later(a, b int64) int64 {
	if a > b {
		return a
	}
	return b
}
