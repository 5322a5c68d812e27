package plugin

import (
	"strconv"
	"sync/atomic"
	"time"

	"github.com/sluice-gateway/sluice/plugin/config"
	"github.com/sluice-gateway/sluice/plugin/limit"
)

// limitRule is one configured limit, and what goes with it.
type limitRule struct {
	config.LimitSettings

	limiter    *limit.Limiter
	state      string // names the limiter among all there have been
	oddities   *oddities
	identified bool     // what the auth step says decides its key or its number: it is asked after that
	varies     bool     // its number is not the same for everybody
	told       bool     // its key is a header that the auth step writes
	awaited    bool     // the answer's status decides whether the permit counts
	policy     string   // RateLimit-Policy for the plain limit
	usedUp     *refusal // of all whom it denies
	quoted     string   // `"name"`, with what follows it in RateLimit
}

// oddities are what a limit had to say of its limitHeader, for all routers that
// have it.
type oddities struct{ unread, beyond oddity }

// oddity is one kind of it: at most one line a minute.
type oddity struct {
	said    atomic.Int64 // when, in monotonic ns; 0 is never
	skipped atomic.Int64
}

// longestQuote bounds what a line repeats.
const longestQuote = 64

func (o *oddity) say(rule *limitRule, value, meaning string) {
	now, last := clock(), o.said.Load()
	if last != 0 && now-last < int64(time.Minute) || !o.said.CompareAndSwap(last, now) {
		o.skipped.Add(1)
		return
	}
	if len(value) > longestQuote {
		value = value[:longestQuote] + "..."
	}
	if n := o.skipped.Swap(0); n > 0 {
		meaning += " (and " + strconv.FormatInt(n, 10) + " more such requests since the last line)"
	}
	logLine("warn", "the limit "+rule.Name+" reads "+strconv.Quote(value)+" from "+rule.LimitHeader+", "+meaning)
}
