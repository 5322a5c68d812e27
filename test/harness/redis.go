package harness

import (
	"context"
	"errors"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sluice-gateway/sluice/internal/redistest"
)

// go-redis would write to standard error whenever a test takes Redis away.
func init() { redis.SetLogger(quiet{}) }

type quiet struct{}

func (quiet) Printf(context.Context, string, ...any) {}

// Redis is a redis-server of the test's own, which the test may kill, freeze and
// start again on the same port; or one that somebody else runs.
type Redis struct {
	Addr   string
	Client *redis.Client // of the test itself; retries while the server is away

	t      testing.TB
	server Server
}

// Server runs a Redis.
type Server interface {
	Restart()
	Kill()
}

// StartRedis starts a redis-server that keeps nothing on disk; the test ends it.
func StartRedis(t testing.TB) *Redis {
	t.Helper()
	server := redistest.Start(t)
	return UseRedis(t, redis.NewClient(&redis.Options{Addr: server.Addr, ContextTimeoutEnabled: true, DialTimeout: time.Second}), server)
}

// UseRedis is a Redis that server runs and that the client reaches.
func UseRedis(t testing.TB, client *redis.Client, server Server) *Redis {
	t.Cleanup(func() {
		if err := client.Close(); err != nil {
			t.Error(err)
		}
	})
	return &Redis{t: t, Addr: client.Options().Addr, Client: client, server: server}
}

// Start starts a server that was killed, empty where it is a process of our own,
// and waits until it answers.
func (r *Redis) Start() {
	r.t.Helper()
	r.server.Restart()
	Eventually(r.t, 10*time.Second, "redis-server answers", func() error {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		return r.Client.Ping(ctx).Err()
	})
}

// Kill ends the server without notice, as a crash does.
func (r *Redis) Kill() { r.server.Kill() }

// Freeze lets a server of our own hang: connections stay open, nothing is answered.
func (r *Redis) Freeze() { r.server.(*redistest.Server).Signal(syscall.SIGSTOP) }

// Thaw ends Freeze.
func (r *Redis) Thaw() { r.server.(*redistest.Server).Signal(syscall.SIGCONT) }

// Now is the server's clock, the only one that counts for limits.
func (r *Redis) Now() time.Time {
	r.t.Helper()
	now, err := r.Client.Time(context.Background()).Result()
	if err != nil {
		r.t.Fatal(err)
	}
	return now
}

// FreshWindow returns in the first tenth of a window: windows are aligned to
// Redis's epoch, and a test that counts to a limit must not cross an edge
// (design: window-edges). Windows shorter than 10 s leave too little time and are refused.
func (r *Redis) FreshWindow(window time.Duration) {
	r.t.Helper()
	if window < 10*time.Second {
		r.t.Fatalf("a window of %v is too short to count in", window)
	}
	Eventually(r.t, window+time.Second, "a fresh window", func() error {
		if into := time.Duration(r.Now().UnixMicro()%window.Microseconds()) * time.Microsecond; into > window/10 {
			return errors.New(into.String() + " into the window")
		}
		return nil
	})
}

// RoomIn returns once at least this much is left of the window: for tests whose
// keys are new, so that only an edge on the way could disturb their count.
func (r *Redis) RoomIn(window, room time.Duration) {
	r.t.Helper()
	Eventually(r.t, room+time.Second, "room in the window", func() error {
		left := window - time.Duration(r.Now().UnixMicro()%window.Microseconds())*time.Microsecond
		if left < room {
			return errors.New("only " + left.String() + " left")
		}
		return nil
	})
}

// Flush empties the server.
func (r *Redis) Flush() {
	r.t.Helper()
	if err := r.Client.FlushAll(context.Background()).Err(); err != nil {
		r.t.Fatal(err)
	}
}
