package plugin

import (
	"encoding/json"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluice-gateway/sluice/plugin/config"
	"github.com/sluice-gateway/sluice/plugin/redis"
	"github.com/sluice-gateway/sluice/plugin/wait"
)

// eventStream hears of revocations on Redis's channel <prefix>:events and
// knows whether it may have missed any.
//
// Every event carries the epoch of the counter that numbers it and its number;
// authsvc publishes a tick each 500 ms. The stream is lost on a gap, another
// epoch, 1.5 s of silence, or when the connection says so: a subscription can
// be black-holed without any error, and Redis drops a slow subscriber
// (design: event-stream). What was kept before a loss is checked again.
type eventStream struct {
	clock   func() int64
	channel string

	// state is even while the stream is whole and odd while it is lost; it
	// grows with each change, so equal even states mean that nothing was
	// missed between.
	state  atomic.Int64
	losses atomic.Int64

	revocations atomic.Int64 // heard so far

	mu        sync.Mutex
	epoch     string
	seq       int64
	heard     int64 // monotonic ns of the last event
	silent    bool  // and it was said that none came since
	recent    []revocation
	first     int64       // how many came before recent[0]
	listeners []*listener // never edited, but made anew: they are told without mu

	saying sync.Mutex // keeps the lines in the order of what they tell
	once   sync.Once  // guards the start
	log    func(level, message string)
	stop   chan struct{}
	done   sync.WaitGroup
	end    func() // of the subscription; nil before the start
}

// listener is told what happens to the stream.
type listener struct {
	revoked func(name string) // of all that is revoked
	changed func()            // after each change of the state
}

// revocation is an event of the last keepRevocations.
type revocation struct {
	name string
	at   int64
}

const (
	longestSilence  = int64(1500e6)
	keepRevocations = int64(10e9)
	mostRevocations = 1 << 16 // I6; whoever asked before the oldest asks again
	largestEvent    = 1 << 10
)

// event is one message (design: events-wire). Unknown types and fields are ignored.
type event struct {
	Epoch string `json:"epoch"`
	Seq   int64  `json:"seq"`
	Type  string `json:"type"`
	ID    string `json:"id"`
}

func tokenName(id string) string   { return "token " + id }
func userName(id string) string    { return "user " + id }
func sessionName(id string) string { return "session " + id }

func newEventStream(clock func() int64, channel string) *eventStream {
	s := &eventStream{clock: clock, channel: channel, stop: make(chan struct{})}
	s.state.Store(1)
	return s
}

// follow subscribes, once: whoever keeps no decisions needs no right to listen.
// close ends it.
func (s *eventStream) follow(client *redis.Client, log func(level, message string)) {
	s.once.Do(func() {
		s.log = log
		s.end = client.Subscribe(s.channel, s.message, s.lose)
		s.done.Add(1)
		go s.watch()
	})
}

func (s *eventStream) close() {
	if s.end == nil {
		return
	}
	s.end()
	close(s.stop)
	s.done.Wait()
}

// watch notices silence.
func (s *eventStream) watch() {
	defer s.done.Done()
	ticker := time.NewTicker(250 * time.Millisecond)
	defer ticker.Stop()
	for {
		if wait.First(ticker.C, s.stop) == 1 {
			return
		}
		s.saying.Lock()
		s.mu.Lock()
		news := s.clock()-s.heard > longestSilence && !s.silent
		if news {
			s.silent = true
			s.loseLocked()
		}
		s.mu.Unlock()
		if news {
			s.tellChange()
			s.log("warn", "no events from authsvc on "+s.channel+" for 1.5 s: what is known of a token is checked again at each use")
		}
		s.saying.Unlock()
	}
}

// whole tells whether the stream is whole in the given state.
func whole(state int64) bool { return state%2 == 0 }

func (s *eventStream) lost() bool { return !whole(s.state.Load()) }

// lose notes that events may have been missed from now on.
func (s *eventStream) lose() {
	s.mu.Lock()
	s.loseLocked()
	s.mu.Unlock()
	s.tellChange()
}

// listen has a listener told, of the present state at once.
func (s *eventStream) listen(l *listener) {
	s.mu.Lock()
	s.listeners = append(s.listenersButLocked(l), l)
	s.mu.Unlock()
	l.changed()
}

// unlisten has it told no more.
func (s *eventStream) unlisten(l *listener) {
	s.mu.Lock()
	s.listeners = s.listenersButLocked(l)
	s.mu.Unlock()
}

func (s *eventStream) listenersButLocked(l *listener) []*listener {
	others := []*listener{}
	for _, other := range s.listeners {
		if other != l {
			others = append(others, other)
		}
	}
	return others
}

func (s *eventStream) tellChange() {
	s.mu.Lock()
	listeners := s.listeners
	s.mu.Unlock()
	for _, l := range listeners {
		l.changed()
	}
}

func (s *eventStream) loseLocked() {
	if !s.lost() {
		s.state.Add(1)
		s.losses.Add(1)
	}
}

// message takes one event.
func (s *eventStream) message(payload string) {
	var e event
	if len(payload) > largestEvent || json.Unmarshal([]byte(payload), &e) != nil || e.Epoch == "" {
		return
	}
	name := ""
	switch e.Type {
	case "token":
		name = tokenName(e.ID)
	case "user":
		name = userName(e.ID)
	case "session":
		name = sessionName(e.ID)
	}
	s.mu.Lock()
	before := s.state.Load()
	if e.Epoch != s.epoch || e.Seq != s.seq+1 {
		s.loseLocked()
	}
	s.epoch = e.Epoch
	s.seq = e.Seq
	s.heard = s.clock()
	if name != "" {
		s.rememberLocked(name)
	}
	if s.lost() {
		s.state.Add(1)
	}
	listeners, again, changed := s.listeners, s.silent, s.state.Load() != before
	s.silent = false
	s.mu.Unlock()
	if changed {
		s.tellChange()
	}
	if again {
		s.saying.Lock() // silent was set before its line was written
		s.log("info", "events from authsvc come again: what is known of a token holds until it is revoked")
		s.saying.Unlock()
	}
	if name != "" {
		for _, l := range listeners {
			l.revoked(name)
		}
	}
}

// rememberLocked keeps the revocation for those whose call is under way.
func (s *eventStream) rememberLocked(name string) {
	old := 0
	for old < len(s.recent) && (s.heard-s.recent[old].at > keepRevocations || len(s.recent)-old >= mostRevocations) {
		old++
	}
	s.recent = append(s.recent[old:], revocation{name: name, at: s.heard})
	s.first += int64(old)
	s.revocations.Add(1)
}

// revokedSince tells whether one of the names was revoked after the position
// was taken from revocations, as far as the memory reaches.
func (s *eventStream) revokedSince(position int64, names []string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if position < s.first {
		return true // older than the memory: assume the worst
	}
	for _, r := range s.recent[position-s.first:] {
		if config.Contains(names, r.name) {
			return true
		}
	}
	return false
}
