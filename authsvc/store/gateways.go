package store

import (
	"context"
	"encoding/json"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"
)

// Gateway is the heartbeat of one gateway instance, as the plugin writes it
// once a second.
type Gateway struct {
	Instance string          `json:"instance"`
	Version  string          `json:"version"`
	Started  int64           `json:"started"` // unix ms
	Counters GatewayCounters `json:"counters"`
	Limits   []Limit         `json:"limits"`
	Alone    *Trouble        `json:"alone"` // nil: its limits are exact

	Stale    bool  `json:"-"` // silent for longer than a living gateway ever is: stopped, or cut off from Redis
	LastSeen int64 `json:"-"` // unix ms of Redis's clock

	Raw json.RawMessage `json:"-"` // as the gateway wrote it
}

// Trouble is why a gateway decides without Redis.
type Trouble struct {
	Since int64  `json:"since"` // unix ms
	Kind  string `json:"kind"`  // one word, such as away or timeout
	Reply string `json:"reply"` // what Redis said
}

// GatewayCounters only grow, except breaker_open and keys.
type GatewayCounters struct {
	Allowed        float64            `json:"allowed"`
	Denied         map[string]float64 `json:"denied"` // by limit
	Degraded       float64            `json:"degraded"`
	RedisCalls     float64            `json:"redis_calls"`
	RedisErrors    map[string]float64 `json:"redis_errors"` // by kind
	BreakerOpen    float64            `json:"breaker_open"`
	BreakerOpened  float64            `json:"breaker_opened"`
	DecisionHits   float64            `json:"decision_hits"`
	DecisionMisses float64            `json:"decision_misses"`
	AuthErrors     float64            `json:"auth_errors"`
	EventsLost     float64            `json:"events_lost"`
	Keys           float64            `json:"keys"`
}

// maxHeartbeat bounds what one gateway may make us parse.
const maxHeartbeat = 64 << 10

// maxGateways bounds how many are read at once: a gateway that was taken over
// could write any number of heartbeats.
const maxGateways = 256

// How long a gateway lives without a heartbeat, and how long it is shown after
// that: one that Redis refuses cannot tell of it.
const (
	livesFor = 3 * time.Second
	shownFor = 10 * time.Minute
)

// seen lists the gateways that were heard of and drops those of long ago.
//
//	KEYS[1] <prefix>:gw:live
//	ARGV    1 how many at most   2 how long one lives (ms)   3 how long it is shown (ms)
//	reply   Redis's time (ms), then of each its id and last heartbeat (ms): the
//	        living first, and of them the longest silent, so that those of a
//	        liar's future come last; then the others, the latest first
var seen = redis.NewScript(`
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local oldest = string.format('%.0f', now - ARGV[2])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('(%.0f', now - ARGV[3]))
local reply = redis.call('ZRANGEBYSCORE', KEYS[1], oldest, '+inf', 'WITHSCORES', 'LIMIT', 0, ARGV[1])
local stale = redis.call('ZREVRANGEBYSCORE', KEYS[1], '(' .. oldest, '-inf', 'WITHSCORES', 'LIMIT', 0, ARGV[1] - #reply / 2)
table.insert(reply, 1, string.format('%.0f', now))
for _, word in ipairs(stale) do reply[#reply + 1] = word end
return reply
`)

// Gateways returns the heartbeats of all gateways: of the living in the order of
// their last sign of life, and then those that the others told last.
func (s *Store) Gateways(ctx context.Context) ([]Gateway, error) {
	var reply []string
	err := s.call(ctx, func(ctx context.Context) (err error) {
		reply, err = texts(seen.Run(ctx, s.redis, []string{s.liveKey()}, maxGateways, livesFor.Milliseconds(), shownFor.Milliseconds()).Result())
		if err == nil && (len(reply)%2 == 0 || len(reply) > 2*maxGateways+1) {
			err = unexpected(reply, "the gateways")
		}
		return err
	})
	if err != nil || len(reply) < 3 {
		return nil, err
	}
	now, _ := strconv.ParseInt(reply[0], 10, 64)
	instances := make([]string, 0, len(reply)/2)
	lastSeen := make([]int64, 0, len(reply)/2)
	for i := 1; i < len(reply); i += 2 {
		at, _ := strconv.ParseFloat(reply[i+1], 64) // a score of anybody's; at worst the gateway is stale
		instances = append(instances, reply[i])
		lastSeen = append(lastSeen, int64(at))
	}
	beats := make([]*redis.StringCmd, len(instances))
	err = s.call(ctx, func(ctx context.Context) error {
		cmds, err := s.redis.Pipelined(ctx, func(p redis.Pipeliner) error {
			for i, instance := range instances {
				beats[i] = p.GetRange(ctx, s.gatewayKey(instance), 0, maxHeartbeat) // a byte more than is taken
			}
			return nil
		})
		return firstFailed(cmds, err) // what is no heartbeat is left out below
	})
	if err != nil {
		return nil, err
	}
	var gateways []Gateway
	for i, beat := range beats {
		raw := []byte(beat.Val())
		var gateway Gateway
		if len(raw) == 0 || len(raw) > maxHeartbeat || json.Unmarshal(raw, &gateway) != nil || gateway.Instance != instances[i] {
			continue
		}
		gateway.Raw = raw
		gateway.LastSeen = lastSeen[i]
		gateway.Stale = now-gateway.LastSeen > livesFor.Milliseconds()
		gateways = append(gateways, gateway)
	}
	return gateways, nil
}
