package store

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sluice-gateway/sluice/plugin/window"
)

// Limit is a limit as a gateway's heartbeat defines it: only gateways know
// their configuration.
type Limit struct {
	Name       string `json:"name"`
	Key        string `json:"key"` // user | ip | header:<Name> | global
	WindowMS   int64  `json:"window_ms"`
	Limit      int64  `json:"limit"`
	Cost       int64  `json:"cost"`
	IPv6Subnet int    `json:"ipv6_subnet"`

	// What makes it another limit for some users.
	TierHeader  string           `json:"tier_header"`
	Tiers       map[string]int64 `json:"tiers"`
	Ranked      []string         `json:"ranked"` // the tiers: who has several is of the first
	LimitHeader string           `json:"limit_header"`
}

// Usage is the state of one key of one limit.
type Usage struct {
	Name       string `json:"name"`
	Key        string `json:"key"`
	Limit      int64  `json:"limit"`
	Window     int64  `json:"window"`            // seconds
	Used       int64  `json:"used"`              // permits, rounded up
	Remaining  int64  `json:"remaining"`         // permits
	RetryAfter int64  `json:"retry_after"`       // seconds until one request fits, rounded up; 0 now, -1 never
	Because    string `json:"because,omitempty"` // why the limit is that one, where it is not the same for everybody
}

// ErrBadKey means that the limit has no such key.
var ErrBadKey = errors.New("no key of this limit")

// keys says how the keys of a limit are written. A request without the user or
// the header is counted by its address (onMissingKey).
func (l Limit) keys() (accepted string, kinds []string) {
	switch {
	case l.Key == "user":
		return "user:<id>, or ip:<address> for requests without a user", []string{"user", "ip"}
	case l.Key == "ip":
		return "ip:<address>", []string{"ip"}
	case strings.HasPrefix(l.Key, "header:"):
		return "header:<value>, or ip:<address> for requests without the header", []string{"header", "ip"}
	case l.Key == "global":
		return "global", []string{"global"}
	}
	return "user:<id>, ip:<address>, header:<value> or global", []string{"user", "ip", "header", "global"}
}

// redisKey spells `user:<id>`, `ip:<address>`, `header:<value>` or `global` as
// the gateways do.
func (s *Store) redisKey(l Limit, key string) (string, error) {
	kind, value, _ := strings.Cut(key, ":")
	accepted, kinds := l.keys()
	wrong := fmt.Errorf("%w: %s counts by %s; write %s", ErrBadKey, l.Name, l.Key, accepted)
	switch {
	case !slices.Contains(kinds, kind):
		return "", wrong
	case kind == "user" && value != "":
		value = "u" + escape(value)
	case kind == "header" && value != "":
		value = "h" + escape(value)
	case key == "global":
		value = "g"
	case kind == "ip":
		addr, err := netip.ParseAddr(value)
		if err != nil {
			return "", wrong
		}
		if addr = addr.Unmap().WithZone(""); addr.Is6() && l.IPv6Subnet > 0 && l.IPv6Subnet < 128 {
			addr = netip.PrefixFrom(addr, l.IPv6Subnet).Masked().Addr()
		}
		value = "i" + escape(addr.String())
	default:
		return "", wrong
	}
	return s.limitKey(l.Name, l.WindowMS, value), nil
}

// counters reads a key together with the clock it must be judged by.
//
//	KEYS[1] <prefix>:lim:1:<name>:<window ms>:{<t><v>}
//	reply   value or "", unix seconds, microseconds
var counters = redis.NewScript(`
local t = redis.call('TIME')
return {redis.call('GET', KEYS[1]) or '', t[1], t[2]}
`)

// Usage judges a key by the sliding-window rule, without spending anything.
func (s *Store) Usage(ctx context.Context, l Limit, key string) (Usage, error) {
	redisKey, err := s.redisKey(l, key)
	if err != nil {
		return Usage{}, err
	}
	var value string
	var now time.Time
	err = s.call(ctx, func(ctx context.Context) error {
		raw, err := counters.Run(ctx, s.redis, []string{redisKey}).Result()
		reply, err := textsOf(3, raw, err)
		if err != nil {
			return err
		}
		seconds, err := presentInstant(reply[1] + "000")
		if err != nil {
			return err
		}
		micros, err := strconv.ParseUint(reply[2], 10, 20)
		if err != nil {
			return unexpected(reply[2], "microseconds")
		}
		value, now = reply[0], time.UnixMilli(seconds).Add(time.Duration(micros)*time.Microsecond)
		return nil
	})
	if err != nil {
		return Usage{}, err
	}
	u := usage(l, parse(value, width(l)), now)
	u.Key = key
	return u, nil
}

// parse reads the value of a limit's key, over windows of so many microseconds;
// what is no such value counts nothing. A gateway's reply holds one, so what reads
// that reads this.
func parse(value string, width int64) window.Counts {
	var reply window.Grant
	if !window.ReadLine("[0,0,0,"+strings.ReplaceAll(value, " ", ",")+"]", width, &reply) {
		return window.Counts{}
	}
	c := reply.Counts
	for _, n := range []int64{c.Generation, c.Index, c.Granted, c.Returned, c.PreviousGranted, c.PreviousReturned} {
		if n < 0 || n > window.MaxCount {
			return window.Counts{}
		}
	}
	c.Returned, c.PreviousReturned = min(c.Granted, c.Returned), min(c.PreviousGranted, c.PreviousReturned)
	return c
}

// usage is what the gateways' rule says of a key. A heartbeat may claim any
// limit, and the rule is made for those that a gateway takes.
func usage(l Limit, counts window.Counts, at time.Time) Usage {
	width := width(l)
	limit, cost := min(max(0, l.Limit), window.MaxLimit), min(max(1, l.Cost), window.MaxLimit)
	now := at.UnixMicro()
	grant, _ := window.Decide(counts, window.Ask{Window: width, Limit: limit, Cost: 1, Instances: 1}, now) // for nobody
	used := window.Used(grant.Counts, width, limit, grant.Now)
	u := Usage{Name: l.Name, Limit: l.Limit, Window: l.WindowMS / 1000, Used: used, Remaining: max(0, limit-used)}
	switch {
	case cost > limit:
		u.RetryAfter = never
	case u.Remaining < cost:
		wait := window.FreeAt(grant.Counts, width, limit, cost, grant.Now) - now
		u.RetryAfter = max(1, (wait+999_999)/1_000_000)
	}
	return u
}

// width is a limit's window in microseconds, of those that the rules are made for.
func width(l Limit) int64 {
	return min(max(1, l.WindowMS), window.MaxWindow/1000) * 1000
}

// never is the RetryAfter of a request that costs more than the limit.
const never = -1

// reset forgets what a key has spent.
//
//	KEYS[1] as above
//	ARGV[1] window, ms
//
// It writes the next generation instead of deleting: a gateway that reports
// what it knew of the old one cannot undo the reset (design: merge-by-maximum).
var reset = redis.NewScript(`
local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2]
local generation = tonumber(string.match(redis.call('GET', KEYS[1]) or '', '^(%d+) ') or '0') + 1
local index = math.floor(now / (ARGV[1] * 1000))
redis.call('SET', KEYS[1], string.format('%.0f %.0f 0 0 0 0', generation, index), 'PX', 2 * ARGV[1])
return 0
`)

// Reset gives a key its whole limit back.
func (s *Store) Reset(ctx context.Context, l Limit, key string) error {
	redisKey, err := s.redisKey(l, key)
	if err != nil {
		return err
	}
	return s.call(ctx, func(ctx context.Context) error {
		return isNumber(reset.Run(ctx, s.redis, []string{redisKey}, l.WindowMS).Result())
	})
}
