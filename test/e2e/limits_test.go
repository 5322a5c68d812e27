package e2e

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/cmd/sluice/stack"
	"github.com/sluice-gateway/sluice/plugin/window"
	"github.com/sluice-gateway/sluice/test/harness"
)

// The tests' own limits, as in site_test.go.
const (
	exactAllowed  = 200
	exactWindow   = 10 * time.Second
	outageAllowed = 50
	weblogAllowed = 12

	// So long a window has so small a limit counted by a log, and a shorter one by
	// the counter.
	weblogByLog     = 10 * time.Second
	weblogByCounter = 9 * time.Second
)

// TestTwoGateways: one Redis, one limit.
func TestTwoGateways(t *testing.T) {
	for _, form := range forms {
		t.Run(form, func(t *testing.T) {
			t.Parallel() // it waits, mostly
			s := open(t, form, stack.Fast, 2)
			t.Run("exact limit", func(t *testing.T) { exactLimit(s.on(t)) })
			t.Run("front door", func(t *testing.T) { frontDoor(s.on(t)) })
			t.Run("reload", func(t *testing.T) { reload(s.on(t)) })
			t.Run("outage", func(t *testing.T) { outage(s.on(t)) })
		})
	}
}

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
			if got := s.get(gateway.HTTP+"/echo", bearer(token)); got.status != 200 {
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
	if got := s.get("/echo", bearer(token), header("X-Forwarded-For", "192.0.2.1")); got.status != 200 {
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
	url := func(i int) string { return s.ready.Gateways[i%len(s.ready.Gateways)].HTTP + "/outage" }
	spend := func(n int) (passed int) {
		for i := range n {
			switch got := s.get(url(i), bearer(token)); got.status {
			case 200:
				passed++
			case 429:
			default:
				t.Errorf("%s", got)
			}
		}
		return passed
	}
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
				if got := s.get(gateway.HTTP + path); got.status != 200 {
					return fmt.Errorf("%d", got.status)
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
	url := func(i int) string { return s.ready.Gateways[i%gateways].HTTP + "/outage" }
	spend := func(n int) (passed int) {
		t.Helper()
		for i := range n {
			switch got := s.get(url(i), bearer(token)); got.status {
			case 200:
				passed++
			case 429:
			default:
				t.Errorf("%s", got)
			}
		}
		return passed
	}
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
			if got := s.get(url(i), bearer(token)); got.status != 429 {
				returning++
				return fmt.Errorf("%d", got.status)
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

// hit is one request of a shop's morning.
type hit struct {
	client uint64
	at     time.Duration // since its beginning
	path   string
}

// shopping is many clients who look around, a few who come back and back, and one
// robot that does not pause: the same ones each time.
func shopping() []hit {
	random := rand.New(rand.NewPCG(1, 1))
	popular := rand.NewZipf(random, 1.3, 2, 39)
	hits := make([]hit, 1500)
	for i := range hits {
		hits[i] = hit{popular.Uint64(), time.Duration(random.Int64N(int64(15 * time.Second))), fmt.Sprintf("/v1/products/p-%d", 1001+random.IntN(24))}
	}
	slices.SortFunc(hits, func(a, b hit) int { return cmp.Compare(a.at, b.at) })
	return hits
}

// webLog sends a shop's morning at its own pace and holds what the gate admitted
// against the rule, client by client: never more, and hardly less.
func webLog(s *site, path string, span time.Duration) {
	t := s.t
	hits := shopping()
	for round := 1; round <= 2; round++ {
		before := s.degraded()
		visits := s.replay(hits, path, span, fmt.Sprintf("round-%d-", round))
		if degraded := s.degraded() - before; degraded != 0 {
			t.Logf("round %d: %d decisions without Redis", round, degraded)
			continue
		}
		var admitted, byRule int
		for _, line := range visits {
			neverMore(t, line, span)
			admitted += count(line)
			byRule += plainRule(line, span)
		}
		refused := len(hits) - admitted
		t.Logf("%d requests of %d clients: %d admitted, %d refused; one machine that sees all would have admitted %d", len(hits), len(visits), admitted, refused, byRule)
		if refused < len(hits)/10 {
			t.Fatalf("only %d of %d requests were refused: they do not meet the limit", refused, len(hits))
		}
		// An admitted request shifts the ones after it, so a few may differ either way.
		if diff := admitted - byRule; diff < -byRule/50 || diff > byRule/50 {
			t.Errorf("%d admitted, %d by the rule", admitted, byRule)
		}
		return
	}
	t.Error("no round in which the gateway had Redis all the time")
}

// replay sends every request at its time, from a fresh window on: one
// worker a client, as a client's requests come one after the other.
func (s *site) replay(hits []hit, path string, span time.Duration, prefix string) [][]visit {
	lines := map[uint64][]hit{}
	for _, h := range hits {
		lines[h.client] = append(lines[h.client], h)
	}
	s.redis.FreshWindow(2 * span) // where one of these begins, so does one of the limit's
	offset := s.redisOffset()
	start := time.Now()
	results := make(chan []visit, len(lines))
	for client, line := range lines {
		go func() {
			var visits []visit
			for _, h := range line {
				time.Sleep(time.Until(start.Add(h.at)))
				sent := time.Now().Add(offset)
				got, err := s.try("GET", s.url(path+h.path), nil, header("X-Client", fmt.Sprint(prefix, client)))
				if err != nil || (got.status != 200 && got.status != 429) {
					s.t.Errorf("client %d: %s %v", client, got, err)
				}
				visits = append(visits, visit{sent.UnixMicro(), time.Now().Add(offset).UnixMicro(), got.status == 200})
			}
			results <- visits
		}()
	}
	var all [][]visit
	for range lines {
		all = append(all, <-results)
	}
	return all
}

// visit is one request: when it was sent and answered, by Redis's clock in
// microseconds, and whether it passed.
type visit struct {
	sent, answered int64
	passed         bool
}

// redisOffset is Redis's clock minus this process's.
func (s *site) redisOffset() time.Duration {
	asked := time.Now()
	now := s.redis.Now()
	return now.Sub(asked.Add(time.Since(asked) / 2))
}

func count(visits []visit) (passed int) {
	for _, v := range visits {
		if v.passed {
			passed++
		}
	}
	return passed
}

// neverMore is I1 seen from outside.
func neverMore(t *testing.T, visits []visit, span time.Duration) {
	t.Helper()
	w := window.Span(span)
	var passed []visit
	for _, v := range visits {
		if v.passed {
			passed = append(passed, v)
		}
	}
	if window.Exact(weblogAllowed, w) {
		// Of one request more than the limit, the last was granted a window after
		// the first, which was sent before that, and answered afterwards.
		for i, last := range passed[min(len(passed), weblogAllowed):] {
			if apart := last.answered - passed[i].sent; apart < w {
				t.Errorf("%d requests passed in %d us", weblogAllowed+1, apart)
			}
		}
		return
	}
	// Each request that passed had room when its answer left, by the counts of
	// those that had passed. A request whose window cannot be told, since an edge
	// lay between question and answer, counts for neither.
	counts := map[int64]int64{}
	for _, v := range passed {
		index := v.answered / w
		if v.sent/w != index {
			continue
		}
		elapsed := v.answered - index*w
		if counts[index-1]*(w-elapsed)+(counts[index]+1)*w > weblogAllowed*w {
			t.Errorf("a request passed %d us into its window with %d before it there and %d in the one before", elapsed, counts[index], counts[index-1])
		}
		counts[index]++
	}
}

// plainRule is what one machine that sees every request would have admitted.
func plainRule(visits []visit, span time.Duration) (passed int) {
	ask := window.Ask{Window: window.Span(span), Limit: weblogAllowed, Cost: 1, Need: 1, Instances: 1}
	counts := window.Counts{}
	for _, v := range visits {
		grant, _ := window.Decide(counts, ask, (v.sent+v.answered)/2)
		counts = grant.Counts
		passed += int(grant.Need)
	}
	return passed
}
