package forms_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/test/harness"
)

// askedAbout counts the questions about a user's token so far.
func (a *fakeAuth) askedAbout(user string) (n int) {
	for _, header := range a.calls() {
		if header.Get("Authorization") == "Bearer user-"+user {
			n++
		}
	}
	return n
}

// keeps makes a gate that keeps what it is told of ann.
func (b *bed) keeps(config string, events *harness.Events) http.Handler {
	b.t.Helper()
	gate := b.gate(config)
	b.listening(gate, events)
	before := b.auth.askedAbout("ann")
	if got := statuses(gate, 3, as("ann")); got != "200 200 200" || b.auth.askedAbout("ann") != before+1 {
		b.t.Fatalf("%s, %d calls", got, b.auth.askedAbout("ann")-before)
	}
	return gate
}

// TestOvertakenAnswerIsNotKept: authsvc answers 200, the user is revoked, the
// gate hears of it, and only then the 200 arrives (design: event-stream).
func TestOvertakenAnswerIsNotKept(t *testing.T) {
	both(t, func(t *testing.T, b *bed) {
		events := b.redis.StartEvents(t, b.prefix)
		gate := b.gate(`{redis: REDIS, auth: {addresses: ["AUTH"], timeout: 20s}}`)
		b.listening(gate, events)
		leave := make(chan struct{})
		b.auth.judgeBy(func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Authorization") == "Bearer user-ann" {
				<-leave
			}
			judgeToken(w, r)
		})
		answered := make(chan int, 1)
		go func() { answered <- ask(gate, as("ann")).Code }()
		harness.Eventually(t, 10*time.Second, "the auth service is asked", func() error {
			if b.auth.askedAbout("ann") == 0 {
				return errors.New("not yet")
			}
			return nil
		})
		events.Say(map[string]any{"type": "user", "id": "ann", "before": time.Now().UnixMilli()})
		b.listening(gate, events) // what was said before has been taken in as well
		close(leave)
		if code := <-answered; code != 200 {
			t.Fatal(code)
		}
		if got := statuses(gate, 3, as("ann")); got != "200 200 200" || b.auth.askedAbout("ann") != 2 {
			t.Errorf("%s after %d calls, want 2: the overtaken answer and one more", got, b.auth.askedAbout("ann"))
		}
	})
}

// TestGapMakesDecisionsAskedAgain: an event is missing, so what it named is not
// known, and every kept decision is asked for again at its next use (design: event-stream).
func TestGapMakesDecisionsAskedAgain(t *testing.T) {
	both(t, func(t *testing.T, b *bed) {
		events := b.redis.StartEvents(t, b.prefix)
		for name, event := range map[string]string{
			"another epoch":            `{"epoch":"feedfacefeedface","seq":1,"type":"tick"}`,
			"a number that is missing": `{"epoch":"00c0ffee00c0ffee","seq":1000000,"type":"tick"}`,
			"a number that was there":  `{"epoch":"00c0ffee00c0ffee","seq":1,"type":"tick"}`,
		} {
			// Gates with equal auth sections share what is kept: each case has its own.
			gate := b.keeps(fmt.Sprintf(`{redis: REDIS, auth: {addresses: ["AUTH"], cacheSize: %d}}`, 1000+len(name)), events)
			before := b.auth.askedAbout("ann")
			if err := b.redis.Client.Publish(context.Background(), b.prefix+":events", event).Err(); err != nil {
				t.Fatal(err)
			}
			harness.Eventually(t, 5*time.Second, name, func() error {
				if got := statuses(gate, 1, as("ann")); got != "200" {
					return errors.New(got)
				}
				if b.auth.askedAbout("ann") == before {
					return errors.New("the decision is kept")
				}
				return nil
			})
		}
	})
}

// TestSilenceMakesDecisionsShortLived: with nothing heard for 1.5 s an answer
// serves for a second and no longer; a hot token costs one call a second.
func TestSilenceMakesDecisionsShortLived(t *testing.T) {
	waiting(t, func(t *testing.T, b *bed) {
		var gate http.Handler
		t.Run("heard", func(t *testing.T) { // the ticks end with it
			b := b.on(t)
			gate = b.keeps(`{redis: REDIS, auth: {addresses: ["AUTH"]}}`, b.redis.StartEvents(t, b.prefix))
		})
		again := func(more int, within time.Duration) {
			t.Helper()
			before := b.auth.askedAbout("ann")
			harness.Eventually(t, within, fmt.Sprintf("%d more calls", more), func() error {
				if got := statuses(gate, 1, as("ann")); got != "200" {
					return errors.New(got)
				}
				if n := b.auth.askedAbout("ann") - before; n < more {
					return fmt.Errorf("%d", n)
				}
				return nil
			})
		}
		again(1, 10*time.Second)
		before, since := b.auth.askedAbout("ann"), time.Now()
		again(2, 10*time.Second)
		if n, most := b.auth.askedAbout("ann")-before, 1+int(time.Since(since)/time.Second); n > most {
			t.Errorf("%d calls in %v, at most one a second", n, time.Since(since))
		}
	})
}

// TestCacheIsBounded: beyond cacheSize the oldest decision leaves, and its token
// is asked about again.
func TestCacheIsBounded(t *testing.T) {
	both(t, func(t *testing.T, b *bed) {
		events := b.redis.StartEvents(t, b.prefix)
		gate := b.keeps(`{redis: REDIS, auth: {addresses: ["AUTH"], cacheSize: 2}}`, events)
		for i := range 3 {
			user := fmt.Sprint("user", i)
			if got := statuses(gate, 2, as(user)); got != "200 200" || b.auth.askedAbout(user) != 1 {
				t.Errorf("%s: %s, %d calls", user, got, b.auth.askedAbout(user))
			}
		}
		for user, want := range map[string]int{"user2": 1, "ann": 2} {
			if got := statuses(gate, 1, as(user)); got != "200" || b.auth.askedAbout(user) != want {
				t.Errorf("%s: %s, %d calls, want %d", user, got, b.auth.askedAbout(user), want)
			}
		}
	})
}

// TestScopesAreKeptApart: a decision for one address, and so for the scope in
// it, is never used for another.
func TestScopesAreKeptApart(t *testing.T) {
	both(t, func(t *testing.T, b *bed) {
		b.auth.judgeBy(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Query().Get("scope") == "admin" {
				w.Header().Set("Vary", "Authorization")
				w.WriteHeader(http.StatusForbidden)
				return
			}
			judgeToken(w, r)
		})
		events := b.redis.StartEvents(t, b.prefix)
		plain := b.keeps(`{redis: REDIS, auth: {addresses: ["AUTH"]}}`, events)
		scoped := b.gate(`{redis: REDIS, auth: {addresses: ["AUTH?scope=admin"]}}`)
		before := b.auth.askedAbout("ann")
		if got := statuses(scoped, 2, as("ann")) + " " + statuses(plain, 2, as("ann")); got != "403 403 200 200" {
			t.Error(got)
		}
		if n := b.auth.askedAbout("ann") - before; n != 2 {
			t.Errorf("%d calls, want one for each refusal", n)
		}
	})
}
