package identity

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/test/harness"
)

const (
	// unheard is how long a revocation may go unnoticed by a gateway that hears
	// nothing (design: event-stream): 1.5 s of silence, noticed at most 250 ms later; what was
	// kept is fresh for a second then.
	unheard = 2750 * time.Millisecond
)

// subscribersKilled: Redis closes every subscription, as it does with a slow
// one, again and again. Nobody is refused, and a revocation of that very moment
// is heard of or asked about.
func subscribersKilled(b *bed) {
	t := b.t
	known := b.known("bystander")
	traffic := b.steadily(10*time.Millisecond, "/echo", known)
	for round := range 5 {
		victim := b.known(fmt.Sprintf("killed-%d", round))
		b.killSubscribers()
		b.revoke(round%replicas, victim)
		b.everywhere(unheard+slack, "/echo", victim, 401)
		b.awaitStream()
		b.stays(victim)
	}
	traffic.end(t, "bystander")
}

func (b *bed) killSubscribers() {
	b.t.Helper()
	killed, err := b.redis.Client.Do(context.Background(), "CLIENT", "KILL", "TYPE", "pubsub").Int()
	if err == nil && killed < gateways+replicas {
		err = fmt.Errorf("only %d subscribers", killed)
	}
	if err != nil {
		b.t.Fatal(err)
	}
}

// stays demands that a refused token is not let in again.
func (b *bed) stays(compact string) {
	b.t.Helper()
	for i := range 5 * gateways {
		if got := b.get(i%gateways, "/echo", compact); got.Status != 401 {
			b.t.Errorf("gateway %d: %s", i%gateways+1, got)
		}
	}
}

// eventsSilent: the gateways' subscriptions are black-holed; no FIN, no error.
func eventsSilent(b *bed) {
	t := b.t
	known, early, late := b.known("bystander-2"), b.known("silent-early"), b.known("silent-late")
	traffic := b.steadily(10*time.Millisecond, "/echo", known)
	lost := b.eventsLost()
	b.way.hold(subscribers)
	defer b.way.release()
	b.revoke(0, early)
	b.everywhere(unheard+slack, "/echo", early, 401)
	b.awaitLoss(lost)
	b.revoke(1, late) // while the stream is known to be lost
	b.everywhere(lostFresh+slack, "/echo", late, 401)
	b.way.release()
	b.awaitStream()
	b.stays(early)
	b.stays(late)
	if slowest := traffic.end(t, "bystander-2"); slowest > bound {
		t.Errorf("a request took %v", slowest)
	}
}

// lostFresh is how long an answer is fresh while the stream is lost.
const lostFresh = time.Second

// eventsLost is how often each gateway has lost the stream.
func (b *bed) eventsLost() map[string]int64 {
	b.t.Helper()
	lost := map[string]int64{}
	for _, gateway := range b.redis.Gateways(prefix) {
		lost[gateway.Instance] = gateway.Counters.EventsLost
	}
	return lost
}

// awaitLoss waits until every gateway has lost the stream once more.
func (b *bed) awaitLoss(before map[string]int64) {
	b.t.Helper()
	harness.Eventually(b.t, 10*time.Second, "every gateway has noticed", func() error {
		for instance, n := range b.eventsLost() {
			if n <= before[instance] {
				return errors.New(instance + " has not")
			}
		}
		return nil
	})
}

// revokedOnTheWay is schedule (a) of design: event-stream at each gateway: authsvc says yes,
// the token is revoked, the event reaches the gateway, and then the yes does.
func revokedOnTheWay(b *bed) {
	t := b.t
	for i := range gateways {
		t.Run(fmt.Sprintf("gateway %d", i+1), func(t *testing.T) {
			b := b.on(t)
			victim, witness := b.issue(0, fmt.Sprintf("overtaken-%d", i), time.Hour), b.known(fmt.Sprintf("witness-%d", i))
			b.slow.hold(everyone)
			defer b.slow.release()
			answered := make(chan reply, 1)
			go func() {
				got, err := b.send("GET", b.ready.Gateways[i].HTTP+"/slow", victim, nil)
				if err != nil {
					t.Error(err)
				}
				answered <- got
			}()
			harness.Eventually(t, 10*time.Second, "authsvc has answered", func() error {
				if b.slow.holding() == 0 {
					return errors.New("nothing held")
				}
				return nil
			})
			b.revoke(1, victim)
			// Events come in order: once the gateway has heard the witness's, it
			// has heard the victim's.
			b.revoke(1, witness)
			harness.Eventually(t, 5*time.Second, "the event is heard", func() error { return b.wants(i, "/echo", witness, 401) })
			b.slow.release()
			if got := <-answered; got.Status != 200 && got.Status != 401 {
				t.Errorf("the request on the way: %s", got)
			}
			for range 5 {
				if got := b.get(i, "/slow", victim); got.Status != 401 {
					t.Errorf("a yes that a revocation has overtaken was kept: %s", got)
				}
			}
		})
	}
}

// replicasDisagree: one replica, the first that gateways ask, is cut off from
// Redis. What it knew stays refused; of what is revoked meanwhile it learns
// when it is back, and no gateway keeps what it said for longer.
func replicasDisagree(b *bed) {
	t := b.t
	before, during, known := b.known("disagree-before"), b.known("disagree-during"), b.known("agree")
	b.revoke(1, before)
	b.everywhere(slack, "/echo", before, 401)
	traffic := b.steadily(10*time.Millisecond, "/echo", known)
	b.backs[0].cut()
	defer b.backs[0].mend()
	harness.Eventually(t, 10*time.Second, "the replica notices", func() error {
		if got := b.admin(0, "/v1/tokens", map[string]any{"user_id": "nobody"}); got.Status != 503 || got.Header.Get("Retry-After") == "" {
			return fmt.Errorf("%s", got)
		}
		return nil
	})
	b.stays(before)
	b.revoke(1, during)
	admitted := 0
	for i := range 10 * gateways {
		if b.get(i%gateways, "/echo", during).Status == 200 {
			admitted++
		}
	}
	t.Logf("a token revoked at another replica: the one without Redis lets %d of %d requests in", admitted, 10*gateways)
	b.backs[0].mend()
	b.everywhere(5*time.Second, "/echo", during, 401)
	b.stays(before)
	traffic.end(t, "agree")
}
