package limit

import (
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
	e.exact = newStatus(o.Log, o.Where, "Redis does not count the limits", "Redis counts again: the limits are exact again", func() string { return withoutRedis(&e.limiters, e.presence) })
	e.visible = newStatus(o.Log, o.Where, "Redis does not take this gateway's heartbeat", "Redis takes this gateway's heartbeats again", unseen)
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

// tell sends the core a message, unless it has been told to end.
func (e *Engine) tell(message interface{}) {
	e.door.RLock()
	if !e.closed {
		e.core.inbox <- message
	}
	e.door.RUnlock()
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
		l = &Limiter{Name: name, window: id.window, prefix: limitPrefix(e.prefix, name, span), degraded: &e.Degraded}
		l.table.buckets = map[string]interface{}{}
		e.limiters.Store(id, l)
	}
	e.Allow(l, maxKeys)
	return l
}

// Allow raises the number of keys that a limit tracks.
func (e *Engine) Allow(l *Limiter, maxKeys int) { e.tell(&capacity{limiter: l, keys: maxKeys}) }

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

// Trouble tells why limits are decided without Redis now; nil while they are
// exact.
func (e *Engine) Trouble() *Trouble { return e.exact.trouble() }
