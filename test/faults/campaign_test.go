package faults

import (
	"os"
	"slices"
	"testing"
	"time"
)

// whole is the pace of the campaign: the default timeout, and faults that
// outlast a connection's patience.
var whole = Pace{Timeout: 25 * time.Millisecond, Before: 500 * time.Millisecond, Lasts: 2500 * time.Millisecond, After: 300 * time.Millisecond, Rate: 200, Hot: 60}

// TestCampaign runs everything and writes RESULTS.md.
func TestCampaign(t *testing.T) {
	if !*campaign {
		t.Skip("only with -campaign: takes about a quarter of an hour")
	}
	r := &Results{Pace: whole}
	t.Run("faults", func(t *testing.T) {
		r.Cells = make([]*Outcome, len(Kinds)*len(States))
		for i := range Kinds {
			for k, state := range States {
				t.Run(Kinds[i].Name+"/"+string(state), func(t *testing.T) {
					t.Parallel()
					o := run(t, &Kinds[i], state, whole)
					r.Cells[i*len(States)+k] = o
					t.Log(o)
					demand(t, o.Broken())
				})
			}
		}
	})
	// Two cells share the machine. What was slow is measured again with nobody
	// beside it: what the gateway does would show again, what the machine does
	// hardly would.
	for i, o := range r.Cells {
		if o == nil || len(o.slow(whole)) == 0 {
			continue
		}
		t.Run("alone/"+o.Kind.Name+"/"+string(o.State), func(t *testing.T) {
			again := run(t, o.Kind, o.State, whole)
			again.Before = o.slow(whole)
			r.Cells[i] = again
			t.Log(again)
			demand(t, again.Broken())
			demand(t, again.slow(whole))
		})
	}
	t.Run("parallel", func(t *testing.T) {
		for _, timeout := range []time.Duration{25 * time.Millisecond, time.Second} {
			p := stampede(t, 1000, timeout)
			r.Parallel = append(r.Parallel, p)
			if p.Degraded == 0 {
				demand(t, p.Wrong)
			}
		}
	})
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
