package window_test

import (
	"context"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/sluice-gateway/sluice/internal/redistest"
	"github.com/sluice-gateway/sluice/plugin/window"
)

// BenchmarkRule is the rule in Go: a reservation in a running window, one that
// finds the limit used up, and when a permit comes free of such a key.
func BenchmarkRule(b *testing.B) {
	minute := window.Span(time.Minute)
	now := 28_333_333*minute + minute/3
	used := window.Counts{Generation: 1, Index: now / minute, Granted: 40, PreviousGranted: 60}
	full := window.Counts{Generation: 1, Index: now / minute, Granted: 90, PreviousGranted: 60}
	ask := window.Ask{Window: minute, Limit: 100, Cost: 1, Need: 1, Extra: 5, Instances: 3, Seen: used}
	for _, bench := range []struct {
		name string
		run  func() int64
		want int64
	}{
		{"granted", func() int64 { grant, _ := window.Decide(used, ask, now); return grant.Need }, 1},
		{"denied", func() int64 { grant, _ := window.Decide(full, ask, now); return grant.Need }, 0},
		{"room", func() int64 { return window.Room(used, minute, 100, now) }, 20},
		{"free at", func() int64 { return window.FreeAt(full, minute, 100, 1, now) }, now/minute*minute + 51_000_000},
	} {
		b.Run(bench.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if got := bench.run(); got != bench.want {
					b.Fatalf("%d, want %d", got, bench.want)
				}
			}
		})
	}
}

// BenchmarkScript is the rule in Lua, on a real Redis: a round trip that grants,
// one that is denied, and PING, which is the round trip alone.
func BenchmarkScript(b *testing.B) {
	server := redistest.Start(b)
	client := goredis.NewClient(&goredis.Options{Addr: server.Addr})
	defer client.Close()
	ctx := context.Background()
	digest, err := client.ScriptLoad(ctx, window.Script).Result()
	if err != nil {
		b.Fatal(err)
	}
	granted := func(b *testing.B, key string, ask window.Ask) int64 {
		line, err := client.EvalSha(ctx, digest, []string{key}, ask.Word()).Text()
		if err != nil {
			b.Fatal(err)
		}
		var grant window.Grant
		if !window.ReadLine(line, ask.Window, &grant) {
			b.Fatalf("reply %s", line)
		}
		return grant.Need
	}
	for _, bench := range []struct {
		name        string
		limit, want int64
	}{
		{"granted", 500_000, 1},
		{"denied", 1, 0},
	} {
		b.Run(bench.name, func(b *testing.B) {
			ask := window.Ask{Window: window.Span(time.Hour), Limit: bench.limit, Cost: 1, Need: 1, Instances: 3}
			granted(b, bench.name, ask) // takes the one permit of the second case
			b.ReportAllocs()
			for b.Loop() {
				if got := granted(b, bench.name, ask); got != bench.want {
					b.Fatalf("%d permits granted, want %d", got, bench.want)
				}
			}
		})
	}
	b.Run("PING", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if err := client.Ping(ctx).Err(); err != nil {
				b.Fatal(err)
			}
		}
	})
}
