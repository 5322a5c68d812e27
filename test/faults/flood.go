package faults

import (
	"fmt"
	"testing"
	"time"
)

// FloodOutcome is what a flood of distinct keys did to a gateway on its own.
type FloodOutcome struct {
	Keys, MaxKeys int
	Empty         uint64 // bytes of heap before
	Full          uint64 // once the table is full
	After         uint64 // after all keys
	Took          time.Duration
	Admitted      int
	Denied        int
	Failed        int
	Victims       int // requests of victims that were admitted though their limit was used up
	Asked         int // of so many
}

const (
	routeFlood = "flood"
	maxKeys    = 100_000 // the default
)

// flood sends distinct keys to a gateway whose Redis has gone. One victim has
// used up its limit while Redis was there, another its share since.
func flood(t testing.TB, keys int) *FloodOutcome {
	b := newBed(t, 100*time.Millisecond, &Kind{Over: straight})
	for _, g := range b.gateways[1:] {
		g.Stop()
	}
	g := b.gateways[0]
	b.setup.MaxKeys = maxKeys
	b.setup.Limits = map[string]int64{routeFlood: 10, routeOwn: 10}
	g.Open(b.setup)
	o := &FloodOutcome{Keys: keys, MaxKeys: maxKeys}
	for counted := false; !counted; { // until it decides with Redis
		g.Fire(Volley{Route: routeOwn, Key: "hello", Count: 1})
		counted = len(b.counters()) > 0
	}
	b.exhaust(g, "early")
	b.server.Kill()
	b.exhaust(g, "late")
	o.Empty = g.Use().Heap

	rush := func(name string, n int) {
		f := g.Rush(Flood{Route: routeFlood, Key: name, Keys: n})
		o.Took += f.Took
		o.Admitted += f.Admitted
		o.Denied += f.Denied
		o.Failed += f.Failed
		for _, victim := range []string{"early", "late"} {
			h := g.Fire(Volley{Route: routeFlood, Key: victim, Count: 5})
			o.Victims += h.Admitted
			o.Asked += 5
		}
	}
	rush("fill-", maxKeys)
	o.Full = g.Use().Heap
	const slices = 10
	for i := range slices {
		rush(fmt.Sprintf("slice%d-", i), (keys-maxKeys)/slices)
	}
	o.After = g.Use().Heap
	return o
}

// exhaust uses a key up.
func (b *bed) exhaust(g *Gateway, key string) {
	b.t.Helper()
	for range 20 {
		if h := g.Fire(Volley{Route: routeFlood, Key: key, Count: 1}); h.Denied == 1 {
			return
		}
	}
	b.t.Fatalf("%s is never denied", key)
}

// PerKey is what a tracked key takes.
func (o *FloodOutcome) PerKey() float64 { return float64(o.Full-o.Empty) / float64(o.MaxKeys) }

// slack is what a heap may differ by from one collection to the next.
const slack = 8 << 20

// Broken lists what I6 promised and this did not keep.
func (o *FloodOutcome) Broken() []string {
	var broken []string
	if o.After > o.Full+slack {
		broken = append(broken, fmt.Sprintf("the heap grew from %d to %d bytes though the table was full", o.Full, o.After))
	}
	if o.Victims > 0 {
		broken = append(broken, fmt.Sprintf("%d of %d requests of exhausted keys were admitted", o.Victims, o.Asked))
	}
	if o.Failed > 0 {
		broken = append(broken, fmt.Sprintf("%d requests failed", o.Failed))
	}
	return broken
}
