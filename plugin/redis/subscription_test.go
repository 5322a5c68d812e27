package redis

import (
	"fmt"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// A listener counts what a subscription hears.
type listener struct {
	messages, losses atomic.Int64
	last             atomic.Value
}

func listen(c *Client, channel string) (*listener, func()) {
	l := &listener{}
	stop := c.Subscribe(channel, func(payload string) { l.last.Store(payload); l.messages.Add(1) }, func() { l.losses.Add(1) })
	return l, stop
}

// hears publishes until the listener has heard.
func (l *listener) hears(t *testing.T, publish func()) {
	t.Helper()
	before := l.messages.Load()
	eventually(t, 15*time.Second, "a message", func() bool {
		publish()
		time.Sleep(5 * time.Millisecond)
		return l.messages.Load() > before
	})
}

func TestSubscription(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	c := open(t, Config{Addresses: []string{s.address()}, Timeout: time.Second})
	l, stop := listen(c, "events")
	publish := func() { s.cli("PUBLISH", "events", "a b\r\nc") }
	l.hears(t, publish)
	if l.losses.Load() != 0 || l.last.Load() != "a b\r\nc" {
		t.Errorf("%d losses, %q", l.losses.Load(), l.last.Load())
	}

	s.cli("CLIENT", "KILL", "TYPE", "pubsub")
	eventually(t, time.Second, "the loss", func() bool { return l.losses.Load() == 1 })
	l.hears(t, publish)

	// A subscription that hangs is lost after the ping that nobody answers.
	began := time.Now()
	s.signal(syscall.SIGSTOP)
	eventually(t, 5*time.Second, "the loss", func() bool { return l.losses.Load() == 2 })
	if waited := time.Since(began); waited > rest+patience+2*slack {
		t.Errorf("noticed after %v", waited)
	}
	s.signal(syscall.SIGCONT)
	l.hears(t, publish)

	s.kill()
	eventually(t, time.Second, "the loss", func() bool { return l.losses.Load() == 3 })
	s.start()
	l.hears(t, publish)

	stop()
	eventually(t, time.Second, "the subscription to end", func() bool { return s.cli("PUBSUB", "NUMSUB", "events") == "events\n0" })
	if l.losses.Load() != 3 {
		t.Errorf("%d losses", l.losses.Load())
	}
}

// RESP2, of a Redis before version 6: messages are plain arrays and so is PONG.
func TestSubscriptionRESP2(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	t.Parallel()
	f := startFake(t, func(_ *session, words []string) string {
		return "*3\r\n$9\r\nsubscribe\r\n$6\r\nevents\r\n:1\r\n*3\r\n$7\r\nmessage\r\n$6\r\nevents\r\n$2\r\nhi\r\n"
	})
	var pings atomic.Int64
	f.welcomeWith(func(s *session, words []string) string {
		switch words[0] {
		case "HELLO":
			return "-ERR unknown command\r\n"
		case "PING":
			if pings.Add(1) > 4 { // two connections, two handshakes, each with two
				return "*2\r\n$4\r\npong\r\n$0\r\n\r\n"
			}
			return "+PONG\r\n"
		}
		return welcome(s, words)
	})
	c := open(t, Config{Addresses: []string{f.address()}})
	healthy(t, c)
	l, stop := listen(c, "events")
	defer stop()
	eventually(t, 5*time.Second, "the message and some pings", func() bool { return l.messages.Load() == 1 && pings.Load() >= 7 })
	if l.losses.Load() != 0 {
		t.Errorf("%d losses", l.losses.Load())
	}
}

// Refused, it tries again with backoff, and says so.
func TestSubscriptionRefused(t *testing.T) {
	var refuse atomic.Bool
	refuse.Store(true)
	f := startFake(t, func(_ *session, words []string) string {
		if refuse.Load() {
			return "-NOPERM this user has no permissions to access one of the channels\r\n"
		}
		return fmt.Sprintf("*3\r\n$9\r\nsubscribe\r\n$%d\r\n%s\r\n:1\r\n*3\r\n+message\r\n+%s\r\n$1\r\nx\r\n", len(words[1]), words[1], words[1])
	})
	c := open(t, Config{Addresses: []string{f.address()}})
	l, stop := listen(c, strings.Repeat("c", 10))
	defer stop()
	eventually(t, 5*time.Second, "two refusals", func() bool { return c.Stats().Errors["noperm"] >= 2 })
	if l.losses.Load() != 0 {
		t.Error("lost what was never had")
	}
	refuse.Store(false)
	eventually(t, 5*time.Second, "the message", func() bool { return l.messages.Load() == 1 })
}

// A message handler that panics costs the subscription's connection only.
func TestPanickingSubscriber(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	c := open(t, Config{Addresses: []string{s.address()}})
	var heard, lost atomic.Int64
	defer c.Subscribe("events", func(string) {
		if heard.Add(1) == 1 {
			panic("no")
		}
	}, func() { lost.Add(1) })()
	eventually(t, 10*time.Second, "messages after the panic", func() bool {
		s.cli("PUBLISH", "events", "x")
		return heard.Load() > 1 && lost.Load() == 1
	})
}
