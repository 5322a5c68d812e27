package faults

import (
	"context"
	"fmt"
	"regexp"
	"strconv"
	"testing"
	"time"
)

// HotKey is what one key at full speed costs.
type HotKey struct {
	Name               string
	Limit              int64
	Window             time.Duration
	Took               time.Duration
	Admitted, Requests int
	Calls              int64 // of the limit's script; heartbeats are not counted
	Bound              float64
	BoundText          string
}

// PerRequest is calls a request.
func (h *HotKey) PerRequest() float64 { return float64(h.Calls) / float64(h.Requests) }

// PerSecond is calls a second and gateway.
func (h *HotKey) PerSecond() float64 { return float64(h.Calls) / h.Took.Seconds() / gateways }

// belowHalf and atLimit are the two cases of I4.
func belowHalf(t testing.TB, lasts time.Duration) *HotKey {
	h := &HotKey{Name: "below half the limit", Limit: 37_000_000, Window: time.Minute}
	h.measure(t, lasts)
	h.Bound = gateways * (20*h.Took.Seconds() + 20)
	h.BoundText = "20 a second and gateway, and 20 to find out the demand"
	return h
}

func atLimit(t testing.TB, lasts time.Duration) *HotKey {
	h := &HotKey{Name: "at the limit", Limit: 1000, Window: 10 * time.Second}
	h.measure(t, lasts)
	windows := h.Took.Seconds()/h.Window.Seconds() + 1 // it begins within one
	h.Bound = min(400*gateways*windows, float64(h.Admitted)+gateways)
	h.BoundText = "one a permit, 400 a window and gateway"
	return h
}

func (h *HotKey) measure(t testing.TB, lasts time.Duration) {
	b := newBed(t, time.Second, &Kind{Over: straight})
	b.setup.Window = h.Window
	b.setup.Limits[routeHot] = h.Limit
	b.open()
	b.connected()
	before := b.limitCalls()
	began := time.Now()
	out := make(chan Flooded, gateways)
	for _, g := range b.gateways {
		go func() {
			var f Flooded
			if err := g.try("Rush", Flood{Route: routeHot, Key: hotKey, Hot: true, Keys: 1 << 40, For: lasts}, &f); err != nil {
				t.Error(err)
			}
			out <- f
		}()
	}
	for range b.gateways {
		f := <-out
		h.Admitted += f.Admitted
		h.Requests += f.Admitted + f.Denied + f.Failed
	}
	h.Took = time.Since(began)
	h.Calls = b.limitCalls() - before
}

var commandCalls = regexp.MustCompile(`cmdstat_(evalsha|eval|zadd):calls=(\d+)`)

// limitCalls counts runs of the limit's script: all scripts that Redis ran, but
// for heartbeats, each of which adds to a sorted set.
func (b *bed) limitCalls() int64 {
	b.t.Helper()
	info, err := b.admin.Info(context.Background(), "commandstats").Result()
	if err != nil {
		b.t.Fatal(err)
	}
	sum := int64(0)
	for _, found := range commandCalls.FindAllStringSubmatch(info, -1) {
		n, err := strconv.ParseInt(found[2], 10, 64)
		if err != nil {
			b.t.Fatal(err)
		}
		if found[1] == "zadd" {
			n = -n
		}
		sum += n
	}
	return sum
}

// free is the share of requests that may cost a call at full speed, whatever
// the machine does meanwhile.
const free = 0.1

// Broken lists what I4 promised and this did not keep.
func (h *HotKey) Broken() []string {
	var broken []string
	if float64(h.Calls) > h.Bound {
		broken = append(broken, fmt.Sprintf("%s: %d calls for %d requests in %v, at most %.0f are due (%s)", h.Name, h.Calls, h.Requests, h.Took, h.Bound, h.BoundText))
	}
	return broken
}
