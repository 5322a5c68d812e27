package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sluice-gateway/sluice/authsvc/internal/task"
)

type counter = atomic.Int64

// tripAfter failures in a row open the breaker: one slow reply is no outage.
const tripAfter = 3

// probeBudget is how quick a Redis must be to count as back.
const probeBudget = 250 * time.Millisecond

// breaker keeps requests from waiting for a Redis that does not answer. Closed,
// it lets calls through with their budget as the deadline; after tripAfter
// failures in a row that count it opens and refuses at once; a probe in the
// background, never a request, finds out when Redis is back.
type breaker struct {
	serves   func(context.Context) error
	cut      func() // closes all connections
	tasks    *task.Group
	log      *slog.Logger
	failures atomic.Int32
	opened   chan struct{} // holds a token while the probe has work
	open     atomic.Bool
}

func newBreaker(serves func(context.Context) error, cut func(), tasks *task.Group, log *slog.Logger) *breaker {
	return &breaker{serves: serves, cut: cut, tasks: tasks, log: log, opened: make(chan struct{}, 1)}
}

func (b *breaker) isOpen() bool { return b.open.Load() }

// do runs f. Every error of f is ErrAway to the caller: f accepts the replies
// that are answers, and no others. A panic is one as well, for what f takes
// apart came from outside.
func (b *breaker) do(ctx context.Context, budget time.Duration, counts func(error) bool, f func(context.Context) error) error {
	if b.isOpen() {
		return ErrAway
	}
	bounded, cancel := context.WithTimeout(ctx, budget)
	defer cancel()
	err := b.tasks.Try("redis call", func() error { return f(bounded) })
	if err == nil {
		b.failures.Store(0)
		return nil
	}
	// A caller that hung up says nothing about Redis.
	if ctx.Err() == nil && counts(err) && b.failures.Add(1) >= tripAfter {
		b.trip(err)
	}
	return fmt.Errorf("%w: %w", ErrAway, err)
}

func (b *breaker) trip(cause error) {
	if !b.open.CompareAndSwap(false, true) {
		return
	}
	b.log.Warn("redis is away", "error", cause)
	b.cut()
	select {
	case b.opened <- struct{}{}:
	default:
	}
}

// probe closes the breaker when Redis answers again. The pause is jittered, or
// three replicas would knock in step.
func (b *breaker) probe(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-b.opened:
		}
		for b.isOpen() {
			pause := 50*time.Millisecond + rand.N(100*time.Millisecond)
			select {
			case <-ctx.Done():
				return
			case <-time.After(pause):
			}
			bounded, cancel := context.WithTimeout(ctx, probeBudget)
			err := b.tasks.Try("redis probe", func() error { return b.serves(bounded) })
			cancel()
			if err == nil {
				b.failures.Store(0)
				b.open.Store(false)
				b.log.Info("redis is back")
			}
		}
	}
}

// replied tells an error that Redis sent from one of the way there.
func replied(err error) bool {
	var reply redis.Error
	return errors.As(err, &reply)
}

func unanswered(err error) bool { return !replied(err) }
