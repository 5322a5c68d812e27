// Package store is all that authsvc keeps in Redis, and what it remembers of
// it when Redis is away.
//
// A check of a token asks three questions: is this token revoked, is its
// session, and are the user's tokens of that age void? The answers are looked
// for in this order:
//
//  1. Memory (memory.go) holds every revocation this process has heard of, by
//     event or by reply. It can only refuse.
//  2. The status cache (tokens.go) says that Redis was asked before. An entry
//     counts while the event stream (events.go) has run without a gap since
//     the question was *sent*, because then every later revocation has reached
//     step 1; without a stream it counts for one second.
//  3. One pipelined round trip asks Redis and registers the token.
//
// So a hot token costs no round trip, a cold one exactly one, and the race
// between an answer on its way and a revocation overtaking it is harmless: the
// revocation waits in step 1.
//
// What Redis says is trusted for status alone (design: status-only): claims and signatures
// are judged elsewhere, by keys that do not live here. The list of good replies
// is closed. Whatever else comes, an error of any kind, a reply of another type
// or a value that authsvc does not write, is no refusal but "Redis is away", and
// the caller's policy decides.
//
// Every call goes through the breaker (breaker.go): a check waits for one
// timeout while Redis is slow, and not at all once it is known to be away. Every
// byte goes through a wire (wire.go), which ends the connection before go-redis
// sees what it cannot deal with.
package store

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync/atomic"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"github.com/sluice-gateway/sluice/authsvc/internal/task"
)

// ErrAway is what every call returns when Redis did not answer in time, is known
// not to, or answered what is no answer to the question.
var ErrAway = errors.New("redis is away")

// errUntried is why nothing can be issued before the first tick.
var errUntried = fmt.Errorf("%w: it has not answered yet", ErrAway)

// Options say where Redis is and how long things live there.
type Options struct {
	Addresses                          []string
	Username                           string
	Password                           func() (string, error) // asked at every connection
	DB                                 int
	MasterName                         string // Sentinel
	SentinelUsername, SentinelPassword string
	Cluster                            bool
	TLS                                *tls.Config
	Timeout                            time.Duration // budget of a check
	DialTimeout                        time.Duration
	Prefix                             string

	CacheSize int           // tokens whose status is remembered
	Session   time.Duration // life of a refresh token since its last rotation
	Token     time.Duration // life of the longest access token, leeway included
	Grace     time.Duration // for repeating the last rotation
	Bare      bool          // statuses count for one second only (sessions.required)

	Log *slog.Logger
}

// Store talks to Redis.
type Store struct {
	Options
	redis    redis.UniversalClient
	breaker  *breaker
	stream   stream
	memory   memory
	statuses *lru.Cache[string, cachedStatus]
	wires    *wires
	trips    counter
	notes    chan note // users.go
	odd      counter
	unable   atomic.Pointer[error] // why the last tick could not be published
	told     telling

	cancel context.CancelFunc
	tasks  *task.Group
}

// go-redis prints every failed dial to standard error by itself. The breaker
// says once that Redis is away, in the log that the operator chose.
func init() { redis.SetLogger(silent{}) }

type silent struct{}

func (silent) Printf(context.Context, string, ...any) {}

// Open connects in the background: a Redis that is away when authsvc starts is
// no different from one that goes away later.
func Open(o Options) (*Store, error) {
	statuses, err := lru.New[string, cachedStatus](o.CacheSize)
	if err != nil {
		return nil, fmt.Errorf("status cache: %w", err)
	}
	s := &Store{
		Options:  o,
		statuses: statuses,
		memory:   newMemory(),
		notes:    make(chan note, maxNotes),
		tasks:    &task.Group{Log: o.Log},
		wires: &wires{
			dialer: net.Dialer{Timeout: o.DialTimeout, KeepAlive: 30 * time.Second},
			tls:    o.TLS, open: make(map[*wire]struct{}),
		},
	}
	s.redis = redis.NewUniversalClient(s.client())
	s.breaker = newBreaker(s.serves, s.wires.cut, s.tasks, o.Log)

	s.unable.Store(&errUntried)
	ctx, cancel := context.WithCancel(context.Background())
	s.cancel = cancel
	s.tasks.Go(ctx, "redis probe", s.breaker.probe)
	s.tasks.Go(ctx, "redis events", s.listen)
	s.tasks.Go(ctx, "redis ticks", s.tick)
	s.tasks.Go(ctx, "forget expired", s.forget)
	s.tasks.Go(ctx, "notes of users", s.writeNotes)
	return s, nil
}

// Close ends the background work and the connections.
func (s *Store) Close() error {
	s.cancel()
	s.tasks.Wait()
	return s.redis.Close()
}

// client tunes go-redis. Left alone it ignores the deadline of the context on
// its sockets (a silent Redis blocks 5 s, dropped packets 100 s), and repeats
// scripts that may have run already.
//
// It speaks RESP 2, which has fewer types to take apart. Its name is a help to
// whoever lists connections, so a user or a proxy that has no CLIENT is no fault.
func (s *Store) client() *redis.UniversalOptions {
	o := s.Options
	return &redis.UniversalOptions{
		Addrs:    o.Addresses,
		Protocol: 2,
		Dialer:   s.wires.dial,
		OnConnect: func(ctx context.Context, conn *redis.Conn) error {
			if err := conn.ClientSetName(ctx, "sluice-authsvc").Err(); !replied(err) {
				return err
			}
			return nil
		},
		DB:               o.DB,
		MasterName:       o.MasterName,
		SentinelUsername: o.SentinelUsername,
		SentinelPassword: o.SentinelPassword,
		IsClusterMode:    o.Cluster,
		CredentialsProviderContext: func(context.Context) (string, string, error) {
			password, err := o.Password()
			return o.Username, password, err
		},
		ContextTimeoutEnabled:    true,
		MaxRetries:               -1,
		DialerRetries:            1,
		DialTimeout:              o.DialTimeout,
		ReadTimeout:              o.patience(), // the context of each call is stricter
		WriteTimeout:             o.patience(),
		PoolTimeout:              o.patience(),
		MinIdleConns:             2,
		PipelinePoolSize:         -1,
		DisableIdentity:          true,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	}
}

// RoundTrips counts the calls that went out on behalf of requests.
func (s *Store) RoundTrips() int64 { return s.trips.Load() }

// OddReplies counts the replies that were no answers to what was asked.
func (s *Store) OddReplies() int64 { return s.odd.Load() }

// Panics counts those that were survived.
func (s *Store) Panics() int64 { return s.tasks.Panics.Load() }

// Away says whether the breaker is open.
func (s *Store) Away() bool { return s.breaker.isOpen() }

// Unable says why nothing can be issued or revoked at the moment: a tick, twice
// a second, needs what these need. Nil: they can.
func (s *Store) Unable() error {
	if s.Away() {
		return ErrAway
	}
	if err := s.unable.Load(); err != nil {
		return *err
	}
	return nil
}

// check runs a round trip that a request to /auth waits for.
func (s *Store) check(ctx context.Context, f func(ctx context.Context) error) error {
	return s.within(ctx, s.Timeout, func(error) bool { return true }, f)
}

// call runs any other round trip. Refusing a login or a revocation because of
// one slow reply is worse than waiting for it, so these have patience. A Redis
// that answers them, if only by an error, may serve checks well.
func (s *Store) call(ctx context.Context, f func(ctx context.Context) error) error {
	return s.within(ctx, s.patience(), unanswered, f)
}

func (s *Store) within(ctx context.Context, budget time.Duration, counts func(error) bool, f func(ctx context.Context) error) error {
	return s.breaker.do(ctx, budget, counts, func(ctx context.Context) error {
		s.trips.Add(1)
		err := f(ctx)
		if isOdd(err) {
			s.odd.Add(1)
			s.tell(code(err), "redis does not do what it is asked", err)
		}
		return err
	})
}

// serves asks what a check asks, of a token that nobody has.
func (s *Store) serves(ctx context.Context) error {
	_, odd, err := s.inquire(ctx, Question{
		ID: "probe", Sum: "probe", User: "probe", Session: "probe", Expires: time.Now().Add(time.Second),
	}, true)
	if err == nil {
		err = odd
	}
	return err
}

func (o Options) patience() time.Duration { return max(o.Timeout, time.Second) }
