package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/redis/go-redis/v9"

	"github.com/sluice-gateway/sluice/internal/redistest"
	"github.com/sluice-gateway/sluice/plugin/window"
)

func TestLimitKeys(t *testing.T) {
	s := &Store{Options: Options{Prefix: "sluice"}}
	l := Limit{Name: "per-user", WindowMS: 60000, IPv6Subnet: 64}
	for key, want := range map[string]string{
		"user:u1":              "sluice:lim:1:per-user:60000:{uu1}",
		"user:a:b":             "sluice:lim:1:per-user:60000:{ua%3Ab}",
		"user:{x}":             "sluice:lim:1:per-user:60000:{u%7Bx%7D}",
		"ip:203.0.113.7":       "sluice:lim:1:per-user:60000:{i203.0.113.7}",
		"ip:::ffff:10.0.0.1":   "sluice:lim:1:per-user:60000:{i10.0.0.1}",
		"ip:2001:db8:0:1::5%z": "sluice:lim:1:per-user:60000:{i2001%3Adb8%3A0%3A1%3A%3A}",
		"header:k y":           "sluice:lim:1:per-user:60000:{hk%20y}",
		"global":               "sluice:lim:1:per-user:60000:{g}",
	} {
		if got, err := s.redisKey(l, key); got != want || err != nil {
			t.Errorf("%s: %q %v, want %q", key, got, err, want)
		}
	}
	for _, key := range []string{"", "user", "user:", "ip:", "ip:x", "header:", "global:x", "other:x", "u1"} {
		if got, err := s.redisKey(l, key); !errors.Is(err, ErrBadKey) {
			t.Errorf("%q: %q %v", key, got, err)
		}
	}
}

// What is shown of a key is what the gateways' rule says of it, for every limit
// they take; the wait that is named is the shortest in whole seconds.
func TestUsageIsWhatTheRuleSays(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := Limit{
			Name: "l", WindowMS: rapid.OneOf(rapid.Int64Range(1000, 120_000), rapid.Int64Range(1000, 31*86400_000)).Draw(t, "window"),
			Limit: rapid.OneOf(rapid.Int64Range(1, 1000), rapid.Int64Range(1, window.MaxLimit)).Draw(t, "limit"),
		}
		l.Cost = rapid.Int64Range(1, l.Limit).Draw(t, "cost")
		width := l.WindowMS * 1000
		now := rapid.Int64Range(1_800_000_000_000_000, 1_800_000_200_000_000).Draw(t, "now")
		counts := window.Counts{
			Index:           now/width - rapid.Int64Range(0, 2).Draw(t, "age"),
			Granted:         rapid.Int64Range(0, l.Limit).Draw(t, "current"),
			PreviousGranted: rapid.Int64Range(0, l.Limit).Draw(t, "previous"),
		}
		if window.Exact(l.Limit, width) { // the log rule's own from its first answer on
			grant, _ := window.Decide(counts, window.Ask{Window: width, Limit: l.Limit, Cost: 1, Instances: 1}, now)
			counts = grant.Counts
		}
		// What a gateway would be granted of a request for everything.
		admitted := func(at int64) int64 {
			grant, _ := window.Decide(counts, window.Ask{Window: width, Limit: l.Limit, Cost: 1, Need: l.Limit, Instances: 1}, at)
			return grant.Need
		}
		u := usage(l, counts, time.UnixMicro(now))
		if room := admitted(now); u.Remaining != room || max(0, u.Limit-u.Used) != room || u.Used < 0 {
			t.Fatalf("%+v, and the rule admits %d", u, room)
		}
		if fits := admitted(now) >= l.Cost; fits != (u.RetryAfter == 0) {
			t.Fatalf("%+v, and that it fits is %v", u, fits)
		}
		if admitted(now+u.RetryAfter*1e6) < l.Cost {
			t.Fatalf("%+v does not fit then", u)
		}
		if u.RetryAfter > 1 && admitted(now+(u.RetryAfter-1)*1e6) >= l.Cost {
			t.Fatalf("%+v fits a second before", u)
		}
	})
}

// A heartbeat may say anything.
func TestUsageOfAbsurdLimits(t *testing.T) {
	absurd := []int64{math.MinInt64, -1, 0, 1, window.MaxLimit, math.MaxInt64}
	for _, limit := range absurd {
		for _, windowMS := range absurd {
			for _, count := range absurd {
				for _, cost := range absurd {
					l := Limit{Limit: limit, WindowMS: windowMS, Cost: cost}
					for _, log := range []string{"", fmt.Sprintf(" 1 %d", count), fmt.Sprintf(" %d 1", count)} {
						value := fmt.Sprintf("1 2 %d 0 %d 0%s", count, count, log)
						if u := usage(l, parse(value, width(l)), time.UnixMilli(1_800_000_000_000)); u.Used < 0 || u.Remaining < 0 || u.RetryAfter < -1 {
							t.Errorf("%+v, value %q: %+v", l, value, u)
						}
					}
				}
			}
		}
	}
}

func TestUsageAndReset(t *testing.T) {
	redis := redistest.Start(t)
	s := open(t, options(redis.Addr))
	client := redis.Client()
	defer client.Close()
	ctx := context.Background()
	l := Limit{Name: "per-user", Key: "user", WindowMS: 3600_000, Limit: 100, Cost: 1}
	index := time.Now().UnixMilli() / l.WindowMS
	key := "t:lim:1:per-user:3600000:{uu1}"
	client.Set(ctx, key, fmt.Sprintf("7 %d 50 8 0 0", index), 0)
	usage, err := s.Usage(ctx, l, "user:u1")
	if err != nil || usage != (Usage{Name: "per-user", Key: "user:u1", Limit: 100, Window: 3600, Used: 42, Remaining: 58}) {
		t.Errorf("%+v %v", usage, err)
	}
	month := Limit{Name: "month", Key: "user", WindowMS: 720 * 3600_000, Limit: 1e9, Cost: 1}
	client.Set(ctx, "t:lim:1:month:2592000000:{uu1}", fmt.Sprintf("0 %d 999999999 0 0 0", time.Now().UnixMilli()/month.WindowMS), 0)
	if usage, err := s.Usage(ctx, month, "user:u1"); err != nil || usage != (Usage{Name: "month", Key: "user:u1", Limit: 1e9, Window: 2592000, Used: 999999999, Remaining: 1}) {
		t.Errorf("a billion a month: %+v %v", usage, err)
	}
	// What a gateway has counted by a log, permits of 20 and of 10 minutes ago, of a limit of three.
	few := Limit{Name: "few", Key: "user", WindowMS: 3600_000, Limit: 3, Cost: 1}
	now := time.Now().UnixMicro()
	hour, log := now/3600e6, []int64{now - 3700e6, now - 1200e6, now - 600e6}
	value := window.Line(&window.Grant{Counts: window.Counts{Generation: 2, Index: hour, History: 5, Instants: log}}, 3600e6)
	client.Set(ctx, "t:lim:1:few:3600000:{uu1}", strings.ReplaceAll(strings.Trim(value, "[]"), ",", " ")[len("0 0 0 "):], 0)
	if usage, err := s.Usage(ctx, few, "user:u1"); err != nil || usage.Used != 2 || usage.Remaining != 1 || usage.RetryAfter != 0 {
		t.Errorf("counted by a log: %+v %v", usage, err)
	}
	few.Cost = 2 // fits once the first of the two has come free, an hour after it
	if usage, err := s.Usage(ctx, few, "user:u1"); err != nil || usage.RetryAfter < 2398 || usage.RetryAfter > 2400 {
		t.Errorf("counted by a log, cost 2: %+v %v", usage, err)
	}
	if err := s.Reset(ctx, few, "user:u1"); err != nil {
		t.Fatal(err)
	}
	if usage, err := s.Usage(ctx, few, "user:u1"); err != nil || usage.Used != 0 {
		t.Errorf("counted by a log, after the reset: %+v %v", usage, err)
	}
	if err := s.Reset(ctx, l, "user:u1"); err != nil {
		t.Fatal(err)
	}
	// design: merge-by-maximum: the next generation, so that late reports cannot undo it.
	if got := client.Get(ctx, key).Val(); !strings.HasPrefix(got, "8 ") || !strings.HasSuffix(got, " 0 0 0 0") {
		t.Errorf("after the reset: %q", got)
	}
	if ttl := client.PTTL(ctx, key).Val(); ttl <= time.Hour || ttl > 2*time.Hour {
		t.Errorf("lives %s", ttl)
	}
	if usage, _ := s.Usage(ctx, l, "user:u1"); usage.Used != 0 || usage.Remaining != 100 {
		t.Errorf("after the reset: %+v", usage)
	}
	for _, garbage := range []string{"", "x", "1 2 3", "1 2 3 4 5 6 7", "a b c d e f", "9999999999999999999999 0 0 0 0 0"} {
		client.Set(ctx, key, garbage, 0)
		if usage, err := s.Usage(ctx, l, "user:u1"); err != nil || usage.Used != 0 {
			t.Errorf("value %q: %+v %v", garbage, usage, err)
		}
	}
}

func TestGateways(t *testing.T) {
	server := redistest.Start(t)
	s := open(t, options(server.Addr))
	client := server.Client()
	defer client.Close()
	ctx := context.Background()
	now := float64(time.Now().UnixMilli())
	beat := func(instance string) string {
		raw, _ := json.Marshal(map[string]any{"instance": instance, "version": "1", "counters": map[string]any{"allowed": 3}})
		return string(raw)
	}
	for _, g := range []struct {
		instance, value string
		score           float64
	}{
		{"alive", beat("alive"), now},
		{"silent for a while", beat("silent for a while"), now - 60_000},
		{"dead", beat("dead"), now - 660_000},
		{"silent", "", now},
		{"garbage", "{", now},
		{"liar", beat("another"), now},
		{"huge", `{"instance":"huge","x":"` + strings.Repeat("a", maxHeartbeat) + `"}`, now},
	} {
		client.ZAdd(ctx, "t:gw:live", redis.Z{Member: g.instance, Score: g.score})
		if g.value != "" {
			client.Set(ctx, "t:gw:"+g.instance, g.value, 0)
		}
	}
	gateways, err := s.Gateways(ctx)
	if err != nil || len(gateways) != 2 || !gateways[1].Stale || gateways[0].Stale || gateways[0].Instance != "alive" || gateways[0].Counters.Allowed != 3 || string(gateways[0].Raw) != beat("alive") {
		t.Errorf("%+v %v", gateways, err)
	}
	if n := client.ZCard(ctx, "t:gw:live").Val(); n != 6 {
		t.Errorf("%d members left, want the dead one pruned", n)
	}
}

// A gateway that was taken over may write heartbeats; how many, and so how much
// authsvc reads for one look at them, is not its to choose (I6).
func TestGatewaysAreBounded(t *testing.T) {
	server := redistest.Start(t)
	s := open(t, options(server.Addr))
	ctx := context.Background()
	client := redis.NewClient(&redis.Options{Addr: server.Addr})
	t.Cleanup(func() { client.Close() })
	const made = 5 * maxGateways
	alive := float64(time.Now().Add(time.Hour).UnixMilli())
	_, err := client.Pipelined(ctx, func(p redis.Pipeliner) error {
		for i := range made {
			instance := fmt.Sprintf("gateway-%d", i)
			p.ZAdd(ctx, "t:gw:live", redis.Z{Member: instance, Score: alive + float64(i)})
			p.Set(ctx, "t:gw:"+instance, fmt.Sprintf(`{"instance":%q}`, instance), 0)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	gateways, err := s.Gateways(ctx)
	if err != nil || len(gateways) != maxGateways {
		t.Fatalf("%d gateways, want %d; %v", len(gateways), maxGateways, err)
	}
}
