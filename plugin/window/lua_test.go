package window_test

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/sluice-gateway/sluice/internal/redistest"
	"github.com/sluice-gateway/sluice/plugin/redis"
	"github.com/sluice-gateway/sluice/plugin/window"
)

// clocked is a script as it is, but for the clock, which two further arguments
// set.
func clocked(script string) *redis.Script {
	return redis.NewScript(`
local real = redis
local redis = setmetatable({call = function(command, ...)
  if command == 'TIME' then return {ARGV[#ARGV - 1], ARGV[#ARGV]} end
  return real.call(command, ...)
end}, {__index = real})
` + script)
}

// arbiter is a real Redis that decides at a time of the test's choosing, by the
// script of today and by those of releases that may still run beside it.
type arbiter struct {
	client *redis.Client
	rules  []rule // the script of today first
}

// rule is a script and how it is asked.
type rule struct {
	script *redis.Script
	words  func(window.Ask) []string
}

// inOneWord is how the script of today is asked, inWords how that of 0.1.0 was.
func inOneWord(ask window.Ask) []string { return []string{ask.String()} }
func inWords(ask window.Ask) []string   { return strings.Fields(ask.String()) }

func (r rule) call(key string, ask window.Ask, now int64) *redis.Call {
	return &redis.Call{Key: key, Script: r.script, Args: append(r.words(ask), strconv.FormatInt(now/1e6, 10), strconv.FormatInt(now%1e6, 10))}
}

func startArbiter(t *testing.T) *arbiter {
	server := redistest.Start(t)
	client := redis.New(redis.Config{Addresses: []string{server.Addr}, Timeout: time.Second, DialTimeout: time.Second})
	t.Cleanup(client.Close)
	deadline := time.Now().Add(10 * time.Second)
	for !client.Healthy() {
		if time.Now().After(deadline) {
			t.Fatal("the client does not get healthy")
		}
		time.Sleep(time.Millisecond)
	}
	a := &arbiter{client: client, rules: []rule{{clocked(window.Script), inOneWord}}}
	released, err := filepath.Glob("testdata/script-*.lua")
	if err != nil || len(released) == 0 {
		t.Fatalf("no scripts of releases: %v", err)
	}
	for _, name := range released {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		a.rules = append(a.rules, rule{clocked(string(text)), inWords})
	}
	return a
}

func (a *arbiter) call(call *redis.Call) (redis.Reply, error) {
	type outcome struct {
		reply redis.Reply
		err   error
	}
	done := make(chan outcome, 1)
	call.Done = func(reply redis.Reply, err error) { done <- outcome{reply, err} }
	a.client.Send(call)
	o := <-done
	return o.reply, o.err
}

func (a *arbiter) decide(t *rapid.T, rules []rule, key string, ask window.Ask, now int64) window.Grant {
	which := rapid.IntRange(0, len(rules)-1).Draw(t, "script")
	reply, err := a.call(rules[which].call(key, ask, now))
	if err != nil {
		t.Fatal(err)
	}
	numbers, err := reply.Ints()
	if err != nil {
		t.Fatal(err)
	}
	grant, ok := window.ParseGrant(numbers)
	if !ok {
		t.Fatalf("reply %v", numbers)
	}
	return grant
}

// Lua and Go give the same answers to any schedule of keys, costs, limits,
// memories and debts, on a clock that also steps back and leaps.
//
// Each call is decided by the script of today or by that of a release: during a
// rolling upgrade gateways of both share keys, in a format whose version stands
// in the key (RULES 41). Where a new rule must answer otherwise, that version
// changes, and the scripts of releases with the old one leave testdata.
func TestLuaAndGoAgree(t *testing.T) {
	redis7 := startArbiter(t)
	run := 0
	rapid.Check(t, func(t *rapid.T) {
		run++
		w := rapid.SampledFrom([]int64{1e6, 7e6, 60e6, 3600e6, 31 * 86400e6}).Draw(t, "window")
		small := window.MaxProduct / 2 / w // weighed in microseconds
		scale := rapid.SampledFrom([]int64{small, 1e9, window.MaxLimit}).Draw(t, "scale")
		rules := redis7.rules
		if scale > small {
			rules = rules[:1] // the releases take no such limit
		}
		now := rapid.Int64Range(1_700_000_000e6, 2_100_000_000e6).Draw(t, "start")
		stored := map[string]window.Counts{}
		last := map[string]window.Counts{}
		for step := rapid.IntRange(1, 40).Draw(t, "steps"); step > 0; step-- {
			now += rapid.OneOf(rapid.Int64Range(0, w/10), rapid.Int64Range(0, 3*w), rapid.Int64Range(-w/2, 0), rapid.Int64Range(-4*w, 0)).Draw(t, "passed")
			limit := rapid.OneOf(rapid.Int64Range(1, 20), rapid.Int64Range(1, scale)).Draw(t, "limit")
			cost := rapid.Int64Range(1, minimum(limit, 10)).Draw(t, "cost")
			many := int64(1)
			if scale > small {
				many = limit/100 + 1
			}
			key := "rule:" + strconv.Itoa(run) + ":" + rapid.SampledFrom([]string{"a", "b"}).Draw(t, "key")
			ask := window.Ask{
				Window: w, Limit: limit, Cost: cost,
				Need:      cost * many * rapid.Int64Range(0, 30).Draw(t, "need"),
				Extra:     cost * many * rapid.Int64Range(0, 100).Draw(t, "extra"),
				Instances: rapid.Int64Range(1, 10).Draw(t, "instances"),
				Seen:      last[key],
				Owed: window.Settlement{
					Spent:            rapid.Int64Range(0, 5).Draw(t, "spent"),
					PreviousSpent:    rapid.Int64Range(0, 5).Draw(t, "previousSpent"),
					Returned:         rapid.Int64Range(0, 5).Draw(t, "returned"),
					PreviousReturned: rapid.Int64Range(0, 5).Draw(t, "previousReturned"),
				},
			}
			switch rapid.IntRange(0, 5).Draw(t, "memory") {
			case 0:
				ask.Seen = window.Counts{}
			case 1:
				ask.Seen.Granted += rapid.Int64Range(0, 10).Draw(t, "knowsMore")
			case 2:
				ask.Seen.Generation += rapid.Int64Range(-1, 1).Draw(t, "reset")
				if ask.Seen.Generation < 0 {
					ask.Seen.Generation = 0
				}
			}
			want, changed := window.Decide(stored[key], ask, now)
			got := redis7.decide(t, rules, key, ask, now)
			if got != want {
				t.Fatalf("Lua %+v\nGo  %+v\nask %+v stored %+v now %d", got, want, ask, stored[key], now)
			}
			if !got.Answers(ask) {
				t.Fatalf("%+v is held to make no sense as an answer to %+v", got, ask)
			}
			if changed {
				stored[key] = want.Counts
			}
			last[key] = got.Counts
		}
	})
}

// A counter outlives every instant at which it matters, and not by much (I8).
func TestExpiryIsTwoWindows(t *testing.T) {
	redis7 := startArbiter(t)
	const w = int64(60e6)
	for _, elapsed := range []int64{0, 1, w / 2, w - 1} {
		now := 29_000_000*w + elapsed
		ask := window.Ask{Window: w, Limit: 10, Cost: 1, Need: 1, Instances: 1}
		key := "expiry:" + strconv.FormatInt(elapsed, 10)
		if _, err := redis7.call(redis7.rules[0].call(key, ask, now)); err != nil {
			t.Fatal(err)
		}
		reply, err := redis7.call(&redis.Call{Key: key, Name: "PTTL"})
		if err != nil {
			t.Fatal(err)
		}
		left, _ := reply.Int()
		if want := (2*w - elapsed + 999) / 1000; left > want || left < want-5000 {
			t.Errorf("%d us into the window: %d ms to live, want %d", elapsed, left, want)
		}
	}
}

func TestForeignValueIsAnErrorNotACount(t *testing.T) {
	redis7 := startArbiter(t)
	if _, err := redis7.call(&redis.Call{Key: "foreign", Name: "SET", Args: []string{"12"}}); err != nil {
		t.Fatal(err)
	}
	ask := window.Ask{Window: 60e6, Limit: 10, Cost: 1, Need: 1, Instances: 1}
	if _, err := redis7.call(redis7.rules[0].call("foreign", ask, 1_700_000_000e6)); err == nil {
		t.Fatal("took \"12\" for a counter")
	}
}

func minimum(a, b int64) int64 {
	if a < b {
		return a
	}
	return b
}
