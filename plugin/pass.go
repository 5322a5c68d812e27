package plugin

import (
	"math"
	"sync"
	"sync/atomic"

	"github.com/sluice-gateway/sluice/plugin/limit"
)

// pass is what is known of the requests of one kind: those with one credential, and
// where the configuration goes by more, from one address and with the same values of
// some headers (prepare). It never changes once memory has it, and holds nothing but
// what can be found out again (inquire.go).
type pass struct {
	key   memoryKey // where memory has it
	who   *decision // nobody, where no credential was judged
	until int64     // monotonic ns: it stands as long as memory has it, but no longer

	names  []string // of the headers that tell the service of the user
	values [][]string

	rules   []*limitRule  // the limits that apply, in configured order
	asks    []limit.Ask   // what is asked of each
	handles *limit.Handle // where: in memory
	policy  []string      // RateLimit-Policy, as a header's values
	awaited bool          // the answer decides whether some permit counts

	passed *atomic.Int64 // counts those who get through by it
}

// nobody is who was not judged. What is known of him stands for ever.
var nobody = &decision{}

const forever = int64(math.MaxInt64)

// memory is what requests look up: passes, and the decisions that they come of. A
// pass that is in it stands, until its time: what ends it takes it out.
type memory struct {
	mu        sync.RWMutex
	state     int64 // of the stream of revocations (events.go)
	passes    map[memoryKey]*pass
	age       int64 // how often all passes were forgotten
	decisions map[memoryKey]*decision
}

// mostPasses bounds them, to some 8 MB. Beyond it all are found out anew.
const mostPasses = 1 << 14

func newMemory() *memory {
	return &memory{passes: map[memoryKey]*pass{}, decisions: map[memoryKey]*decision{}}
}

// bindLocked has a pass that is to be kept end with its decision.
func bindLocked(m *memory, key memoryKey, p *pass) {
	who := p.who
	p.until = standsUntil(who, m.state)
	if who.age != m.age {
		who.kinds = nil
		who.age = m.age
	}
	if old := m.passes[key]; old == nil || old.who != who {
		who.kinds = append(who.kinds, key)
	}
}

func (m *memory) forgetPassesLocked() {
	m.passes = map[memoryKey]*pass{}
	m.age++
}

// forget drops all passes, since the stream of revocations has come to another
// state.
func (m *memory) forget(state int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.state = state
	m.forgetPassesLocked()
}

// end takes out a decision, and the passes that came of it.
func (m *memory) end(old *decision) {
	m.mu.Lock()
	defer m.mu.Unlock()
	old.fresh = 0
	if m.decisions[old.key] == old {
		delete(m.decisions, old.key)
	}
	if old.age == m.age {
		for _, key := range old.kinds {
			delete(m.passes, key)
		}
	}
	old.kinds = nil
}

// drop has the requests of a pass found out anew.
func (m *memory) drop(p *pass) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.passes[p.key] == p {
		m.passes[p.key] = &pass{who: p.who} // its decision lists the key already
	}
}
