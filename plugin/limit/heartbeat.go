package limit

import (
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/sluice-gateway/sluice/plugin/redis"
	"github.com/sluice-gateway/sluice/plugin/wait"
)

const (
	beatEvery = time.Second
	liveFor   = 3 * time.Second  // without a heartbeat an instance counts as gone after this
	keptFor   = 10 * time.Minute // and authsvc can show for so long what it told last
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

// send hands out a call of the core's own, a heartbeat's or one that rehearses.
func send(c *core, call *redis.Call, now int64) {
	call.To = c.replies
	if len(c.calls) < cap(c.calls) {
		c.pending++
		c.calls <- call
		return
	}
	call.Err = errBusy
	if f, ok := call.Tag.(*flight); ok {
		rehearsed(c, call, f, now)
	} else {
		beaten(c, call, now)
	}
}

// beaten takes what became of a heartbeat's call.
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

func milliseconds(d time.Duration) string { return strconv.FormatInt(int64(d/time.Millisecond), 10) }
