package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"
)

// ErrNoSession means that the family never existed, has expired or is revoked.
var ErrNoSession = errors.New("no such session")

// Family is the line of refresh tokens that one login began. It is a hash:
//
//	user, claims, ttl   what its access tokens say (claims as JSON, ttl in ms)
//	mac                 the caller's proof that it wrote the three above
//	issued              iat of the current pair, unix ms
//	current, previous   sums of the two youngest refresh tokens
//	rotated             when previous was replaced, unix ms of Redis
//	pair                what the last rotation answered, sealed with previous
//	revoked             exists once the family is dead
//
// Redis holds sums and a sealed pair only: whoever reads it learns no token.
type Family struct {
	Session string
	User    string
	Claims  string
	TTL     time.Duration
	MAC     string // over Session, User, Claims and TTL; this package only keeps it
	Issued  time.Time
	Current string // sum of the youngest refresh token
}

// CreateFamily writes the first generation.
func (s *Store) CreateFamily(ctx context.Context, f Family) error {
	key := s.sessionKey(f.Session)
	return s.call(ctx, func(ctx context.Context) error {
		return s.transaction(ctx, func(p redis.Pipeliner) {
			p.HSet(ctx, key,
				"user", f.User, "claims", f.Claims, "ttl", f.TTL.Milliseconds(), "mac", f.MAC,
				"issued", f.Issued.UnixMilli(), "current", f.Current)
			p.PExpire(ctx, key, s.Session)
		})
	})
}

// transaction queues commands that each answer a number, the last one being the
// PEXPIRE that shows by its 1 that they were carried out.
func (s *Store) transaction(ctx context.Context, queue func(redis.Pipeliner)) error {
	cmds, err := s.redis.TxPipelined(ctx, func(p redis.Pipeliner) error {
		queue(p)
		return nil
	})
	if err != nil {
		return err
	}
	if last, isBool := cmds[len(cmds)-1].(*redis.BoolCmd); !isBool || !last.Val() {
		return unexpected(nil, "the life of a key that was just written")
	}
	return nil
}

// LoadFamily reads a living family.
func (s *Store) LoadFamily(ctx context.Context, session string) (Family, error) {
	fields := make(map[string]string)
	var ttl, issued int64
	err := s.call(ctx, func(ctx context.Context) error {
		flat, err := texts(s.redis.Do(ctx, "hgetall", s.sessionKey(session)).Result())
		if err != nil {
			return err
		}
		for pair := range slices.Chunk(flat, 2) {
			fields[pair[0]] = pair[len(pair)-1]
		}
		if len(flat) == 0 || fields["revoked"] == revokedSession {
			return nil
		}
		var badTTL, badIssued error
		ttl, badTTL = strconv.ParseInt(fields["ttl"], 10, 64)
		issued, badIssued = instant(fields["issued"])
		if len(flat)%2 != 0 || badTTL != nil || badIssued != nil || fields["user"] == "" {
			return unexpected(any(nil), "a session")
		}
		return nil
	})
	if err != nil {
		return Family{}, err
	}
	if len(fields) == 0 || fields["revoked"] == revokedSession {
		return Family{}, ErrNoSession
	}
	return Family{
		Session: session,
		User:    fields["user"],
		Claims:  fields["claims"],
		TTL:     time.Duration(ttl) * time.Millisecond,
		MAC:     fields["mac"],
		Issued:  time.UnixMilli(issued),
		Current: fields["current"],
	}, nil
}

// Rotation replaces the presented refresh token by the next.
type Rotation struct {
	Session   string
	Presented string // sums
	Next      string
	Pair      string    // the answer, sealed with the presented token
	Issued    time.Time // iat of the new access token
}

// Outcome is what became of a Rotation.
type Outcome string

// What Rotate answers.
const (
	Rotated  Outcome = "rotated"  // the pair that was offered is now current
	Repeated Outcome = "repeated" // a lost reply: the pair of last time, once more
	Reused   Outcome = "reused"   // an old token came back: the family is revoked
	Unknown  Outcome = "unknown"  // no such family, or it was revoked before
)

// rotate is the whole of refresh-token rotation (design: refresh-tokens), in one script, so
// that of many simultaneous uses of one token exactly one wins, on whichever
// replicas they arrive.
//
//	KEYS[1] <prefix>:ref:<session>
//	ARGV[1] sum of the presented token     ARGV[4] iat of the new pair, unix ms
//	ARGV[2] sum of the next token          ARGV[5] life of the family, ms
//	ARGV[3] the new pair, sealed           ARGV[6] grace, ms
//	                                       ARGV[7] life of a revocation, ms
//	reply   outcome, pair
//
// Only tokens that authsvc has made get here (the caller checks their MAC), so
// one that is neither current nor the repeat of a lost reply was used before:
// two parties hold it, and nobody can tell which of them is the thief (RFC
// 9700 section 4.14.2).
var rotate = redis.NewScript(`
local f = redis.call('HMGET', KEYS[1], 'current', 'previous', 'rotated', 'pair', 'revoked')
local current, previous, rotated, pair, revoked = f[1], f[2], f[3], f[4], f[5]
if revoked or not current then
  return {'unknown', ''}
end
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
if ARGV[1] == current then
  redis.call('HSET', KEYS[1], 'current', ARGV[2], 'previous', ARGV[1], 'pair', ARGV[3],
    'rotated', string.format('%.0f', now), 'issued', ARGV[4])
  redis.call('PEXPIRE', KEYS[1], ARGV[5])
  return {'rotated', ''}
end
if ARGV[1] == previous and pair and now - tonumber(rotated) <= tonumber(ARGV[6]) then
  redis.call('HDEL', KEYS[1], 'pair')
  return {'repeated', pair}
end
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], 'revoked', '1')
redis.call('PEXPIRE', KEYS[1], ARGV[7])
return {'reused', ''}
`)

// Rotate runs the rotation. On Repeated, pair is the one to hand out.
func (s *Store) Rotate(ctx context.Context, r Rotation) (outcome Outcome, pair string, err error) {
	err = s.call(ctx, func(ctx context.Context) error {
		raw, err := rotate.Run(ctx, s.redis, []string{s.sessionKey(r.Session)},
			r.Presented, r.Next, r.Pair, r.Issued.UnixMilli(),
			s.Session.Milliseconds(), s.Grace.Milliseconds(), s.Token.Milliseconds()).Result()
		reply, err := textsOf(2, raw, err)
		if err != nil {
			return err
		}
		outcome, pair = Outcome(reply[0]), reply[1]
		switch outcome {
		case Rotated, Repeated, Reused, Unknown:
			return nil
		}
		return unexpected(reply[0], "an outcome")
	})
	if err != nil {
		return "", "", fmt.Errorf("rotate: %w", err)
	}
	if outcome == Reused {
		err = s.sessionRevoked(ctx, r.Session)
	}
	return outcome, pair, err
}

// RevokeSession kills a family and, through their claim sid, every access
// token it has issued.
func (s *Store) RevokeSession(ctx context.Context, session string) error {
	key := s.sessionKey(session)
	err := s.call(ctx, func(ctx context.Context) error {
		return s.transaction(ctx, func(p redis.Pipeliner) {
			p.Del(ctx, key)
			p.HSet(ctx, key, "revoked", revokedSession)
			p.PExpire(ctx, key, s.Token)
		})
	})
	if err != nil {
		return fmt.Errorf("revoke session: %w", err)
	}
	return s.sessionRevoked(ctx, session)
}

func (s *Store) sessionRevoked(ctx context.Context, session string) error {
	s.memory.revokeSession(session, time.Now().Add(s.Token))
	return s.publish(ctx, event{Type: "session", ID: session})
}
