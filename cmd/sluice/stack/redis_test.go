package stack

import (
	"bufio"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"
)

func TestEmbeddedRedisLetsKeysExpire(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent()) // that of the plugin's request ids is as old as the process
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
	p := presence{redis.NewClient(&redis.Options{Addr: server.Addr()}), "the embedded Redis", "shop:gw:live"}
	defer p.client.Close()
	add := func(member string) {
		if err := p.client.ZAdd(t.Context(), p.key, redis.Z{Score: 1, Member: member}).Err(); err != nil {
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

// TestBrokenRedisIsNamed: whatever a Redis does wrong while the stack starts,
// the error says which Redis, what it was asked, and what it did.
func TestBrokenRedisIsNamed(t *testing.T) {
	traefik := filepath.Join(t.TempDir(), "traefik")
	if err := os.WriteFile(traefik, []byte("#!/bin/sh\necho 'Version:      3.7.13'\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name, ping, zrange string // its answers; empty: the connection is closed
		want               string
	}{
		{"closes", "", "", " does not answer as a Redis does: PING: EOF"},
		{"another protocol", "HTTP/1.1 400 Bad Request\r\n\r\n", "", " does not answer as a Redis does: PING: "},
		{"closes later", "+PONG\r\n", "", " answers PING but not ZRANGE sluice:gw:live: EOF"},
		{"refuses later", "+PONG\r\n", "-ERR upstream failure\r\n", " answers PING but not ZRANGE sluice:gw:live: ERR upstream failure"},
	} {
		t.Run(test.name, func(t *testing.T) {
			address := brokenRedis(t, func(command string) string {
				switch command {
				case "ping":
					return test.ping
				case "zrange":
					return test.zrange
				}
				return "-ERR unknown command\r\n"
			})
			s, err := Open(t.Context(), Options{Traefik: traefik, Redis: address, Listen: "127.0.0.1:0", ListenTLS: "127.0.0.1:0", DataDir: t.TempDir()})
			if err == nil {
				s.Close()
			}
			if err == nil || !strings.HasPrefix(err.Error(), "--redis="+address+test.want) {
				t.Errorf("error %v, want --redis=%s%s", err, address, test.want)
			}
		})
	}
}

// brokenRedis answers each command by its name, or closes the connection.
func brokenRedis(t *testing.T, answer func(command string) string) (address string) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			connection, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer connection.Close()
				lines := bufio.NewScanner(connection)
				for lines.Scan() {
					name := strings.ToLower(lines.Text())
					switch name {
					case "hello", "client", "ping", "zrange", "eval", "evalsha", "subscribe", "get", "set", "info":
					default:
						continue // a length, or an argument
					}
					reply := answer(name)
					if reply == "" {
						return
					}
					if _, err := io.WriteString(connection, reply); err != nil {
						return
					}
				}
			}()
		}
	}()
	return listener.Addr().String()
}
