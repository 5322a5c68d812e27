package accuracy

import (
	"math"
	"testing"
	"time"
)

// One key, limit 2 a second, four requests in one window; the exact log and the
// rule both admit the first two.
func TestScore(t *testing.T) {
	q := quota{limit: 2, window: time.Second}
	const ms = time.Millisecond
	tr := newTraffic("four", time.Second, []arrival{{at: 100 * ms}, {at: 200 * ms}, {at: 300 * ms}, {at: 400 * ms}})
	exact := exactly(tr, q)
	for _, c := range []struct {
		name     string
		admitted [4]bool
		late     time.Duration // each decision after its arrival
		want     score
	}{
		{name: "as the log", admitted: [4]bool{true, true, false, false}, want: score{worst: 1}},
		{name: "later, but the same", admitted: [4]bool{true, true, false, false}, late: 5 * ms, want: score{worst: 1}},
		{name: "others, but as many", admitted: [4]bool{true, false, true, false}, want: score{differ: 0.5, rateError: 0.125, worst: 1}},
		{name: "one too many", admitted: [4]bool{true, true, true, false},
			want: score{differ: 0.25, rateError: 0.25, log: balance{over: 0.5}, rule: balance{over: 0.5}, worst: 1.5, beyond: 1, short: 0}},
		{name: "none at all", want: score{differ: 0.5, rateError: 0.875, log: balance{under: 1}, rule: balance{under: 1}, short: 1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := make([]decision, 4)
			for i, a := range tr.arrivals {
				got[i] = decision{admitted: c.admitted[i], at: a.at + c.late}
			}
			c.want.requests = 4
			if s := judge(tr, q, exact, got); s != c.want {
				t.Errorf("got  %+v\nwant %+v", s, c.want)
			}
		})
	}
}

// Keys do not make up for each other.
func TestScoreAddsKeysApart(t *testing.T) {
	q := quota{limit: 1, window: time.Second}
	tr := newTraffic("two", time.Second, []arrival{{at: 1, key: 0}, {at: 2, key: 0}, {at: 3, key: 1}})
	got := []decision{{admitted: true, at: 1}, {admitted: true, at: 2}, {at: 3}}
	s := judge(tr, q, exactly(tr, q), got)
	if want := (balance{over: 0.5, under: 0.5}); s.log != want || s.rule != want {
		t.Errorf("log %+v, rule %+v, want %+v", s.log, s.rule, want)
	}
	if math.Abs(s.differ-2.0/3) > 1e-9 {
		t.Errorf("%v differ", s.differ)
	}
}

// An admission counts in the window in which it was let through.
func TestRuleIsAskedWhenTheSubjectDecided(t *testing.T) {
	q := quota{limit: 1, window: time.Second}
	tr := newTraffic("edge", 3*time.Second, []arrival{{at: time.Second - 2}, {at: time.Second - 1}})
	got := []decision{{admitted: true, at: time.Second - 2}, {admitted: true, at: 2 * time.Second}}
	if s := judge(tr, q, exactly(tr, q), got); s.beyond != 0 || s.rule != (balance{}) || s.log.over != 1 {
		t.Errorf("%+v", s)
	}
}
