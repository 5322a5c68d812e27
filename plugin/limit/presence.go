package limit

import (
	"sort"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluice-gateway/sluice/plugin/redis"
	"github.com/sluice-gateway/sluice/plugin/wait"
)

const (
	beatEvery   = time.Second
	liveFor     = 3 * time.Second  // without a heartbeat an instance counts as gone after this
	keptFor     = 10 * time.Minute // and authsvc can show for so long what it told last
	rememberFor = int64(30e9)      // ns: the fallback divides by the most instances seen in this time
)

// beatScript notes this instance as live on Redis's clock and answers who is.
//
//	KEYS[1]  the set of instances, scored by their last heartbeat (ms)
//	ARGV     1 this instance   2 how long an instance lives (ms)   3 how long it is kept after that (ms)
//	reply    Redis's time (us), 1 if this instance was alive, then all that are
const beatScript = `
local time = redis.call('TIME')
local ms = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local oldest = ms - tonumber(ARGV[2])
local last = redis.call('ZSCORE', KEYS[1], ARGV[1])
redis.call('ZADD', KEYS[1], string.format('%.0f', ms), ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('(%.0f', ms - tonumber(ARGV[3])))
redis.call('PEXPIRE', KEYS[1], ARGV[3])
local reply = {string.format('%.0f', tonumber(time[1]) * 1000000 + tonumber(time[2])), last and tonumber(last) >= oldest and '1' or '0'}
local all = redis.call('ZRANGE', KEYS[1], 0, -1, 'WITHSCORES')
for i = 1, #all, 2 do
  if tonumber(all[i + 1]) >= oldest then reply[#reply + 1] = all[i] end
end
return reply
`

var beatLua = redis.NewScript(beatScript)

// presence knows how many instances share the limits, and which part of them
// is ours while Redis is away.
type presence struct {
	engine   *Engine
	instance string
	report   func() string
	ready    chan struct{} // Redis is back: beat now

	live     atomic.Int64 // instances at the last heartbeat, at least 1
	answered atomic.Bool  // a heartbeat has been answered since the last restore

	mu      sync.Mutex
	history []attendance // of the last rememberFor before the last heartbeat, oldest first
}

// attendance is what one heartbeat saw.
type attendance struct {
	at    int64 // monotonic ns
	count int64
	rank  int64 // our place among the instances' sorted ids
}

func newPresence(e *Engine, instance string, report func() string) *presence {
	p := &presence{engine: e, instance: instance, report: report, ready: make(chan struct{}, 1)}
	p.live.Store(1)
	return p
}

// instances is the number of live gateways, for the size of leases.
func (p *presence) instances() int64 { return p.live.Load() }

// share is this instance's part of a limit while Redis is away: of n instances
// each gets limit/n, and the first limit%n by rank one more, so that the parts
// add up to the limit (RULES 17). n is the largest number seen in the last 30 s
// that Redis was heard, since a Redis that stalls makes all heartbeats stale,
// and never below atLeast.
func (p *presence) share(limit, atLeast int64) int64 {
	most := p.most()
	n := later(most.count, atLeast)
	share := limit / n
	if most.rank < limit%n {
		share++
	}
	return share
}

// most is the heartbeat that saw most instances.
func (p *presence) most() attendance {
	p.mu.Lock()
	defer p.mu.Unlock()
	most := attendance{count: 1, rank: 1} // never heard: nobody vouches for the remainder
	for _, a := range p.history {
		if a.count >= most.count {
			most = a
		}
	}
	return most
}

// beat sends a heartbeat each second, and at once when Redis is back.
func (p *presence) beat() {
	e := p.engine
	began := e.clock()
	ticker := time.NewTicker(beatEvery)
	defer ticker.Stop()
	for {
		now := e.clock()
		if e.redis.Healthy() {
			p.send(now)
		} else if now-began >= int64(beatEvery) { // the first connection takes a moment
			why := e.visible.trouble() // what opened the breaker, if it was a heartbeat's
			if why == nil {
				why = &unconnected
			}
			e.exact.persists(why, now)
		}
		if wait.First(ticker.C, p.ready, e.stop) == 2 {
			return
		}
	}
}

// Ready has the engine greet a Redis that is back: heartbeat and reports go
// out now.
func (e *Engine) Ready() {
	wait.Poke(e.presence.ready)
	e.sweeper.nudge()
}

// send tells Redis that this instance lives, and tries what the limits need for
// as long as nobody knows it to work.
func (p *presence) send(now int64) {
	e := p.engine
	calls := []*redis.Call{{
		Key: liveKey(e.prefix), Script: beatLua,
		Args: []string{p.instance, milliseconds(liveFor), milliseconds(keptFor)},
		Done: func(reply redis.Reply, err error) {
			if err == nil {
				err = p.heard(reply, now)
			}
			e.beaten(err, now)
		},
	}, {
		Key: heartbeatKey(e.prefix, p.instance), Name: "SET",
		Args: []string{p.report(), "PX", milliseconds(keptFor)},
		Done: func(_ redis.Reply, err error) { e.beaten(err, now) },
	}}
	if !e.counted.Load() || e.Trouble() != nil {
		calls = append(calls, e.rehearse(now)...)
	}
	e.redis.Send(calls...)
}

// beaten notes what became of a heartbeat.
func (e *Engine) beaten(err error, sent int64) {
	if err != nil {
		e.counted.Store(false) // the next heartbeat tries
		e.visible.failed(err, e.clock())
	} else {
		e.visible.served(sent)
	}
}

func milliseconds(d time.Duration) string { return strconv.FormatInt(int64(d/time.Millisecond), 10) }

// words are the reply's elements; nil where one is not a string.
func words(reply redis.Reply) []string {
	elements, err := reply.Array()
	if err != nil {
		return nil
	}
	all := make([]string, len(elements))
	for i := range elements {
		if all[i], err = elements[i].Str(); err != nil {
			return nil
		}
	}
	return all
}

// heard takes the reply to a heartbeat.
func (p *presence) heard(reply redis.Reply, sent int64) error {
	fields := words(reply)
	if len(fields) < 3 {
		return errReply
	}
	micros, err := strconv.ParseInt(fields[0], 10, 64)
	instances := append([]string(nil), fields[2:]...)
	sort.Strings(instances)
	now := attendance{at: sent, count: int64(len(instances)), rank: int64(sort.SearchStrings(instances, p.instance))}
	if err != nil || now.rank == now.count || instances[now.rank] != p.instance || !p.engine.tellTime(micros, sent) {
		return errReply
	}
	known := fields[1] == "1"
	p.live.Store(now.count)

	p.mu.Lock()
	recent := p.history[:0]
	for _, a := range p.history {
		if sent-a.at < rememberFor {
			recent = append(recent, a)
		}
	}
	p.history = append(recent, now)
	p.mu.Unlock()

	// A Redis that does not know an instance it has answered before has lost
	// its state (restarted empty, flushed, or a replica that lagged took over),
	// or has not heard of us for liveFor. It learns again what we have seen;
	// where it had forgotten nothing that changes nothing.
	if p.answered.Swap(true) && !known {
		p.engine.restore(sent)
	}
	return nil
}

// restore has every bucket whose counts still matter tell Redis about them.
func (e *Engine) restore(now int64) {
	told := 0
	e.limiters.Range(func(_, limiter interface{}) bool {
		l := limiter.(*Limiter)
		running := e.redisNow(now) / l.window
		l.table.each(func(b *bucket) {
			b.mu.Lock()
			counts := b.seen.At(running)
			if counts.Current()+counts.Previous() > 0 {
				e.oweLocked(b)
				told++
			}
			b.mu.Unlock()
		})
		return true
	})
	e.log("warn", "Redis did not know this gateway any more: telling it the counts of "+strconv.Itoa(told)+" keys")
}
