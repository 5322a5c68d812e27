package store

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// tickEvery is how often each replica says that the stream lives, and
// streamSilence how long a listener believes it without a word (design: event-stream): a
// black-holed connection sends no FIN, and after a failover the old master
// still answers PING.
const (
	tickEvery     = 500 * time.Millisecond
	streamSilence = 1500 * time.Millisecond
)

// event is one message of the channel. Types: tick; token and session with an
// id; user with an id and the mark; keys when signing keys have changed.
// Listeners ignore types they do not know.
type event struct {
	Epoch  string `json:"epoch,omitempty"`
	Seq    int64  `json:"seq,omitempty"`
	Type   string `json:"type"`
	ID     string `json:"id,omitempty"`
	Before int64  `json:"before,omitempty"`
}

// announce numbers and publishes an event in one step, so that no listener
// ever sees two events in another order than their numbers.
//
//	KEYS[1] <prefix>:evt
//	ARGV[1] channel
//	ARGV[2] 16 hex digits: the epoch, if the counter does not exist
//	ARGV[3] the event's members after epoch and seq, as JSON without braces
//
// A counter that was lost starts again under a new epoch, so that number 1 of
// now cannot be taken for the successor of a number of then.
var announce = redis.NewScript(`
local epoch = redis.call('HGET', KEYS[1], 'epoch')
if not epoch then
  epoch = ARGV[2]
  redis.call('HSET', KEYS[1], 'epoch', epoch, 'seq', 0)
end
local seq = redis.call('HINCRBY', KEYS[1], 'seq', 1)
local head = string.format('{"epoch":"%s","seq":%.0f,', epoch, seq)
redis.call('PUBLISH', ARGV[1], head .. ARGV[3] .. '}')
return seq
`)

func (s *Store) publish(ctx context.Context, e event) error {
	// Without escaping for HTML an event stays below 1 KiB for every user id.
	var members bytes.Buffer
	encoder := json.NewEncoder(&members)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(e); err != nil {
		return err
	}
	inner := strings.TrimSuffix(strings.TrimPrefix(members.String(), "{"), "}\n")
	var epoch [8]byte
	_, _ = rand.Read(epoch[:]) // never fails
	err := s.call(ctx, func(ctx context.Context) error {
		return isNumber(announce.Run(ctx, s.redis, []string{s.eventKey()},
			s.channel(), hex.EncodeToString(epoch[:]), inner).Result())
	})
	if err != nil {
		return fmt.Errorf("publish %s: %w", e.Type, err)
	}
	return nil
}

// tick publishes the heartbeat of the stream. A failure shows to the listeners by
// silence. It may be the script's alone; whether checks are served is asked apart,
// so that an outage is noticed without a request that pays for it.
func (s *Store) tick(ctx context.Context) {
	every := time.NewTicker(tickEvery)
	defer every.Stop()
	for {
		err := s.publish(ctx, event{Type: "tick"})
		if err == nil {
			s.unable.Store(nil)
		} else if ctx.Err() == nil {
			s.unable.Store(&err)
			_ = s.check(ctx, s.serves)
		}
		select {
		case <-ctx.Done():
			return
		case <-every.C:
		}
	}
}

// stream knows whether every event since some instant has been heard. Each
// loss begins a new generation; what was learnt in another one is stale.
type stream struct {
	mu         sync.Mutex // protects what follows
	generation uint64
	epoch      string
	seq        int64
	heard      time.Time // zero: not listening
}

// state returns the generation and whether the stream is alive in it.
func (t *stream) state() (generation uint64, alive bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.generation, !t.heard.IsZero() && time.Since(t.heard) < streamSilence
}

// hear notes an event. It reports whether the event continues the stream, and
// whether Redis has forgotten the one before: a new epoch comes from a server
// without memory, a number that goes back from a replica that lagged behind
// when it was promoted.
func (t *stream) hear(e event, now time.Time) (continues, forgotten bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	continues = !t.heard.IsZero() && now.Sub(t.heard) < streamSilence && e.Epoch == t.epoch && e.Seq == t.seq+1
	forgotten = t.epoch != "" && (e.Epoch != t.epoch || e.Seq <= t.seq)
	if !continues {
		t.generation++
	}
	t.epoch, t.seq, t.heard = e.Epoch, e.Seq, now
	return continues, forgotten
}

func (t *stream) lose() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.generation++
	t.heard = time.Time{}
}

// listen keeps a subscription for the life of the store.
func (s *Store) listen(ctx context.Context) {
	for ctx.Err() == nil {
		s.follow(ctx)
		s.stream.lose()
		select {
		case <-ctx.Done():
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// follow handles one subscription until it fails or falls silent. A new one is
// made then, on a new connection, found anew through Sentinel.
func (s *Store) follow(ctx context.Context) {
	subscription := s.redis.Subscribe(ctx, s.channel())
	defer subscription.Close()
	defer context.AfterFunc(ctx, func() { _ = subscription.Close() })()
	for ctx.Err() == nil {
		message, err := subscription.ReceiveTimeout(ctx, streamSilence)
		if err != nil {
			var timeout net.Error
			if errors.As(err, &timeout) && timeout.Timeout() && ctx.Err() == nil && !s.Away() {
				s.Log.Warn("event stream silent, subscribing anew")
			}
			return
		}
		if message, ok := message.(*redis.Message); ok {
			s.handle(ctx, message.Payload)
		}
	}
}

func (s *Store) handle(ctx context.Context, payload string) {
	var e event
	if err := json.Unmarshal([]byte(payload), &e); err != nil || e.Epoch == "" {
		s.stream.lose() // not ours to understand, and its number is lost
		return
	}
	now := time.Now()
	// Memory first: once the stream counts this event as heard, a cached
	// status is trusted again, and the revocation must be there.
	switch e.Type {
	case "token":
		s.memory.revokeToken(e.ID, now.Add(s.Token))
	case "session":
		s.memory.revokeSession(e.ID, now.Add(s.Token))
	case "user":
		s.memory.voidBefore(e.ID, e.Before, now.Add(s.markLife()))
	}
	if _, forgotten := s.stream.hear(e, now); forgotten {
		s.Log.Warn("redis has lost its state; writing known revocations back")
		s.restore(ctx)
	}
}

// StreamAlive says whether events arrive.
func (s *Store) StreamAlive() bool { _, alive := s.stream.state(); return alive }
