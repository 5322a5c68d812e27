package store

import (
	"context"
	"errors"
	"fmt"
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

	revokedSession = "1" // in the field revoked of a session
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
		answer, err = s.ask(ctx, q, register)
		if err == nil && register && !answer.Present {
			s.noteLater(q)
		}
		if err == nil || answer.Revoked {
			status = answer
			status.Certain = err == nil
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

	var status Status
	var odd error
	err := s.check(ctx, func(ctx context.Context) (err error) {
		status, odd, err = s.inquire(ctx, q, register)
		return err
	})
	if err != nil {
		return status, err
	}
	if odd != nil {
		s.odd.Add(1)
		s.tell("odd", "redis holds what authsvc did not write", odd)
		return status, fmt.Errorf("%w: %w", ErrAway, odd)
	}
	s.remember(q, status)
	s.statuses.Add(q.ID, cachedStatus{status: status, generation: generation, asked: asked})
	return status, nil
}

// remember keeps refusals beyond the cache entry they came with.
func (s *Store) remember(q Question, status Status) {
	if status.Revoked {
		s.memory.revokeToken(q.ID, q.Expires)
	}
	if status.SessionRevoked {
		s.memory.revokeSession(q.Session, time.Now().Add(s.Token))
	}
	if status.VoidBefore > 0 {
		s.memory.voidBefore(q.User, status.VoidBefore, time.Now().Add(s.markLife()))
	}
}

// inquire is the round trip. With register it writes the token down first where
// there is no entry, for as long as the token lives: SET NX is one command, so
// two replicas that see a token first do not disturb each other, and a
// revocation is never overwritten. (With GET added to it one command would do,
// but that needs Redis 7.0.)
//
// odd is what is wrong with the values, where Redis itself serves well. A
// revocation that was read counts beside any error.
func (s *Store) inquire(ctx context.Context, q Question, register bool) (status Status, odd, err error) {
	var written, token, user, session *redis.Cmd
	_, err = s.redis.Pipelined(ctx, func(p redis.Pipeliner) error {
		if register {
			written = p.Do(ctx, "set", s.tokenKey(q.ID), activeValue+q.Sum, "nx", "px", life(q.Expires))
		}
		token = p.Do(ctx, "get", s.tokenKey(q.ID))
		user = p.Do(ctx, "get", s.userKey(q.User))
		if q.Session != "" {
			session = p.Do(ctx, "hget", s.sessionKey(q.Session), "revoked")
		}
		return nil
	})
	if replied(err) {
		err = nil // of the first reply that is an error; each is looked at below
	}
	var problems problems
	status.Present, status.Revoked = readToken(written, token, &problems)
	if text, there := problems.text("user's mark", user); there {
		var err error
		if status.VoidBefore, err = instant(text); err != nil {
			problems.add("user's mark", err)
		}
	}
	if session != nil {
		text, there := problems.text("session", session)
		status.SessionRevoked = text == revokedSession
		if there && !status.SessionRevoked {
			problems.add("session", unexpected(text, "the mark of a revoked session"))
		}
	}
	if err == nil {
		err = problems.refused
	}
	return status, problems.odd, err
}

// readToken reads the replies to SET and GET. After a SET that Redis answered
// there is an entry: that it is not there tells of replies to something else. A
// Redis that refuses to write (no memory left, a replica missing) can still
// tell; one that is a replica may tell old things.
func readToken(written, token *redis.Cmd, problems *problems) (present, revoked bool) {
	text, there := problems.text("token", token)
	revoked = text == revokedValue
	if there && !revoked && !strings.HasPrefix(text, activeValue) {
		problems.add("token", unexpected(text, "a status"))
	}
	if written == nil {
		return there, revoked
	}
	reply, err := written.Result()
	isNew := err == nil && reply == "OK"
	switch {
	case isNew, errors.Is(err, redis.Nil):
		if !there {
			problems.add("token", unexpected(nil, "what was just written"))
		}
	case !replied(err) || redis.HasErrorPrefix(err, "READONLY"):
		problems.fail("token", reply, err)
	}
	return there && !isNew, revoked
}

// life is how long a key for this expiry is to live, in milliseconds.
func life(expires time.Time) int64 { return max(1, time.Until(expires).Milliseconds()) }

// Register writes a freshly issued token down as active, if nothing is written
// of it yet: a revocation that was quicker stays. Its user is noted.
func (s *Store) Register(ctx context.Context, q Question) error {
	n, err := s.noteOf(q)
	if err != nil {
		return err
	}
	return s.call(ctx, func(ctx context.Context) error {
		var token *redis.Cmd
		_, _ = s.redis.Pipelined(ctx, func(p redis.Pipeliner) error { // the token's error counts; the note may be lost
			token = p.Do(ctx, "set", s.tokenKey(q.ID), activeValue+q.Sum, "nx", "px", life(q.Expires))
			p.Set(ctx, n.key, n.text, n.life)
			return nil
		})
		reply, err := token.Result()
		if errors.Is(err, redis.Nil) {
			return nil
		}
		return isOK(reply, err)
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
		return isOK(s.redis.Do(ctx, "set", s.tokenKey(id), revokedValue, "px", life(expires)).Result())
	})
	if err != nil {
		return fmt.Errorf("revoke token: %w", err)
	}
	s.memory.revokeToken(id, expires)
	return s.publish(ctx, event{Type: "token", ID: id})
}
