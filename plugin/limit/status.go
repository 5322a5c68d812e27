package limit

import (
	"strconv"
	"sync"
	"time"

	"github.com/sluice-gateway/sluice/plugin/redis"
)

// A status is what the operator is told of something that needs Redis: that
// it is well, or since when it is not, why, and what that means.
//
// A Redis that answers with errors looks alive to everybody else: it takes
// connections and answers PING. So each kind of trouble is written as an error
// at once, then once a minute while it lasts, and its end is written too.
type status struct {
	what    string        // cannot be done
	where   string        // which Redis it is
	meaning func() string // what it means for the requests
	again   string        // is so when it is over
	log     func(level, message string)

	mu      sync.Mutex
	since   time.Time        // zero: all is well
	last    int64            // monotonic ns of the newest failure
	kind    string           // of the newest failure
	words   string           // of Redis
	told    bool             // the operator has been told of it
	written map[string]int64 // kind -> monotonic ns of its last line
}

const (
	tellEvery = int64(60e9) // ns between two lines of one kind
	calm      = int64(2e9)  // ns without failure that end one: owed reports are tried once a second
)

// Trouble is what is wrong now.
type Trouble struct {
	Since int64  `json:"since"` // unix ms
	Kind  string `json:"kind"`
	Reply string `json:"reply"`
}

func newStatus(log func(level, message string), where, what, again string, meaning func() string) *status {
	return &status{what: what, where: where, again: again, meaning: meaning, log: log, written: map[string]int64{}}
}

// failed notes a failure. It may write, so no lock of the engine is held.
func (s *status) failed(err error, now int64) {
	if line := s.note(redis.Kind(err), err.Error(), now); line != "" {
		s.log("error", line)
	}
}

// unconnected is the trouble of a Redis that is not there.
var unconnected = Trouble{Kind: "away", Reply: "no usable connection to Redis"}

// persists notes that what was wrong still is; if nothing was, why.
func (s *status) persists(why *Trouble, now int64) {
	if known := s.trouble(); known != nil {
		why = known
	}
	if line := s.note(why.Kind, why.Reply, now); line != "" {
		s.log("error", line)
	}
}

// note is what to write of a failure; empty if that was written within a minute.
func (s *status) note(kind, words string, now int64) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.kind, s.words = kind, words
	if s.since.IsZero() {
		s.since = time.Now()
	}
	s.last = now
	if at, before := s.written[s.kind]; before && now-at < tellEvery {
		return ""
	}
	s.written[s.kind] = now
	s.told = true
	where := ""
	if s.where != "" {
		where = " (" + s.where + "; `sluice check --live FILE` says what it lacks)"
	}
	return s.what + ": " + s.words + where + ". Since " + instant(s.since) + " " + s.meaning()
}

// served notes that what failed has been done by a call sent at the given
// instant: where nothing has failed for a while before it, all is well again.
func (s *status) served(sent int64) {
	s.mu.Lock()
	over := !s.since.IsZero() && sent-s.last >= calm
	told, since := s.told, s.since
	if over {
		s.since, s.told = time.Time{}, false
	}
	s.mu.Unlock()
	if over && told {
		s.log("info", s.again+" (this ended what began at "+instant(since)+")")
	}
}

// trouble is what is wrong now; nil when nothing is.
func (s *status) trouble() *Trouble {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.since.IsZero() {
		return nil
	}
	return &Trouble{Since: s.since.UnixMilli(), Kind: s.kind, Reply: s.words}
}

func instant(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// withoutRedis says what becomes of requests at an engine's limits while Redis counts
// none.
func withoutRedis(limiters *sync.Map, p *presence) string {
	local, allow, deny, any := false, false, false, false
	least := int64(1)
	limiters.Range(func(_, limiter interface{}) bool {
		l := limiter.(*Limiter)
		l.mu.Lock()
		defer l.mu.Unlock()
		any = any || l.policy != nil // else it is being opened still
		switch {
		case l.policy == nil:
		case l.policy.OnFailure == Allow:
			allow = true
		case l.policy.OnFailure == Deny:
			deny = true
		default:
			local = true
			least = later(least, l.policy.MinInstances)
		}
		return true
	})
	text := ""
	if local || !any {
		n := later(p.most().count, least)
		text = "this gateway decides alone by its share, 1/" + strconv.FormatInt(n, 10) + " of each limit"
		if n == 1 {
			text = "this gateway decides alone and grants the whole of each limit, for it has heard of no other gateway (minInstances tells it how many there are)"
		}
	}
	if allow {
		text += join(text, "requests pass uncounted (onRedisFailure: allow)")
	}
	if deny {
		text += join(text, "requests are answered 503 (onRedisFailure: deny)")
	}
	return text
}

// unseen says what becomes of a gateway whose heartbeats are not taken.
func unseen() string {
	return "the other gateways do not see this one, so their shares are too large while Redis is away, and authsvc does not list it"
}

func join(before, text string) string {
	if before == "" {
		return text
	}
	return "; where so configured " + text
}
