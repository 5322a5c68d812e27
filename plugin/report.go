package plugin

import (
	"container/list"
	"encoding/json"
	"sync"
	"time"

	"github.com/sluice-gateway/sluice/plugin/limit"
)

// Version of the plugin, in its heartbeat.
const Version = "0.1.0"

// heartbeat is what a gateway tells of itself each second. Its counters but two
// are cumulative since the process started, so an outage of Redis loses none.
type heartbeat struct {
	Instance string       `json:"instance"`
	Version  string       `json:"version"`
	Started  int64        `json:"started"` // unix ms
	Counters counters     `json:"counters"`
	Limits   []definition `json:"limits"`

	Alone *limit.Trouble `json:"alone,omitempty"` // why limits are decided without Redis now
}

type counters struct {
	Allowed         int64            `json:"allowed"`
	Denied          map[string]int64 `json:"denied"`
	Degraded        int64            `json:"degraded"`
	RedisCalls      int64            `json:"redis_calls"`
	RedisErrors     map[string]int64 `json:"redis_errors"`
	BreakerOpen     int64            `json:"breaker_open"`   // now
	BreakerOpened   int64            `json:"breaker_opened"` // so many times: while it is open no heartbeat gets through
	DecisionHits    int64            `json:"decision_hits"`
	DecisionMisses  int64            `json:"decision_misses"`
	AuthErrors      int64            `json:"auth_errors"`
	RevocationsLost int64            `json:"events_lost"`
	Keys            int64            `json:"keys"` // now
}

// definition is a limit as authsvc needs to know it, to show and reset what it
// counts.
type definition struct {
	Name        string           `json:"name"`
	Key         string           `json:"key"`
	WindowMS    int64            `json:"window_ms"`
	Limit       int64            `json:"limit"`
	Cost        int64            `json:"cost"`
	TierHeader  string           `json:"tier_header,omitempty"`
	Tiers       map[string]int64 `json:"tiers"`
	Ranked      []string         `json:"ranked,omitempty"` // the tiers: who has several is of the first
	LimitHeader string           `json:"limit_header,omitempty"`
	IPv6Subnet  int              `json:"ipv6_subnet"`
}

// add sums up what only grows.
func (c *counters) add(d *counters) {
	c.Allowed += d.Allowed
	c.Degraded += d.Degraded
	c.RedisCalls += d.RedisCalls
	c.BreakerOpened += d.BreakerOpened
	c.DecisionHits += d.DecisionHits
	c.DecisionMisses += d.DecisionMisses
	c.AuthErrors += d.AuthErrors
	c.RevocationsLost += d.RevocationsLost
	for name, n := range d.Denied {
		c.Denied[name] += n
	}
	for kind, n := range d.RedisErrors {
		c.RedisErrors[kind] += n
	}
}

func newCounters() counters {
	return counters{Denied: map[string]int64{}, RedisErrors: map[string]int64{}}
}

// account is what this process tells under one key prefix. All its backends
// there write the same heartbeat, so it holds what all of them have counted,
// those included that a changed redis section has replaced: no number falls,
// whichever of them wrote last.
type account struct {
	instance string

	mu     sync.Mutex
	open   list.List             // *source
	closed counters              // of backends that are gone
	limits map[string]definition // by name, as configured last
	users  map[string]int        // backends that hold a limit, by name and window
}

// source is a backend, as far as its account asks.
type source struct {
	counters func() counters
	trouble  func() *limit.Trouble // why it decides limits without Redis now
}

// mostForgotten bounds what is kept of prefixes, and of limits' names, that
// nobody uses any more (I6).
const mostForgotten = 32

func (a *account) idle() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.open.Len() == 0
}

// enter has the account count what a backend does; the returned function ends that and
// keeps what was counted.
func (a *account) enter(s *source) (leave func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	place := a.open.PushBack(s)
	return func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.open.Remove(place)
		last := s.counters()
		for name := range a.closed.Denied {
			if len(a.closed.Denied)+len(last.Denied) <= mostForgotten {
				break
			}
			if last.Denied[name] == 0 {
				delete(a.closed.Denied, name)
			}
		}
		a.closed.add(&last)
	}
}

// report is the heartbeat.
func (a *account) report() string {
	a.mu.Lock()
	beat := heartbeat{Instance: a.instance, Version: Version, Started: startedAt.UnixMilli(), Counters: newCounters(), Limits: []definition{}}
	beat.Counters.add(&a.closed)
	for e := a.open.Front(); e != nil; e = e.Next() {
		s := e.Value.(*source)
		c := s.counters()
		if alone := s.trouble(); alone != nil {
			beat.Alone = alone
		}
		beat.Counters.add(&c)
		beat.Counters.Keys += c.Keys
		if c.BreakerOpen > 0 {
			beat.Counters.BreakerOpen = 1
		}
	}
	for _, l := range a.limits {
		beat.Limits = append(beat.Limits, l)
	}
	a.mu.Unlock()
	text, err := json.Marshal(beat)
	if err != nil {
		logLine("error", "the heartbeat cannot be written as JSON: "+err.Error())
	}
	return string(text)
}

// use notes that a backend holds a limit; the returned function ends that, and
// takes the limit out of the heartbeat once no backend holds it, unless its name
// has another window by now.
func (a *account) use(rule *limitRule) (end func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	id := rule.Name + "\n" + rule.Window.String()
	a.users[id]++
	return func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		if a.users[id]--; a.users[id] > 0 {
			return
		}
		delete(a.users, id)
		if a.limits[rule.Name].WindowMS == int64(rule.Window/time.Millisecond) {
			delete(a.limits, rule.Name)
		}
	}
}

// define notes a limit for the heartbeat.
func (a *account) define(rule *limitRule, subnet int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.limits[rule.Name] = definition{
		Name: rule.Name, Key: rule.Key + rule.KeyHeader, WindowMS: int64(rule.Window / time.Millisecond),
		Limit: rule.Limit, Cost: rule.Cost, TierHeader: rule.TierHeader, Tiers: rule.Tiers, Ranked: rule.Ranked,
		LimitHeader: rule.LimitHeader, IPv6Subnet: subnet,
	}
}
