package redis

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// Stats are cumulative since New.
type Stats struct {
	Calls       int64            // written, or about to be
	Errors      map[string]int64 // by Kind: calls that ended badly, connections that could not be made or were lost
	Reconnects  int64            // connections made after a node's first
	BreakerOpen bool             // for at least one node, or there is none

	BreakerOpened int64 // how often the client ceased to be healthy
}

// A journal counts what happens and lets the operator know: of each kind at
// once, then at most one line a minute for as long as nothing gets better. A
// connection that was made is better; of what comes after it at most one line a
// second is written.
type journal struct {
	write func(level, message string) // nil: nobody listens
	away  atomic.Int64                // counted apart: during an outage every call is one
	opens atomic.Int64

	mu         sync.Mutex
	errors     map[string]int64
	reconnects int64
	lines      map[string]*line
	better     time.Time // the last connection was made
}

const (
	restateAfter = time.Minute
	shortestRest = time.Second
)

// A line is one kind of message and when it was last written.
type line struct {
	at      time.Time
	skipped int
}

func newJournal(write func(level, message string)) *journal {
	return &journal{write: write, errors: map[string]int64{}, lines: map[string]*line{}}
}

// failed counts one error.
func (j *journal) failed(err error) { j.count(err, 1) }

func (j *journal) count(err error, n int) {
	kind := Kind(err)
	j.mu.Lock()
	j.errors[kind] += int64(n)
	j.mu.Unlock()
}

func (j *journal) connected(address string, again bool) {
	j.mu.Lock()
	if again {
		j.reconnects++
	}
	j.better = time.Now()
	j.mu.Unlock()
	j.log("info", "connected", "connected to "+address)
}

// log writes a line unless one of its kind is news still.
func (j *journal) log(level, kind, message string) {
	if j.write == nil {
		return
	}
	now := time.Now()
	j.mu.Lock()
	l := j.lines[level+kind]
	if l == nil {
		l = &line{}
		j.lines[level+kind] = l
	}
	if age := now.Sub(l.at); age < shortestRest || age < restateAfter && l.at.After(j.better) {
		l.skipped++
		j.mu.Unlock()
		return
	}
	if l.skipped > 0 {
		message = fmt.Sprintf("%s (and %d more of the kind)", message, l.skipped)
	}
	l.at, l.skipped = now, 0
	j.mu.Unlock()
	j.write(level, message)
}

// report is log for a panic.
func (j *journal) report(level, message string) { j.log(level, "panic", message) }

func (j *journal) stats() Stats {
	j.mu.Lock()
	defer j.mu.Unlock()
	s := Stats{Errors: map[string]int64{}, Reconnects: j.reconnects, BreakerOpened: j.opens.Load()}
	for kind, n := range j.errors {
		s.Errors[kind] = n
	}
	if away := j.away.Load(); away > 0 {
		s.Errors["away"] += away
	}
	return s
}
