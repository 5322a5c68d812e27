package main

import (
	"math"
	"math/rand/v2"
	"slices"
	"time"
)

// quantile of sorted latencies; 0 without any.
func quantile(sorted []time.Duration, q float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(len(sorted)-1, int(math.Ceil(q*float64(len(sorted))))-1)]
}

// interval is an estimate with its 95% confidence interval.
type interval struct{ middle, low, high float64 }

// resamples of the bootstrap: the ends of the interval move by less than a
// tenth of its width from one seed to another.
const resamples = 10_000

// bootstrap estimates what summary tells of all rounds by drawing rounds with
// replacement (percentile method). Values of one round stay together because
// each is a ratio or difference within its round already.
func bootstrap(values []float64, summary func([]float64) float64) interval {
	if len(values) == 0 {
		return interval{math.NaN(), math.NaN(), math.NaN()}
	}
	random := rand.New(rand.NewPCG(1, uint64(len(values))))
	drawn, all := make([]float64, len(values)), make([]float64, resamples)
	for i := range all {
		for j := range drawn {
			drawn[j] = values[random.IntN(len(values))]
		}
		all[i] = summary(drawn)
	}
	slices.Sort(all)
	return interval{middle: summary(values), low: all[resamples*25/1000], high: all[resamples*975/1000-1]}
}

func mean(values []float64) float64 {
	sum := 0.0
	for _, v := range values {
		sum += v
	}
	return sum / float64(len(values))
}

// geometric is the mean for ratios: that of a to b is the inverse of b to a.
func geometric(values []float64) float64 {
	sum := 0.0
	for _, v := range values {
		sum += math.Log(v)
	}
	return math.Exp(sum / float64(len(values)))
}

func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

// ratios divides two chains' values round by round.
func ratios(of, by []sample, value func(sample) float64) []float64 {
	var all []float64
	for i := range min(len(of), len(by)) {
		all = append(all, value(of[i])/value(by[i]))
	}
	return all
}

func rate(s sample) float64 { return s.rate }
