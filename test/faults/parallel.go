package faults

import (
	"fmt"
	"testing"
	"time"
)

// Limits of a stampede: one that is counted by the instants of its grants, and
// the smallest that is counted by windows.
const (
	byInstants = 10
	byWindows  = 65
)

// Parallel is what rounds of a stampede on a fresh key showed.
type Parallel struct {
	Form          string
	Rounds, Exact int
	Limit         int64
	Requests      int           // a round
	Timeout       time.Duration // 0: the plugin's own
	Degraded      int64
	Took          time.Duration
	Wrong         []string
}

// stampede has 50 times as many requests as a limit admits arrive at once over
// three gateways, each round on a key of its own, in the first hundredth of a
// window of ten hours (design: window-edges).
func stampede(t testing.TB, form string, limit int64, rounds int, timeout time.Duration) *Parallel {
	return stampedeOver(t, &Kind{Over: straight}, form, limit, rounds, timeout)
}

func stampedeOver(t testing.TB, kind *Kind, form string, limit int64, rounds int, timeout time.Duration) *Parallel {
	b := newBed(t, timeout, kind)
	b.setup.Form = form
	b.setup.Limits[routeExact] = limit
	b.open()
	b.connected()
	p := &Parallel{Form: form, Rounds: rounds, Limit: b.setup.Limits[routeExact], Timeout: timeout}
	each := (50*int(p.Limit) + gateways - 1) / gateways
	p.Requests = each * gateways
	before := b.degraded()
	began := time.Now()
	for round := range rounds {
		admitted := b.volley(Volley{Route: routeExact, Key: fmt.Sprintf("round%d", round), Count: each})
		if int64(admitted) == p.Limit {
			p.Exact++
		} else {
			p.Wrong = append(p.Wrong, fmt.Sprintf("round %d: %d", round, admitted))
		}
	}
	p.Took = time.Since(began)
	p.Degraded = b.degraded() - before
	return p
}
