package accuracy

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluice-gateway/sluice/plugin/limit"
	"github.com/sluice-gateway/sluice/plugin/redis"
	"github.com/sluice-gateway/sluice/plugin/window"
)

// The script that gateways send, as it is, but that TIME is what the arguments
// 17 and 18 say, and that keys do not expire: virtual minutes pass in real
// milliseconds or, on a busy machine, the other way round. That expiry is right
// is shown where real time runs (plugin/window).
const shim = `
local real = redis
local redis = setmetatable({call = function(command, ...)
  if command == 'TIME' then return {ARGV[2], ARGV[3]} end
  if command == 'SET' then return real.call('SET', (...), (select(2, ...))) end
  return real.call(command, ...)
end}, {__index = real})
`

// store is the real Redis of a fleet.
type store struct {
	wire *wire
	hash string // of the script, loaded
}

func newStore(s *server) (*store, error) {
	w, err := s.dial()
	if err != nil {
		return nil, err
	}
	hash, err := w.do("SCRIPT", "LOAD", shim+window.Script)
	if err != nil {
		return nil, fmt.Errorf("load the limit script: %w", err)
	}
	return &store{wire: w, hash: hash}, nil
}

// fleet is one or more gateways' limit engines on virtual time.
type fleet struct {
	store *store
	names []string

	mu    sync.Mutex
	calls int   // of the limit script
	err   error // the first that Redis answered
}

// slowestReply is how long one in fifty takes.
const slowestReply = 8 * time.Millisecond

// link is one gateway's connection to Redis. Each way takes half of 0.1 to
// 0.4 ms, and of 8 ms once in fifty times.
type link struct {
	fleet  *fleet
	random *rand.Rand
}

// serve takes the engine's calls to Redis.
func (l *link) serve(calls <-chan *redis.Call, clock func() int64) {
	for call := range calls {
		there, back := l.latency()/2, l.latency()/2
		go func() {
			time.Sleep(there)
			call.Line, call.Err = l.fleet.execute(call)
			time.Sleep(back)
			call.At = clock()
			call.To <- call
		}()
	}
}

func (l *link) latency() time.Duration {
	if l.random.IntN(50) == 0 {
		return slowestReply
	}
	return time.Duration(100_000 + l.random.IntN(300_000))
}

// execute has Redis run the limit script. Heartbeats are answered here: every
// gateway of the fleet lives.
func (f *fleet) execute(call *redis.Call) (line string, err error) {
	now := time.Now().UnixMicro()
	switch {
	case call.Script == nil: // the heartbeat's report
		return "OK", nil
	case strings.HasSuffix(call.Key, ":gw:live"):
		// Redis's time, that the sender was known, and who is there.
		return strings.Join(append([]string{strconv.FormatInt(now, 10), "1"}, f.names...), " "), nil
	}
	words := append([]string{"EVALSHA", f.store.hash, "1", call.Key}, call.Args...)
	wire, err := f.store.wire.do(append(words, strconv.FormatInt(now/1e6, 10), strconv.FormatInt(now%1e6, 10))...)
	f.mu.Lock()
	f.calls++
	f.err = errors.Join(f.err, err)
	f.mu.Unlock()
	return strings.Trim(wire, "+\r\n"), err
}

// outcome is what a subject made of a traffic.
type outcome struct {
	decisions []decision
	calls     int // scripts that Redis ran for it
}

// sluice drives the given number of real engines through t. The monotonic
// clock of the second and every further one is ahead of the one before it by
// skew.
func (s *store) sluice(test *testing.T, t traffic, q quota, engines int, skew time.Duration, seed uint64) (o outcome, err error) {
	if _, err := s.wire.do("FLUSHALL"); err != nil {
		return o, err
	}
	synctest.Test(test, func(*testing.T) {
		f := &fleet{store: s}
		for i := range engines {
			f.names = append(f.names, fmt.Sprintf("gateway-%d", i))
		}
		gates := make([]*limit.Engine, engines)
		for i, name := range f.names {
			gates[i] = f.join(name, skew*time.Duration(i), rand.New(rand.NewPCG(seed, uint64(i))))
			time.Sleep(100*time.Millisecond + 7919*time.Nanosecond) // no two tick at one instant
		}
		start := time.Now().Add(q.window).Truncate(q.window).Add(2 * q.window)
		o.decisions = replay(t, start, q, gates)
		degraded := int64(0)
		for _, g := range gates {
			degraded += g.Degraded.Load()
			g.Close()
		}
		time.Sleep(time.Second) // calls under way land
		f.mu.Lock()
		o.calls, err = f.calls, f.err
		f.mu.Unlock()
		if degraded > 0 {
			err = errors.Join(err, fmt.Errorf("%d decisions without Redis: the run proves nothing", degraded))
		}
	})
	return o, err
}

func (f *fleet) join(name string, ahead time.Duration, random *rand.Rand) *limit.Engine {
	started := time.Now()
	clock := func() int64 { return int64(time.Since(started) + ahead) }
	calls := make(chan *redis.Call, 1<<12)
	engine := limit.NewEngine(limit.Options{
		Calls: calls, Healthy: func() bool { return true }, Timeout: 25 * time.Millisecond, Instance: name, Prefix: "sluice",
		Report: func() string { return "{}" },
		Clock:  clock,
		Log:    func(string, string) {},
	})
	engine.Start()
	link := &link{fleet: f, random: random}
	go link.serve(calls, clock)
	return engine
}

// replay lets each request arrive at its instant and notes what became of it.
func replay(t traffic, start time.Time, q quota, gates []*limit.Engine) []decision {
	policy := &limit.Policy{MinInstances: int64(len(gates))}
	limiters := make([]*limit.Limiter, len(gates))
	for i, g := range gates {
		limiters[i] = g.Limiter("accuracy", q.window, 100_000)
	}
	names := make([]string, len(t.byKey))
	for key := range names {
		names[key] = limit.Key(limit.UserKey, strconv.Itoa(key))
	}
	decisions := make([]decision, len(t.arrivals))
	var all sync.WaitGroup
	for i, a := range t.arrivals {
		time.Sleep(time.Until(start.Add(a.at)))
		all.Go(func() {
			gate := a.gate % len(gates)
			asks := []limit.Ask{{Limiter: limiters[gate], Key: names[a.key], Limit: q.limit, Cost: 1}}
			admitted := limit.Take(gates[gate], policy, asks, make([]limit.Answer, 1), gates[gate].Now())
			decisions[i] = decision{admitted: admitted, at: time.Since(start)}
		})
	}
	all.Wait()
	return decisions
}
