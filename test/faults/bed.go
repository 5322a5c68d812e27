package faults

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sluice-gateway/sluice/internal/redistest"
	"github.com/sluice-gateway/sluice/test/harness"
)

// gateways is how many instances share the limits in every test here.
const gateways = 3

const (
	prefix   = "faults"
	password = "right" // which a Redis without passwords accepts as well

	routeOwn   = "own"   // limits requests that have a key each: every one is a call
	routeHot   = "hot"   // limits all clients together
	routeExact = "exact" // tells whether limits hold to the request again
	routeKnown = "known" // asks an auth service who the client is, and limits users

	hotKey   = "everybody"
	hotLimit = 60
)

// bed is gateways and the Redis behind them.
type bed struct {
	t        testing.TB
	setup    Setup
	timeout  time.Duration
	lasts    time.Duration // the fault
	gateways []*Gateway
	ledger   *Ledger

	// One server with a proxy in the way of each gateway; nil over Sentinel
	// and Cluster, whose servers name their own addresses.
	server  *redistest.Server
	proxies []*Proxy
	now     atomic.Pointer[Behaviour]

	// admin holds a connection from before any fault: later ones may not get in.
	admin    *redis.Client
	counters func() map[string]counter // by Redis key
	topology topology
	opened   bool
}

// topology is what only Sentinel and Cluster have.
type topology interface {
	disturb() // begins the fault
	settle()  // waits until it is over
}

// newBed starts Redis and gateways, which are not configured yet.
func newBed(t testing.TB, timeout time.Duration, kind *Kind) *bed {
	t.Helper()
	b := &bed{t: t, timeout: timeout, ledger: newLedger(timeout)}
	b.setup = Setup{Password: password, Timeout: timeout, Prefix: prefix, Limits: map[string]int64{routeOwn: 30, routeHot: hotLimit, routeExact: hotLimit}}
	switch kind.Over {
	case overSentinel:
		b.overSentinel()
	case overCluster:
		b.overCluster()
	default:
		b.overOne(kind)
	}
	for i := range gateways {
		b.gateways = append(b.gateways, StartGateway(t, kind.clock(i)))
	}
	b.setup.Window = LongWindow(b.clock(), 10*time.Hour)
	return b
}

func (b *bed) overOne(kind *Kind) {
	b.server = redistest.Start(b.t)
	b.admin = redis.NewClient(&redis.Options{
		Addr: b.server.Addr, PoolSize: 1, ContextTimeoutEnabled: true, DialTimeout: time.Second, ReadTimeout: 10 * time.Second,
	})
	b.t.Cleanup(func() { b.admin.Close() })
	b.clock() // connects
	b.counters = func() map[string]counter { return readCounters(b.t, b.admin) }
	if kind.Over == straight {
		b.setup.Addresses = []string{b.server.Addr}
		return
	}
	var sources sync.Map
	for i := range gateways {
		b.proxies = append(b.proxies, startProxy(b.t, i, b.server.Addr, &b.now, b.ledger, &sources))
	}
}

// clock is Redis's.
func (b *bed) clock() time.Time {
	if b.admin == nil {
		return time.Now() // servers of this machine share its clock
	}
	now, err := b.admin.Time(context.Background()).Result()
	if err != nil {
		b.t.Fatal(err)
	}
	return now
}

// open configures the gateways.
func (b *bed) open() {
	for i, g := range b.gateways {
		s := b.setup
		if b.proxies != nil {
			s.Addresses = []string{b.proxies[i].Addr}
		}
		g.Open(s)
	}
	b.opened = true
}

// connected waits until every gateway decides with Redis and knows the others.
func (b *bed) connected() {
	for n := 0; ; n++ {
		b.ledger.awaitFirst()
		for i, g := range b.gateways {
			g.Fire(Volley{Route: routeOwn, Key: fmt.Sprintf("hello%d-%d", i, n), Count: 1})
		}
		if b.proxies == nil || len(b.alive()) == len(b.gateways) {
			break
		}
		time.Sleep(5 * time.Millisecond)
		if n > 2000 {
			b.t.Fatal("the gateways do not connect")
		}
	}
	b.live()
}

// alive are the gateways that reserved since awaitFirst.
func (b *bed) alive() map[int]time.Time {
	b.ledger.mu.Lock()
	defer b.ledger.mu.Unlock()
	all := map[int]time.Time{}
	for i, at := range b.ledger.first {
		all[i] = at
	}
	return all
}

// live waits until heartbeats have told every gateway how many there are: each
// has to beat once more after the last of them appeared.
func (b *bed) live() {
	b.t.Helper()
	var complete float64 // ms
	harness.Eventually(b.t, 20*time.Second, "heartbeats of all gateways", func() error {
		beats, err := b.beats()
		if err != nil {
			return err
		}
		if len(beats) != len(b.gateways) {
			return fmt.Errorf("%d gateways live", len(beats))
		}
		oldest, newest := beats[0].Score, beats[0].Score
		for _, beat := range beats {
			oldest, newest = min(oldest, beat.Score), max(newest, beat.Score)
		}
		if complete == 0 {
			complete = newest
		}
		if oldest <= complete {
			return errors.New("not every gateway has heard of the others")
		}
		return nil
	})
}

// beats are the live gateways and when they were heard last. Who was silent for
// three seconds is kept for a while, but does not live.
func (b *bed) beats() ([]redis.Z, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	all, err := b.anyone().ZRangeWithScores(ctx, prefix+":gw:live", 0, -1).Result()
	newest := 0.0
	for _, beat := range all {
		newest = max(newest, beat.Score)
	}
	return slices.DeleteFunc(all, func(beat redis.Z) bool { return newest-beat.Score > 3000 }), err
}

// anyone answers plain reads, whatever the topology.
func (b *bed) anyone() redis.Cmdable {
	if b.admin != nil {
		return b.admin
	}
	return b.topology.(interface{ reader() redis.UniversalClient }).reader()
}

// do runs a command on the one server.
func (b *bed) do(words ...any) {
	b.t.Helper()
	if err := b.admin.Do(context.Background(), words...).Err(); err != nil {
		b.t.Errorf("%v: %v", words, err)
	}
}

// counter is what Redis keeps for a key, current and previous window together.
type counter struct{ granted, returned int64 }

// used are the permits that count.
func (c counter) used() int64 { return c.granted - c.returned }

// readCounters reads all counters of one server.
func readCounters(t testing.TB, from redis.Cmdable) map[string]counter {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	all := map[string]counter{}
	var keys []string
	for cursor := uint64(0); ; {
		page, next, err := from.Scan(ctx, cursor, prefix+":lim:*", 1000).Result()
		if err != nil {
			t.Errorf("SCAN: %v", err)
			return all
		}
		keys = append(keys, page...)
		if cursor = next; cursor == 0 {
			break
		}
	}
	pipeline := from.Pipeline()
	values := make([]*redis.StringCmd, len(keys))
	for i, key := range keys {
		values[i] = pipeline.Get(ctx, key)
	}
	_, _ = pipeline.Exec(ctx) // each value has its own error
	for i, key := range keys {
		if value, err := values[i].Result(); err == nil {
			all[key] = parseCounter(value)
		}
	}
	return all
}

// parseCounter reads `generation index granted returned previous_granted
// previous_returned`.
func parseCounter(value string) counter {
	var n [6]int64
	for i, field := range strings.Fields(value) {
		if i < len(n) {
			n[i], _ = strconv.ParseInt(field, 10, 64)
		}
	}
	return counter{granted: n[2] + n[4], returned: n[3] + n[5]}
}

// redisKey is where a route counts a key.
func (b *bed) redisKey(route, key string) string {
	return fmt.Sprintf("%s:lim:1:%s:%d:{h%s}", prefix, route, b.setup.Window.Milliseconds(), key)
}

// begin lets a fault act; end ends it, once.
func (b *bed) begin(behaviour *Behaviour) {
	behaviour.done = make(chan struct{})
	b.now.Store(behaviour)
}

func (b *bed) end() {
	if behaviour := b.now.Swap(nil); behaviour != nil {
		close(behaviour.done)
	}
}

// doors sets the door of every gateway's way.
func (b *bed) doors(d Door) {
	for _, p := range b.proxies {
		p.Door(d)
	}
}

// cut ends the connections of all gateways.
func (b *bed) cut(reset bool) {
	for _, p := range b.proxies {
		p.Cut(reset)
	}
}

// stop and resume are SIGSTOP and SIGCONT for the server.
func (b *bed) stop()   { b.server.Signal(syscall.SIGSTOP) }
func (b *bed) resume() { b.server.Signal(syscall.SIGCONT) }

// repeat runs a command again and again until the fault ends.
func (b *bed) repeat(every time.Duration, words ...any) {
	again := &Behaviour{}
	b.begin(again)
	go func() {
		for {
			b.do(words...)
			select {
			case <-again.done:
				return
			case <-time.After(every):
			}
		}
	}()
}

// degraded is how many decisions all gateways have made without Redis so far,
// as their heartbeats tell: two have to pass, since the first may have been
// under way already (test/harness).
func (b *bed) degraded() int64 {
	b.t.Helper()
	began := b.clock().Add(100 * time.Millisecond).UnixMilli()
	first := map[string]float64{}
	sum := int64(0)
	harness.Eventually(b.t, 20*time.Second, "heartbeats", func() error {
		live, err := b.beats()
		if err != nil {
			return err
		}
		if len(live) != len(b.gateways) {
			return fmt.Errorf("%d gateways live", len(live))
		}
		sum = 0
		for _, beat := range live {
			instance := beat.Member.(string)
			if beat.Score <= float64(began) {
				return fmt.Errorf("%s has been silent since", instance)
			}
			if first[instance] == 0 {
				first[instance] = beat.Score
			}
			if beat.Score == first[instance] {
				return fmt.Errorf("%s has one heartbeat to go", instance)
			}
			text, err := b.anyone().Get(context.Background(), prefix+":gw:"+instance).Bytes()
			if err != nil {
				return err
			}
			var g harness.Gateway
			if err := json.Unmarshal(text, &g); err != nil {
				return err
			}
			sum += g.Counters.Degraded
		}
		return nil
	})
	return sum
}
