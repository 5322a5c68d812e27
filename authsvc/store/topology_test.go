package store

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/internal/redistest"
)

// design: secrets: a password that changes needs no restart.
func TestPasswordChanges(t *testing.T) {
	redis := redistest.Start(t)
	admin := redis.Client()
	defer admin.Close()
	ctx := context.Background()
	if err := admin.ConfigSet(ctx, "requirepass", "first").Err(); err != nil {
		t.Fatal(err)
	}
	var password atomic.Value
	password.Store("first")
	o := options(redis.Addr)
	o.Password = func() (string, error) { return password.Load().(string), nil }
	s := listening(t, open(t, o))
	ask(t, s, question("a", "u"))

	if err := admin.Do(ctx, "AUTH", "first").Err(); err != nil {
		t.Fatal(err)
	}
	if err := admin.ConfigSet(ctx, "requirepass", "second").Err(); err != nil {
		t.Fatal(err)
	}
	// Redis closes nobody's connection on its own; an operator does.
	drop := func() {
		for _, kind := range []string{"normal", "pubsub"} {
			if err := admin.Do(ctx, "CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes").Err(); err != nil {
				t.Fatal(err)
			}
		}
	}
	drop()
	redistest.Eventually(t, 10*time.Second, "the old password fails", func() bool {
		_, err := s.Status(ctx, question("b", "u"), true)
		return errors.Is(err, ErrAway)
	})
	password.Store("second")
	redistest.Eventually(t, 10*time.Second, "the new password works", func() bool {
		_, err := s.Status(ctx, question("c", "u"), true)
		return err == nil && s.StreamAlive()
	})
}

// A failover through Sentinel: the old master is gone, writes and events go on
// at the new one, and what the new one had not yet heard of is written back.
func TestSentinelFailover(t *testing.T) {
	master, replica, sentinel := redistest.StartSentinel(t, "main")
	o := options(sentinel)
	o.MasterName = "main"
	s := listening(t, open(t, o))
	ctx := context.Background()
	dead := question("dead", "u")
	if err := s.RevokeToken(ctx, dead.ID, dead.Expires); err != nil {
		t.Fatal(err)
	}
	client := replica.Client()
	defer client.Close()
	redistest.Eventually(t, 10*time.Second, "the replica follows", func() bool { return client.Get(ctx, "t:tok:dead").Val() == "revoked" })

	master.Kill()
	redistest.Eventually(t, 60*time.Second, "the new master serves writes and events", func() bool {
		_, err := s.RevokeUser(ctx, "u2")
		return err == nil && s.StreamAlive()
	})
	if client.Exists(ctx, "t:usr:u2").Val() != 1 {
		t.Error("the revocation is not at the new master")
	}
	if !ask(t, s, dead).Revoked {
		t.Error("the failover revived a token")
	}
}
