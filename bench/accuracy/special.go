package accuracy

import (
	"testing"
	"time"
)

// Two traffics that only token buckets of Traefik's kind mind.

// pauses are bursts of 150 requests at an average of 1 a second and a bucket of
// 100, so far apart that Traefik may have forgotten the key.
var pauses = []time.Duration{time.Second, 2200 * time.Millisecond}

const bursts = 10

// bucket is the quota whose token bucket has average 1/s and burst 100.
var bucket = quota{name: "100 in 100 s", limit: 100, window: 100 * time.Second}

func spaced(pause time.Duration, seed uint64) traffic {
	r := source(pause.String(), bucket, seed)
	var all []arrival
	for n := range bursts {
		at := time.Duration(n) * pause
		evenly(r, 150, at, at+10*time.Millisecond, func(at time.Duration) { all = append(all, arrival{at: at}) })
	}
	return newTraffic(pause.String(), bucket.window, all)
}

// skews are the differences between the clocks of two gateways that share a
// key at ten times its limit.
var skews = []time.Duration{0, time.Millisecond, 5 * time.Millisecond, 10 * time.Millisecond, 50 * time.Millisecond, 100 * time.Millisecond}

const skewedSpan = 30 * time.Second

var perSecond = quota{name: "20 a second", limit: 20, window: time.Second, windows: 100}

func skewed(seed uint64) traffic {
	r := source("skew", perSecond, seed)
	var all []arrival
	poisson(r, 10*perSecond.rate(), 0, skewedSpan, func(at time.Duration) {
		all = append(all, arrival{at: at, gate: r.IntN(2)})
	})
	return newTraffic("skew", skewedSpan, all)
}

// specials are the figures of both.
type specials struct {
	paused []pausedRow
	skewed []skewedRow
}

type pausedRow struct {
	pause                 time.Duration
	sent, promised        int // by the token bucket: burst + average * time
	memory, redis, sluice int // admitted
}

type skewedRow struct {
	skew                  time.Duration
	sent, promised, redis int // Traefik with Redis
	rule, sluice          int
}

// specialJobs are the traffics for Traefik, in the order in which the rows
// take their results.
func specialJobs(redis string, seed uint64) []job {
	var jobs []job
	for _, pause := range pauses {
		for _, at := range []string{"", redis} {
			j := newJob(spaced(pause, seed), bucket, at, 1)
			j.Average, j.Period = 1, time.Second
			jobs = append(jobs, j)
		}
	}
	for _, skew := range skews {
		j := newJob(skewed(seed), perSecond, redis, 2)
		j.Skew = skew
		jobs = append(jobs, j)
	}
	return jobs
}

// special has Sluice do the same; traefik are the results of specialJobs.
func (s *store) special(test *testing.T, traefik []result, seed uint64) (rows specials, err error) {
	for i, pause := range pauses {
		t := spaced(pause, seed)
		o, err := s.sluice(test, t, bucket, 1, 0, seed)
		if err != nil {
			return rows, err
		}
		rows.paused = append(rows.paused, pausedRow{
			pause: pause, sent: len(t.arrivals), promised: int(bucket.limit) + int(bursts*pause/time.Second),
			memory: admitted(traefik[2*i].decisions()), redis: admitted(traefik[2*i+1].decisions()), sluice: admitted(o.decisions),
		})
	}
	for i, skew := range skews {
		t := skewed(seed)
		o, err := s.sluice(test, t, perSecond, 2, skew, seed)
		if err != nil {
			return rows, err
		}
		rows.skewed = append(rows.skewed, skewedRow{
			skew: skew, sent: len(t.arrivals), promised: int(perSecond.limit) * int(1+skewedSpan/perSecond.window),
			redis: admitted(traefik[2*len(pauses)+i].decisions()),
			rule:  admitted(byTheRule(t, perSecond)), sluice: admitted(o.decisions),
		})
	}
	return rows, nil
}

func admitted(decisions []decision) int {
	n := 0
	for _, d := range decisions {
		if d.admitted {
			n++
		}
	}
	return n
}
