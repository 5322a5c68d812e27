package store

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// revokeUser moves a user's void-before mark (design: void-before).
//
//	KEYS[1] <prefix>:usr:<user>
//	ARGV[1] life of the mark, ms: the longest token, refresh tokens included
//	reply   the mark, unix ms, as a string (Lua prints large numbers in
//	        scientific notation)
//
// Redis's clock decides, so replicas with different clocks agree; the mark
// always moves, so a second revocation in one millisecond voids what was
// issued between the two. (pcall, because a key of a foreign type must not keep
// anybody from being revoked; SET replaces it. Nor does what lies more than a day
// ahead: authsvc writes no such mark.)
var revokeUser = redis.NewScript(`
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local before = now
local previous = redis.pcall('GET', KEYS[1])
previous = type(previous) == 'string' and tonumber(previous)
if previous and previous <= now + 86400000 and previous + 1 > now then
  before = previous + 1
end
before = string.format('%.0f', before)
redis.call('SET', KEYS[1], before, 'PX', ARGV[1])
return before
`)

// stamp tells when a token may say it was issued: after the mark, by Redis's
// clock. An authsvc whose clock runs ahead would otherwise issue tokens that
// survive a revocation (design: void-before).
//
//	KEYS[1] <prefix>:usr:<user>
//	reply   max(now, mark + 1), unix ms, as a string
//	        mark, unix ms, as a string; "0" without one
var stamp = redis.NewScript(`
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local before = redis.pcall('GET', KEYS[1])
before = type(before) == 'string' and tonumber(before) or 0
if not (before >= 0 and before <= now + 86400000) then
  before = 0
end
return {string.format('%.0f', math.max(now, before + 1)), string.format('%.0f', before)}
`)

func (s *Store) markLife() time.Duration { return max(s.Session, s.Token) }

// RevokeUser voids every token the user was issued until now and returns the
// mark, in unix milliseconds.
func (s *Store) RevokeUser(ctx context.Context, user string) (before int64, err error) {
	err = s.call(ctx, func(ctx context.Context) error {
		reply, err := revokeUser.Run(ctx, s.redis, []string{s.userKey(user)}, s.markLife().Milliseconds()).Result()
		if err != nil {
			return err
		}
		text, isText := reply.(string)
		if !isText {
			return unexpected(reply, "a mark")
		}
		before, err = presentInstant(text)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("revoke user: %w", err)
	}
	s.memory.voidBefore(user, before, time.Now().Add(s.markLife()))
	return before, s.publish(ctx, event{Type: "user", ID: user, Before: before})
}

// Stamp returns the time a token for the user shall carry as iat, and the
// mark before which the user's tokens are void.
func (s *Store) Stamp(ctx context.Context, user string) (issued time.Time, before int64, err error) {
	err = s.call(ctx, func(ctx context.Context) error {
		raw, err := stamp.Run(ctx, s.redis, []string{s.userKey(user)}).Result()
		reply, err := textsOf(2, raw, err)
		if err != nil {
			return err
		}
		ms, err := presentInstant(reply[0])
		if err != nil {
			return err
		}
		issued = time.UnixMilli(ms)
		before, err = instant(reply[1])
		return err
	})
	return issued, before, err
}

// restore writes remembered revocations into a Redis that has forgotten them
// (restarted empty, flushed, failed over to a replica that lagged). Marks go
// through compare-and-move; the others can only refuse. A revocation survives
// as long as one replica that heard of it lives.
func (s *Store) restore(ctx context.Context) {
	tokens, sessions, marks := s.memory.snapshot()
	var writes []func(redis.Pipeliner)
	for id, until := range tokens {
		writes = append(writes, func(p redis.Pipeliner) {
			p.Do(ctx, "set", s.tokenKey(id), revokedValue, "px", life(until))
		})
	}
	for sid, until := range sessions {
		writes = append(writes, func(p redis.Pipeliner) {
			p.HSet(ctx, s.sessionKey(sid), "revoked", revokedSession)
			p.PExpireAt(ctx, s.sessionKey(sid), until)
		})
	}
	for user, mark := range marks {
		writes = append(writes, func(p redis.Pipeliner) {
			raiseMark.Eval(ctx, p, []string{s.userKey(user)}, mark.before, time.Until(mark.until).Milliseconds())
		})
	}
	for len(writes) > 0 && ctx.Err() == nil {
		batch := writes[:min(len(writes), 200)]
		err := s.call(ctx, func(ctx context.Context) error {
			cmds, err := s.redis.Pipelined(ctx, func(p redis.Pipeliner) error {
				for _, write := range batch {
					write(p)
				}
				return nil
			})
			return firstFailed(cmds, err)
		})
		if err != nil {
			s.Log.Warn("revocations were not written back", "left", len(writes), "error", err)
			return
		}
		writes = writes[len(batch):]
	}
}

// raiseMark moves a mark forward, never back.
//
//	KEYS[1] <prefix>:usr:<user>
//	ARGV[1] the mark, unix ms
//	ARGV[2] its life, ms
var raiseMark = redis.NewScript(strings.TrimSpace(`
local previous = redis.pcall('GET', KEYS[1])
previous = type(previous) == 'string' and tonumber(previous) or 0
if previous < tonumber(ARGV[1]) and tonumber(ARGV[2]) > 0 then
  redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
end
return 0
`))
