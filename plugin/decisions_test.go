package plugin

import (
	"crypto/sha256"
	"strconv"
	"testing"
	"time"
)

// One client decides how many answers are kept of him: `Bearer` has 64
// spellings, each a credential of its own, and every refresh is a token more.
// Whatever their number, forgetting one must cost no more than any other:
// requests wait for the lock meanwhile.
func TestForgettingManyAnswersOfOneUser(t *testing.T) {
	const many = 100_000
	kept := func(capacity int, user func(i int) string) *decisions {
		stream := newEventStream(func() int64 { return 0 }, "events")
		d := newDecisions(&authSettings{cacheSize: capacity}, nil, stream)
		for i := range many {
			answer := &decision{key: sha256.Sum256([]byte(strconv.Itoa(i))), events: []string{userName(user(i)), tokenName(strconv.Itoa(i)), sessionName(user(i))}, fresh: 1}
			storeLocked(d, answer)
		}
		return d
	}
	timed := func(user func(i int) string) (revoked, crowded *decisions, took time.Duration) {
		begun := time.Now()
		revoked = kept(many, user)
		for i := range many {
			revoked.revoke(userName(user(i)))
		}
		crowded = kept(many/2, user)
		return revoked, crowded, time.Since(begun)
	}
	_, _, others := timed(strconv.Itoa)
	revoked, crowded, took := timed(func(int) string { return "mallory" })
	if took > 2*others {
		t.Errorf("%d answers of one user take %v, of as many users %v", many, took, others)
	}
	if len(revoked.memory.decisions) != 0 || len(revoked.named) != 0 {
		t.Errorf("%d answers and %d names are left", len(revoked.memory.decisions), len(revoked.named))
	}
	for _, answer := range revoked.ring {
		if answer.fresh != 0 {
			t.Fatal("a revoked answer is fresh")
		}
	}
	if len(crowded.memory.decisions) != many/2 || len(crowded.named[userName("mallory")]) != many/2 || len(crowded.named) != 2+many/2 {
		t.Errorf("%d answers, %d of the user, %d names", len(crowded.memory.decisions), len(crowded.named[userName("mallory")]), len(crowded.named))
	}
	for name, all := range crowded.named {
		for _, answer := range all {
			if crowded.memory.decisions[answer.key] != answer {
				t.Fatalf("%s names an answer that is not kept", name)
			}
		}
	}
}

// Each edit of the auth settings closes a cache, and the stream lives on: it must not
// keep all that were ever closed.
func TestClosedDecisionsAreForgotten(t *testing.T) {
	stream := newEventStream(func() int64 { return 0 }, "events")
	settings := &authSettings{cacheSize: 1, timeout: time.Second}
	open := func() *decisions {
		d := newDecisions(settings, newAuthClient(settings, "X-User-Id", nil), stream)
		storeLocked(d, &decision{events: []string{userName("ann")}, fresh: 1})
		return d
	}
	stays, goes := open(), open()
	goes.close()
	stream.message(`{"epoch":"e","seq":1,"type":"user","id":"ann"}`)
	if len(stays.memory.decisions) != 0 || stays.memory.state != stream.state.Load() {
		t.Error("the stream does not tell the one that is open")
	}
	if len(goes.memory.decisions) != 1 || goes.memory.state == stream.state.Load() {
		t.Error("the stream tells the one that is closed")
	}
	if len(stream.listeners) != 1 {
		t.Errorf("%d listen to the stream", len(stream.listeners))
	}
}
