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
)

type counter = atomic.Int64

// tripAfter failures in a row open the breaker: one slow reply is no outage.
const tripAfter = 3

// probeBudget is how quick a Redis must be to count as back.
const probeBudget = 250 * time.Millisecond

// breaker keeps requests from waiting for a Redis that does not answer. Closed,
// it lets calls through with their budget as the deadline; after tripAfter
// failures in a row it opens and refuses at once; a probe in the background,
// never a request, finds out when Redis is back.
type breaker struct {
	ping     func(context.Context) error
	log      *slog.Logger
	failures atomic.Int32
	opened   chan struct{} // holds a token while the probe has work
	open     atomic.Bool
}

func newBreaker(ping func(context.Context) error, log *slog.Logger) *breaker {
	return &breaker{ping: ping, log: log, opened: make(chan struct{}, 1)}
}

func (b *breaker) isOpen() bool { return b.open.Load() }

func (b *breaker) do(ctx context.Context, budget time.Duration, f func(context.Context) error) error {
	if b.isOpen() {
		return ErrAway
	}
	bounded, cancel := context.WithTimeout(ctx, budget)
	defer cancel()
	err := f(bounded)
	if !away(err) {
		b.failures.Store(0)
		return err
	}
	// A caller that hung up says nothing about Redis.
	if ctx.Err() == nil && b.failures.Add(1) >= tripAfter {
		b.trip(err)
	}
	return fmt.Errorf("%w: %w", ErrAway, err)
}

func (b *breaker) trip(cause error) {
	if !b.open.CompareAndSwap(false, true) {
		return
	}
	b.log.Warn("redis is away", "error", cause)
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
			err := b.ping(bounded)
			cancel()
			if !away(err) {
				b.failures.Store(0)
				b.open.Store(false)
				b.log.Info("redis is back")
			}
		}
	}
}

// away tells "Redis did not serve us" from "Redis said something". An error
// reply proves a living server, except for those by which a server says that
// it cannot serve at the moment (DESIGN section 6).
func away(err error) bool {
	if err == nil || errors.Is(err, redis.Nil) {
		return false
	}
	var reply redis.Error
	if !errors.As(err, &reply) {
		return true
	}
	for _, code := range []string{
		"LOADING", "OOM", "READONLY", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "BUSY",
		"MISCONF", "NOREPLICAS", "NOAUTH", "WRONGPASS", "NOPERM", "UNBLOCKED", "MOVED", "ASK",
		"max number of clients",
	} {
		if redis.HasErrorPrefix(err, code) {
			return true
		}
	}
	return false
}
