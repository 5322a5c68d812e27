package store

import (
	"context"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/sluice-gateway/sluice/internal/redistest"
)

// go-redis ends a goroutine that dials a second after its client was closed.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/redis/go-redis/v9/internal/pool.(*ConnPool).tryDial"))
}

func options(address string) Options {
	return Options{
		Addresses: []string{address}, Password: func() (string, error) { return "", nil },
		Timeout: 2 * time.Second, DialTimeout: time.Second, Prefix: "t", CacheSize: 1000,
		Session: time.Hour, Token: time.Hour, Grace: 10 * time.Second,
		Log: slog.New(slog.DiscardHandler),
	}
}

func open(t testing.TB, o Options) *Store {
	t.Helper()
	s, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func listening(t testing.TB, s *Store) *Store {
	t.Helper()
	redistest.Eventually(t, 10*time.Second, "events arrive", s.StreamAlive)
	return s
}

func question(id, user string) Question {
	return Question{ID: id, Sum: "sum-" + id, User: user, Expires: time.Now().Add(time.Minute)}
}

// ask demands an answer from Redis.
func ask(t testing.TB, s *Store, q Question) Status {
	t.Helper()
	status, err := s.Status(context.Background(), q, true)
	if err != nil {
		t.Fatal(err)
	}
	return status
}

// line is a TCP proxy in front of Redis that can go silent: bytes are taken
// and never answered, no FIN, no RST.
type line struct {
	addr     string
	silent   atomic.Bool
	gone     atomic.Int64 // connections older than this stay silent for ever
	delay    atomic.Int64 // nanoseconds before every reply and request is passed on
	listener net.Listener
	tasks    sync.WaitGroup

	mu    sync.Mutex // protects conns
	conns []net.Conn
}

func newLine(t testing.TB, target string) *line {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := &line{addr: listener.Addr().String(), listener: listener}
	l.tasks.Go(func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", target)
			if err != nil {
				client.Close()
				continue
			}
			l.mu.Lock()
			l.conns = append(l.conns, client, server)
			l.mu.Unlock()
			l.tasks.Go(func() { l.pump(server, client) })
			l.tasks.Go(func() { l.pump(client, server) })
		}
	})
	t.Cleanup(l.close)
	return l
}

func (l *line) pump(to, from net.Conn) {
	defer to.Close()
	born := l.gone.Load()
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		if err != nil {
			return
		}
		if l.silent.Load() || l.gone.Load() != born {
			continue
		}
		time.Sleep(time.Duration(l.delay.Load()))
		if _, err := to.Write(buffer[:n]); err != nil {
			return
		}
	}
}

func (l *line) close() {
	l.listener.Close()
	l.mu.Lock()
	for _, conn := range l.conns {
		conn.Close()
	}
	l.mu.Unlock()
	l.tasks.Wait()
}
