package faults

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// whole is the pace of the campaign: the default timeout, and faults that
// outlast a connection's patience.
var whole = Pace{Form: asCompiled, Timeout: shipped, Before: 500 * time.Millisecond, Lasts: 2500 * time.Millisecond, After: 300 * time.Millisecond, Rate: 200, Hot: 60}

// slowly is that for the interpreted plugin, of which three take as much of the
// machine at a third of the requests.
var slowly = Pace{Form: asInterpreted, Timeout: whole.Timeout, Before: whole.Before, Lasts: whole.Lasts, After: whole.After, Rate: 60, Hot: whole.Hot}

// TestCampaign runs everything and writes RESULTS.md.
func TestCampaign(t *testing.T) {
	if !*campaign {
		t.Skip("only with -campaign: takes three quarters of an hour")
	}
	r := &Results{Pace: whole, Slowly: slowly}
	t.Run("faults", func(t *testing.T) {
		cell := func(kind *Kind, state State, pace Pace) {
			at := len(r.Cells)
			r.Cells = append(r.Cells, nil)
			t.Run(strings.Join([]string{kind.Name, string(state), pace.Form}, "/"), func(t *testing.T) {
				t.Parallel()
				o := run(t, kind, state, pace)
				r.Cells[at] = o
				t.Log(o)
				demand(t, o.Broken())
			})
		}
		for i := range Kinds {
			for _, state := range States {
				cell(&Kinds[i], state, whole)
			}
		}
		for i := range Kinds {
			if Kinds[i].Hostile || Kinds[i].Speaks {
				for _, state := range States {
					cell(&Kinds[i], state, slowly)
				}
			}
		}
	})
	// Two cells share the machine. What was slow is measured again with nobody
	// beside it: what the gateway does would show again, what the machine does
	// hardly would.
	for i, o := range r.Cells {
		if o == nil || len(o.slow()) == 0 {
			continue
		}
		t.Run("alone/"+o.name(), func(t *testing.T) {
			again := run(t, o.Kind, o.State, o.Pace)
			again.Before = o.slow()
			r.Cells[i] = again
			t.Log(again)
			demand(t, again.Broken())
			demand(t, again.slow())
		})
	}
	t.Run("parallel", func(t *testing.T) {
		for _, one := range []struct {
			form   string
			limit  int64
			rounds int
		}{{asCompiled, byInstants, 1000}, {asCompiled, byWindows, 1000}, {asInterpreted, byInstants, 1000}, {asInterpreted, byWindows, 200}} {
			p := stampede(t, one.form, one.limit, one.rounds, 0)
			r.Parallel = append(r.Parallel, p)
			t.Logf("%s, limit %d: %d of %d rounds exact, %d decisions without Redis, %v", p.Form, p.Limit, p.Exact, p.Rounds, p.Degraded, p.Took)
			demand(t, p.Wrong)
		}
	})
	for _, form := range []string{asCompiled, asInterpreted} {
		for i := range Overloaded {
			kind := &Overloaded[i]
			t.Run("overload/"+form+"/"+kind.Name, func(t *testing.T) {
				o := overload(t, form, kind, crowding)
				r.Overloads = append(r.Overloads, o)
				t.Log(o)
				demand(t, o.Broken(kind, 0))
			})
		}
	}
	for _, form := range []string{asCompiled, asInterpreted} {
		for _, count := range []int{1, gateways} {
			t.Run(fmt.Sprintf("comeback/%s/%d", form, count), func(t *testing.T) {
				c := comeback(t, form, count, 10_000*count, 4*time.Second, 10*time.Second)
				r.Comebacks = append(r.Comebacks, c)
				t.Log(c)
				demand(t, c.Broken())
			})
		}
	}
	t.Run("flood", func(t *testing.T) {
		r.Flood = flood(t, 10_000_000)
		demand(t, r.Flood.Broken())
	})
	t.Run("hot key", func(t *testing.T) {
		r.HotKeys = []*HotKey{belowHalf(t, 10*time.Second), atLimit(t, 20*time.Second)}
		for _, h := range r.HotKeys {
			demand(t, h.Broken())
		}
	})
	for _, edit := range Edits {
		t.Run("reload/"+string(edit), func(t *testing.T) {
			l := reload(t, edit, 1000)
			r.Reloads = append(r.Reloads, l)
			t.Log(l)
			demand(t, l.Broken())
		})
	}
	if len(r.Cells) == 0 || slices.Contains(r.Cells, nil) || r.Flood == nil || len(r.Reloads) < len(Edits) {
		t.Fatal("not everything was measured: RESULTS.md stays as it was")
	}
	file, err := os.Create("RESULTS.md")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if err := r.Write(file); err != nil {
		t.Fatal(err)
	}
}
