package faults

import (
	"cmp"
	"context"
	"crypto/sha256"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"
)

// Comeback is what clients feel when Redis is back and the gateways have much to
// report.
type Comeback struct {
	Form           string
	Gateways, Keys int // keys in all
	Away           time.Duration

	Requests, Lost int
	Usual          time.Duration   // median before Redis was killed
	Noise          time.Duration   // the longest that a request took then, over the median
	Worst          time.Duration   // longest answered after Redis was back
	Medians        []time.Duration // of each second since

	Flooded   int           // of the keys' uses admitted while Redis was away
	Uncounted int           // keys whose uses Redis had not counted in the end
	Counted   time.Duration // until it had as many keys, since it was back
}

const (
	tokens   = 50
	calmRate = 50 // requests a second, gateway and kind of traffic
)

// comeback kills Redis under so many gateways, has each use its part of the keys
// meanwhile, starts it again, and watches for a while.
func comeback(t testing.TB, form string, count, keys int, away, watch time.Duration) *Comeback {
	b := newBed(t, 0, &Kind{Over: straight})
	for _, g := range b.gateways[count:] {
		g.Stop()
	}
	b.gateways = b.gateways[:count]
	b.setup.Form, b.setup.Auth = form, everybody(t)
	b.setup.Limits = map[string]int64{routeOwn: 30, routeHot: 1_000_000, routeKnown: 1_000_000}
	b.ticks()
	b.open()
	b.connected()
	c := &Comeback{Form: form, Gateways: count, Keys: keys}

	for i, g := range b.gateways {
		g.Start(Stream{Route: routeOwn, Key: fmt.Sprintf("calm%d-", i), EachOwn: true, Rate: calmRate},
			Stream{Route: routeHot, Key: hotKey, Rate: calmRate},
			Stream{Route: routeKnown, Key: "user", EachOwn: true, Cycle: tokens, Rate: calmRate})
	}
	const calm = 3 * time.Second // tokens are known after the first
	time.Sleep(calm)
	killed := time.Now()
	b.server.Kill()
	floods := make(chan Flooded, count)
	for i, g := range b.gateways {
		go func() {
			var f Flooded
			if err := g.try("Rush", Flood{Route: routeOwn, Key: floodKey(i), Keys: keys / count}, &f); err != nil {
				t.Error(err)
			}
			floods <- f
		}()
	}
	for range b.gateways {
		f := <-floods
		c.Flooded += f.Admitted
		c.Lost += f.Failed
	}
	time.Sleep(time.Until(killed.Add(away)))
	b.server.Restart()
	back := time.Now()
	c.Away = back.Sub(killed)
	for time.Since(back) < watch {
		if n, err := b.admin.DBSize(context.Background()).Result(); err == nil && int(n) >= keys && c.Counted == 0 {
			c.Counted = time.Since(back)
		}
		time.Sleep(20 * time.Millisecond)
	}

	var all []Record
	for _, g := range b.gateways {
		traffic := g.End()
		c.Lost += traffic.Pending
		all = append(all, traffic.Records...)
	}
	c.judge(all, killed.Add(-calm+time.Second), killed, back, watch)
	b.counted(c, all, back)
	return c
}

func floodKey(gateway int) string { return fmt.Sprintf("flood%d-", gateway) }

// judge looks at what the steady clients saw.
func (c *Comeback) judge(all []Record, from, killed, back time.Time, watch time.Duration) {
	var before []time.Duration
	since := make([][]time.Duration, int(watch/time.Second))
	for _, r := range all {
		c.Requests++
		if r.Status == 0 || r.Status >= 500 {
			c.Lost++
		}
		switch {
		case r.Start.After(from) && r.End().Before(killed):
			before = append(before, r.Took)
		case r.End().After(back):
			c.Worst = max(c.Worst, r.Took)
			if at := int(r.End().Sub(back) / time.Second); at < len(since) {
				since[at] = append(since[at], r.Took)
			}
		}
	}
	c.Usual = middle(before)
	if len(before) > 0 {
		c.Noise = before[len(before)-1] - c.Usual
	}
	for _, one := range since {
		c.Medians = append(c.Medians, middle(one))
	}
}

// middle sorts, and returns the median; 0 of nothing.
func middle(all []time.Duration) time.Duration {
	if len(all) == 0 {
		return 0
	}
	slices.Sort(all)
	return all[len(all)/2]
}

// counted waits until Redis has counted all that was admitted with a key of its
// own.
func (b *bed) counted(c *Comeback, all []Record, back time.Time) {
	used := map[string]bool{}
	for _, r := range all {
		if r.Stream == 0 && r.Status == http.StatusOK {
			used[b.redisKey(routeOwn, r.Key)] = true
		}
	}
	for i := range b.gateways {
		for n := 1; n <= c.Keys/c.Gateways; n++ {
			used[b.redisKey(routeOwn, fmt.Sprint(floodKey(i), n))] = true
		}
	}
	for {
		counters := b.counters()
		c.Uncounted = 0
		for key := range used {
			if counters[key].used() < 1 {
				c.Uncounted++
			}
		}
		took := time.Since(back)
		if c.Uncounted == 0 || took > c.patience() {
			c.Counted = cmp.Or(c.Counted, took)
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// Added is the worst that the return of Redis added to a request, and Due what
// it may add.
func (c *Comeback) Added() time.Duration { return max(0, c.Worst-c.Usual) }

// patience is how long the reports may take: a machine that is late all the time
// makes two with each tick (design: lag).
func (c *Comeback) patience() time.Duration {
	return patience + time.Duration(c.Keys/c.Gateways)*10*time.Millisecond
}

// Due is the longest wait for a Redis at work, and what the machine does anyway.
func (c *Comeback) Due() time.Duration { return longestWait + jitter + c.Noise }

// Broken lists what was promised and not kept.
func (c *Comeback) Broken() []string {
	var broken []string
	demand := func(holds bool, format string, args ...any) {
		if !holds {
			broken = append(broken, fmt.Sprintf(format, args...))
		}
	}
	demand(c.Requests > 0 && c.Lost == 0, "%d of %d requests lost", c.Lost, c.Requests)
	demand(c.Added() <= c.Due(), "Redis was back, and a request took %v longer than before; %v are due", c.Added(), c.Due())
	demand(c.Flooded == c.Keys, "%d of %d keys could be used while Redis was away", c.Flooded, c.Keys)
	demand(c.Uncounted == 0, "%d keys are not counted after %v", c.Uncounted, c.patience())
	return broken
}

// String is it in one line.
func (c *Comeback) String() string {
	return fmt.Sprintf("%s, %d gateways, %d keys, away %v: lost %d of %d, before %v and %v more, then worst %v, medians %v; %d not counted after %v", c.Form, c.Gateways, c.Keys,
		c.Away.Round(time.Millisecond), c.Lost, c.Requests, c.Usual, c.Noise, c.Worst, c.Medians, c.Uncounted, c.Counted.Round(time.Millisecond))
}

// everybody is an auth service to which a token is a user's name.
func everybody(t testing.TB) string {
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
		h := w.Header()
		h.Set("X-User-ID", user)
		h.Set("X-Token-ID", fmt.Sprintf("%x", sha256.Sum256([]byte(user))))
		h.Set("Cache-Control", "private, max-age=60, stale-if-error=300")
		h.Set("Vary", "Authorization")
	}))
	t.Cleanup(service.Close)
	return service.URL
}

// ticks publishes what authsvc does twice a second while Redis is there.
func (b *bed) ticks() {
	stop := make(chan struct{})
	b.t.Cleanup(func() { close(stop) })
	go func() {
		every := time.NewTicker(500 * time.Millisecond)
		defer every.Stop()
		for seq := 1; ; seq++ {
			b.admin.Publish(context.Background(), prefix+":events", fmt.Sprintf(`{"epoch":"e","seq":%d,"type":"tick"}`, seq))
			select {
			case <-stop:
				return
			case <-every.C:
			}
		}
	}()
}
