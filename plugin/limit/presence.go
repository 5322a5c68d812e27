package limit

import "sync"

// rememberFor is the time, in ns, of which the fallback divides by the most instances
// that were seen.
const rememberFor = int64(30e9)

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
