package plugin

import (
	"crypto/sha256"
	"net/http"
)

// decision is one 2xx answer.
type decision struct {
	key     memoryKey // of the credential
	user    string
	limited string      // the user as a limit's key
	headers http.Header // for the service: auth.responseHeaders
	names   []string    // the same, as a pass has them
	values  [][]string
	events  []string // what events.go may call it
	places  []int    // where decisions.named lists it, for each of them; under its mu

	sent  int64 // monotonic ns: ages count from when the call was sent
	fresh int64 // monotonic ns until which it is served; 0 once it is forgotten. Under memory.mu once it is kept
	stale int64 // monotonic ns until which it is served while the service is away
	since int64 // the stream's state when the call was sent

	kinds []memoryKey // of the passes that came of it, since memory had the age; under memory.mu
	age   int64
}

// lostFreshness is how long an answer is fresh while the event stream is lost.
const lostFreshness = int64(1e9)

// standsUntil is how long a decision is served while the stream stays in the given
// state: where events may have been missed since it was asked for not at all, or for
// a second while the stream is lost.
func standsUntil(d *decision, state int64) int64 {
	lost := d.sent + lostFreshness
	switch {
	case whole(state) && d.since == state || !whole(state) && d.fresh < lost:
		return d.fresh
	case whole(state):
		return 0
	}
	return lost
}

// memoryKey is a SHA-256: of the whole credential, or of all that makes a kind of
// requests. What clients prove themselves by is not kept.
type memoryKey [sha256.Size]byte
