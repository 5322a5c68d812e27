package accuracy

import (
	"bufio"
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// hit is what a line of a web log says of a limiter's business.
type hit struct {
	host string
	at   time.Time // whole seconds
}

// clfTime is the time between brackets in Apache's Common Log Format:
//
//	198.51.100.7 - alice [10/Oct/2000:13:55:36 -0700] "GET /a HTTP/1.0" 200 2326
//
// What follows the time is not looked at, so the Combined format will do too.
const clfTime = "02/Jan/2006:15:04:05 -0700"

// parseCLF reads one line; ok is false where it is not in that format.
func parseCLF(line string) (h hit, ok bool) {
	host, rest, _ := strings.Cut(line, " ")
	names, rest, found := strings.Cut(rest, " [")
	stamp, request, closed := strings.Cut(rest, "] \"")
	if host == "" || !found || !closed || len(strings.Fields(names)) < 2 || !strings.Contains(request, "\"") {
		return hit{}, false
	}
	at, err := time.Parse(clfTime, stamp)
	if err != nil {
		return hit{}, false
	}
	return hit{host: host, at: at}, true
}

// readCLF reads a log. Lines of another form are counted, since real logs hold
// some; a log without a single good line is an error.
func readCLF(r io.Reader) (hits []hit, skipped int, err error) {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if h, ok := parseCLF(lines.Text()); ok {
			hits = append(hits, h)
		} else {
			skipped++
		}
	}
	if err := lines.Err(); err != nil {
		return nil, 0, fmt.Errorf("line %d: %w", len(hits)+skipped+1, err)
	}
	if len(hits) == 0 {
		return nil, 0, fmt.Errorf("none of %d lines is in Common Log Format", skipped)
	}
	// Servers write a line when the answer ends.
	slices.SortStableFunc(hits, func(a, b hit) int { return cmp.Compare(a.at.Unix(), b.at.Unix()) })
	return hits, skipped, nil
}

// fromLog is the log as a traffic: the address is the key, windows lie as they
// lay, and the requests of one second, of which the log knows no more, are
// spread evenly over it.
func fromLog(name string, hits []hit, q quota, seed uint64) traffic {
	r := source(name, q, seed)
	start := hits[0].at.Truncate(q.window)
	keys := map[string]int{}
	var all []arrival
	for from := 0; from < len(hits); {
		to := from
		for to < len(hits) && hits[to].at.Unix() == hits[from].at.Unix() {
			to++
		}
		second, step := hits[from].at.Sub(start), time.Second/time.Duration(to-from)
		for i, h := range hits[from:to] {
			key, known := keys[h.host]
			if !known {
				key = len(keys)
				keys[h.host] = key
			}
			all = append(all, arrival{at: second + time.Duration(i)*step, key: key, gate: r.IntN(gateways)})
		}
		from = to
	}
	span := all[len(all)-1].at/q.window*q.window + q.window
	return newTraffic(name, span, all)
}
