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
	kept := func(capacity int) *decisions {
		stream := newEventStream(func() int64 { return 0 })
		d := newDecisions(&authSettings{cacheSize: capacity}, "X-User-Id", nil, stream, func() int64 { return 0 })
		for i := range many {
			answer := &decision{key: sha256.Sum256([]byte(strconv.Itoa(i))), user: "mallory", names: []string{userName("mallory"), tokenName(strconv.Itoa(i)), sessionName("s")}}
			answer.fresh.Store(1)
			d.keep(answer, stream.position())
		}
		return d
	}
	// As many answers of as many users take a tenth of a second.
	const bound = time.Second

	begun := time.Now()
	d := kept(many)
	d.revoke(userName("mallory"))
	if took := time.Since(begun); took > bound {
		t.Errorf("revoking a user with %d answers takes %v", many, took)
	}
	if len(d.entries) != 0 || len(d.named) != 0 {
		t.Errorf("%d answers and %d names are left", len(d.entries), len(d.named))
	}
	for _, answer := range d.ring {
		if answer.fresh.Load() != 0 {
			t.Fatal("a revoked answer is fresh")
		}
	}

	begun = time.Now()
	d = kept(many / 2)
	if took := time.Since(begun); took > bound {
		t.Errorf("%d answers of one user into room for half of them take %v", many, took)
	}
	if len(d.entries) != many/2 || len(d.named[userName("mallory")]) != many/2 || len(d.named) != 2+many/2 {
		t.Errorf("%d answers, %d of the user, %d names", len(d.entries), len(d.named[userName("mallory")]), len(d.named))
	}
	for name, all := range d.named {
		for _, answer := range all {
			if d.entries[answer.key] != answer {
				t.Fatalf("%s names an answer that is not kept", name)
			}
		}
	}
}
