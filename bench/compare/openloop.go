package main

import (
	"context"
	"net/http"
	"sync/atomic"
	"time"

	vegeta "github.com/tsenart/vegeta/v12/lib"
)

// mostWorkers bounds the requests that are under way at once in an open loop.
const mostWorkers = 4000

// longestAnswer is how long an answer may take until nobody waits for it.
const longestAnswer = 5 * time.Second

// paced sends requests at a fixed rate, whether answers come or not, and
// returns how long each took from the instant at which it was due, how many were
// not answered in time, and how many not as they should.
//
// vegeta's own latencies begin when a request is really sent, which hides the
// wait of one that was sent late because the machine was busy (coordinated
// omission). Its results carry the request's number: it was due number/rate
// after the start. The start is not told, but no request is sent before it is
// due, so it is the earliest of (sent - number/rate).
func paced(ctx context.Context, url string, lines []line, rate int, length time.Duration) (latencies []time.Duration, late, wrong int) {
	targets := make([]vegeta.Target, len(lines))
	for i, l := range lines {
		targets[i] = vegeta.Target{Method: http.MethodGet, URL: url, Header: headersOf(l)}
	}
	var next atomic.Uint64
	attacker := vegeta.NewAttacker(vegeta.Connections(connections*4), vegeta.Workers(connections), vegeta.MaxWorkers(mostWorkers),
		vegeta.HTTP2(false), vegeta.Timeout(longestAnswer), vegeta.Redirects(vegeta.NoFollow))
	stop := context.AfterFunc(ctx, func() { attacker.Stop() })
	defer stop()

	period := time.Second / time.Duration(rate)
	type finish struct {
		number uint64
		at     time.Time
	}
	var finished []finish
	var start time.Time
	for result := range attacker.Attack(func(t *vegeta.Target) error {
		*t = targets[next.Add(1)%uint64(len(targets))]
		return nil
	}, vegeta.ConstantPacer{Freq: rate, Per: time.Second}, length, "") {
		if began := result.Timestamp.Add(-time.Duration(result.Seq) * period); start.IsZero() || began.Before(start) {
			start = began
		}
		switch {
		case result.Error != "" && result.Code == 0:
			late++
		case result.Error != "":
			wrong++
		}
		finished = append(finished, finish{number: result.Seq, at: result.Timestamp.Add(result.Latency)})
	}
	for _, f := range finished {
		latencies = append(latencies, f.at.Sub(start.Add(time.Duration(f.number)*period)))
	}
	return latencies, late, wrong
}

// headersOf are what drive.lua sends as well.
func headersOf(l line) http.Header {
	return http.Header{
		"Accept":          {"application/json"},
		"User-Agent":      {"bench"},
		"Authorization":   {"Bearer " + l.token},
		"X-Expect-User":   {l.user},
		"X-Key":           {l.key},
		"X-Forwarded-For": {l.address()},
	}
}

// unpaced is how many requests a second the generator gets answered when it
// sends the next as soon as one is answered.
func unpaced(ctx context.Context, url string, lines []line, length time.Duration) int {
	targets := make([]vegeta.Target, len(lines))
	for i, l := range lines {
		targets[i] = vegeta.Target{Method: http.MethodGet, URL: url, Header: headersOf(l)}
	}
	attacker := vegeta.NewAttacker(vegeta.Connections(connections), vegeta.Workers(connections), vegeta.MaxWorkers(connections), vegeta.HTTP2(false))
	stop := context.AfterFunc(ctx, func() { attacker.Stop() })
	defer stop()
	count := 0
	began := time.Now()
	for range attacker.Attack(vegeta.NewStaticTargeter(targets...), vegeta.ConstantPacer{}, length, "") {
		count++
	}
	return int(float64(count) / time.Since(began).Seconds())
}
