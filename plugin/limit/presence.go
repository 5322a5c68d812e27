package limit

import (
	"fmt"
	"sort"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/sluice-gateway/sluice/plugin/redis"
	"github.com/sluice-gateway/sluice/plugin/wait"
	"github.com/sluice-gateway/sluice/plugin/window"
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
//	reply    a line: Redis's time (us), 1 if this instance was alive, then all that are
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
return {ok = table.concat(reply, ' ')}
`

var beatLua = redis.NewScript(beatScript)

// presence knows how many instances share the limits, and which part of them
// is ours while Redis is away.
type presence struct {
	prefix   string // of all Redis keys
	instance string
	ready    chan struct{} // Redis is back: beat now
	answered bool          // a heartbeat has been answered; the core's

	mu      sync.Mutex
	history []attendance // of the last rememberFor before the last heartbeat, oldest first
}

// attendance is what one heartbeat saw.
type attendance struct {
	at    int64 // monotonic ns
	count int64
	rank  int64 // our place among the instances' sorted ids
}

func newPresence(prefix, instance string) *presence {
	return &presence{prefix: prefix, instance: instance, ready: make(chan struct{}, 1)}
}

// share is this instance's part of a limit while Redis is away: of n instances
// each gets limit/n, and the first limit%n by rank one more, so that the parts
// add up to the limit (design: fallback-share). n is the largest number seen in the last 30 s
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
func (e *Engine) beat() {
	began := e.clock()
	ticker := time.NewTicker(beatEvery)
	defer ticker.Stop()
	for {
		now := e.clock()
		if e.healthy() {
			e.sendBeat(now)
		} else if now-began >= int64(beatEvery) { // the first connection takes a moment
			why := e.visible.trouble() // what opened the breaker, if it was a heartbeat's
			if why == nil {
				why = &unconnected
			}
			e.exact.persists(why, now)
		}
		if wait.First(ticker.C, e.presence.ready, e.stop) == 2 {
			return
		}
	}
}

// sendBeat has the core tell Redis that this instance lives.
func (e *Engine) sendBeat(now int64) {
	p := e.presence
	e.tell(&beat{now: now, calls: []*redis.Call{{
		Key: liveKey(p.prefix), Script: beatLua, Tag: &pulse{sent: now, live: true},
		Args: []string{p.instance, milliseconds(liveFor), milliseconds(keptFor)},
	}, {
		Key: heartbeatKey(p.prefix, p.instance), Name: "SET", Tag: &pulse{sent: now},
		Args: []string{e.report(), "PX", milliseconds(keptFor)},
	}}})
}

// A pulse is what a heartbeat's call is known by.
type pulse struct {
	sent int64 // monotonic ns
	live bool  // it asked who lives
}

// beaten takes what became of a call of the core's own.
func beaten(c *core, call *redis.Call, now int64) {
	p := call.Tag.(*pulse)
	err := call.Err
	if err == nil && p.live {
		err = heard(c, call.Line, p.sent, now)
	}
	switch {
	case err == nil:
		c.visible.served(p.sent)
	case !c.closing:
		c.counted = false // the next heartbeat tries
		c.visible.failed(err, now)
	}
}

func milliseconds(d time.Duration) string { return strconv.FormatInt(int64(d/time.Millisecond), 10) }

// heard takes the reply to a heartbeat.
func heard(c *core, line string, sent, now int64) error {
	p := c.presence
	fields := strings.Fields(line)
	if len(fields) < 3 {
		return errReply
	}
	micros, err := strconv.ParseInt(fields[0], 10, 64)
	instances := append([]string(nil), fields[2:]...)
	sort.Strings(instances)
	at := attendance{at: sent, count: int64(len(instances)), rank: int64(sort.SearchStrings(instances, p.instance))}
	if err != nil || at.rank == at.count || instances[at.rank] != p.instance || !tellTime(c, micros, sent, now) {
		return errReply
	}
	c.instances = at.count
	p.note(at)

	// A Redis that does not know an instance it has answered before has lost
	// its state (restarted empty, flushed, or a replica that lagged took over),
	// or has not heard of us for liveFor. It learns again what we have seen;
	// where it had forgotten nothing that changes nothing.
	if p.answered && fields[1] != "1" {
		restore(c)
	}
	p.answered = true
	return nil
}

// note remembers what a heartbeat saw.
func (p *presence) note(at attendance) {
	p.mu.Lock()
	defer p.mu.Unlock()
	recent := p.history[:0]
	for _, a := range p.history {
		if at.at-a.at < rememberFor {
			recent = append(recent, a)
		}
	}
	p.history = append(recent, at)
}

// rehearse makes calls that show whether Redis counts requests, though nobody
// may be asking: a call of the limit script for nobody, which needs all that one
// for a request does (the command, the key pattern, and a write), and one about
// the key that failed last, which changes nothing.
func rehearse(c *core, now int64) []*redis.Call {
	tag := GlobalKey
	if b, ok := c.failing.(*bucket); ok {
		tag = b.name // of the same node in a Cluster
		if b.flight == nil && len(b.queue) == 0 && !b.shared {
			c.launches = append(c.launches, b)
		}
	}
	f := &flight{sent: now, limit: 1000000, cost: 1, need: 1}
	f.ask = window.Ask{Window: window.Span(time.Second), Limit: f.limit, Cost: f.cost, Need: f.need, Instances: 1}
	return []*redis.Call{{
		Key: limitPrefix(c.presence.prefix, rehearsalName, time.Second) + tag + "}", Script: script, Args: []string{f.ask.Word()}, Tag: f,
	}}
}

// rehearsalName is no name that a limit can have.
const rehearsalName = "_"

// rehearsed takes what became of a call for nobody.
func rehearsed(c *core, call *redis.Call, f *flight, now int64) {
	err := call.Err
	if err == nil && !tellTime(c, f.grant.Now, f.sent, now) {
		err = fmt.Errorf("%w: %s", errSense, call.Line)
	}
	switch {
	case err == nil && f.grant.Need > 0:
		wrote(c, f.sent)
	case err != nil && !c.closing:
		c.ailing = true
		c.exact.failed(err, now)
	}
}
