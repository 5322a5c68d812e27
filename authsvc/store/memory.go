package store

import (
	"context"
	"maps"
	"sync"
	"time"
)

// maxRemembered bounds each kind of revocation in memory (I6). Beyond it some
// are dropped: Redis still knows them, only an outage would not.
const maxRemembered = 1 << 20

// memory holds the revocations this process has heard of. They only ever
// refuse, and they outlive the connection they came by: this is what "known
// revocations still hold" means while Redis is away.
type memory struct {
	mu       sync.RWMutex         // protects what follows
	tokens   map[string]time.Time // token id -> when it expires anyway
	sessions map[string]time.Time
	marks    map[string]mark // user -> before
}

type mark struct {
	before int64 // unix ms; tokens issued at or before it are void
	until  time.Time
}

func newMemory() memory {
	return memory{
		tokens:   make(map[string]time.Time),
		sessions: make(map[string]time.Time),
		marks:    make(map[string]mark),
	}
}

func (m *memory) revokeToken(id string, until time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	makeRoom(m.tokens)
	m.tokens[id] = until
}

func (m *memory) revokeSession(sid string, until time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	makeRoom(m.sessions)
	m.sessions[sid] = until
}

// voidBefore only moves a mark forward: an event that arrives late, or one
// replayed from before a failover, must not resurrect tokens.
func (m *memory) voidBefore(user string, before int64, until time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.marks[user].before >= before {
		return
	}
	makeRoom(m.marks)
	m.marks[user] = mark{before: before, until: until}
}

// judge adds what memory knows to a status.
func (m *memory) judge(q Question, s *Status) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if _, revoked := m.tokens[q.ID]; revoked {
		s.Revoked = true
	}
	if _, revoked := m.sessions[q.Session]; revoked && q.Session != "" {
		s.SessionRevoked = true
	}
	s.VoidBefore = max(s.VoidBefore, m.marks[q.User].before)
}

func makeRoom[V any](kind map[string]V) {
	for key := range kind {
		if len(kind) < maxRemembered {
			return
		}
		delete(kind, key)
	}
}

// forget drops what has expired.
func (s *Store) forget(ctx context.Context) {
	every := time.NewTicker(time.Minute)
	defer every.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-every.C:
			s.memory.expire(now)
		}
	}
}

func (m *memory) expire(now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	maps.DeleteFunc(m.tokens, func(_ string, until time.Time) bool { return now.After(until) })
	maps.DeleteFunc(m.sessions, func(_ string, until time.Time) bool { return now.After(until) })
	maps.DeleteFunc(m.marks, func(_ string, mark mark) bool { return now.After(mark.until) })
}

// snapshot copies everything, for telling a Redis that has lost it.
func (m *memory) snapshot() (tokens, sessions map[string]time.Time, marks map[string]mark) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return maps.Clone(m.tokens), maps.Clone(m.sessions), maps.Clone(m.marks)
}
