package faults

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/test/harness"
)

// Edit is what changes from one configuration to the next.
type Edit string

// Nothing changes where a file is written again; most edits change a limit or
// its name; an edit of the redis section needs a client of its own.
const (
	SameConfig  Edit = "nothing"
	EditedLimit Edit = "a limit's number"
	EditedName  Edit = "a limit's name"
	EditedRedis Edit = "redis.timeout"
)

// Edits are all four.
var Edits = []Edit{SameConfig, EditedLimit, EditedName, EditedRedis}

// edited is a setup after n edits.
func (s Setup) edited(edit Edit, n int) Setup {
	limits := map[string]int64{}
	for route, limit := range s.Limits {
		limits[route] = limit
	}
	s.Limits = limits
	switch edit {
	case EditedLimit:
		s.Limits[routeHot] += int64(n)
	case EditedName:
		s.Rename = fmt.Sprintf("-%d", n)
	case EditedRedis:
		s.Timeout += time.Duration(n) * time.Microsecond
	}
	return s
}

// Reloads is one process's figures before, during and after its reloads.
type Reloads struct {
	Edit                Edit
	Times               int
	Before, Peak, After Usage
	Links               [3]int // connections at Redis: before, peak, after
	Lost                int    // requests
	Requests            int
	Heartbeat           int // bytes, after
}

// reload has a gateway under traffic take up so many configurations, as
// Traefik does: the next one is made, then the context of the last is cancelled.
// What nobody uses is closed a minute later (plugin/shared.go: idleFor).
func reload(t testing.TB, edit Edit, times int) *Reloads {
	b := newBed(t, 100*time.Millisecond, &Kind{Over: straight})
	for _, g := range b.gateways[1:] {
		g.Stop()
	}
	g := b.gateways[0]
	s := b.setup
	g.Open(s)
	harness.Eventually(t, 10*time.Second, "the gateway decides with Redis", func() error {
		g.Fire(Volley{Route: routeOwn, Key: "hello", Count: 1})
		if len(b.counters()) == 0 {
			return fmt.Errorf("nothing is counted")
		}
		return nil
	})
	r := &Reloads{Edit: edit, Times: times}
	g.Start(Stream{Route: routeOwn, Key: "client-", EachOwn: true, Cycle: 25, Rate: 100}, Stream{Route: routeHot, Key: hotKey, Rate: 100})
	r.Before, r.Links[0] = g.Use(), b.links()
	tick := time.NewTicker(3 * time.Millisecond) // so that traffic meets every one
	defer tick.Stop()
	for n := 1; n <= times; n++ {
		g.Open(s.edited(edit, n))
		<-tick.C
	}
	r.Peak, r.Links[1] = g.Use(), b.links()
	for deadline := time.Now().Add(90 * time.Second); ; time.Sleep(time.Second) {
		r.After, r.Links[2], r.Heartbeat = g.Use(), b.links(), b.heartbeat()
		if len(r.Broken()) == 0 || time.Now().After(deadline) {
			break
		}
	}
	traffic := g.End()
	r.Requests = len(traffic.Records)
	r.Lost = traffic.Pending
	for _, record := range traffic.Records {
		if record.Status == 0 || record.Status >= 500 {
			r.Lost++
		}
	}
	r.After, r.Links[2] = g.Use(), b.links() // without traffic's own
	return r
}

// String is the figures in one line.
func (r *Reloads) String() string {
	return fmt.Sprintf("%d x %s: goroutines %d, %d, %d; connections %d, %d, %d; heap %s, %s, %s; heartbeat %d; lost %d of %d", r.Times, r.Edit,
		r.Before.Goroutines, r.Peak.Goroutines, r.After.Goroutines, r.Links[0], r.Links[1], r.Links[2],
		size(r.Before.Heap), size(r.Peak.Heap), size(r.After.Heap), r.Heartbeat, r.Lost, r.Requests)
}

// few is how many goroutines or connections may be under way at any moment.
const few = 12

// Broken lists what design: reload promises and this did not keep.
func (r *Reloads) Broken() []string {
	var broken []string
	if r.After.Goroutines > r.Before.Goroutines+few {
		broken = append(broken, fmt.Sprintf("%d goroutines became %d", r.Before.Goroutines, r.After.Goroutines))
	}
	if r.Links[2] > r.Links[0]+few {
		broken = append(broken, fmt.Sprintf("%d connections became %d", r.Links[0], r.Links[2]))
	}
	if r.After.Heap > r.Before.Heap+slack {
		broken = append(broken, fmt.Sprintf("a heap of %d bytes became %d", r.Before.Heap, r.After.Heap))
	}
	if r.Lost > 0 {
		broken = append(broken, fmt.Sprintf("%d requests lost", r.Lost))
	}
	if r.Heartbeat > longestHeartbeat {
		broken = append(broken, fmt.Sprintf("the heartbeat grew to %d bytes", r.Heartbeat))
	}
	return broken
}

// longestHeartbeat is far more than four limits need.
const longestHeartbeat = 8 << 10

// links counts the connections at Redis.
func (b *bed) links() int {
	b.t.Helper()
	list, err := b.admin.ClientList(context.Background()).Result()
	if err != nil {
		b.t.Fatal(err)
	}
	return strings.Count(list, "\n")
}

// heartbeat is the length of the longest that is made from now on.
func (b *bed) heartbeat() int {
	b.t.Helper()
	now := float64(b.clock().UnixMilli())
	beyond := map[string]float64{} // the first beat after now; with the next one its report is in Redis
	longest := 0
	harness.Eventually(b.t, 10*time.Second, "new heartbeats", func() error {
		beats, err := b.beats()
		if err != nil {
			return err
		}
		longest = 0
		for _, beat := range beats {
			instance := beat.Member.(string)
			if beat.Score > now && beyond[instance] == 0 {
				beyond[instance] = beat.Score
			}
			if beat.Score <= now || beat.Score == beyond[instance] {
				return fmt.Errorf("%s has a heartbeat to go", instance)
			}
			text, err := b.admin.Get(context.Background(), prefix+":gw:"+instance).Result()
			if err != nil {
				return err
			}
			longest = max(longest, len(text))
		}
		return nil
	})
	return longest
}
