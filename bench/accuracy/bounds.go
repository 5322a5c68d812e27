package accuracy

import (
	"time"

	"github.com/sluice-gateway/sluice/plugin/window"
)

// The counter rule takes the previous window to have been used evenly. These are the
// two ways to make that as wrong as it gets.

// mostInOneWindow is how many requests the quota's rule admits within less than one
// window's length: the whole limit in the last microsecond of a window, then
// each further one at the first instant at which the previous window has faded
// enough.
func mostInOneWindow(q quota) int64 {
	w := window.Span(q.window)
	burst := epoch*w - 1
	machine, admitted := counter{quota: q}, int64(0)
	for now := burst; now < burst+w; now = window.FreeAt(machine.counts, w, q.limit, 1, now) {
		if machine.grant(now) {
			admitted++
		}
	}
	return admitted
}

// leastOfHonest is the share that the rule admits of a client which sends the
// whole limit at once, every so often: once a window's length, and so never exceeds
// an exact log. It is the least over all phases of the bursts in their windows.
func leastOfHonest(q quota, every time.Duration) (least float64, phase time.Duration) {
	const phases, rounds = 100, 100
	least = 1
	for p := range phases {
		offset := q.window * time.Duration(p) / phases
		machine, admitted := counter{quota: q}, int64(0)
		for round := range rounds {
			for range q.limit {
				if machine.admit(offset + time.Duration(round)*every) {
					admitted++
				}
			}
		}
		if share := float64(admitted) / float64(rounds*q.limit); share < least {
			least, phase = share, offset
		}
	}
	return least, phase
}
