package limit

import "math"

// horizon is how far ahead a lease reserves: a hot key then costs 20 calls a
// second and instance, whatever its rate (I4).
const horizon = int64(50e6) // ns

// demand estimates the permits that a key will ask of this instance within the
// horizon: a moving average that forgets at the horizon's pace.
type demand struct {
	taken   int64   // permits asked for since the last estimate
	last    int64   // monotonic ns of that estimate
	average float64 // permits a horizon
}

// estimate folds in what was taken since the last call.
func (d *demand) estimate(now int64) int64 {
	elapsed := float64(now-d.last) / float64(horizon)
	if elapsed > 0 {
		fade := math.Exp(-elapsed)
		d.average = d.average*fade + float64(d.taken)/elapsed*(1-fade)
		d.taken, d.last = 0, now
	}
	return int64(d.average)
}
