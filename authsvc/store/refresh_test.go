package store

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/sluice-gateway/sluice/internal/redistest"
)

// family is design: refresh-tokens, written plainly: what rotation must do, with no Redis.
type family struct {
	current, previous string
	repeatable        bool // the last answer has not been repeated yet
	revoked           bool
}

func (f *family) rotate(presented, next string, inGrace bool) Outcome {
	switch {
	case f.revoked:
		return Unknown
	case presented == f.current:
		f.current, f.previous, f.repeatable = next, presented, true
		return Rotated
	case presented == f.previous && f.repeatable && inGrace:
		f.repeatable = false
		return Repeated
	}
	f.revoked = true
	return Reused
}

// Any history of presentations, on either of two replicas, ends as the plain
// model says.
func TestRotationFollowsTheModel(t *testing.T) {
	redis := redistest.Start(t)
	o := options(redis.Addr)
	patient := []*Store{open(t, o), open(t, o)}
	o.Grace = -time.Second // every repeat is too late
	strict := []*Store{open(t, o), open(t, o)}
	ctx := context.Background()
	histories := 0
	rapid.Check(t, func(t *rapid.T) {
		histories++
		session := fmt.Sprint("s", histories)
		replicas, inGrace := patient, true
		if rapid.Bool().Draw(t, "late") {
			replicas, inGrace = strict, false
		}
		model := &family{current: "r0"}
		err := replicas[0].CreateFamily(ctx, Family{Session: session, User: "u", Claims: "{}", TTL: time.Minute, Issued: time.Now(), Current: "r0"})
		if err != nil {
			t.Fatal(err)
		}
		issued, pairs := []string{"r0"}, map[string]string{}
		for i := range rapid.IntRange(1, 12).Draw(t, "steps") {
			presented := issued[len(issued)-1-min(rapid.IntRange(0, 3).Draw(t, "age"), len(issued)-1)]
			next, pair := fmt.Sprint("r", i+1), fmt.Sprint("pair", i+1)
			replica := replicas[rapid.IntRange(0, 1).Draw(t, "replica")]
			got, old, err := replica.Rotate(ctx, Rotation{Session: session, Presented: presented, Next: next, Pair: pair, Issued: time.Now()})
			if err != nil {
				t.Fatal(err)
			}
			want := model.rotate(presented, next, inGrace)
			if got != want {
				t.Fatalf("step %d, %s shown: %s, want %s", i, presented, got, want)
			}
			switch got {
			case Rotated:
				issued, pairs[presented] = append(issued, next), pair
			case Repeated:
				if old != pairs[presented] {
					t.Fatalf("repeat of %s gives %q, want %q", presented, old, pairs[presented])
				}
			}
		}
		_, err = replicas[1].LoadFamily(ctx, session)
		if dead := errors.Is(err, ErrNoSession); dead != model.revoked {
			t.Fatalf("family dead %t, want %t", dead, model.revoked)
		}
		status := ask2(t, replicas[1], session)
		if status.SessionRevoked != model.revoked {
			t.Fatalf("access tokens dead %t, want %t", status.SessionRevoked, model.revoked)
		}
	})
}

func ask2(t *rapid.T, s *Store, session string) Status {
	status, err := s.Status(context.Background(), Question{ID: "of " + session, User: "u", Session: session, Expires: time.Now().Add(time.Minute)}, true)
	if err != nil {
		t.Fatal(err)
	}
	return status
}

// Of many simultaneous uses of one token one rotates, one is taken for the
// repeat of a lost reply, and the third reveals that there are two holders.
func TestSimultaneousUses(t *testing.T) {
	redis := redistest.Start(t)
	replicas := []*Store{open(t, options(redis.Addr)), open(t, options(redis.Addr)), open(t, options(redis.Addr))}
	ctx := context.Background()
	if err := replicas[0].CreateFamily(ctx, Family{Session: "s", User: "u", Claims: "{}", TTL: time.Minute, Issued: time.Now(), Current: "r0"}); err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	outcomes := map[Outcome]int{}
	var all sync.WaitGroup
	for i := range 30 {
		all.Go(func() {
			outcome, _, err := replicas[i%3].Rotate(ctx, Rotation{Session: "s", Presented: "r0", Next: fmt.Sprint("n", i), Pair: "p", Issued: time.Now()})
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			outcomes[outcome]++
			mu.Unlock()
		})
	}
	all.Wait()
	if outcomes[Rotated] != 1 || outcomes[Repeated] != 1 || outcomes[Reused] != 1 || outcomes[Unknown] != 27 {
		t.Errorf("outcomes: %v", outcomes)
	}
	client := redis.Client()
	defer client.Close()
	if client.HGet(ctx, "t:ref:s", "revoked").Val() != "1" { // for replicas that start later
		t.Error("redis does not know that the session is revoked")
	}
}

// design: void-before: in any order of issuing and revoking, on replicas that share
// nothing but Redis, a token is void exactly if a revocation came after it.
func TestMarksSeparateBeforeFromAfter(t *testing.T) {
	redis := redistest.Start(t)
	replicas := []*Store{open(t, options(redis.Addr)), open(t, options(redis.Addr))}
	ctx := context.Background()
	users := 0
	rapid.Check(t, func(t *rapid.T) {
		users++
		user := fmt.Sprint("user", users)
		var issued []int64 // iat in ms
		voidUpTo := 0      // tokens with a smaller index are void
		for range rapid.IntRange(1, 20).Draw(t, "steps") {
			replica := replicas[rapid.IntRange(0, 1).Draw(t, "replica")]
			if rapid.Bool().Draw(t, "revoke") {
				if _, err := replica.RevokeUser(ctx, user); err != nil {
					t.Fatal(err)
				}
				voidUpTo = len(issued)
				continue
			}
			at, _, err := replica.Stamp(ctx, user)
			if err != nil {
				t.Fatal(err)
			}
			issued = append(issued, at.UnixMilli())
		}
		_, mark, err := replicas[0].Stamp(ctx, user)
		if err != nil {
			t.Fatal(err)
		}
		for i, iat := range issued {
			if void := iat <= mark; void != (i < voidUpTo) {
				t.Fatalf("token %d of %d, iat %d, mark %d: void %t, want %t", i, len(issued), iat, mark, void, i < voidUpTo)
			}
		}
	})
}

// A mark only moves forward, whatever arrives late.
func TestMarksNeverMoveBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := newMemory()
		highest := int64(0)
		for _, before := range rapid.SliceOf(rapid.Int64Range(1, 1000)).Draw(t, "marks") {
			m.voidBefore("u", before, time.Now().Add(time.Hour))
			highest = max(highest, before)
			var s Status
			if m.judge(Question{User: "u"}, &s); s.VoidBefore != highest {
				t.Fatalf("mark %d, want %d", s.VoidBefore, highest)
			}
		}
	})
}

// Everything that is stored works where keys of one call live in several slots.
func TestOverCluster(t *testing.T) {
	redis := redistest.StartCluster(t)
	o := options(redis.Addr)
	o.Cluster = true
	s := listening(t, open(t, o))
	ctx := context.Background()
	q := question("a", "u")
	q.Session = "s"
	if status := ask(t, s, q); status.Revoked || status.SessionRevoked {
		t.Errorf("new token: %+v", status)
	}
	if err := s.CreateFamily(ctx, Family{Session: "s", User: "u", Claims: "{}", TTL: time.Minute, Issued: time.Now(), Current: "r0"}); err != nil {
		t.Fatal(err)
	}
	if outcome, _, err := s.Rotate(ctx, Rotation{Session: "s", Presented: "r0", Next: "r1", Issued: time.Now()}); outcome != Rotated || err != nil {
		t.Errorf("rotate: %s %v", outcome, err)
	}
	if _, err := s.RevokeUser(ctx, "u"); err != nil {
		t.Error(err)
	}
	if err := s.RevokeSession(ctx, "s"); err != nil {
		t.Error(err)
	}
	if err := s.RevokeToken(ctx, "a", q.Expires); err != nil {
		t.Error(err)
	}
	if _, err := s.Gateways(ctx); err != nil {
		t.Error(err)
	}
	limit := Limit{Name: "l", Key: "user", WindowMS: 1000, Limit: 10, Cost: 1}
	if err := s.Reset(ctx, limit, "user:u"); err != nil {
		t.Error(err)
	}
	if usage, err := s.Usage(ctx, limit, "user:u"); err != nil || usage.Remaining != 10 {
		t.Errorf("usage: %+v %v", usage, err)
	}
}
