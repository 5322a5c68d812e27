package limit

import "math"

const (
	// horizon is how far ahead a lease reserves: a hot key then costs 20 calls
	// a second and instance, whatever its rate (I4).
	horizon = int64(50e6) // ns

	// Where room is plentiful a lease reserves several horizons, and the key
	// costs 4 calls a second. Plentiful is room of which such a lease on every
	// instance takes a sixteenth: the others' need is met before they notice,
	// and what lies unused goes back as soon as from any lease (sweep.go).
	farHorizons = 5
	plentiful   = 16
)

// estimate folds in what was taken since the last call.
func estimate(b *bucket, now int64) int64 {
	d := &b.demand
	elapsed := float64(now-d.last) / float64(horizon)
	if elapsed > 0 {
		b.mu.Lock()
		taken := b.taken + d.asked
		b.taken = 0
		b.mu.Unlock()
		fade := math.Exp(-elapsed)
		d.average = d.average*fade + float64(taken)/elapsed*(1-fade)
		d.last = now
		d.asked = 0
	}
	return int64(d.average)
}

// reserve is how many permits a key wants beyond its need.
func reserve(b *bucket, now, instances int64) int64 {
	extra := estimate(b, now)
	if far := extra * farHorizons; far*plentiful*instances <= b.room {
		return far
	}
	return extra
}
