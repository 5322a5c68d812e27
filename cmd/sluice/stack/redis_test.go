package stack

import (
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"
)

func TestEmbeddedRedisLetsKeysExpire(t *testing.T) {
	defer goleak.VerifyNone(t)
	server, err := startEmbeddedRedis()
	if err != nil {
		t.Fatal(err)
	}
	defer server.close()
	client := redis.NewClient(&redis.Options{Addr: server.Addr()})
	defer client.Close()

	told, err := client.Time(t.Context()).Result()
	if off := time.Since(told); err != nil || off < -time.Second || off > time.Second {
		t.Errorf("TIME is off by %s (%v)", off, err)
	}
	if err := client.Set(t.Context(), "k", "v", 100*time.Millisecond).Err(); err != nil {
		t.Fatal(err)
	}
	if n := client.Exists(t.Context(), "k").Val(); n != 1 {
		t.Fatal("the key is not there")
	}
	for deadline := time.Now().Add(5 * time.Second); client.Exists(t.Context(), "k").Val() == 1; {
		if time.Now().After(deadline) {
			t.Fatal("the key does not expire")
		}
		time.Sleep(expiryTick)
	}
}

func TestEmbeddedRedisGoesAndComesBack(t *testing.T) {
	server, err := startEmbeddedRedis()
	if err != nil {
		t.Fatal(err)
	}
	defer server.close()
	s := &Stack{redis: server}
	address := server.Addr()
	client := redis.NewClient(&redis.Options{Addr: address, MaxRetries: -1})
	defer client.Close()
	if err := client.Set(t.Context(), "k", "v", 0).Err(); err != nil {
		t.Fatal(err)
	}
	if err := s.StopRedis(); err != nil {
		t.Fatal(err)
	}
	if err := client.Ping(t.Context()).Err(); err == nil {
		t.Error("it still answers")
	}
	if err := s.StartRedis(); err != nil {
		t.Fatal(err)
	}
	if got, err := client.Get(t.Context(), "k").Result(); got != "v" || err != nil || server.Addr() != address {
		t.Errorf("%q, %v at %s", got, err, server.Addr())
	}
	foreign := &Stack{}
	if foreign.StopRedis() == nil || foreign.StartRedis() == nil {
		t.Error("a Redis that is not ours was touched")
	}
}

func TestPresenceCountsNewcomersOnly(t *testing.T) {
	server, err := startEmbeddedRedis()
	if err != nil {
		t.Fatal(err)
	}
	defer server.close()
	p := presence{redis.NewClient(&redis.Options{Addr: server.Addr()})}
	defer p.client.Close()
	add := func(member string) {
		if err := p.client.ZAdd(t.Context(), liveGateways, redis.Z{Score: 1, Member: member}).Err(); err != nil {
			t.Fatal(err)
		}
	}
	add("a stranger")
	before, err := p.members(t.Context())
	if err != nil || len(before) != 1 {
		t.Fatalf("%q, %v", before, err)
	}
	if p.joined(before, 1)(t.Context()) == nil {
		t.Error("the stranger counts")
	}
	add("ours")
	if err := p.joined(before, 1)(t.Context()); err != nil {
		t.Error(err)
	}
}
