package redis

import (
	"fmt"
	"runtime/debug"
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

// A monitor counts what happens and lets the operator know: of each kind at
// once, then at most one line a minute for as long as nothing gets better. A
// connection that was made is better; of what comes after it at most one line a
// second is written.
type monitor struct {
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
	maxStack     = 2 << 10 // bytes of a panic's stack
)

// A line is one kind of message and when it was last written.
type line struct {
	at      time.Time
	skipped int
}

func newMonitor(write func(level, message string)) *monitor {
	return &monitor{write: write, errors: map[string]int64{}, lines: map[string]*line{}}
}

// failed counts one error.
func (m *monitor) failed(err error) { m.count(err, 1) }

func (m *monitor) count(err error, n int) {
	kind := Kind(err)
	m.mu.Lock()
	m.errors[kind] += int64(n)
	m.mu.Unlock()
}

func (m *monitor) connected(address string, again bool) {
	m.mu.Lock()
	if again {
		m.reconnects++
	}
	m.better = time.Now()
	m.mu.Unlock()
	m.log("info", "connected", "connected to "+address)
}

// log writes a line unless one of its kind is news still.
func (m *monitor) log(level, kind, message string) {
	if m.write == nil {
		return
	}
	now := time.Now()
	m.mu.Lock()
	l := m.lines[level+kind]
	if l == nil {
		l = &line{}
		m.lines[level+kind] = l
	}
	if age := now.Sub(l.at); age < shortestRest || age < restateAfter && l.at.After(m.better) {
		l.skipped++
		m.mu.Unlock()
		return
	}
	if l.skipped > 0 {
		message = fmt.Sprintf("%s (and %d more of the kind)", message, l.skipped)
	}
	l.at, l.skipped = now, 0
	m.mu.Unlock()
	m.write(level, message)
}

// report is log for a panic.
func (m *monitor) report(level, message string) { m.log(level, "panic", message) }

func (m *monitor) stats() Stats {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := Stats{Errors: map[string]int64{}, Reconnects: m.reconnects, BreakerOpened: m.opens.Load()}
	for kind, n := range m.errors {
		s.Errors[kind] = n
	}
	if away := m.away.Load(); away > 0 {
		s.Errors["away"] += away
	}
	return s
}

// panicked reports a panic and makes an error of it: in a plugin, a goroutine
// that panics takes Traefik with it.
func panicked(who string, value interface{}, report func(level, message string)) error {
	err := fmt.Errorf("redis: panic in %s: %v", who, value)
	report("error", err.Error()+"\n"+clip(string(debug.Stack()), maxStack))
	return err
}
