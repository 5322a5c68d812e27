package plugin

import (
	"net/http"
	"reflect"
	"sync/atomic"

	"github.com/sluice-gateway/sluice/plugin/limit"
)

// visit is a request at the gate: what ServeHTTP hands to attend, and what comes back.
type visit struct {
	gate *gate
	w    http.ResponseWriter
	r    *http.Request

	key      memoryKey // by what memory would know such requests
	pass     *pass     // what is known of them; what was asked, where one is refused before it is known who asks
	answers  []limit.Answer
	spending limit.Spending
	holds    []hold
	verdict  limit.Verdict
	fresh    bool     // the pass was found out for it
	asked    bool     // Redis was, about what memory did not tell
	granted  bool     // and all limits have
	again    bool     // it comes once more, with what was found out
	no       *refusal // for another reason than what limits say

	out     http.Header
	unknown bool // memory does not tell all that has to be known (inquire.go)
	clear   bool // it may go on, and nothing else has to be seen to
	watched bool // and its answer is to be watched (response.go)
	status  int  // of the answer that it gets instead; 0 where there is none
	body    []byte

	lent bool // of mostVisits
	done chan bool
}

// The ways of visits, where a request does not see to itself. (The type that is
// written out is for Yaegi, which has read other files before this one.)
var (
	resident  bool         = reflect.TypeOf(gate{}).Name() == "" // the interpreter's types have no names
	visits                 = make(chan *visit, mostVisits)       // that no request has
	arrivals               = make(chan *visit, mostVisits)       // for who attends
	inquiries              = make(chan *visit, 2*mostIdle)
	idle      atomic.Int64 // how many wait for one: whoever takes one off sends one
)

// mostVisits are attended to or wait for it; other requests wait for a visit. One that
// may take its time, for Redis, the auth service or a client, leaves with its visit,
// and another takes its place.
const mostVisits = 32

// mostIdle is about how many wait for the next inquiry; others end. (A select would
// tell as well whether somebody does, but of those Yaegi runs each in one goroutine
// at a time.)
const mostIdle = 128

// seat is where one who attends or inquires works.
type seat struct {
	visit     *visit
	spender   *limit.Spender // to who spends for him
	questions chan *question // to who puts them to the auth service for him
}

// newVisit is one to be lent.
func newVisit() *visit {
	v := &visit{done: make(chan bool, 1), lent: true}
	v.spending.Done = make(chan bool, 1)
	return v
}
