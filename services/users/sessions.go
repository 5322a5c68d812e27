package users

import (
	"slices"
	"sync"
)

// maxSessions is how many sessions one user may have open: enough for every
// device, and a bound on what one user can make this service remember.
const maxSessions = 16

// sessions knows the newest refresh token of every session begun here, because
// revoking it is how a session ends. Tokens rotate; sessions do not.
type sessions struct {
	mu     sync.Mutex          // protects what follows
	byUser map[string][]string // user id -> refresh tokens, oldest session first
	owner  map[string]string   // refresh token -> user id
}

func newSessions() *sessions {
	return &sessions{byUser: map[string][]string{}, owner: map[string]string{}}
}

// add notes a new session and returns the refresh token of the one that has to
// end for it, "" if there is room.
func (s *sessions) add(userID, token string) (oldest string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	open := s.byUser[userID]
	if len(open) == maxSessions {
		oldest, open = open[0], open[1:]
		delete(s.owner, oldest)
	}
	s.byUser[userID] = append(open, token)
	s.owner[token] = userID
	return oldest
}

// rotate replaces a session's token. A repeated refresh, which authsvc answers
// with the same pair within its grace, finds the old one gone and changes
// nothing.
func (s *sessions) rotate(old, fresh string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	userID, known := s.owner[old]
	if !known {
		return
	}
	delete(s.owner, old)
	s.owner[fresh] = userID
	open := s.byUser[userID]
	open[slices.Index(open, old)] = fresh
}

// of lists the refresh tokens of a user's sessions.
func (s *sessions) of(userID string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.byUser[userID])
}

// remove forgets a session that has ended.
func (s *sessions) remove(token string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	userID, known := s.owner[token]
	if !known {
		return
	}
	delete(s.owner, token)
	left := slices.DeleteFunc(s.byUser[userID], func(t string) bool { return t == token })
	if len(left) == 0 {
		delete(s.byUser, userID)
		return
	}
	s.byUser[userID] = left
}
