package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/internal/redistest"
)

// operations are all that the store asks Redis, each by itself.
var operations = map[string]func(ctx context.Context, s *Store) error{
	"status": func(ctx context.Context, s *Store) error {
		q := question(fmt.Sprint("id", time.Now().UnixNano()), "u")
		q.Session = "sid"
		_, err := s.Status(ctx, q, true)
		return err
	},
	"status of a known token": func(ctx context.Context, s *Store) error {
		_, err := s.Status(ctx, question(fmt.Sprint("id", time.Now().UnixNano()), "u"), false)
		return err
	},
	"register": func(ctx context.Context, s *Store) error { return s.Register(ctx, question("id", "u")) },
	"revoke token": func(ctx context.Context, s *Store) error {
		return s.RevokeToken(ctx, "id", time.Now().Add(time.Minute))
	},
	"revoke session": func(ctx context.Context, s *Store) error { return s.RevokeSession(ctx, "sid") },
	"revoke user":    func(ctx context.Context, s *Store) error { _, err := s.RevokeUser(ctx, "u"); return err },
	"stamp":          func(ctx context.Context, s *Store) error { _, _, err := s.Stamp(ctx, "u"); return err },
	"create family": func(ctx context.Context, s *Store) error {
		return s.CreateFamily(ctx, Family{Session: "sid", User: "u"})
	},
	"load family": func(ctx context.Context, s *Store) error { _, err := s.LoadFamily(ctx, "sid"); return err },
	"rotate": func(ctx context.Context, s *Store) error {
		_, _, err := s.Rotate(ctx, Rotation{Session: "sid"})
		return err
	},
	"gateways": func(ctx context.Context, s *Store) error { _, err := s.Gateways(ctx); return err },
	"usage": func(ctx context.Context, s *Store) error {
		_, err := s.Usage(ctx, Limit{Name: "l", WindowMS: 60_000, Limit: 10}, "global")
		return err
	},
	"reset": func(ctx context.Context, s *Store) error {
		return s.Reset(ctx, Limit{Name: "l", WindowMS: 60_000}, "global")
	},
	"publish key": func(ctx context.Context, s *Store) error {
		return s.PublishKey(ctx, PublishedKey{ID: "k", JWK: []byte("{}")})
	},
	"publish": func(ctx context.Context, s *Store) error { return s.publish(ctx, event{Type: "tick"}) },
	"follow":  func(ctx context.Context, s *Store) error { s.follow(ctx); return ErrAway },
	"restore": func(ctx context.Context, s *Store) error {
		s.memory.revokeToken("id", time.Now().Add(time.Minute))
		s.memory.revokeSession("sid", time.Now().Add(time.Minute))
		s.memory.voidBefore("u", 1, time.Now().Add(time.Minute))
		s.restore(ctx)
		return ErrAway
	},
}

// handshake are the commands of a connection that is being made.
var handshake = map[string]bool{"hello": true, "auth": true, "client": true, "select": true}

// What a reply announces is not allocated for it.
func TestHugeRepliesCostNothing(t *testing.T) {
	for name, reply := range map[string]string{
		"text":           "$1000000000\r\n",
		"list":           "*100000000\r\n",
		"map":            "%100000000\r\n",
		"set":            "~100000000\r\n",
		"push":           ">100000000\r\n$7\r\nmessage\r\n",
		"verbatim text":  "=1000000000\r\n",
		"error":          "!1000000000\r\n",
		"lists of lists": strings.Repeat("*100000\r\n", 1000),
		"deep lists":     strings.Repeat("*1\r\n", 1_000_000),
		"texts":          "*1000\r\n" + strings.Repeat("$1000000\r\n"+strings.Repeat("x", 1_000_000)+"\r\n", 20),
		"line":           "-ERR " + strings.Repeat("x", 50_000_000),
		"number":         ":" + strings.Repeat("1", 50_000_000),
		"length":         "$" + strings.Repeat("1", 50_000_000),
		"beyond 64 bit":  "$99999999999999999999\r\n",
		"wrapped":        "%9223372036854775807\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			fake := redistest.Interpose(t, "")
			fake.Reply(func(words []string) (string, bool) { return reply, !handshake[words[0]] })
			o := options(fake.Addr)
			o.Timeout = 500 * time.Millisecond
			s := open(t, o)
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			for name, operation := range operations {
				s.breaker.failures.Store(0)
				ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
				if err := operation(ctx, s); !errors.Is(err, ErrAway) {
					t.Errorf("%s: %v", name, err)
				}
				cancel()
			}
			runtime.ReadMemStats(&after)
			// The fake's own replies are of up to 50 MB.
			if took := int64(after.TotalAlloc-before.TotalAlloc) - 4*int64(len(operations)*len(reply)); took > 256<<20 {
				t.Errorf("%d MiB were allocated", took>>20)
			}
			if s.Panics() != 0 {
				t.Errorf("%d panics", s.Panics())
			}
		})
	}
}

// A proxy that answers twice shifts all later replies. No question takes the
// answer of another for its own.
func TestTwoRepliesForACommand(t *testing.T) {
	redis := redistest.Start(t)
	for _, twice := range []string{"set", "get", "hget", "every one"} {
		// Redis alone is to tell: another store than s has revoked, before s was there.
		another := open(t, options(redis.Addr))
		ctx := t.Context()
		if err := another.RevokeToken(ctx, "dead "+twice, time.Now().Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
		before, err := another.RevokeUser(ctx, "void "+twice)
		if err != nil {
			t.Fatal(err)
		}
		proxy := redistest.Interpose(t, redis.Addr)
		s := listening(t, open(t, options(proxy.Addr)))
		replies := map[string]string{"set": "+OK\r\n", "get": "$-1\r\n", "hget": "$-1\r\n"}
		proxy.Reply(func(words []string) (string, bool) {
			reply, known := replies[words[0]]
			return reply + reply, known && (words[0] == twice || twice == "every one")
		})
		good := question("good "+twice, "u")
		good.Session = "sid"
		for range 3 {
			if status, err := s.Status(ctx, good, true); status.Revoked || status.SessionRevoked || status.VoidBefore != 0 {
				t.Errorf("%s: a good token is refused: %+v %v", twice, status, err)
			}
		}
		proxy.Pass()
		redistest.Eventually(t, 10*time.Second, "Redis is asked again", func() bool {
			_, err := s.Status(ctx, question(fmt.Sprint("new", time.Now().UnixNano()), "u"), true)
			return err == nil
		})
		if !ask(t, s, question("dead "+twice, "u")).Revoked {
			t.Errorf("%s: a revoked token is admitted", twice)
		}
		if got := ask(t, s, question("other "+twice, "void "+twice)).VoidBefore; got != before {
			t.Errorf("%s: the mark is %d, want %d", twice, got, before)
		}
	}
}

// Either of the two that tell of doubled replies does it alone.
func TestReplyThatNothingWasAskedFor(t *testing.T) {
	here, redis := net.Pipe()
	w := &wire{Conn: here, wires: &wires{open: map[*wire]struct{}{}}}
	go func() { _, _ = redis.Write([]byte("+OK\r\n")) }()
	if n, err := w.Read(make([]byte, 64)); n != 0 || !errors.Is(err, errWire) {
		t.Errorf("%d bytes, %v", n, err)
	}
}

func TestWhatWasWrittenIsThere(t *testing.T) {
	proxy := redistest.Interpose(t, redistest.Start(t).Addr)
	s := listening(t, open(t, options(proxy.Addr)))
	proxy.ReplyTo("$-1\r\n", "get")
	if status, err := s.Status(t.Context(), question("t", "u"), true); !errors.Is(err, ErrAway) {
		t.Errorf("a token that Redis has written and does not have: %+v %v", status, err)
	}
}

// The stream is understood alike in whatever pieces it comes.
func TestPiecesOfReplies(t *testing.T) {
	whole := []byte("+OK\r\n-ERR x\r\n:5\r\n$-1\r\n*-1\r\n$0\r\n\r\n$5\r\na\r\nbc\r\n*0\r\n" +
		"*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$2\r\nok\r\n*2\r\n*1\r\n:1\r\n*-1\r\n%1\r\n+a\r\n#t\r\n_\r\n,1.5\r\n(5\r\n=5\r\ntxt:a\r\n")
	for size := 1; size <= len(whole); size++ {
		var r resp
		ended := 0
		for piece := range slices.Chunk(whole, size) {
			n, err := r.read(piece, nil)
			if err != nil {
				t.Fatalf("pieces of %d: %v", size, err)
			}
			ended += n
		}
		if ended != 15 || r.left != 0 || len(r.lists) != 0 {
			t.Fatalf("pieces of %d: %d values, %+v", size, ended, r)
		}
	}
	for _, bad := range []string{"\r\n", "\n", "OK\r\n", "$5\r\nabcdefg\r\n", "$-2\r\n", "*-2\r\n", ":x\r\n", "$x\r\n", "|1\r\n", "HTTP/1.1 400\r\n", "+OK\n"} {
		var r resp
		if _, err := r.read([]byte(bad), nil); !errors.Is(err, errWire) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

// FuzzReplies lets a fake Redis, Sentinel or Cluster answer everything by the
// same bytes. Nothing panics, no answer is made up of them, and no token is
// refused by what is no status.
func FuzzReplies(f *testing.F) {
	for _, reply := range []string{
		"-NOSCRIPT No matching script\r\n", "-ERR syntax error\r\n", "+OK\r\n", "$-1\r\n", ":1\r\n", "$1\r\n1\r\n",
		"$7\r\nrevoked\r\n", "$8\r\nactive x\r\n", "*0\r\n", "*-1\r\n", "*2\r\n$1\r\na\r\n:1\r\n", "*1\r\n*1\r\n*1\r\n:1\r\n",
		"*3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n$1\r\nx\r\n", "*2\r\n$7\r\nmessage\r\n$1\r\nc\r\n", "*3\r\n:1\r\n:2\r\n:3\r\n",
		"*3\r\n$7\r\nmessage\r\n$14\r\n+switch-master\r\n$6\r\nmain a\r\n", "*1\r\n$9\r\n127.0.0.1\r\n",
		"*2\r\n$9\r\n127.0.0.1\r\n$1\r\n1\r\n", "%1\r\n*0\r\n:1\r\n", ">1\r\n$7\r\nmessage\r\n", "_\r\n", "$1000000000\r\n",
		"*3\r\n*3\r\n:0\r\n:16383\r\n*1\r\n:5\r\n:1\r\n:2\r\n", "*1\r\n*2\r\n:0\r\n:1\r\n", "\x00", "$13\r\n1795000000000\r\n",
		"*2\r\n$13\r\n1795000000000\r\n$1\r\n0\r\n", "*1\r\n*6\r\n$3\r\nget\r\n:2\r\n*0\r\n:1\r\n:1\r\n:1\r\n",
	} {
		for topology := range byte(3) {
			f.Add([]byte(reply), topology)
		}
	}
	f.Fuzz(func(t *testing.T, reply []byte, topology byte) {
		fake := redistest.Interpose(t, "")
		fake.Reply(func(words []string) (string, bool) { return string(reply), !handshake[words[0]] })
		o := options(fake.Addr)
		o.Timeout, o.DialTimeout = 20*time.Millisecond, 20*time.Millisecond
		switch topology % 3 {
		case 1:
			o.Cluster = true
		case 2:
			o.MasterName = "main"
		}
		s := open(t, o)
		for name, operation := range operations {
			s.breaker.open.Store(false)
			s.breaker.failures.Store(0)
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			err := operation(ctx, s)
			cancel()
			if err != nil && !errors.Is(err, ErrAway) && !errors.Is(err, ErrNoSession) {
				t.Errorf("%s: %v", name, err)
			}
		}
		s.breaker.open.Store(false)
		s.memory = newMemory()
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		q := question("valid", "valid")
		q.Session = "valid"
		status, _ := s.Status(ctx, q, true)
		if status.Revoked && !bytes.Contains(reply, []byte("revoked")) ||
			status.SessionRevoked && !bytes.Contains(reply, []byte("1\r\n")) ||
			status.VoidBefore != 0 && !bytes.Contains(reply, fmt.Append(nil, status.VoidBefore)) {
			t.Errorf("%q refuses a valid token: %+v", reply, status)
		}
		if s.Panics() != 0 {
			t.Errorf("%q: %d panics", reply, s.Panics())
		}
	})
}
