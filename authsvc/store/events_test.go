package store

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/internal/redistest"
)

// design: event-stream: a gap, another epoch or silence is a loss; each loss begins a
// generation, in which nothing learnt before counts.
func TestStreamNoticesLoss(t *testing.T) {
	at := time.Now()
	var s stream
	for i, step := range []struct {
		epoch                string
		seq                  int64
		later                time.Duration
		continues, forgotten bool
	}{
		{"a", 1, 0, false, false}, // the first word
		{"a", 2, time.Second, true, false},
		{"a", 3, time.Second, true, false},
		{"a", 5, 0, false, false}, // 4 is missing
		{"a", 6, time.Second, true, false},
		{"a", 7, 2 * time.Second, false, false}, // silence
		{"a", 8, 0, true, false},
		{"b", 9, 0, false, true}, // Redis lost its counter
		{"b", 10, 0, true, false},
		{"b", 10, 0, false, true}, // twice the same
		{"b", 4, 0, false, true},  // back: a replica that lagged
	} {
		at = at.Add(step.later)
		before := s.generation
		continues, forgotten := s.hear(event{Epoch: step.epoch, Seq: step.seq}, at)
		if continues != step.continues || forgotten != step.forgotten {
			t.Errorf("step %d: continues %t, forgotten %t", i, continues, forgotten)
		}
		if grown := s.generation != before; grown == continues {
			t.Errorf("step %d: generation %d after %d", i, s.generation, before)
		}
	}
}

// The wire, as gateways read it: numbered without gaps over all replicas,
// ticks included, each at most 1 KiB (design: events-wire).
func TestEventsOnTheWire(t *testing.T) {
	redis := redistest.Start(t)
	client := redis.Client()
	defer client.Close()
	ctx := context.Background()
	subscription := client.Subscribe(ctx, "t:events")
	defer subscription.Close()
	if _, err := subscription.Receive(ctx); err != nil {
		t.Fatal(err)
	}
	a, b := open(t, options(redis.Addr)), open(t, options(redis.Addr))
	user := strings.Repeat(`"<\`, 85)
	if err := a.RevokeToken(ctx, strings.Repeat("a", 64), time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	if err := b.RevokeSession(ctx, "s1"); err != nil {
		t.Fatal(err)
	}
	before, err := a.RevokeUser(ctx, user)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]event{}
	epoch, seq := "", int64(0)
	for len(seen) < 4 {
		message, err := subscription.ReceiveMessage(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if len(message.Payload) > 1024 {
			t.Errorf("event of %d bytes", len(message.Payload))
		}
		var e event
		if err := json.Unmarshal([]byte(message.Payload), &e); err != nil {
			t.Fatalf("%q: %v", message.Payload, err)
		}
		if epoch == "" {
			epoch = e.Epoch
		}
		if seq++; e.Seq != seq || e.Epoch != epoch || len(epoch) != 16 {
			t.Fatalf("event %d: %q", seq, message.Payload)
		}
		seen[e.Type] = e
	}
	if seen["token"].ID != strings.Repeat("a", 64) || seen["session"].ID != "s1" || seen["user"].ID != user || seen["user"].Before != before {
		t.Errorf("%+v", seen)
	}
}

// A status that was asked for before the stream broke is asked for again.
func TestLostStreamMakesStatusesStale(t *testing.T) {
	redis := redistest.Start(t)
	s := listening(t, open(t, options(redis.Addr)))
	client := redis.Client()
	defer client.Close()
	ctx := context.Background()
	q := question("a", "u")
	ask(t, s, q)
	// Somebody revokes, and the event is lost: a gap in the numbers is all
	// that this replica notices.
	client.Set(ctx, "t:tok:a", revokedValue, time.Minute)
	client.HIncrBy(ctx, "t:evt", "seq", 1)
	redistest.Eventually(t, 5*time.Second, "the revocation is found", func() bool { return ask(t, s, q).Revoked })
}

// With sessions.required a bare DEL in Redis is a logout, within a second.
func TestBareStatusesAreShortLived(t *testing.T) {
	redis := redistest.Start(t)
	o := options(redis.Addr)
	o.Bare = true
	s := listening(t, open(t, o))
	client := redis.Client()
	defer client.Close()
	ctx := context.Background()
	q := question("a", "u")
	present := func() bool {
		status, err := s.Status(ctx, q, false)
		return err == nil && status.Present
	}
	if present() {
		t.Error("a token nobody registered is present")
	}
	if err := s.Register(ctx, q); err != nil {
		t.Fatal(err)
	}
	redistest.Eventually(t, 5*time.Second, "the token is present", present)
	client.Del(ctx, "t:tok:a")
	redistest.Eventually(t, 5*time.Second, "the deletion is noticed", func() bool { return !present() })
}
