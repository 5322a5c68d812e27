package accuracy

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestSlidingLog(t *testing.T) {
	const s = time.Second
	for _, c := range []struct {
		name     string
		at       []time.Duration
		admitted []bool
	}{
		{"up to the limit", []time.Duration{0, 1, 2}, []bool{true, true, false}},
		{"a denial is not remembered", []time.Duration{0, 1, s / 2, s}, []bool{true, true, false, true}},
		{"an admission counts for one window and not a nanosecond longer", []time.Duration{0, 0, s - 1, s, s, s}, []bool{true, true, false, true, true, false}},
		{"windows are not aligned", []time.Duration{s * 9 / 10, s * 9 / 10, s * 11 / 10, s * 19 / 10}, []bool{true, true, false, true}},
	} {
		t.Run(c.name, func(t *testing.T) {
			log := slidingLog{limit: 2, window: s}
			for i, at := range c.at {
				if got := log.admit(at); got != c.admitted[i] {
					t.Errorf("request %d at %v: admitted %v", i, at, got)
				}
			}
		})
	}
}

// The log agrees with one that forgets nothing and counts everything each time.
func TestSlidingLogAgreesWithCounting(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		log := slidingLog{limit: rapid.IntRange(1, 5).Draw(t, "limit"), window: 100}
		var all []time.Duration
		at := time.Duration(0)
		for range rapid.IntRange(1, 60).Draw(t, "requests") {
			at += time.Duration(rapid.IntRange(0, 60).Draw(t, "gap"))
			remembered := 0
			for _, past := range all {
				if past > at-log.window {
					remembered++
				}
			}
			want := remembered < log.limit
			if want {
				all = append(all, at)
			}
			if log.admit(at) != want {
				t.Fatalf("at %d with %d remembered of %d", at, remembered, log.limit)
			}
		}
	})
}

func TestBounds(t *testing.T) {
	for _, q := range []quota{{limit: 1, window: time.Second}, {limit: 20, window: time.Second}, {limit: 100, window: time.Minute}, {limit: 7, window: 3 * time.Second}} {
		if got := mostInOneWindow(q); got != 2*q.limit-1 {
			t.Errorf("%d in %v: at most %d in one window's length, want 2 x limit - 1", q.limit, q.window, got)
		}
		if least, phase := leastOfHonest(q, q.window); least != 0.5 || phase != 0 {
			t.Errorf("%d in %v: an honest client gets %v at phase %v, want a half at 0", q.limit, q.window, least, phase)
		}
	}
	for _, q := range []quota{{limit: 1, window: time.Minute}, {limit: 64, window: 10 * time.Second}} { // by a log
		if got := mostInOneWindow(q); got != q.limit {
			t.Errorf("%d in %v: at most %d in one window's length", q.limit, q.window, got)
		}
		if least, phase := leastOfHonest(q, q.window+bump); least != 1 {
			t.Errorf("%d in %v: an honest client gets %v at phase %v", q.limit, q.window, least, phase)
		}
	}
}
