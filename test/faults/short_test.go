package faults

import (
	"testing"
	"time"
)

// demand fails the test for every broken promise.
func demand(t *testing.T, broken []string) {
	t.Helper()
	for _, promise := range broken {
		t.Error(promise)
	}
}

// Exactly the limit is admitted, whatever the crowd (I1). The timeout is one
// that a busy machine does not reach, and no decision may be degraded.
func TestParallel(t *testing.T) {
	for _, one := range []struct {
		form   string
		limit  int64
		rounds int
	}{{asCompiled, byInstants, 50}, {asCompiled, byWindows, 10}, {asInterpreted, byInstants, 10}, {asInterpreted, byWindows, 2}} {
		p := stampede(t, one.form, one.limit, one.rounds, 5*time.Second)
		demand(t, p.Wrong)
		if p.Degraded != 0 {
			t.Errorf("%s, limit %d: %d decisions without Redis", p.Form, p.Limit, p.Degraded)
		}
	}
}

// A flood of keys neither takes memory nor resets a bucket (I6).
func TestFlood(t *testing.T) {
	demand(t, flood(t, 200_000).Broken())
}

// One key at full speed costs next to nothing (I4). How many calls a second
// that is depends on how steadily the machine runs: the campaign tells.
func TestHotKey(t *testing.T) {
	for _, h := range []*HotKey{belowHalf(t, time.Second), atLimit(t, time.Second)} {
		t.Logf("%s: %d calls for %d requests, %d admitted", h.Name, h.Calls, h.Requests, h.Admitted)
		if h.PerRequest() >= free {
			t.Errorf("%s: %d calls for %d requests", h.Name, h.Calls, h.Requests)
		}
	}
}

// Configurations come and go; what they share stays, and leaks nothing. The
// minute after which the rest is closed is the campaign's to wait for.
func TestReload(t *testing.T) {
	for _, edit := range []Edit{SameConfig, EditedLimit} {
		t.Run(string(edit), func(t *testing.T) {
			demand(t, reload(t, edit, 200).Broken())
		})
	}
}

// More clients than the machine can serve are no outage of Redis: no decision
// is made without it while it is well, but for one moment of the whole crowd.
func TestOverload(t *testing.T) {
	for i, form := range []string{asCompiled, asInterpreted} {
		kind := &Overloaded[i]
		t.Run(form+"/"+kind.Name, func(t *testing.T) {
			o := overload(t, form, kind, crowded)
			t.Log(o)
			if o.excused() {
				t.Skip("this machine has too much to do for such a crowd")
			}
			demand(t, o.Broken(kind, crowded.Clients))
		})
	}
}

// Redis is back, and no request waits for what there is to report.
func TestComeback(t *testing.T) {
	for _, form := range []string{asCompiled, asInterpreted} {
		t.Run(form, func(t *testing.T) {
			c := comeback(t, form, gateways, 3000, 2*time.Second, 4*time.Second)
			t.Log(c)
			demand(t, c.Broken())
		})
	}
}
