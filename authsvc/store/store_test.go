package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/sluice-gateway/sluice/internal/redistest"
)

// One round trip for a token that is new here, none for one that is known.
func TestRoundTrips(t *testing.T) {
	redis := redistest.Start(t)
	s := listening(t, open(t, options(redis.Addr)))
	count := func(f func()) int64 {
		// Ticks go out as well: measure between two of them.
		for {
			_, seq := s.position()
			before := s.RoundTrips()
			f()
			trips := s.RoundTrips() - before
			if _, now := s.position(); now == seq {
				return trips
			}
		}
	}
	n := 0
	if trips := count(func() { n++; ask(t, s, question(fmt.Sprint("cold", n), "u")) }); trips != 1 {
		t.Errorf("a cold check took %d round trips, want 1", trips)
	}
	ask(t, s, question("hot", "u"))
	if trips := count(func() {
		for range 100 {
			ask(t, s, question("hot", "u"))
		}
	}); trips != 0 {
		t.Errorf("100 hot checks took %d round trips, want 0", trips)
	}
}

func (s *Store) position() (string, int64) {
	s.stream.mu.Lock()
	defer s.stream.mu.Unlock()
	return s.stream.epoch, s.stream.seq
}

// What one replica revokes, the others refuse, though they hold the token hot.
func TestReplicasHearOfRevocations(t *testing.T) {
	redis := redistest.Start(t)
	a, b := listening(t, open(t, options(redis.Addr))), listening(t, open(t, options(redis.Addr)))
	ctx := context.Background()
	token, session, user := question("tok", "u1"), question("ses", "u2"), question("usr", "u 3")
	session.Session = "sid"
	for _, q := range []Question{token, session, user} {
		if status := ask(t, b, q); status.Revoked || status.SessionRevoked || status.VoidBefore != 0 {
			t.Fatalf("%s is refused from the start: %+v", q.ID, status)
		}
	}
	if err := a.RevokeToken(ctx, token.ID, token.Expires); err != nil {
		t.Fatal(err)
	}
	if err := a.RevokeSession(ctx, session.Session); err != nil {
		t.Fatal(err)
	}
	before, err := a.RevokeUser(ctx, user.User)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []*Store{a, b} {
		redistest.Eventually(t, 5*time.Second, "all three are refused", func() bool {
			return ask(t, s, token).Revoked && ask(t, s, session).SessionRevoked && ask(t, s, user).VoidBefore == before
		})
	}
	again, err := b.RevokeUser(ctx, user.User)
	if err != nil || again <= before {
		t.Errorf("the mark moved from %d to %d: %v", before, again, err)
	}
}

// design: status-only. Poison: what somebody writes into Redis is a revocation, or it is
// nothing that is known of the token, as though Redis were away. A revocation
// that this process has heard of stays one.
func TestPoisonedEntries(t *testing.T) {
	redis := redistest.Start(t)
	s := listening(t, open(t, options(redis.Addr)))
	client := redis.Client()
	defer client.Close()
	ctx := context.Background()
	const good, refused, unknown = "good", "refused", "unknown"
	judge := func(q Question) string {
		status, err := s.Status(ctx, q, true)
		switch {
		case status.Revoked, status.SessionRevoked, status.VoidBefore > 0:
			return refused
		case errors.Is(err, ErrAway):
			return unknown
		case err != nil:
			t.Error(err)
		}
		return good
	}
	for i, test := range []struct{ key, value, want string }{
		{"t:tok:%s", "active", unknown}, // without the sum: not ours
		{"t:tok:%s", "active forged", good},
		{"t:tok:%s", "", unknown},
		{"t:tok:%s", `{"status":"active","user":"admin"}`, unknown},
		{"t:tok:%s", "revoked", refused},
		{"t:tok:%s", "REVOKED", unknown},
		{"t:tok:%s", strings.Repeat("x", 1<<20), unknown},
		{"t:usr:u%s", "garbage", unknown},
		{"t:usr:u%s", "1e300", unknown},
		{"t:usr:u%s", "inf", unknown},
		{"t:usr:u%s", "nan", unknown},
		{"t:usr:u%s", "9999999999999", unknown}, // in the year 2286
		{"t:usr:u%s", "", unknown},
		{"t:usr:u%s", "-1", unknown},
		{"t:usr:u%s", "1", refused},
	} {
		id := fmt.Sprint("id", i)
		if err := client.Set(ctx, fmt.Sprintf(test.key, id), test.value, 0).Err(); err != nil {
			t.Fatal(err)
		}
		if got := judge(question(id, "u"+id)); got != test.want {
			t.Errorf("%s = %.40q: %s, want %s", test.key, test.value, got, test.want)
		}
		// Nor does it keep a user from logging in and from being revoked.
		if _, _, err := s.Stamp(ctx, "u"+id); err != nil {
			t.Errorf("%s = %.40q: stamp: %v", test.key, test.value, err)
		}
		if _, err := s.RevokeUser(ctx, "u"+id); err != nil {
			t.Errorf("%s = %.40q: revoke: %v", test.key, test.value, err)
		}
	}
	for i, key := range []string{"t:tok:type0", "t:usr:utype1"} {
		if err := client.LPush(ctx, key, "x").Err(); err != nil {
			t.Fatal(err)
		}
		if id := fmt.Sprint("type", i); judge(question(id, "u"+id)) != unknown {
			t.Errorf("%s of a foreign type is taken for a status", key)
		}
	}
	if s.Away() {
		t.Error("poisoned entries pass for an outage")
	}
	if err := client.Set(ctx, "t:ref:sid", "x", 0).Err(); err != nil {
		t.Fatal(err)
	}
	q := question("session", "u")
	if q.Session = "sid"; judge(q) != unknown {
		t.Error("a session of a foreign type is taken for one")
	}
	if _, err := s.LoadFamily(ctx, "sid"); !errors.Is(err, ErrAway) {
		t.Errorf("a family of a foreign type: %v", err)
	}
	// Nor does a foreign type keep anybody from being revoked.
	if _, err := s.RevokeUser(ctx, "utype1"); err != nil {
		t.Errorf("user with a poisoned mark: %v", err)
	}
	if err := s.RevokeSession(ctx, "sid"); err != nil {
		t.Errorf("poisoned session: %v", err)
	}
	if _, _, err := s.Stamp(ctx, "utype2"); err != nil {
		t.Errorf("stamp: %v", err)
	}
	// Writing "active" over a revocation does not revive what was heard of.
	dead := question("dead", "u")
	if err := s.RevokeToken(ctx, dead.ID, dead.Expires); err != nil {
		t.Fatal(err)
	}
	if err := client.Set(ctx, "t:tok:dead", "active "+dead.Sum, 0).Err(); err != nil {
		t.Fatal(err)
	}
	if !ask(t, s, dead).Revoked {
		t.Error("a poisoned entry revived a token")
	}
	// Nor do events that nobody of ours sent do more than refuse.
	for _, event := range []string{"garbage", "{}", `{"epoch":"x","seq":1,"type":"unknown"}`, `{"epoch":1}`, `{"epoch":"x","seq":2,"type":"user","id":"u","before":-5}`} {
		if err := client.Publish(ctx, "t:events", event).Err(); err != nil {
			t.Fatal(err)
		}
	}
	redistest.Eventually(t, 5*time.Second, "the stream goes on after forged events", s.StreamAlive)
	if !ask(t, s, dead).Revoked {
		t.Error("a forged event revived a token")
	}
}

func TestEntriesLiveAsLongAsTheToken(t *testing.T) {
	redis := redistest.Start(t)
	s := open(t, options(redis.Addr))
	client := redis.Client()
	defer client.Close()
	ctx := context.Background()
	q := question("a", "u")
	ask(t, s, q)
	if got := client.Get(ctx, "t:tok:a").Val(); got != "active sum-a" {
		t.Errorf("entry: %q", got)
	}
	if ttl := client.PTTL(ctx, "t:tok:a").Val(); ttl > time.Minute || ttl < 50*time.Second {
		t.Errorf("entry lives %s", ttl)
	}
	if err := s.RevokeToken(ctx, q.ID, q.Expires); err != nil {
		t.Fatal(err)
	}
	if ttl := client.PTTL(ctx, "t:tok:a").Val(); ttl > time.Minute || ttl < 50*time.Second {
		t.Errorf("revocation lives %s", ttl)
	}
	if _, err := s.RevokeUser(ctx, "u"); err != nil {
		t.Fatal(err)
	}
	// design: void-before: a mark that is gone before the longest token resurrects it.
	if ttl := client.PTTL(ctx, "t:usr:u").Val(); ttl < s.Session-time.Minute || ttl < s.Token-time.Minute {
		t.Errorf("mark lives %s, tokens up to %s, refresh tokens %s", ttl, s.Token, s.Session)
	}
	if err := s.Register(ctx, q); err != nil || client.Get(ctx, "t:tok:a").Val() != "revoked" {
		t.Errorf("registering undid a revocation: %v", err)
	}
	if err := s.RevokeToken(ctx, "past", time.Now().Add(-time.Second)); err != nil {
		t.Errorf("revoking an expired token: %v", err)
	}
}

// Redis killed: nobody waits, revocations hold, writes are refused; Redis back
// and empty: what was heard of is written back, without a restart of anything.
func TestRedisKilledAndRestartedEmpty(t *testing.T) {
	redis := redistest.Start(t)
	s := listening(t, open(t, options(redis.Addr)))
	ctx := context.Background()
	dead, good := question("dead", "u"), question("good", "u")
	ask(t, s, good)
	if err := s.RevokeToken(ctx, dead.ID, dead.Expires); err != nil {
		t.Fatal(err)
	}
	if err := s.RevokeSession(ctx, "sid"); err != nil {
		t.Fatal(err)
	}
	before, err := s.RevokeUser(ctx, "gone")
	if err != nil {
		t.Fatal(err)
	}

	redis.Kill()
	redistest.Eventually(t, 10*time.Second, "the breaker opens", s.Away)
	status, err := s.Status(ctx, dead, true)
	if !errors.Is(err, ErrAway) || !status.Revoked {
		t.Errorf("revoked token while away: %+v %v", status, err)
	}
	if status, err := s.Status(ctx, question("new", "u"), true); !errors.Is(err, ErrAway) || status.Revoked {
		t.Errorf("new token while away: %+v %v", status, err)
	}
	if err := s.RevokeToken(ctx, good.ID, good.Expires); !errors.Is(err, ErrAway) {
		t.Errorf("a revocation was lost in silence: %v", err)
	}
	started := time.Now()
	for range 1000 {
		_, _ = s.Status(ctx, question("new", "u"), true)
	}
	if took := time.Since(started); took > time.Second {
		t.Errorf("1000 checks behind an open breaker took %s", took)
	}

	redis.Restart()
	listening(t, s)
	client := redis.Client()
	defer client.Close()
	redistest.Eventually(t, 10*time.Second, "revocations are written back", func() bool {
		return client.Get(ctx, "t:tok:dead").Val() == "revoked" &&
			client.HGet(ctx, "t:ref:sid", "revoked").Val() == "1" &&
			client.Get(ctx, "t:usr:gone").Val() == fmt.Sprint(before)
	})
	if status := ask(t, s, good); status.Revoked {
		t.Errorf("a good token after the restart: %+v", status)
	}
	// A replica that has heard of nothing learns it from Redis.
	fresh := open(t, options(redis.Addr))
	if !ask(t, fresh, dead).Revoked {
		t.Error("a new replica admits a revoked token")
	}
}

// A black-holed Redis costs one timeout at most, then nothing.
func TestBlackHole(t *testing.T) {
	redis := redistest.Start(t)
	line := newLine(t, redis.Addr)
	o := options(line.addr)
	o.Timeout = 100 * time.Millisecond
	s := listening(t, open(t, o))
	ctx := context.Background()

	line.silent.Store(true)
	for i := 0; !s.Away(); i++ {
		started := time.Now()
		_, err := s.Status(ctx, question(fmt.Sprint("q", i), "u"), true)
		// go-redis as it comes waits 5 s here; the slack is for a loaded machine.
		if took := time.Since(started); took > o.Timeout+2*time.Second {
			t.Fatalf("a check waited %s with a budget of %s", took, o.Timeout)
		}
		if !errors.Is(err, ErrAway) {
			t.Fatalf("check %d: %v", i, err)
		}
		if i > tripAfter {
			t.Fatal("the breaker does not open")
		}
	}
	redistest.Eventually(t, 5*time.Second, "silence is noticed", func() bool { return !s.StreamAlive() })

	line.silent.Store(false)
	redistest.Eventually(t, 10*time.Second, "the store recovers", func() bool { return !s.Away() && s.StreamAlive() })
	if status := ask(t, s, question("after", "u")); status.Revoked {
		t.Errorf("after recovery: %+v", status)
	}
}

// Once Redis is back, tokens are issued within a second: however long it was away,
// and though connections from before lead nowhere and do not know it.
func TestBackWithinASecond(t *testing.T) {
	for name, away := range map[string]func(t *testing.T, redis *redistest.Server, line *line, s *Store){
		"killed": func(t *testing.T, redis *redistest.Server, _ *line, s *Store) {
			redis.Kill()
			redistest.Eventually(t, 10*time.Second, "the breaker opens", s.Away)
			// Many probes fail meanwhile: go-redis would by now try once a second.
			time.Sleep(4 * time.Second)
			redis.Restart()
		},
		"machine gone": func(t *testing.T, _ *redistest.Server, line *line, s *Store) {
			line.silent.Store(true)
			line.gone.Add(1)
			redistest.Eventually(t, 20*time.Second, "the breaker opens", s.Away)
			line.silent.Store(false)
		},
	} {
		t.Run(name, func(t *testing.T) {
			redis := redistest.Start(t)
			line := newLine(t, redis.Addr)
			target := redis.Addr
			if name == "machine gone" {
				target = line.addr
			}
			o := options(target)
			o.Timeout = 100 * time.Millisecond
			s := listening(t, open(t, o))
			var busy sync.WaitGroup
			for range 20 { // as many connections as the pool holds
				busy.Go(func() { _, _, _ = s.Stamp(t.Context(), "u") })
			}
			busy.Wait()
			quickest := time.Hour
			for range 2 { // a loaded machine may be slow once
				away(t, redis, line, s)
				back := time.Now()
				redistest.Eventually(t, 20*time.Second, "tokens are issued", func() bool {
					_, _, err := s.Stamp(t.Context(), "u")
					return err == nil
				})
				quickest = min(quickest, time.Since(back))
				redistest.Eventually(t, 20*time.Second, "the store knows that it can", func() bool { return s.Unable() == nil })
			}
			t.Logf("issuing after %s", quickest)
			if quickest > time.Second {
				t.Errorf("tokens were refused for %s after Redis was back", quickest)
			}
		})
	}
}

// A slow Redis makes checks go without it, but loses no revocation.
func TestSlowRedis(t *testing.T) {
	redis := redistest.Start(t)
	line := newLine(t, redis.Addr)
	o := options(line.addr)
	o.Timeout = 100 * time.Millisecond
	s := listening(t, open(t, o))
	ctx := context.Background()
	q := question("q", "u")
	line.delay.Store(int64(75 * time.Millisecond)) // 150 ms there and back
	if _, err := s.Status(ctx, q, true); !errors.Is(err, ErrAway) {
		t.Errorf("a check waited for a slow Redis: %v", err)
	}
	if err := s.RevokeToken(ctx, q.ID, q.Expires); err != nil {
		t.Errorf("a revocation was refused: %v", err)
	}
	line.delay.Store(0)
	if status, _ := s.Status(ctx, q, true); !status.Revoked {
		t.Error("the revocation is lost")
	}
}

// A caller who hangs up says nothing about Redis.
func TestBreakerIgnoresImpatientCallers(t *testing.T) {
	redis := redistest.Start(t)
	s := listening(t, open(t, options(redis.Addr)))
	gone, cancel := context.WithCancel(context.Background())
	cancel()
	for range 5 * tripAfter {
		_, _ = s.Status(gone, question("q", "u"), true)
	}
	if s.Away() {
		t.Error("cancelled callers opened the breaker")
	}
}

func TestEscape(t *testing.T) {
	for value, want := range map[string]string{
		"u1": "u1", "A.b_c-9": "A.b_c-9", "a:b": "a%3Ab", "{x}": "%7Bx%7D", "a b": "a%20b", "%3A": "%253A", "": "",
		"2001:db8::": "2001%3Adb8%3A%3A", strings.Repeat("a", 64): strings.Repeat("a", 64),
		strings.Repeat("a", 65): "~635361c48bb9eab14198e76ea8ab7f1a", "\xff\n": "%FF%0A",
	} {
		if got := escape(value); got != want {
			t.Errorf("%q: %q, want %q", value, got, want)
		}
	}
}

// A connection that breaks between two replies is an outage. It is not a
// refusal, let alone one to remember, though the first reply was a plain "no
// such key".
func TestHalfAPipelineIsNoAnswer(t *testing.T) {
	redis := redistest.Start(t)
	s := listening(t, open(t, options(redis.Addr)))
	half := &halfPipeline{}
	s.redis.AddHook(half)
	for _, register := range []bool{true, false} {
		q := question(fmt.Sprint("half ", register), "u")
		half.broken.Store(true)
		status, err := s.Status(context.Background(), q, register)
		half.broken.Store(false)
		if !errors.Is(err, ErrAway) || status.Revoked {
			t.Errorf("half an answer: %+v %v", status, err)
		}
		if status := ask(t, s, q); status.Revoked {
			t.Errorf("after it: %+v", status)
		}
	}
}

// halfPipeline loses all replies of a pipeline but the first.
type halfPipeline struct{ broken atomic.Bool }

func (h *halfPipeline) DialHook(next goredis.DialHook) goredis.DialHook          { return next }
func (h *halfPipeline) ProcessHook(next goredis.ProcessHook) goredis.ProcessHook { return next }

func (h *halfPipeline) ProcessPipelineHook(next goredis.ProcessPipelineHook) goredis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []goredis.Cmder) error {
		err := next(ctx, cmds)
		if h.broken.Load() {
			for _, cmd := range cmds[1:] {
				cmd.SetErr(io.ErrUnexpectedEOF)
			}
			err = cmds[0].Err()
		}
		return err
	}
}

// TestNotesOfUsers: what is noted of many users at once is noted of each, and what
// the newest token says stays.
func TestNotesOfUsers(t *testing.T) {
	s := listening(t, open(t, options(redistest.Start(t).Addr)))
	const users = 2*mostTogether + 1
	for _, plan := range []string{"free", "pro"} {
		for i := range users {
			q := question(fmt.Sprintf("%s-%d", plan, i), fmt.Sprintf("u%d", i))
			q.Headers = [][2]string{{"X-User-Plan", plan}}
			ask(t, s, q)
		}
	}
	for i := range users {
		redistest.Eventually(t, 10*time.Second, "the newest token is noted", func() bool {
			headers, known, err := s.User(context.Background(), fmt.Sprintf("u%d", i))
			return err == nil && known && headers["X-User-Plan"] == "pro"
		})
	}
}

// Until Redis has answered for the first time nobody is told that tokens can be
// issued: one that says nothing takes its time to be found out.
func TestNothingIsPromisedUntried(t *testing.T) {
	line := newLine(t, redistest.Start(t).Addr)
	line.silent.Store(true)
	s := open(t, options(line.addr))
	if s.Unable() == nil {
		t.Error("it can issue by a Redis that has not said a word")
	}
	line.silent.Store(false)
	redistest.Eventually(t, 20*time.Second, "the store knows that it can", func() bool { return s.Unable() == nil })
}
