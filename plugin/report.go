package plugin

import (
	"encoding/json"
	"time"
)

// Version of the plugin, in its heartbeat.
const Version = "0.1.0"

// heartbeat is what a gateway tells of itself each second. Its counters are
// cumulative since the process started, so an outage of Redis loses none.
type heartbeat struct {
	Instance string       `json:"instance"`
	Version  string       `json:"version"`
	Started  int64        `json:"started"` // unix ms
	Counters counters     `json:"counters"`
	Limits   []definition `json:"limits"`
}

type counters struct {
	Allowed         int64            `json:"allowed"`
	Denied          map[string]int64 `json:"denied"`
	Degraded        int64            `json:"degraded"`
	RedisCalls      int64            `json:"redis_calls"`
	RedisErrors     map[string]int64 `json:"redis_errors"`
	BreakerOpen     int64            `json:"breaker_open"`
	DecisionHits    int64            `json:"decision_hits"`
	DecisionMisses  int64            `json:"decision_misses"`
	AuthErrors      int64            `json:"auth_errors"`
	RevocationsLost int64            `json:"events_lost"`
	Keys            int64            `json:"keys"`
}

// definition is a limit as authsvc needs to know it, to show and reset what it
// counts.
type definition struct {
	Name       string           `json:"name"`
	Key        string           `json:"key"`
	WindowMS   int64            `json:"window_ms"`
	Limit      int64            `json:"limit"`
	Cost       int64            `json:"cost"`
	Tiers      map[string]int64 `json:"tiers"`
	IPv6Subnet int              `json:"ipv6_subnet"`
}

func (b *backend) report() string {
	stats := b.client.Stats()
	beat := heartbeat{
		Instance: process,
		Version:  Version,
		Started:  startedAt.UnixMilli(),
		Counters: counters{
			Allowed:         b.allowed.Load(),
			Denied:          b.engine.Denials(),
			Degraded:        b.engine.Degraded.Load(),
			RedisCalls:      stats.Calls,
			RedisErrors:     stats.Errors,
			RevocationsLost: b.stream.losses.Load(),
			Keys:            b.engine.Keys(),
		},
		Limits: []definition{},
	}
	if stats.BreakerOpen {
		beat.Counters.BreakerOpen = 1
	}
	b.mu.Lock()
	beat.Counters.DecisionHits = b.forgotten.DecisionHits
	beat.Counters.DecisionMisses = b.forgotten.DecisionMisses
	beat.Counters.AuthErrors = b.forgotten.AuthErrors
	for _, d := range b.decisions {
		beat.Counters.DecisionHits += d.hits.Load()
		beat.Counters.DecisionMisses += d.misses.Load()
		beat.Counters.AuthErrors += d.errors.Load()
	}
	for _, l := range b.limits {
		beat.Limits = append(beat.Limits, l)
	}
	b.mu.Unlock()
	text, err := json.Marshal(beat)
	if err != nil {
		logLine("error", "the heartbeat cannot be written as JSON: "+err.Error())
	}
	return string(text)
}

// undefine takes a limit out of the heartbeat, unless its name has another
// window by now.
func (b *backend) undefine(rule *limitRule) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.limits[rule.name].WindowMS == int64(rule.window/time.Millisecond) {
		delete(b.limits, rule.name)
	}
}

// define notes a limit for the heartbeat.
func (b *backend) define(rule *limitRule, subnet int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.limits[rule.name] = definition{
		Name: rule.name, Key: rule.key + rule.keyHeader, WindowMS: int64(rule.window / time.Millisecond),
		Limit: rule.limit, Cost: rule.cost, Tiers: rule.tiers, IPv6Subnet: subnet,
	}
}
