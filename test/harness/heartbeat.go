package harness

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// Gateway is what a gateway says of itself once a second, at
// `<prefix>:gw:<instance>`.
type Gateway struct {
	Instance string `json:"instance"`
	Version  string `json:"version"`
	Started  int64  `json:"started"`
	Counters struct {
		Allowed        int64            `json:"allowed"`
		Denied         map[string]int64 `json:"denied"`
		Degraded       int64            `json:"degraded"`
		RedisCalls     int64            `json:"redis_calls"`
		RedisErrors    map[string]int64 `json:"redis_errors"`
		BreakerOpen    int64            `json:"breaker_open"`
		BreakerOpened  int64            `json:"breaker_opened"`
		DecisionHits   int64            `json:"decision_hits"`
		DecisionMisses int64            `json:"decision_misses"`
		AuthErrors     int64            `json:"auth_errors"`
		EventsLost     int64            `json:"events_lost"`
		Keys           int64            `json:"keys"`
	} `json:"counters"`
	Limits []struct {
		Name       string           `json:"name"`
		Key        string           `json:"key"`
		Window     int64            `json:"window_ms"`
		Limit      int64            `json:"limit"`
		Cost       int64            `json:"cost"`
		Tiers      map[string]int64 `json:"tiers"`
		Ranked     []string         `json:"ranked"`
		IPv6Subnet int              `json:"ipv6_subnet"`
	} `json:"limits"`
	Alone *struct {
		Since int64  `json:"since"`
		Kind  string `json:"kind"`
		Reply string `json:"reply"`
	} `json:"alone"`
}

// AwaitGateways waits until this many gateways live under the prefix: each has
// its connection to Redis then, and decides nothing by itself.
func (r *Redis) AwaitGateways(prefix string, count int) {
	r.t.Helper()
	Eventually(r.t, 20*time.Second, fmt.Sprintf("%d gateways live under %s", count, prefix), func() error {
		live, err := r.beats(prefix)
		if err == nil && len(live) != count {
			err = fmt.Errorf("%d live", len(live))
		}
		return err
	})
}

// Gateways returns what every live gateway says of everything it did until now.
// Two heartbeats after this moment have to pass: the first may have been made
// before it, and the second proves that the report of the first is in Redis.
func (r *Redis) Gateways(prefix string) []Gateway {
	r.t.Helper()
	asked := r.Now()
	first := map[string]float64{}
	var gateways []Gateway
	Eventually(r.t, 20*time.Second, "heartbeats", func() error {
		live, err := r.beats(prefix)
		if err != nil {
			return err
		}
		gateways = nil
		for _, beat := range live {
			instance := beat.Member.(string)
			if beat.Score <= float64(asked.Add(100*time.Millisecond).UnixMilli()) {
				return fmt.Errorf("%s has been silent since", instance)
			}
			if first[instance] == 0 {
				first[instance] = beat.Score
			}
			if beat.Score == first[instance] {
				return fmt.Errorf("%s has one heartbeat to go", instance)
			}
			gateway, err := r.report(prefix, instance)
			if err != nil {
				return err
			}
			gateways = append(gateways, gateway)
		}
		if len(gateways) == 0 {
			return fmt.Errorf("no gateway lives under %s", prefix)
		}
		return nil
	})
	return gateways
}

// Last returns the last report of every gateway that lives, by instance.
func (r *Redis) Last(prefix string) map[string]Gateway {
	r.t.Helper()
	live, err := r.beats(prefix)
	if err != nil {
		r.t.Fatal(err)
	}
	all := map[string]Gateway{}
	for _, beat := range live {
		instance := beat.Member.(string)
		if gateway, err := r.report(prefix, instance); err == nil {
			all[instance] = gateway
		} else if !errors.Is(err, redis.Nil) { // else it has ended meanwhile
			r.t.Fatal(err)
		}
	}
	return all
}

func (r *Redis) report(prefix, instance string) (gateway Gateway, err error) {
	report, err := r.Client.Get(context.Background(), prefix+":gw:"+instance).Bytes()
	if err != nil {
		return gateway, err
	}
	if err := json.Unmarshal(report, &gateway); err != nil {
		return gateway, fmt.Errorf("%w in %s", err, report)
	}
	return gateway, nil
}

// beats are the last heartbeats of those who live: who was silent for three
// seconds is kept for a while, but does not.
func (r *Redis) beats(prefix string) ([]redis.Z, error) {
	oldest := r.Now().Add(-3 * time.Second).UnixMilli()
	return r.Client.ZRangeByScoreWithScores(context.Background(), prefix+":gw:live", &redis.ZRangeBy{Min: fmt.Sprint(oldest), Max: "+inf"}).Result()
}

// Events speaks as authsvc does on `<prefix>:events`: a tick each half second,
// and what the test tells.
type Events struct {
	redis  *Redis
	prefix string
	speak  chan map[string]any
	spoken chan int64
}

// StartEvents starts the ticks; the test ends them.
func (r *Redis) StartEvents(t testing.TB, prefix string) *Events {
	t.Helper()
	e := &Events{redis: r, prefix: prefix, speak: make(chan map[string]any), spoken: make(chan int64)}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(500 * time.Millisecond)
		defer tick.Stop()
		for seq := 1; ; seq++ {
			event, said := map[string]any{"type": "tick"}, false
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			case event = <-e.speak:
				said = true
			}
			event["epoch"], event["seq"] = "00c0ffee00c0ffee", seq
			text, _ := json.Marshal(event)                                             // strings and numbers always marshal
			heard, _ := r.Client.Publish(ctx, prefix+":events", string(text)).Result() // Redis may be away on purpose
			if said {
				e.spoken <- heard
			}
		}
	}()
	t.Cleanup(func() {
		stop()
		<-ended
	})
	return e
}

// AwaitListeners waits until this many gateways listen.
func (e *Events) AwaitListeners(count int64) {
	e.redis.t.Helper()
	Eventually(e.redis.t, 10*time.Second, "gateways listen to events", func() error {
		heard, err := e.redis.Client.PubSubNumSub(context.Background(), e.prefix+":events").Result()
		if err == nil && heard[e.prefix+":events"] != count {
			err = fmt.Errorf("%v listen", heard)
		}
		return err
	})
}

// Say publishes an event in its turn and returns how many heard it.
func (e *Events) Say(event map[string]any) int64 {
	e.speak <- event
	return <-e.spoken
}
