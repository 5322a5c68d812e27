package identity

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"
)

// latency is how long revocations took to be obeyed.
type latency struct {
	name  string
	bound time.Duration   // what the design allows, without the machine's slack
	took  []time.Duration // from before the revocation was asked for until a gateway answered 401
}

func (l *latency) quantile(q float64) time.Duration {
	return l.took[min(len(l.took)-1, int(q*float64(len(l.took))))]
}

// revocations measures how soon a revoked token is refused: at every gateway,
// by watchers that ask again and again with the token. Tokens and whole users
// are revoked in turn.
func revocations(b *bed, rounds int) []latency {
	return []latency{
		b.withEvents(rounds),
		b.withoutEvents("stream black-holed, not noticed yet", unheard, max(2, rounds/10), false),
		b.withoutEvents("stream known to be lost", lostFresh, max(2, rounds/10), true),
	}
}

func (b *bed) withEvents(rounds int) latency {
	l := latency{name: "with events", bound: time.Second}
	b.awaitStream()
	for round := range rounds {
		l.took = append(l.took, b.refusedAfter(fmt.Sprintf("soon-%d", round), round)...)
	}
	slices.Sort(l.took)
	return l
}

// withoutEvents holds the gateways' subscriptions up and revokes: at any moment
// before they can have noticed, or once they have.
func (b *bed) withoutEvents(name string, bound time.Duration, rounds int, noticed bool) latency {
	l := latency{name: name, bound: bound}
	for round := range rounds {
		b.awaitStream()
		lost := b.eventsLost()
		b.way.hold(subscribers)
		if noticed {
			b.awaitLoss(lost)
		} else {
			time.Sleep(rand.N(time.Second)) // a moment of its own, no state to wait for
		}
		l.took = append(l.took, b.refusedAfter(fmt.Sprintf("%s-%d", map[bool]string{false: "unheard", true: "lost"}[noticed], round), round)...)
		b.way.release()
	}
	b.awaitStream()
	slices.Sort(l.took)
	return l
}

// refusedAfter revokes a token that every gateway keeps, or all of its user's,
// and returns when each first refused it.
func (b *bed) refusedAfter(user string, round int) []time.Duration {
	t := b.t
	compact := b.known(user)
	took := make([]time.Duration, gateways)
	var watchers sync.WaitGroup
	begun := time.Now()
	for i := range gateways {
		watchers.Go(func() {
			answers, slowest := 0, time.Duration(0)
			for time.Since(begun) < unheard+2*slack {
				got, err := b.send("GET", b.ready.Gateways[i].HTTP+"/echo", compact, nil)
				if err == nil && got.Status == 401 {
					took[i] = time.Since(begun)
					return
				}
				if err != nil || got.Status != 200 {
					t.Errorf("gateway %d: %s %v", i+1, got, err)
					return
				}
				answers, slowest = answers+1, max(slowest, got.Took)
				time.Sleep(time.Millisecond) // the watchers' pace
			}
			t.Errorf("gateway %d never refused the token: %d answers, the slowest took %v", i+1, answers, slowest)
		})
	}
	asked := time.Now()
	if round%2 == 0 {
		b.revoke(round%replicas, compact)
	} else if got := b.admin(round%replicas, "/v1/users/"+user+"/revoke", nil); got.Status >= 300 {
		t.Errorf("%s", got)
	}
	watchers.Wait()
	for i := range took {
		took[i] -= asked.Sub(begun)
	}
	return took
}

// soon is the check of every run: no revocation took longer than is allowed.
func soon(t *testing.T, all []latency) {
	for _, l := range all {
		t.Logf("%s: %d answers, p50 %v, max %v", l.name, len(l.took), l.quantile(0.5), l.quantile(1))
		if l.quantile(1) > l.bound+slack {
			t.Errorf("%s: %v, allowed are %v", l.name, l.quantile(1), l.bound)
		}
	}
}
