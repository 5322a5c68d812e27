package store

import (
	"context"
	"encoding/json"

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

	Raw json.RawMessage `json:"-"` // as the gateway wrote it
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

// alive lists the gateways that were heard of within 3 s of Redis's clock and
// drops the others.
//
//	KEYS[1] <prefix>:gw:live
//	ARGV[1] how many at most
//	reply   instance ids, the longest silent first: those of a liar's future come last
var alive = redis.NewScript(`
local t = redis.call('TIME')
local oldest = string.format('%.0f', t[1] * 1000 + math.floor(t[2] / 1000) - 3000)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', '(' .. oldest)
return redis.call('ZRANGEBYSCORE', KEYS[1], oldest, '+inf', 'LIMIT', 0, ARGV[1])
`)

// Gateways returns the heartbeats of all living gateways, in the order of
// their last sign of life.
func (s *Store) Gateways(ctx context.Context) ([]Gateway, error) {
	var instances []string
	err := s.call(ctx, func(ctx context.Context) (err error) {
		instances, err = texts(alive.Run(ctx, s.redis, []string{s.liveKey()}, maxGateways).Result())
		if len(instances) > maxGateways {
			err = unexpected(instances, "the living gateways")
		}
		return err
	})
	if err != nil || len(instances) == 0 {
		return nil, err
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
		gateways = append(gateways, gateway)
	}
	return gateways, nil
}
