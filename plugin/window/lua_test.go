package window_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/alicebob/miniredis/v2"
	goredis "github.com/redis/go-redis/v9"
	"pgregory.net/rapid"

	"github.com/sluice-gateway/sluice/internal/redistest"
	"github.com/sluice-gateway/sluice/plugin/window"
)

// clocked is a script as it is, but for the clock, which two further arguments
// set.
func clocked(script string) *goredis.Script {
	return goredis.NewScript(`
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
	*goredis.Client
	rules []rule // the script of today first
}

// rule is a script, how it is asked and how it answers.
type rule struct {
	script *goredis.Script
	words  func(window.Ask) []any
	line   func(reply any) string
}

// inOneWord is how the script of today is asked, inWords how the one before it was.
func inOneWord(ask window.Ask) []any { return []any{ask.Word()} }

func inWords(ask window.Ask) []any {
	return []any{
		ask.Window, ask.Limit, ask.Cost, ask.Need, ask.Extra, ask.Instances,
		ask.Seen.Generation, ask.Seen.Index, ask.Seen.Granted, ask.Seen.Returned, ask.Seen.PreviousGranted, ask.Seen.PreviousReturned,
		ask.Owed.Spent, ask.Owed.PreviousSpent, ask.Owed.Returned, ask.Owed.PreviousReturned,
	}
}

// asALine is how the script of today answers, asNumbers how the one before it did.
func asALine(reply any) string   { return fmt.Sprint(reply) }
func asNumbers(reply any) string { return strings.ReplaceAll(fmt.Sprint(reply), " ", ",") }

func startArbiter(t *testing.T) *arbiter { return newArbiter(t, redistest.Start(t).Addr) }

func newArbiter(t *testing.T, address string) *arbiter {
	a := &arbiter{
		Client: goredis.NewClient(&goredis.Options{Addr: address}),
		rules:  []rule{{clocked(window.Script), inOneWord, asALine}},
	}
	t.Cleanup(func() { a.Close() })
	released, err := filepath.Glob("testdata/script-*.lua")
	if err != nil || len(released) == 0 {
		t.Fatalf("no scripts of releases: %v", err)
	}
	for _, name := range released {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		a.rules = append(a.rules, rule{clocked(string(text)), inWords, asNumbers})
	}
	return a
}

func (a *arbiter) decide(r rule, key string, ask window.Ask, now int64) (line string, err error) {
	reply, err := r.script.Run(context.Background(), a, []string{key}, append(r.words(ask), now/1e6, now%1e6)...).Result()
	return r.line(reply), err
}

// Lua and Go give the same answers to any schedule of keys, costs, limits,
// memories and debts, by either rule and from one to the other, on a clock that
// also steps back and leaps and in a store that also forgets.
//
// What the counter rule decides is decided by the script of today or by that of a
// release: during a rolling upgrade gateways of both share keys, in a format whose
// version stands in the key (design: rolling-upgrade). Where a new rule must answer otherwise,
// that version changes, and the scripts of releases with the old one leave
// testdata. A release has no log, and refuses a key that has one.
func TestLuaAndGoAgree(t *testing.T) {
	t.Run("redis-server", func(t *testing.T) { agree(t, startArbiter(t)) })
	t.Run("miniredis", func(t *testing.T) { // sluice up without a Redis; no release shares that
		a := newArbiter(t, miniredis.RunT(t).Addr())
		a.rules = a.rules[:1]
		agree(t, a)
	})
}

func agree(t *testing.T, redis7 *arbiter) {
	run := 0
	byLog, byCounter, crossed := 0, 0, 0
	rapid.Check(t, func(t *rapid.T) {
		run++
		w := rapid.SampledFrom([]int64{1e6, 7e6, 10e6, 60e6, 3600e6, 31 * 86400e6}).Draw(t, "window")
		small := window.MaxProduct / 2 / w // weighed in microseconds
		scale := rapid.SampledFrom([]int64{small, 1e9, window.MaxLimit}).Draw(t, "scale")
		now := rapid.Int64Range(1_700_000_000e6, 2_100_000_000e6).Draw(t, "start")
		stored := map[string]window.Counts{}
		told := map[string][]window.Counts{} // to every gateway there ever was
		for step := rapid.IntRange(1, 40).Draw(t, "steps"); step > 0; step-- {
			now += rapid.OneOf(rapid.Int64Range(0, 3), rapid.Int64Range(0, w/10), rapid.Int64Range(0, 3*w), rapid.Int64Range(-w/2, 0), rapid.Int64Range(-4*w, 0)).Draw(t, "passed")
			limit := rapid.OneOf(rapid.Int64Range(1, 20), rapid.Int64Range(60, 70), rapid.Int64Range(1, scale)).Draw(t, "limit")
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
			}
			if all := told[key]; len(all) > 0 {
				back := rapid.OneOf(rapid.Just(0), rapid.IntRange(0, len(all))).Draw(t, "memory")
				if back < len(all) {
					ask.Seen = all[len(all)-1-back]
				}
			}
			drawDebts(t, &ask, now)
			if rapid.IntRange(0, 20).Draw(t, "forgets") == 0 {
				delete(stored, key)
				if err := redis7.Del(context.Background(), key).Err(); err != nil {
					t.Fatal(err)
				}
			}
			rules := redis7.rules
			if exact := window.Exact(limit, w); exact || stored[key].History != 0 || scale > small || len(ask.Owed.SpentAt)+len(ask.Owed.ReturnedAt) > 0 {
				rules = rules[:1]
				if exact {
					byLog++
				} else {
					byCounter++
				}
				if exact != (stored[key].History != 0) && stored[key].Granted > 0 {
					crossed++
				}
			}
			want, kept, _ := redistest.Decide(stored[key], ask.Word(), now)
			got, err := redis7.decide(rules[rapid.IntRange(0, len(rules)-1).Draw(t, "script")], key, ask, now)
			if err != nil {
				t.Fatal(err)
			}
			if got != want {
				t.Fatalf("Lua %s\nGo  %s\nask %+v\nstored %+v\nnow %d", got, want, ask, stored[key], now)
			}
			var grant window.Grant
			if !window.ReadLine(got, w, &grant) {
				t.Fatalf("%s is no reply", got)
			}
			stored[key] = kept
			told[key] = append(told[key], grant.Counts)
		}
	})
	t.Logf("%d steps by the log, %d by the counter alone, %d from one to the other", byLog, byCounter, crossed)
	if byLog == 0 || byCounter == 0 || crossed == 0 {
		t.Error("nothing was compared")
	}
}

// drawDebts gives the asker debts, and a memory that knows more than it was told.
func drawDebts(t *rapid.T, ask *window.Ask, now int64) {
	if rapid.Bool().Draw(t, "later") {
		ask.Seen = ask.Seen.At(now / ask.Window) // as the fallback brings it along
	}
	few := func(name string) int64 { return rapid.Int64Range(0, 5).Draw(t, name) }
	if rapid.Bool().Draw(t, "owes numbers") {
		ask.Owed = window.Settlement{Spent: few("spent"), PreviousSpent: few("previousSpent"), Returned: few("returned"), PreviousReturned: few("previousReturned")}
	}
	if window.Exact(ask.Limit, ask.Window) && rapid.Bool().Draw(t, "owes instants") {
		at := now - rapid.Int64Range(-2*ask.Window, 2*ask.Window).Draw(t, "first spent")
		for n := few("spent at"); n > 0; n-- {
			ask.Owed.SpentAt = append(ask.Owed.SpentAt, at)
			at += rapid.OneOf(rapid.Just(int64(1)), rapid.Int64Range(1, ask.Window)).Draw(t, "gap")
		}
		for _, at := range ask.Seen.Instants {
			if rapid.IntRange(0, 3).Draw(t, "goes back") == 0 {
				ask.Owed.ReturnedAt = append(ask.Owed.ReturnedAt, at)
			}
		}
	}
	switch rapid.IntRange(0, 5).Draw(t, "knows more") {
	case 0:
		ask.Seen = window.Fold(ask.Seen, &window.Settlement{Spent: few("folded")}, ask.Window)
	case 1:
		ask.Seen = window.Fold(ask.Seen, &window.Settlement{SpentAt: []int64{now - rapid.Int64Range(0, ask.Window).Draw(t, "folded at")}}, ask.Window)
	case 2:
		ask.Seen.Told = ""
		ask.Seen.Generation += rapid.Int64Range(-1, 1).Draw(t, "reset")
		if ask.Seen.Generation < 0 {
			ask.Seen.Generation = 0
		}
	}
}

// A counter outlives every instant at which it matters, and not by much (I8).
func TestExpiryIsTwoWindows(t *testing.T) {
	redis7 := startArbiter(t)
	const w = int64(60e6)
	for _, limit := range []int64{10, 100} {
		for _, elapsed := range []int64{0, 1, w / 2, w - 1} {
			now := 29_000_000*w + elapsed
			ask := window.Ask{Window: w, Limit: limit, Cost: 1, Need: 1, Instances: 1}
			key := fmt.Sprint("expiry:", limit, elapsed)
			if _, err := redis7.decide(redis7.rules[0], key, ask, now); err != nil {
				t.Fatal(err)
			}
			left := redis7.PTTL(context.Background(), key).Val().Milliseconds()
			if want := (2*w - elapsed + 999) / 1000; left > want || left < want-5000 {
				t.Errorf("%d us into the window: %d ms to live, want %d", elapsed, left, want)
			}
		}
	}
}

// A key of the log rule takes at most 16 + 6 bytes a permit beside its name, once it
// holds two; what else a key needs takes no more than two permits would.
func TestBytesOfALog(t *testing.T) {
	redis7 := startArbiter(t)
	for _, w := range []int64{10e6, 60e6, 3600e6, 86400e6, 31 * 86400e6} {
		for _, limit := range []int64{1, 2, 3, 10, 64} {
			now := 1_800_000_000e6 + w/3
			key := fmt.Sprintf("sluice:lim:1:reset:%d:{uuser-%d}", w/1000, limit)
			for n := range limit { // as evenly as can be: the longest instants
				ask := window.Ask{Window: w, Limit: limit, Cost: 1, Need: 1, Instances: 1}
				if _, err := redis7.decide(redis7.rules[0], key, ask, now+n*w/limit); err != nil {
					t.Fatal(err)
				}
			}
			length, memory := redis7.StrLen(context.Background(), key).Val(), redis7.MemoryUsage(context.Background(), key).Val()
			t.Logf("%8d s, limit %2d: %4d bytes, %5.1f a permit; MEMORY USAGE %d, name of %d bytes included", w/1e6, limit, length, float64(length)/float64(limit), memory, len(key))
			if length > 22*max(limit, 2) {
				t.Errorf("%d s, limit %d: %d bytes", w/1e6, limit, length)
			}
		}
	}
}

func TestForeignValueIsAnErrorNotACount(t *testing.T) {
	redis7 := startArbiter(t)
	for _, limit := range []int64{10, 100} {
		for _, value := range []string{"12", "1 2 3 4 5", "x", ""} {
			redis7.Set(context.Background(), "foreign", value, 0)
			ask := window.Ask{Window: 60e6, Limit: limit, Cost: 1, Need: 1, Instances: 1}
			if line, err := redis7.decide(redis7.rules[0], "foreign", ask, 1_700_000_000e6); err == nil {
				t.Errorf("took %q for a counter: %s", value, line)
			}
		}
	}
}

func minimum(a, b int64) int64 {
	if a < b {
		return a
	}
	return b
}
