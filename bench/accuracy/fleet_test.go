package accuracy

import (
	"os/exec"
	"reflect"
	"strings"
	"testing"
	"time"
)

func testStore(t *testing.T) (*store, *server) {
	t.Helper()
	if _, err := exec.LookPath("redis-server"); err != nil {
		t.Skip("redis-server is not installed; on Debian: apt-get install redis-server")
	}
	s, err := startServer()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.stop)
	store, err := newStore(s)
	if err != nil {
		t.Fatal(err)
	}
	return store, s
}

// brief is a second-window quota whose traffics take well under a second.
var brief = quota{name: "20 a second", limit: 20, window: time.Second, windows: 12}

// Real engines and a real Redis on virtual time: never over the rule (I1), and
// the same again.
func TestI1OverRealRedis(t *testing.T) {
	store, _ := testStore(t)
	for _, tr := range traffics(brief, 3) {
		if len(tr.arrivals) > 10_000 {
			continue
		}
		t.Run(tr.name, func(t *testing.T) {
			first, err := store.sluice(t, tr, brief, gateways, 0, 3)
			if err != nil {
				t.Fatal(err)
			}
			s := judge(tr, brief, exactly(tr, brief), first.decisions)
			if s.beyond > 0 || s.rule.over > 0 {
				t.Errorf("over the rule: %+v", s)
			}
			if n := admitted(first.decisions); n == 0 || first.calls == 0 || first.calls > 2*len(tr.arrivals) {
				t.Errorf("%d admitted of %d with %d calls", n, len(tr.arrivals), first.calls)
			}
			again, err := store.sluice(t, tr, brief, gateways, 0, 3)
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(first, again) {
				t.Errorf("%d admitted with %d calls, then %d with %d", admitted(first.decisions), first.calls, admitted(again.decisions), again.calls)
			}
		})
	}
}

// Only Redis's clock counts (I8).
func TestI8SkewChangesNothing(t *testing.T) {
	store, _ := testStore(t)
	tr := skewed(5)
	tr.arrivals = tr.arrivals[:1000]
	tr.byKey[0] = tr.byKey[0][:1000]
	var want outcome
	for _, skew := range []time.Duration{0, time.Millisecond, time.Hour} {
		got, err := store.sluice(t, tr, perSecond, 2, skew, 5)
		if err != nil {
			t.Fatal(err)
		}
		if skew == 0 {
			want = got
		} else if !reflect.DeepEqual(got, want) {
			t.Errorf("clocks %v apart: %d admitted, %d without", skew, admitted(got.decisions), admitted(want.decisions))
		}
	}
}

func TestRedisThatFailsIsAnError(t *testing.T) {
	store, server := testStore(t)
	server.stop()
	if _, err := store.sluice(t, skewed(1), perSecond, 1, 0, 1); err == nil {
		t.Error("measured without a Redis")
	}
}

func TestErrorReplyIsAnError(t *testing.T) {
	store, _ := testStore(t)
	store.hash = "0000000000000000000000000000000000000000"
	tr := newTraffic("one", time.Second, []arrival{{at: 1}})
	if _, err := store.sluice(t, tr, perSecond, 1, 0, 1); err == nil || !strings.Contains(err.Error(), "NOSCRIPT") {
		t.Errorf("NOSCRIPT went unnoticed: %v", err)
	}
}
