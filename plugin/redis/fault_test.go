package redis

import (
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// slack is what a busy test machine may add to a bound.
const slack = 150 * time.Millisecond

// Answers that mean "not now": calls end at once with their kind, the breaker
// opens after three, nothing is sent twice, and the client finds out by itself
// when Redis is well again.
func TestErrorRepliesOpenTheBreaker(t *testing.T) {
	for _, c := range []struct {
		reply, kind string
		notRun      bool
	}{
		{"LOADING Redis is loading the dataset in memory", "loading", true},
		{"MASTERDOWN Link with MASTER is down", "masterdown", true},
		{"CLUSTERDOWN The cluster is down", "clusterdown", true},
		{"READONLY You can't write against a read only replica.", "readonly", true},
		{"ERR Error running script (call to f_1): @user_script:1: -READONLY You can't write against a read only replica.", "readonly", true},
		{"OOM command not allowed when used memory > 'maxmemory'.", "oom", false},
		{"BUSY Redis is busy running a script.", "busy", true},
		{"NOAUTH Authentication required.", "noauth", true},
		{"NOPERM this user has no permissions", "noperm", true},
		{"MISCONF Redis is configured to save RDB snapshots", "misconf", false},
		{"NOREPLICAS Not enough good replicas to write.", "noreplicas", false},
		{"TRYAGAIN Multiple keys request during rehashing of slot", "tryagain", true},
		{"ERR max number of clients reached", "maxclients", true},
		{"MOVED 1234 127.0.0.1:1", "moved", true},
		{"ASK 1234 127.0.0.1:1", "ask", true},
	} {
		c := c
		t.Run(c.kind, func(t *testing.T) {
			t.Parallel()
			f := startFake(t, always("-"+c.reply+"\r\n"))
			client := open(t, Config{Addresses: []string{f.address()}, Timeout: time.Second})
			healthy(t, client)
			w := watch(t)
			for i := 0; i < 50; i++ {
				before := w.ended.Load()
				send(client, w.call("k"))
				eventually(t, time.Second, "the call to end", func() bool { return w.ended.Load() > before })
			}
			if n := w.kind(c.kind); n < 1 || n > tolerated || n+w.kind("away") != 50 {
				t.Errorf("%v", w)
			}
			err := replyError(c.reply)
			if Kind(err) != c.kind || NotExecuted(err) != c.notRun {
				t.Errorf("kind %q, not executed %v", Kind(err), NotExecuted(err))
			}
			var ready atomic.Int64
			client.OnReady(func() { ready.Add(1) })
			if client.Stats().Errors[c.kind] < 1 || client.Stats().Errors["away"] < 1 {
				t.Errorf("counters: %v", client.Stats())
			}
			// The probe is refused as the calls are: the breaker stays open,
			// unless it was the connection that was given up (a demoted master).
			probes := f.commands.Load()
			eventually(t, 3*time.Second, "two probes", func() bool {
				return f.commands.Load() >= probes+2 || c.kind == "readonly" || c.kind == "noperm" || c.kind == "maxclients"
			})
			if client.Healthy() && c.kind != "readonly" && c.kind != "noperm" {
				t.Error("a refused probe closed the breaker")
			}
			f.behave(well)
			healthy(t, client)
			eventually(t, time.Second, "OnReady", func() bool { return ready.Load() > 0 })
			send(client, w.call("k"))
			w.settled()
			if w.good.Load() != 1 {
				t.Errorf("%v", w)
			}
		})
	}
}

// A connection to a master that was demoted takes no more calls, and the client
// says so while the last of them is still unanswered.
func TestRetiringIsNotHealthy(t *testing.T) {
	t.Parallel()
	readonly := true
	f := startFake(t, func(s *session, words []string) string {
		if readonly {
			readonly = false
			return "-READONLY You can't write against a read only replica.\r\n"
		}
		return "" // pending
	})
	client := open(t, Config{Addresses: []string{f.address()}, Timeout: 5 * time.Second})
	healthy(t, client)
	f.welcomeWith(always("")) // no other connection
	w := watch(t)
	send(client, w.call("k"), w.call("k"))
	eventually(t, time.Second, "the refusal", func() bool { return w.kind("readonly") == 1 })
	if client.Healthy() {
		t.Error("healthy without a connection that takes calls")
	}
	send(client, w.call("k"))
	eventually(t, time.Second, "the call to be sent back", func() bool { return w.kind("away") == 1 })
}

// The probe after a refusal writes to the refused key without changing it.
func TestProbeAfterRefusal(t *testing.T) {
	s := startServer(t)
	client := open(t, Config{Addresses: []string{s.address()}, Timeout: time.Second})
	healthy(t, client)
	s.cli("SET", "text", "x")
	s.cli("RPUSH", "list", "x")
	for _, key := range []string{"absent", "text", "list"} {
		s.cli("CONFIG", "SET", "maxmemory", "1")
		w := watch(t)
		send(client, w.call(key), w.call(key), w.call(key))
		w.settled()
		if client.Healthy() || w.kind("oom") != 3 {
			t.Fatalf("%s: %v", key, w)
		}
		began := time.Now()
		for time.Since(began) < 300*time.Millisecond { // some probes
			if client.Healthy() {
				t.Fatalf("%s: healthy without memory", key)
			}
			time.Sleep(time.Millisecond)
		}
		s.cli("CONFIG", "SET", "maxmemory", "0")
		healthy(t, client)
	}
	if got := s.cli("EXISTS", "absent") + s.cli("GET", "text") + s.cli("LRANGE", "list", "0", "-1"); got != "0xx" {
		t.Errorf("the probes left %q", got)
	}
}

// Established and silent: the first timeout releases everybody who waits, no
// one who comes later pays, and after a second the connection is given up.
func TestSilence(t *testing.T) {
	t.Parallel()
	f := startFake(t, always(""))
	client := open(t, Config{Addresses: []string{f.address()}, Timeout: 25 * time.Millisecond})
	healthy(t, client)
	f.welcomeWith(always(""))
	w := watch(t)
	began := time.Now()
	for i := 0; i < 128; i++ {
		send(client, w.call("k"))
	}
	eventually(t, time.Second, "the breaker to open", func() bool { return !client.Healthy() })
	if waited := time.Since(began); waited < 25*time.Millisecond || waited > 25*time.Millisecond+slack {
		t.Errorf("opened after %v", waited)
	}
	eventually(t, slack, "nobody to wait any more", func() bool { return w.late.Load()+w.ended.Load() == 128 })
	late, ended := w.late.Load(), w.ended.Load()
	for i := 0; i < 128; i++ {
		send(client, w.call("k"))
	}
	if w.ended.Load() != ended+128 || w.late.Load() != late {
		t.Errorf("somebody waited though the breaker is open: %v", w)
	}
	w.settled()
	if gone := time.Since(began); gone < patience || gone > patience+2*slack {
		t.Errorf("the silent connection was given up after %v", gone)
	}
	if int64(w.kind("timeout")) != late {
		t.Errorf("%v", w)
	}
	if n := client.Stats().Errors["timeout"]; n < late {
		t.Errorf("%d timeouts counted, %d happened", n, late)
	}
	if n := f.commands.Load(); n > 128 {
		t.Errorf("%d commands for 128 calls", n)
	}
	f.welcomeWith(nil)
	f.behave(well)
	healthy(t, client)
}

// Three timeouts one after the other open the breaker too.
func TestThreeTimeoutsInARow(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	t.Parallel()
	f := startFake(t, always(""))
	client := open(t, Config{Addresses: []string{f.address()}, Timeout: 20 * time.Millisecond})
	healthy(t, client)
	f.welcomeWith(always(""))
	w := watch(t)
	for i := int64(1); i <= 3; i++ {
		if !client.Healthy() {
			t.Fatalf("unhealthy after %d timeouts", i-1)
		}
		send(client, w.call("k"))
		eventually(t, time.Second, "the timeout", func() bool { return w.late.Load() == i })
	}
	eventually(t, slack, "the breaker to open", func() bool { return !client.Healthy() })
	w.settled()
}

// A grant that comes late has been counted by Redis: it must reach its owner.
func TestLateReplyStillArrives(t *testing.T) {
	t.Parallel()
	f := startFake(t, func(*session, []string) string {
		time.Sleep(120 * time.Millisecond)
		return ":42\r\n"
	})
	client := open(t, Config{Addresses: []string{f.address()}, Timeout: 20 * time.Millisecond})
	healthy(t, client)
	to, another := make(chan interface{}, 3), make(chan interface{}, 2)
	calls := []*Call{{Name: "GET", Key: "k", To: to}, {Name: "GET", Key: "k", To: another}, {Name: "GET", Key: "k", To: to}, {Name: "GET", Key: "k"}}
	for _, call := range calls {
		if !Send(client, call) {
			t.Fatal(call.Err)
		}
	}
	overdue, ok := (<-to).(*Overdue)
	if !ok || overdue.At <= 0 || len(overdue.Calls) != 2 || overdue.Calls[0] != calls[0] || overdue.Calls[1] != calls[2] {
		t.Fatalf("%+v; want both calls of this owner in one message", overdue)
	}
	if other, ok := (<-another).(*Overdue); !ok || len(other.Calls) != 1 || other.Calls[0] != calls[1] {
		t.Fatalf("%+v; want the other owner's call", other)
	}
	for _, call := range []*Call{calls[0], calls[2]} {
		if (<-to).(*Call) != call || call.Err != nil || call.Line != "42" || call.At <= overdue.At {
			t.Errorf("%+v", call)
		}
	}
	if n := client.Stats().Reconnects; n != 0 {
		t.Errorf("%d reconnects", n)
	}
}

// A reply that stops half way and goes on later is one reply.
func TestHalfReplyIsResumed(t *testing.T) {
	f := startFake(t, func(s *session, _ []string) string {
		s.Write([]byte("+he"))
		time.Sleep(80 * time.Millisecond)
		s.Write([]byte("l"))
		time.Sleep(80 * time.Millisecond)
		return "lo\r\n"
	})
	client := open(t, Config{Addresses: []string{f.address()}, Timeout: 20 * time.Millisecond})
	healthy(t, client)
	o := do(t, client, &Call{Name: "X"})
	if o.Err != nil || o.Line != "hello" || client.Stats().Reconnects != 0 {
		t.Errorf("%+v", o)
	}
}

// Bytes that wait when the deadline passes are not a timeout: here the reader
// itself was held up, by an owner that does not take its calls (design: late-replies).
func TestBusyReaderIsNoTimeout(t *testing.T) {
	for _, longest := range []time.Duration{0, 40 * time.Millisecond} {
		f := startFake(t, well)
		client := open(t, Config{Addresses: []string{f.address()}, Timeout: 20 * time.Millisecond, MaxWait: longest})
		healthy(t, client)
		w := watch(t)
		slow := make(chan interface{}) // the reader waits until somebody receives
		for round := 1; round <= 5; round++ {
			Send(client, &Call{Name: "X", To: slow})
			time.Sleep(10 * time.Millisecond) // the reader has it
			send(client, w.call("k"))
			time.Sleep(60 * time.Millisecond)
			<-slow
			eventually(t, time.Second, "the other", func() bool { return w.good.Load() == int64(round) })
		}
		if w.late.Load() != 0 || !client.Healthy() {
			t.Errorf("%v: %v", longest, w)
		}
	}
}

// A server that stops reading blocks the writer. Waiters leave after the
// timeout, and what was not written is known not to have run.
func TestBlockedWrite(t *testing.T) {
	t.Parallel()
	stop := make(chan struct{})
	f := startFake(t, func(*session, []string) string { <-stop; return "" })
	defer close(stop)
	client := open(t, Config{Addresses: []string{f.address()}, Timeout: 25 * time.Millisecond})
	healthy(t, client)
	w := watch(t)
	calls := make([]*Call, 80)
	for i := range calls {
		calls[i] = w.call("k")
		calls[i].Args = []string{strings.Repeat("x", 256<<10)}
	}
	send(client, calls...)
	began := time.Now()
	eventually(t, time.Second, "the breaker to open", func() bool { return !client.Healthy() })
	if waited := time.Since(began); waited > 25*time.Millisecond+2*slack {
		t.Errorf("waiters were held for %v", waited)
	}
	eventually(t, slack, "nobody to wait any more", func() bool { return w.late.Load()+w.ended.Load() == 80 })
	w.settled()
	if n := w.notRun.Load(); n < 20 || n == 80 || w.kind("timeout")+w.kind("away") != 80 || w.kind("timeout") == 0 {
		t.Errorf("%v", w)
	}
}

// Replies that break the connection: every pending call ends, once, none is
// sent again, and the connection is not used any more.
func TestBrokenReplies(t *testing.T) {
	for _, c := range []struct {
		name  string
		reply func(s *session, words []string) string
		kind  string
	}{
		{"garbage", always("hello\r\n"), "protocol"},
		{"http", always("HTTP/1.1 400 Bad Request\r\n\r\n"), "protocol"},
		{"a bulk", always("$1\r\nx\r\n"), "protocol"},
		{"an array", always("*1\r\n:1\r\n"), "protocol"},
		{"null", always("$-1\r\n"), "protocol"},
		{"no integer", always(":1x\r\n"), "protocol"},
		{"no CR", always("+OK\n"), "protocol"},
		{"no kind", always("\r\n"), "protocol"},
		{"endless line", always("+" + strings.Repeat("x", 70000)), "oversize"},
		{"two replies", always(":1\r\n:2\r\n"), "protocol"},
		{"half, then FIN", func(s *session, _ []string) string {
			s.Write([]byte("+gran"))
			s.Close()
			return ""
		}, "eof"},
		{"FIN", func(s *session, _ []string) string { s.Close(); return "" }, "eof"},
		{"half, then RST", func(s *session, _ []string) string {
			s.Write([]byte("+gran"))
			time.Sleep(5 * time.Millisecond) // let the half out before the reset discards it
			s.reset()
			return ""
		}, "reset"},
		{"half, then silence", func(s *session, _ []string) string {
			s.Write([]byte("+gran"))
			io.Copy(io.Discard, s) // nothing that follows is answered, however it arrives
			return ""
		}, "timeout"},
	} {
		c := c
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			f := startFake(t, c.reply)
			client := open(t, Config{Addresses: []string{f.address()}, Timeout: 50 * time.Millisecond})
			healthy(t, client)
			w := watch(t)
			calls := make([]*Call, 20)
			for i := range calls {
				calls[i] = w.call("k")
			}
			send(client, calls...)
			w.settled()
			// What had not been written when it broke did not run.
			if w.kind(c.kind)+w.kind("away")+int(w.good.Load()) != 20 {
				t.Errorf("%v", w)
			}
			if c.name != "two replies" && (w.kind(c.kind) == 0 || w.good.Load() > 0) {
				t.Errorf("%v", w)
			}
			if waited := time.Duration(w.slowest.Load()); waited > 50*time.Millisecond+slack {
				t.Errorf("somebody waited %v", waited)
			}
			f.behave(well)
			healthy(t, client)
			if n := f.commands.Load(); n > 20 {
				t.Errorf("%d commands for 20 calls", n)
			}
			eventually(t, 15*time.Second, "a call to succeed again", func() bool {
				return do(t, client, &Call{Name: "X"}).Err == nil
			})
		})
	}
}

// Handshakes that fail: the client stays away, says why, and calls never wait.
func TestFailedHandshakes(t *testing.T) {
	for _, c := range []struct {
		name  string
		greet func(s *session, words []string) string
		kind  string
	}{
		{"silence", always(""), "timeout"},
		{"FIN", func(s *session, _ []string) string { s.Close(); return "" }, "eof"},
		{"garbage", always("SSH-2.0-OpenSSH_9.2\r\n"), "protocol"},
		{"oversize", always("$1000000000\r\n"), "oversize"},
		{"wrong password", always("-WRONGPASS invalid username-password pair\r\n"), "wrongpass"},
		{"no password", always("-NOAUTH HELLO must be called with the client already authenticated\r\n"), "noauth"},
		{"full", func(s *session, _ []string) string {
			s.Write([]byte("-ERR max number of clients reached\r\n"))
			s.Close()
			return ""
		}, "maxclients"},
		{"protected", func(s *session, _ []string) string {
			s.Write([]byte("-DENIED Redis is running in protected mode\r\n"))
			s.Close()
			return ""
		}, "denied"},
		{"loading", func(s *session, words []string) string {
			if words[0] == "PING" {
				return "-LOADING Redis is loading the dataset in memory\r\n"
			}
			return welcome(s, words)
		}, "loading"},
		{"replica", func(s *session, words []string) string {
			if words[0] == "HELLO" {
				return "*2\r\n+role\r\n+replica\r\n"
			}
			return welcome(s, words)
		}, "readonly"},
		{"old replica", func(s *session, words []string) string {
			switch words[0] {
			case "HELLO":
				return "-ERR unknown command 'HELLO'\r\n"
			case "ROLE":
				return "*2\r\n$5\r\nslave\r\n:0\r\n"
			}
			return welcome(s, words)
		}, "readonly"},
	} {
		c := c
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			f := startFake(t, well)
			f.welcomeWith(c.greet)
			client := open(t, Config{
				Addresses: []string{f.address()}, DialTimeout: 200 * time.Millisecond,
				Password: func() (string, error) { return "secret", nil },
			})
			w := watch(t)
			eventually(t, 5*time.Second, "two attempts", func() bool {
				send(client, w.call("k"))
				return client.Stats().Errors[c.kind] >= 2
			})
			if client.Healthy() || int64(w.kind("away")) != w.sent.Load() || f.commands.Load() > 0 {
				t.Errorf("%v, healthy %v", w, client.Healthy())
			}
			if waited := time.Duration(w.slowest.Load()); waited > slack {
				t.Errorf("somebody waited %v", waited)
			}
			f.welcomeWith(nil)
			healthy(t, client)
		})
	}
}

// A listener whose backlog is full drops SYNs: a black hole. Attempts end after
// DialTimeout and no call takes part in them.
func TestBlackHole(t *testing.T) {
	t.Parallel()
	hole, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Close(hole) })
	if err := syscall.Bind(hole, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Listen(hole, 0); err != nil {
		t.Fatal(err)
	}
	bound, err := syscall.Getsockname(hole)
	if err != nil {
		t.Fatal(err)
	}
	address := fmt.Sprintf("127.0.0.1:%d", bound.(*syscall.SockaddrInet4).Port)
	full := false
	for i := 0; i < 16 && !full; i++ { // until one is dropped
		conn, err := net.DialTimeout("tcp", address, 100*time.Millisecond)
		if err != nil {
			full = true
			break
		}
		t.Cleanup(func() { conn.Close() })
	}
	if !full {
		t.Skip("this kernel does not drop SYNs of a full backlog")
	}
	client := open(t, Config{Addresses: []string{address}, DialTimeout: 100 * time.Millisecond})
	w := watch(t)
	eventually(t, 5*time.Second, "two attempts", func() bool {
		send(client, w.call("k"))
		return client.Stats().Errors["timeout"] >= 2
	})
	if waited := time.Duration(w.slowest.Load()); int64(w.kind("away")) != w.sent.Load() || waited > slack {
		t.Errorf("%v", w)
	}
}

func TestNobodyThere(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	client := open(t, Config{Addresses: []string{address}})
	w := watch(t)
	eventually(t, 5*time.Second, "three attempts", func() bool {
		send(client, w.call("k"))
		return client.Stats().Errors["refused"] >= 3
	})
	if int64(w.kind("away")) != w.sent.Load() {
		t.Errorf("%v", w)
	}
	if client.Stats().Errors["refused"] > 8 {
		t.Errorf("no backoff: %v", client.Stats())
	}
}

// Several plain addresses: the first that answers as a master.
func TestFirstMasterOfSeveral(t *testing.T) {
	replica, master := startFake(t, always("-READONLY\r\n")), startFake(t, well)
	replica.welcomeWith(func(s *session, words []string) string {
		if words[0] == "HELLO" {
			return "*2\r\n+role\r\n+replica\r\n"
		}
		return welcome(s, words)
	})
	client := open(t, Config{Addresses: []string{replica.address(), master.address()}})
	healthy(t, client)
	if o := do(t, client, &Call{Name: "X"}); o.Err != nil {
		t.Error(o.Err)
	}
}

// A Redis before version 6 knows neither HELLO nor ACL users.
func TestOldHandshake(t *testing.T) {
	f := startFake(t, well)
	var seen []string
	f.welcomeWith(func(s *session, words []string) string {
		seen = append(seen, strings.Join(words, " "))
		if words[0] == "HELLO" {
			return "-ERR unknown command `HELLO`, with args beginning with: `2`\r\n"
		}
		if words[0] == "ROLE" {
			return "-NOPERM\r\n"
		}
		return welcome(s, words)
	})
	client := open(t, Config{Addresses: []string{f.address()}, DB: 3, ClientName: "sluice",
		Password: func() (string, error) { return "secret", nil }})
	healthy(t, client)
	client.Close()
	got := strings.Join(seen[3:], ", ") // after HELLO, SELECT and PING
	if want := "AUTH secret, SELECT 3, CLIENT SETNAME sluice, INFO server, ROLE, PING"; got != want {
		t.Errorf("got %s", got)
	}
}

// A proxy that answers HELLO with NOAUTH wants AUTH by itself first; a user who
// may not say HELLO, or not CLIENT, is served all the same.
func TestHelloRefused(t *testing.T) {
	for _, refusal := range []string{
		"-NOAUTH Authentication required.\r\n",
		"-NOAUTH HELLO must be called with the client already authenticated\r\n",
		"-NOPERM this user has no permissions to run the 'hello' command\r\n",
		"-ERR unknown command 'HELLO'\r\n",
	} {
		t.Run(strings.TrimSpace(refusal), func(t *testing.T) {
			f := startFake(t, well)
			f.welcomeWith(func(s *session, words []string) string {
				switch words[0] {
				case "HELLO":
					return refusal
				case "AUTH":
					if strings.Join(words, " ") != "AUTH app secret" {
						return "-WRONGPASS\r\n"
					}
				case "CLIENT":
					return "-NOPERM this user has no permissions to run the 'client|setname' command\r\n"
				}
				return welcome(s, words)
			})
			client := open(t, Config{Addresses: []string{f.address()}, Username: "app", ClientName: "sluice",
				Password: func() (string, error) { return "secret", nil }})
			healthy(t, client)
			if o := do(t, client, &Call{Name: "X"}); o.Err != nil {
				t.Error(o.Err)
			}
		})
	}
}

// A Redis whose scripts cannot do what the limits need is refused with the
// version that could, however it tells its own.
func TestTooOld(t *testing.T) {
	for _, c := range []struct {
		name, hello, info, version string
	}{
		{"3.2", "-ERR unknown command 'HELLO'\r\n", "# Server\r\nredis_version:3.2.12\r\nos:x", "3.2.12"},
		{"4.0", "-ERR unknown command 'HELLO'\r\n", "# Server\r\nredis_version:4.0.14\r\n", "4.0.14"},
		{"4 by HELLO", "*4\r\n+version\r\n+4.9.0\r\n+role\r\n+master\r\n", "", "4.9.0"},
		{"5.0", "-ERR unknown command 'HELLO'\r\n", "# Server\r\nredis_version:5.0.0\r\n", ""},
		{"not Redis", "*4\r\n+version\r\n+df-v1.2\r\n+role\r\n+master\r\n", "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := startFake(t, well)
			f.welcomeWith(func(s *session, words []string) string {
				switch words[0] {
				case "HELLO":
					return c.hello
				case "INFO":
					return fmt.Sprintf("$%d\r\n%s\r\n", len(c.info), c.info)
				}
				return welcome(s, words)
			})
			var lines syncLines
			client := New(Config{Addresses: []string{f.address()}, Log: lines.add})
			defer client.Close()
			if c.version == "" {
				healthy(t, client)
				return
			}
			want := "this is Redis " + c.version + ", and the limits need 5.0 or newer"
			eventually(t, 5*time.Second, want, func() bool { return strings.Contains(lines.text(), want) })
			if client.Healthy() || client.Stats().Errors["version"] == 0 {
				t.Error("it is used all the same")
			}
		})
	}
}

// syncLines keeps what is logged.
type syncLines struct {
	mu  sync.Mutex
	all []string
}

func (l *syncLines) add(level, message string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, level+": "+message)
}

func (l *syncLines) text() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(l.all, "\n")
}

// A server that cannot be reached is in the log at once, and not once a second;
// after a connection the same trouble is news.
func TestTroubleIsWrittenOnce(t *testing.T) {
	f := startFake(t, well)
	f.welcomeWith(always("-WRONGPASS invalid username-password pair\r\n"))
	var lines syncLines
	client := New(Config{Addresses: []string{f.address()}, Log: lines.add})
	defer client.Close()
	told := func(n int) func() bool {
		return func() bool { return strings.Count(lines.text(), "error: cannot connect: ") == n }
	}
	eventually(t, 5*time.Second, "seven attempts", func() bool { return client.Stats().Errors["wrongpass"] >= 7 })
	if !told(1)() {
		t.Errorf("seven attempts made:\n%s", lines.text())
	}
	f.welcomeWith(nil)
	healthy(t, client)
	f.welcomeWith(always("-WRONGPASS invalid username-password pair\r\n"))
	f.drop()
	eventually(t, 5*time.Second, "the new trouble is written", told(2))
}

// A server that does not know a script whose source it was just sent serves
// nobody: the breaker opens, though the probe, which is no script, is answered.
func TestScriptUnknownBySource(t *testing.T) {
	t.Parallel()
	f := startFake(t, func(_ *session, words []string) string {
		if words[0] == "SETRANGE" {
			return ""
		}
		return "-NOSCRIPT No matching script. Please use EVAL.\r\n"
	})
	client := open(t, Config{Addresses: []string{f.address()}, Timeout: time.Second})
	healthy(t, client)
	for i := 0; i < tolerated; i++ {
		if o := do(t, client, &Call{Key: "k", Script: increment}); Kind(o.Err) != "noscript" {
			t.Fatal(o.Err)
		}
	}
	if o := do(t, client, &Call{Key: "k", Script: increment}); !errors.Is(o.Err, ErrAway) {
		t.Errorf("after %d: %v", tolerated, o.Err)
	}
	f.behave(well)
	healthy(t, client)
}

// A counting script is sent again only when the answer proves it did not run.
func TestScriptsAreNeverSentTwice(t *testing.T) {
	var byHash, bySource atomic.Int64
	count := func(words []string) {
		if words[0] == "EVAL" {
			bySource.Add(1)
		} else {
			byHash.Add(1)
		}
	}
	f := startFake(t, func(_ *session, words []string) string {
		count(words)
		return "-NOSCRIPT No matching script. Please use EVAL.\r\n"
	})
	client := open(t, Config{Addresses: []string{f.address()}, Timeout: time.Second})
	healthy(t, client)
	o := do(t, client, &Call{Key: "k", Script: increment})
	if Kind(o.Err) != "noscript" || !NotExecuted(o.Err) || byHash.Load() != 1 || bySource.Load() != 1 {
		t.Errorf("%v after %d by hash and %d by source", o.Err, byHash.Load(), bySource.Load())
	}
	f.behave(func(s *session, words []string) string {
		count(words)
		s.Close() // ran, perhaps, and the answer is lost
		return ""
	})
	o = do(t, client, &Call{Key: "k", Script: increment})
	if Kind(o.Err) != "eof" || NotExecuted(o.Err) || byHash.Load() != 2 {
		t.Errorf("%v, sent %d times", o.Err, byHash.Load()-1)
	}
}

// An owner that closed its channel costs its connection, not the process.
func TestPanickingOwner(t *testing.T) {
	f := startFake(t, well)
	client := open(t, Config{Addresses: []string{f.address()}, Timeout: time.Second})
	healthy(t, client)
	w := watch(t)
	gone := make(chan interface{})
	close(gone)
	send(client, w.call("k"))
	Send(client, &Call{Name: "X", To: gone})
	send(client, w.call("k"))
	w.settled()
	healthy(t, client)
	if o := do(t, client, &Call{Name: "X"}); o.Err != nil {
		t.Error(o.Err)
	}
}

func TestCloseEndsPendingCalls(t *testing.T) {
	f := startFake(t, always(""))
	client := open(t, Config{Addresses: []string{f.address()}, Timeout: time.Second})
	healthy(t, client)
	w := watch(t)
	for i := 0; i < 10; i++ {
		send(client, w.call("k"))
	}
	client.Close()
	w.settled()
	if w.kind("closed")+w.kind("away") != 10 || client.Healthy() {
		t.Errorf("%v", w)
	}
	send(client, w.call("k"))
	if w.ended.Load() != 11 {
		t.Error("a call after Close does not end at once")
	}
}

// However much goes wrong, at most one line a second and kind.
func TestLogIsBounded(t *testing.T) {
	var lines atomic.Int64
	f := startFake(t, always("-OOM\r\n"))
	client := New(Config{Addresses: []string{f.address()}, Log: func(level, message string) { lines.Add(1) }})
	defer client.Close()
	healthy(t, client)
	w := watch(t)
	for i := 0; i < 2000; i++ {
		send(client, w.call("k"))
	}
	for i := 0; i < 20; i++ {
		f.drop()
	}
	w.settled()
	if n := lines.Load(); n > 8 {
		t.Errorf("%d lines", n)
	}
}
