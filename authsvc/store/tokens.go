package store

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// Question asks for the status of a token whose signature has been verified.
type Question struct {
	ID      string // token.ID
	Sum     string // SHA-256 of the whole compact token, hex
	User    string
	Session string // own tokens only
	Expires time.Time
	Headers [][2]string // name, value: what its claims become; noted with the user
}

// Status is what Redis and memory know of a token.
type Status struct {
	Present        bool // Redis knew the token before this question
	Revoked        bool
	Unreadable     bool // an entry was not written by authsvc
	SessionRevoked bool
	VoidBefore     int64 // unix ms; 0: no mark

	// Certain: Redis said so just now, or every event since it did was heard.
	// Otherwise a revocation may have been missed, and whoever is told must
	// ask again soon.
	Certain bool
}

type cachedStatus struct {
	status     Status
	generation uint64 // of the event stream when the question was sent
	asked      time.Time
}

// statusLife is how long a status counts without an event stream.
const statusLife = time.Second

const (
	activeValue  = "active " // and the sum of the token that was verified
	revokedValue = "revoked"
)

// Status answers a question. With register, an unknown token is written down
// as active in the same round trip; sessions.required asks without.
//
// On ErrAway the status is the last one known, if any, and what memory knows;
// the caller decides whether that is enough.
func (s *Store) Status(ctx context.Context, q Question, register bool) (Status, error) {
	status, fresh := s.cached(q.ID)
	var err error
	if !fresh {
		var answer Status
		if answer, err = s.ask(ctx, q, register); err == nil {
			if register && !answer.Present {
				s.noteLater(q)
			}
			status = answer
			status.Certain = true
		}
	}
	s.memory.judge(q, &status)
	return status, err
}

func (s *Store) cached(id string) (Status, bool) {
	entry, found := s.statuses.Get(id)
	if !found {
		return Status{}, false
	}
	generation, alive := s.stream.state()
	status := entry.status
	status.Certain = alive && entry.generation == generation && !s.Bare
	return status, status.Certain || time.Since(entry.asked) < statusLife
}

func (s *Store) ask(ctx context.Context, q Question, register bool) (Status, error) {
	asked := time.Now()
	generation, _ := s.stream.state()

	var token, user, session *redis.StringCmd
	err := s.check(ctx, func(ctx context.Context) error {
		cmds, err := s.redis.Pipelined(ctx, func(p redis.Pipeliner) error {
			token = s.askToken(ctx, p, q, register)
			user = p.Get(ctx, s.userKey(q.User))
			if q.Session != "" {
				session = p.HGet(ctx, s.sessionKey(q.Session), "revoked")
			}
			return nil
		})
		return firstAway(cmds, err)
	})
	if err != nil {
		return Status{}, err
	}
	status := read(token, user, session)
	s.remember(q, status)
	s.statuses.Add(q.ID, cachedStatus{status: status, generation: generation, asked: asked})
	return status, nil
}

// firstAway is the error of a pipeline if any of its replies is missing. The
// error that go-redis returns is the first one, and that may be the harmless
// "no such key" of a reply that came before the connection broke.
func firstAway(cmds []redis.Cmder, err error) error {
	for _, cmd := range cmds {
		if away(cmd.Err()) {
			return cmd.Err()
		}
	}
	if away(err) {
		return err
	}
	return nil
}

// remember keeps refusals beyond the cache entry they came with. What was not
// readable is none: memory is written back to a Redis that has forgotten.
func (s *Store) remember(q Question, status Status) {
	if status.Revoked {
		s.memory.revokeToken(q.ID, q.Expires)
	}
	if status.SessionRevoked && !status.Unreadable {
		s.memory.revokeSession(q.Session, time.Now().Add(s.Token))
	}
	if status.VoidBefore > 0 {
		s.memory.voidBefore(q.User, status.VoidBefore, time.Now().Add(s.markLife()))
	}
}

// askToken reads the entry and, where there is none, writes one that lives as
// long as the token: SET NX GET is one command, so two replicas that see a
// token first do not disturb each other, and a revocation is never overwritten.
func (s *Store) askToken(ctx context.Context, p redis.Pipeliner, q Question, register bool) *redis.StringCmd {
	if !register {
		return p.Get(ctx, s.tokenKey(q.ID))
	}
	cmd := redis.NewStringCmd(ctx, "set", s.tokenKey(q.ID), activeValue+q.Sum, "nx", "get", "pxat", q.Expires.UnixMilli())
	_ = p.Process(ctx, cmd) // queued; the error arrives with the reply
	return cmd
}

// read turns three replies into a status. What cannot be read refuses: an
// entry of a wrong type or with an unknown text was not written by authsvc,
// and treating it as "active" would let whoever wrote it revive a token.
func read(token, user, session *redis.StringCmd) Status {
	var status Status
	if value, written := status.text(token); written {
		status.Present = true
		status.Revoked = value == revokedValue
		status.Unreadable = !status.Revoked && !strings.HasPrefix(value, activeValue)
	}
	if value, written := status.text(user); written {
		before, err := strconv.ParseInt(value, 10, 64)
		status.VoidBefore = before
		status.Unreadable = status.Unreadable || err != nil
	}
	if session != nil {
		_, status.SessionRevoked = status.text(session)
	}
	return status
}

// text is the value of a reply, if there is one.
func (s *Status) text(reply *redis.StringCmd) (value string, written bool) {
	value, err := reply.Result()
	if err != nil && !errors.Is(err, redis.Nil) {
		s.Unreadable = true
	}
	return value, err == nil
}

// Register writes a freshly issued token down as active, if nothing is written
// of it yet: a revocation that was quicker stays. Its user is noted.
func (s *Store) Register(ctx context.Context, q Question) error {
	n, err := s.noteOf(q)
	if err != nil {
		return err
	}
	return s.call(ctx, func(ctx context.Context) error {
		var token *redis.StatusCmd
		cmds, err := s.redis.Pipelined(ctx, func(p redis.Pipeliner) error {
			token = p.SetArgs(ctx, s.tokenKey(q.ID), activeValue+q.Sum, redis.SetArgs{Mode: "NX", ExpireAt: q.Expires})
			p.Set(ctx, n.key, n.text, n.life)
			return nil
		})
		if err := firstAway(cmds, err); err != nil {
			return err
		}
		if err := token.Err(); !errors.Is(err, redis.Nil) {
			return err
		}
		return nil
	})
}

// RevokeToken refuses a token until it would have expired. The write comes
// first and the event second: announced before it is durable, a gateway could
// ask again and be told "active". When the event fails the caller is told to
// repeat; both steps may be repeated.
func (s *Store) RevokeToken(ctx context.Context, id string, expires time.Time) error {
	if !time.Now().Before(expires) {
		return nil
	}
	err := s.call(ctx, func(ctx context.Context) error {
		return s.redis.SetArgs(ctx, s.tokenKey(id), revokedValue, redis.SetArgs{ExpireAt: expires}).Err()
	})
	if err != nil {
		return fmt.Errorf("revoke token: %w", err)
	}
	s.memory.revokeToken(id, expires)
	return s.publish(ctx, event{Type: "token", ID: id})
}
