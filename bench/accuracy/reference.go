package accuracy

import (
	"time"

	"github.com/sluice-gateway/sluice/plugin/window"
)

// decision is what a subject did with an arrival, and when: an admission
// counts from the instant at which it was let through.
type decision struct {
	admitted bool
	at       time.Duration
}

// slidingLog is the exact limiter: it remembers each admission for one
// window's length and admits while fewer than limit are remembered.
type slidingLog struct {
	limit    int
	window   time.Duration
	admitted []time.Duration // the oldest first; never more than limit
}

// admit decides about a request that arrives at the given time. An admission
// counts within [its own instant, window later).
func (l *slidingLog) admit(at time.Duration) bool {
	gone := 0
	for gone < len(l.admitted) && at-l.admitted[gone] >= l.window {
		gone++
	}
	l.admitted = l.admitted[gone:]
	if len(l.admitted) >= l.limit {
		return false
	}
	l.admitted = append(l.admitted, at)
	return true
}

// counter is the rule as one machine applies it that sees every request.
type counter struct {
	quota  quota
	counts window.Counts
}

// epoch is where times of a traffic lie on the rule's clock: a window begins.
const epoch = 1000

func (q quota) micros(at time.Duration) int64 {
	return epoch*window.Span(q.window) + int64(at/time.Microsecond)
}

func (c *counter) admit(at time.Duration) bool { return c.grant(c.quota.micros(at)) }

// grant is admit at an instant of the rule's clock.
func (c *counter) grant(now int64) bool {
	ask := window.Ask{Window: window.Span(c.quota.window), Limit: c.quota.limit, Cost: 1, Need: 1, Instances: 1}
	grant, _ := window.Decide(c.counts, ask, now)
	c.counts = grant.Counts
	return grant.Need == 1
}

// sequential has a fresh limiter for each key decide about its arrivals.
func sequential[L interface{ admit(time.Duration) bool }](t traffic, fresh func() L) []decision {
	decisions := make([]decision, len(t.arrivals))
	for _, indices := range t.byKey {
		limiter := fresh()
		for _, i := range indices {
			at := t.arrivals[i].at
			decisions[i] = decision{admitted: limiter.admit(at), at: at}
		}
	}
	return decisions
}

func exactly(t traffic, q quota) []decision {
	return sequential(t, func() *slidingLog { return &slidingLog{limit: int(q.limit), window: q.window} })
}

func byTheRule(t traffic, q quota) []decision {
	return sequential(t, func() *counter { return &counter{quota: q} })
}
