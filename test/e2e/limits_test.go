package e2e

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/sluice-gateway/sluice/test/harness"
)

// The tests' own limits, as in site_test.go.
const (
	exactAllowed  = 200
	exactWindow   = 10 * time.Second
	outageAllowed = 50
)

// exactLimit is I1 and I2 at their plainest: of twice as many requests as a fresh
// window admits, spread over all gateways, exactly `limit` pass. A round in which
// a gateway decided without Redis proves nothing (design: late-replies) and is repeated.
func exactLimit(s *site) {
	t := s.t
	var urls []string
	for _, gateway := range s.ready.Gateways {
		urls = append(urls, gateway.HTTP+"/exact")
	}
	for round := 1; round <= 3; round++ {
		token := s.token(fmt.Sprintf("exact-%d", round))
		// The gateways know the token before the window opens.
		for _, gateway := range s.ready.Gateways {
			if got := s.get(gateway.HTTP+"/echo", bearer(token)); got.Status != 200 {
				t.Fatal(got)
			}
		}
		before := s.degraded()
		s.redis.FreshWindow(exactWindow)
		index := s.redis.Now().UnixMicro() / exactWindow.Microseconds()
		count := s.flood(2*exactAllowed, urls, bearer(token))
		if s.redis.Now().UnixMicro()/exactWindow.Microseconds() != index {
			t.Logf("round %d: the machine was too slow for one window: %v", round, count)
			continue
		}
		if degraded := s.degraded() - before; degraded != 0 {
			t.Logf("round %d: %d decisions without Redis: %v", round, degraded, count)
			continue
		}
		if count[200] != exactAllowed || count[429] != exactAllowed {
			t.Errorf("of %d requests over %d gateways with a limit of %d: %v", 2*exactAllowed, len(urls), exactAllowed, count)
		}
		return
	}
	t.Error("no round in which the gateways had Redis all the time")
}

// degraded is how many decisions all gateways have made without Redis so far.
func (s *site) degraded() (sum int64) {
	s.t.Helper()
	for _, gateway := range s.redis.Gateways(prefix) {
		sum += gateway.Counters.Degraded
	}
	return sum
}

// frontDoor: the balancer passes the client's address on, over HTTP and HTTPS.
func frontDoor(s *site) {
	t := s.t
	token := s.token("karl")
	if got := s.get("/echo", bearer(token), header("X-Forwarded-For", "192.0.2.1")); got.Status != 200 {
		t.Fatal(got)
	}
	if got := s.echo.Last(t).Header.Values("X-Forwarded-For"); strings.Join(got, ",") != s.address {
		t.Errorf("X-Forwarded-For: %q", got)
	}
	response, _, _ := harness.Raw(t, s.ready.HTTPS, "GET /echo HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAuthorization: Bearer "+token+"\r\n\r\n")
	if response.StatusCode != 200 {
		t.Errorf("HTTPS: %s", response.Status)
	}
}

// reload: a changed dynamic file under traffic resets no count (design: reload) and
// loses no request.
func reload(s *site) {
	t := s.t
	s.redis.RoomIn(time.Hour, time.Minute)
	user := "reload-" + t.Name()
	token := s.token(user)
	spend := func(n int) int { return s.spend("/outage", token, n) }
	passed := spend(20)
	busy := s.background("/echo", []string{s.token("busy-1", "claims", map[string]any{"plan": "pro"}), s.token("busy-2", "claims", map[string]any{"plan": "pro"})}, 200, 429)
	original, err := os.ReadFile(s.dynamic)
	if err != nil {
		t.Fatal(err)
	}
	for n := range 3 {
		path := fmt.Sprintf("/reloaded-%d", n)
		route := fmt.Sprintf("\n  routers:\n    %s:\n      rule: Path(`%s`)\n      priority: 2000\n      middlewares: [open]\n      service: echo\n", strings.Trim(path, "/"), path)
		s.rewrite(strings.Replace(string(original), "\n  routers:\n", route, 1))
		for _, gateway := range s.ready.Gateways {
			harness.Eventually(t, 20*time.Second, "the new file is served", func() error {
				if got := s.get(gateway.HTTP + path); got.Status != 200 {
					return fmt.Errorf("%d", got.Status)
				}
				return nil
			})
		}
		passed += spend(5)
	}
	busy.end(t)
	if passed += spend(40); passed != outageAllowed {
		t.Errorf("%d requests passed a limit of %d over four configurations", passed, outageAllowed)
	}
	s.redis.AwaitGateways(prefix, len(s.ready.Gateways)) // and no instance has come of it
}

// outageLasts is longer than anything that happens soon after Redis is gone: the
// breaker opens, heartbeats (3 s) and the event stream (1.5 s) count as lost, and
// decisions kept in memory are asked for again.
const outageLasts = 4 * time.Second

// outage: Redis is killed and comes back empty, under traffic. Nobody gets a
// 5xx, the outage is no free reset, and what was admitted in it counts after it.
func outage(s *site) {
	t := s.t
	s.redis.RoomIn(time.Hour, time.Minute)
	user := fmt.Sprintf("outage-%d", len(s.ready.Gateways))
	token := s.token(user)
	gateways := len(s.ready.Gateways)
	spend := func(n int) int { return s.spend("/outage", token, n) }
	before := spend(30 - gateways)
	// Once unspent leases are back, one more request each tells every gateway of
	// all that passed but its neighbours' last.
	key := fmt.Sprintf("%s:lim:1:outage:%d:{u%s}", prefix, time.Hour.Milliseconds(), user)
	harness.Eventually(t, 5*time.Second, "unspent leases are given back", func() error {
		value, err := s.redis.Client.Get(context.Background(), key).Result()
		if err != nil {
			return err
		}
		var generation, index, granted, returned int
		if _, err := fmt.Sscan(value, &generation, &index, &granted, &returned); err != nil || granted-returned != before {
			return fmt.Errorf("%q, %v", value, err)
		}
		return nil
	})
	if before += spend(gateways); before != 30 {
		t.Fatalf("%d of 30 requests passed a limit of %d", before, outageAllowed)
	}
	var others []string
	for i := range 4 {
		others = append(others, s.token(fmt.Sprintf("other-%d", i), "claims", map[string]any{"plan": "pro"}))
	}
	busy := s.background("/echo", others, 200, 429)
	s.redis.Kill()
	gone := time.Now()
	during := spend(60)
	again := 0
	for time.Since(gone) < outageLasts {
		again += spend(10)
	}
	s.redis.Start()
	s.redis.AwaitGateways(prefix, gateways)
	returning := 0
	for i := range gateways {
		harness.Eventually(t, 10*time.Second, "what was admitted is reported to the empty Redis", func() error {
			if got := s.get(s.ready.Gateways[i].HTTP+"/outage", bearer(token)); got.Status != 429 {
				returning++
				return fmt.Errorf("%d", got.Status)
			}
			return nil
		})
	}
	after := spend(10)
	busy.end(t)
	t.Logf("of a limit of %d: %d before, %d while Redis was away, %d while it returned, %d after", outageAllowed, before, during+again, returning, after)

	switch left := outageAllowed - before; {
	case gateways == 1 && (during != left || again != 0 || returning != 0):
		t.Errorf("one gateway admitted %d, %d and %d; %d were left", during, again, returning, left)
	case during == 0:
		t.Error("Redis away: nothing passed")
	case during+again > left+gateways: // design: fallback-share, for a key that every gateway knew
		t.Errorf("Redis away: %d requests passed, then %d more; %d were left", during, again, left)
	case before+during+again+returning > 2*outageAllowed:
		t.Errorf("Redis back: %d more requests passed before every gateway had reported", returning)
	}
	if after != 0 {
		t.Errorf("Redis back: %d requests passed a limit that is used up", after)
	}
}
