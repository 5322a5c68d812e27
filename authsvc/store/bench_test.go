package store

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sluice-gateway/sluice/internal/redistest"
)

// The three ways to know the status of a hot token: a round trip each time,
// go-redis's client-side caching, and the cache that lives by events. Each
// answers the same three questions: token, user, session. They take some 80, 3
// and 0.4 us, and both caches spare Redis. Ours is kept: go-redis switches its
// tracking off on Cluster, on Sentinel and with a password that changes, it forgets
// everything with the connection while Redis is away, and when invalidations are
// lost in silence nothing tells, where a numbered event that is missing does.

func BenchmarkStatusRoundTrip(b *testing.B) {
	redis := redistest.Start(b)
	s := listening(b, open(b, options(redis.Addr)))
	q := question("hot", "u")
	q.Session = "sid"
	before := commands(b, redis)
	for b.Loop() {
		s.statuses.Remove(q.ID)
		ask(b, s, q)
	}
	b.ReportMetric(float64(commands(b, redis)-before)/float64(b.N), "redis-commands/op")
}

func BenchmarkStatusClientSideCaching(b *testing.B) {
	server := redistest.Start(b)
	client := redis.NewClient(&redis.Options{
		Addr: server.Addr, Protocol: 3,
		ClientSideCacheConfig: &redis.ClientSideCacheConfig{MaxEntries: 100_000},
	})
	defer client.Close()
	ctx := context.Background()
	if err := client.Set(ctx, "t:tok:hot", "active x", time.Minute).Err(); err != nil {
		b.Fatal(err)
	}
	ask := func() {
		if err := client.Get(ctx, "t:tok:hot").Err(); err != nil {
			b.Fatal(err)
		}
		for _, cmd := range []error{client.Get(ctx, "t:usr:u").Err(), client.HGet(ctx, "t:ref:sid", "revoked").Err()} {
			if !errors.Is(cmd, redis.Nil) {
				b.Fatal(cmd)
			}
		}
	}
	ask()
	before := commands(b, server)
	for b.Loop() {
		ask()
	}
	b.ReportMetric(float64(commands(b, server)-before)/float64(b.N), "redis-commands/op")
}

func BenchmarkStatusByEvents(b *testing.B) {
	server := redistest.Start(b)
	s := listening(b, open(b, options(server.Addr)))
	q := question("hot", "u")
	q.Session, q.Expires = "sid", time.Now().Add(time.Hour)
	ask(b, s, q)
	before := commands(b, server)
	for b.Loop() {
		ask(b, s, q)
	}
	b.ReportMetric(float64(commands(b, server)-before)/float64(b.N), "redis-commands/op")
}

// BenchmarkStatusParallel is the cache under the load of all cores.
func BenchmarkStatusParallel(b *testing.B) {
	server := redistest.Start(b)
	s := listening(b, open(b, options(server.Addr)))
	var hot []Question
	for i := range 1000 {
		q := question(fmt.Sprint("hot", i), "u")
		q.Expires = time.Now().Add(time.Hour)
		ask(b, s, q)
		hot = append(hot, q)
	}
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for i := 0; pb.Next(); i++ {
			if _, err := s.Status(context.Background(), hot[i%len(hot)], true); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// commands is how many Redis has executed.
func commands(b *testing.B, server *redistest.Server) int64 {
	client := server.Client()
	defer client.Close()
	var n int64
	for line := range strings.Lines(client.Info(context.Background(), "stats").Val()) {
		if _, err := fmt.Sscanf(line, "total_commands_processed:%d", &n); err == nil {
			return n
		}
	}
	b.Fatal("INFO lacks total_commands_processed")
	return 0
}
