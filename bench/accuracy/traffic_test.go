package accuracy

import (
	"math"
	"reflect"
	"testing"
	"time"
)

func TestTraffics(t *testing.T) {
	load := map[string]float64{ // of ten clients' limits, over the whole span
		"steady, 1.2 x the limit": 1.2,
		"Poisson, 0.5 x":          0.5, "Poisson, 0.9 x": 0.9, "Poisson, 1.0 x": 1, "Poisson, 1.1 x": 1.1, "Poisson, 2 x": 2,
		"on-off, 5 x for 0.3 windows, then 0.9 of silence": 1.25,
		"Zipf, 10,000 users": 12,
	}
	for _, q := range quotas {
		for _, tr := range traffics(q, 1) {
			t.Run(q.name+" "+tr.name, func(t *testing.T) {
				last := time.Duration(-1)
				for _, a := range tr.arrivals {
					if a.at <= last || a.at >= tr.span {
						t.Fatalf("an arrival at %v after one at %v, span %v", a.at, last, tr.span)
					}
					last = a.at
				}
				if tr.span%q.window != 0 {
					t.Errorf("%v is not whole windows", tr.span)
				}
				want, known := load[tr.name]
				if got := float64(len(tr.arrivals)) / (clients * q.rate() * tr.span.Seconds()); known && math.Abs(got/want-1) > 0.05 {
					t.Errorf("%.3f x the limit, want %.3f", got, want)
				}
			})
		}
	}
}

func TestTrafficsAreTheSeeds(t *testing.T) {
	q := quotas[1]
	a, b, c := traffics(q, 1), traffics(q, 1), traffics(q, 2)
	if !reflect.DeepEqual(a, b) {
		t.Error("one seed, two traffics")
	}
	for i := range a {
		if reflect.DeepEqual(a[i], c[i]) {
			t.Errorf("%s does not depend on the seed", a[i].name)
		}
	}
}

func TestArrivalsNeverShareAnInstant(t *testing.T) {
	tr := newTraffic("", time.Second, []arrival{{at: 5, key: 1}, {at: 3}, {at: 5}, {at: 5}, {at: 6}})
	want := []arrival{{at: 3}, {at: 5, key: 1}, {at: 6}, {at: 7}, {at: 8}}
	if !reflect.DeepEqual(tr.arrivals, want) {
		t.Errorf("%+v", tr.arrivals)
	}
	if !reflect.DeepEqual(tr.byKey, [][]int{{0, 2, 3, 4}, {1}}) {
		t.Errorf("%v", tr.byKey)
	}
}
