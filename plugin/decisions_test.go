package plugin

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/plugin/config"
)

// One client decides how many answers are kept of him: `Bearer` has 64
// spellings, each a credential of its own, and every refresh is a token more.
// Whatever their number, forgetting one must cost no more than any other:
// requests wait for the lock meanwhile.
func TestForgettingManyAnswersOfOneUser(t *testing.T) {
	const many = 50_000
	kept := func(capacity int, user func(i int) string) *decisions {
		auth := &answering{}
		d := newDecisions(&config.AuthSettings{CacheSize: capacity}, auth.client(), newEventStream(clock, "events"))
		for i := range many {
			auth.header = http.Header{"X-User-Id": {user(i)}, "X-Token-Id": {strconv.Itoa(i)}, "X-Session-Id": {user(i)}}
			known(d, strconv.Itoa(i))
		}
		return d
	}
	timed := func(user func(i int) string) (revoked, crowded *decisions, took time.Duration) {
		revoked = kept(many, user)
		begun := time.Now()
		for i := range many {
			revoked.revoke(userName(user(i)))
		}
		took = time.Since(begun)
		return revoked, kept(many/5, user), took
	}
	_, _, others := timed(strconv.Itoa)
	revoked, crowded, took := timed(func(int) string { return "mallory" })
	if took > 3*others {
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
	if len(crowded.memory.decisions) != many/5 || len(crowded.named[userName("mallory")]) != many/5 || len(crowded.named) != 2+many/5 {
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
	open := func() *decisions {
		auth := &answering{header: http.Header{"X-User-Id": {"ann"}}}
		d := newDecisions(&config.AuthSettings{CacheSize: 1}, auth.client(), stream)
		known(d, "a token")
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

// answering is an auth service that says the same to all.
type answering struct {
	header http.Header
	calls  int
}

func (a *answering) RoundTrip(*http.Request) (*http.Response, error) {
	a.calls++
	a.header["Vary"] = []string{"Authorization"}
	a.header["Cache-Control"] = []string{"max-age=60"}
	return &http.Response{StatusCode: http.StatusOK, Header: a.header, Body: http.NoBody}, nil
}

func (a *answering) client() *authClient {
	return &authClient{
		addresses: []*authAddress{{request: httptest.NewRequest("GET", "/", nil), trouble: &trouble{}}}, userHeader: "X-User-Id",
		transport: a, timeout: time.Second, closed: make(chan struct{}),
	}
}

// known has a token judged.
func known(d *decisions, token string) {
	takeBench(&question{decisions: d, r: &http.Request{URL: &url.URL{}}, credential: token}, nil)
}

// A request may have looked into memory before the call for its token ended, and
// want to ask after that.
func TestNobodyAsksTwice(t *testing.T) {
	auth := &answering{header: http.Header{"X-User-Id": {"ann"}}}
	d := newDecisions(&config.AuthSettings{CacheSize: 1}, auth.client(), newEventStream(clock, "events"))
	d.memory.state = d.stream.state.Load()
	known(d, "a token")
	known(d, "a token")
	if auth.calls != 1 {
		t.Errorf("%d calls for one token", auth.calls)
	}
}
