package store

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/redis/go-redis/v9"
)

// A user is noted with what his last token said of him, for operators alone: to
// tell a misspelt name from a user, and which tier's limit is his. Nothing that
// is decided on a request is read from here, so a note may be lost.

// note is one user's entry, waiting to be written.
type note struct {
	key, text string
	life      time.Duration
}

// maxNotes bounds how many wait; beyond it they are dropped.
const maxNotes = 1024

// noteOf says what a token tells of its user. A session can have new tokens as
// long as it lives, of which a foreign issuer's token says nothing.
func (s *Store) noteOf(q Question) (note, error) {
	headers := make(map[string]string)
	for _, header := range q.Headers {
		headers[header[0]] = header[1]
	}
	text, err := json.Marshal(headers)
	if err != nil {
		return note{}, err
	}
	life := time.Until(q.Expires)
	if q.Session != "" {
		life = s.markLife()
	}
	return note{s.noteKey(q.User), string(text), life}, nil
}

// noteLater is for a token that Redis had not seen before. The request that
// brought it does not wait.
func (s *Store) noteLater(q Question) {
	n, err := s.noteOf(q)
	if err != nil || n.life < time.Millisecond {
		return
	}
	select {
	case s.notes <- n:
	default:
	}
}

// notesTogether is how long a note waits for others, and mostTogether how many are
// written at once. A round trip for each took authsvc a tenth of what a new token
// costs it.
const (
	notesTogether = 100 * time.Millisecond
	mostTogether  = 256
)

// writeNotes writes what noteLater has left, until ctx ends.
func (s *Store) writeNotes(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case n := <-s.notes:
			notes := s.moreNotes(ctx, n)
			_ = s.breaker.do(ctx, s.patience(), unanswered, func(ctx context.Context) error { // notes may be lost
				_, err := s.redis.Pipelined(ctx, func(p redis.Pipeliner) error {
					for _, n := range notes {
						p.Set(ctx, n.key, n.text, n.life)
					}
					return nil
				})
				return err
			})
		}
	}
}

// moreNotes waits for the notes that are written with the first.
func (s *Store) moreNotes(ctx context.Context, first note) []note {
	notes := []note{first}
	enough := time.NewTimer(notesTogether)
	defer enough.Stop()
	for len(notes) < mostTogether {
		select {
		case n := <-s.notes:
			notes = append(notes, n)
			continue
		case <-enough.C:
		case <-ctx.Done():
		}
		break
	}
	return notes
}

// User returns the headers that the user's last token became. known is false
// for one of whom no living token was issued or seen.
func (s *Store) User(ctx context.Context, user string) (headers map[string]string, known bool, err error) {
	var text string
	err = s.call(ctx, func(ctx context.Context) (err error) {
		text, err = s.redis.Get(ctx, s.noteKey(user)).Result()
		if known = err == nil; errors.Is(err, redis.Nil) {
			err = nil
		}
		return err
	})
	if err != nil || !known {
		return nil, false, err
	}
	_ = json.Unmarshal([]byte(text), &headers) // what others wrote there says nothing
	return headers, true, nil
}
