package stack

import (
	"cmp"
	"context"
	"crypto/tls"
	"fmt"
	"os"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
)

// embeddedRedis is miniredis with a clock: by itself it answers TIME truly but
// lets no key expire. It speaks RESP, runs Lua and publishes, which is all that
// one machine needs to try Sluice; it keeps nothing on disk.
type embeddedRedis struct {
	*miniredis.Miniredis
	stopped chan struct{}
	ended   sync.WaitGroup
}

// expiryTick is how late a key may expire.
const expiryTick = 50 * time.Millisecond

func startEmbeddedRedis() (*embeddedRedis, error) {
	r := &embeddedRedis{Miniredis: miniredis.NewMiniRedis(), stopped: make(chan struct{})}
	if err := r.StartAddr("127.0.0.1:0"); err != nil {
		return nil, fmt.Errorf("start the embedded Redis: %w", err)
	}
	r.ended.Go(r.age)
	return r, nil
}

// age lets keys grow old by the time that has really passed.
func (r *embeddedRedis) age() {
	ticker := time.NewTicker(expiryTick)
	defer ticker.Stop()
	last := time.Now()
	for {
		select {
		case <-r.stopped:
			return
		case <-ticker.C:
			now := time.Now()
			r.FastForward(now.Sub(last))
			last = now
		}
	}
}

func (r *embeddedRedis) stop() { r.Miniredis.Close() }

func (r *embeddedRedis) start() error { return r.Restart() }

func (r *embeddedRedis) close() error {
	r.Miniredis.Close()
	close(r.stopped)
	r.ended.Wait()
	return nil
}

// openRedis starts the embedded Redis, or takes the one that is named with the
// user, password, TLS and key prefix that its environment variables tell (design:
// environment).
func (s *Stack) openRedis(ctx context.Context) error {
	options := &redis.Options{Addr: s.options.Redis, MaxRetries: -1, DialTimeout: 2 * time.Second, ContextTimeoutEnabled: true}
	if s.options.Redis != "" {
		options.Username, options.Password = os.Getenv("SLUICE_REDIS_USERNAME"), os.Getenv("SLUICE_REDIS_PASSWORD")
		if encrypted, _ := strconv.ParseBool(os.Getenv("SLUICE_REDIS_TLS")); encrypted {
			options.TLSConfig = &tls.Config{}
		}
	} else {
		embedded, err := startEmbeddedRedis()
		if err != nil {
			return err
		}
		s.redis = embedded
		s.onClose(embedded.close)
		options.Addr = embedded.Addr()
	}
	s.ready.Redis = options.Addr
	prefix := cmp.Or(os.Getenv("SLUICE_KEY_PREFIX"), "sluice")
	s.env = append(s.env,
		"SLUICE_REDIS="+options.Addr, "SLUICE_REDIS_USERNAME="+options.Username, "SLUICE_REDIS_PASSWORD="+options.Password,
		"SLUICE_REDIS_PASSWORD_FILE=", // whoever has set it means compose.yaml
		"SLUICE_REDIS_TLS="+strconv.FormatBool(options.TLSConfig != nil),
		"SLUICE_KEY_PREFIX="+prefix)

	name := "--redis=" + options.Addr
	if s.redis != nil {
		name = "the embedded Redis at " + options.Addr
	}
	s.presence = presence{redis.NewClient(options), name, prefix + ":gw:live"}
	s.onClose(s.presence.client.Close)
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if err := s.presence.client.Ping(ctx).Err(); err != nil {
		return fmt.Errorf("%s does not answer as a Redis does: PING: %w", name, err)
	}
	_, err := s.presence.members(ctx) // before anything needs it
	return err
}

// presence reads which gateways are alive from the set that their heartbeats
// keep.
type presence struct {
	client *redis.Client
	redis  string // which one, for errors
	key    string // of the set
}

func (p presence) members(ctx context.Context) ([]string, error) {
	members, err := p.client.ZRange(ctx, p.key, 0, -1).Result()
	if err != nil {
		return nil, fmt.Errorf("%s answers PING but not ZRANGE %s: %w; its own log, or `redis-cli` with the same user, tells why", p.redis, p.key, err)
	}
	return members, nil
}

// joined asks whether n gateways have come to those before. Then each has its
// connection to Redis, and none of its first decisions is made without.
func (p presence) joined(before []string, n int) func(context.Context) error {
	return func(ctx context.Context) error {
		now, err := p.members(ctx)
		if err != nil {
			return err
		}
		fresh := slices.DeleteFunc(now, func(member string) bool { return slices.Contains(before, member) })
		if len(fresh) < n {
			return fmt.Errorf("%d of %d gateways", len(fresh), n)
		}
		return nil
	}
}
