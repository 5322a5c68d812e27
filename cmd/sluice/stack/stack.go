// Package stack is the whole of Sluice on one machine, as a value that
// `sluice up`, `sluice demo` and the end-to-end tests open and close.
//
// Open works outside in: it refuses options that cannot work and addresses
// that are taken, finds or builds Traefik and checks the routes that it will
// serve, before anything runs. Then it starts, each part once the one that it
// needs answers: Redis (embedded unless one is named), authsvc and the three
// services in this process, the gateways as children, and, where there are
// several, the balancer as one more. Last it writes the ready file. Close goes
// the way back.
//
// Children are in process groups of their own, so that Ctrl-C in a terminal
// reaches this process alone and it decides the order, and the kernel kills
// them should it die without closing. Each has a folder with its configuration
// and its log; errors in a log come out on Options.Log as they are written.
package stack

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
)

// startTime bounds the wait for any one part to answer.
const startTime = 30 * time.Second

// Stack is a running stack.
type Stack struct {
	options     Options
	work        string // folder of configuration and logs, removed by a good Close
	ready       Ready
	certificate string       // the file of the one made here; empty: the user's own
	shipped     bool         // the dynamic configuration is ours, so we know what it answers
	asked       string       // path by which a gateway, on its entry point ping, tells that it is ready
	log         *slog.Logger // of the parts in this process
	env         []string     // of the children

	redis     *embeddedRedis      // nil where a real one is named
	presence  presence            // of gateways, as Redis sees them
	addresses []map[string]string // of each gateway, by entry point

	closers  []func() error // in the order of opening
	watching sync.WaitGroup
	ended    chan error
	closing  atomic.Bool // from now on processes end because they were asked to
	keep     atomic.Bool // the working folder, since its logs tell what went wrong
	closed   error
	close    sync.Once
}

// Open starts a stack. The context bounds the start; Close ends the stack.
func Open(ctx context.Context, options Options) (_ *Stack, err error) {
	if err := options.complete(); err != nil {
		return nil, err
	}
	s := &Stack{options: options, ended: make(chan error, 1)}
	defer func() {
		if err != nil {
			s.keep.Store(len(s.addresses) > 0)
			err = errors.Join(err, s.Close())
		}
	}()
	if s.work, err = os.MkdirTemp("", "sluice-"); err != nil {
		return nil, fmt.Errorf("create a working folder: %w", err)
	}
	if err := s.openLog(); err != nil {
		return nil, err
	}
	for _, step := range []func(context.Context) error{
		s.findTraefik, s.openRedis, s.openIdentity, s.openServices, s.configure, s.openGateways, s.openBalancer, s.announce,
	} {
		if err := step(ctx); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// Ready tells where the stack's parts are: what the ready file holds.
func (s *Stack) Ready() Ready { return s.ready }

// Work is the folder that holds the children's configuration and logs.
func (s *Stack) Work() string { return s.work }

// Certificate is the file of the certificate that was made for this machine,
// which a client may be told to trust; empty where the user's own is served.
func (s *Stack) Certificate() string { return s.certificate }

// AdminTokenFile is where the admin token lies.
func (s *Stack) AdminTokenFile() string { return filepath.Join(s.keyDir(), "admin.token") }

// Shipped says whether the routes are ours, and not those of Options.Dynamic.
func (s *Stack) Shipped() bool { return s.shipped }

// Ended yields an error when the last gateway, or the balancer, has ended
// without being asked to.
func (s *Stack) Ended() <-chan error { return s.ended }

// StopRedis takes the embedded Redis away, connections included, and StartRedis
// brings it back at the same address with what it held.
func (s *Stack) StopRedis() error {
	if s.redis == nil {
		return errors.New("this stack's Redis is not ours to stop")
	}
	s.redis.stop()
	return nil
}

// StartRedis undoes StopRedis.
func (s *Stack) StartRedis() error {
	if s.redis == nil {
		return errors.New("this stack's Redis is not ours to start")
	}
	return s.redis.start()
}

// Close ends every part in the opposite order of opening, the gateways
// gracefully, and removes the working folder unless its logs tell of a failure.
// It may be called more than once.
func (s *Stack) Close() error {
	s.close.Do(func() {
		s.closing.Store(true)
		for _, step := range slices.Backward(s.closers) {
			s.closed = errors.Join(s.closed, step())
		}
		s.watching.Wait()
		switch {
		case s.work == "":
		case s.keep.Load() || s.closed != nil:
			s.say("The logs are in %s.", s.work)
		default:
			s.closed = os.RemoveAll(s.work)
		}
	})
	return s.closed
}

func (s *Stack) onClose(step func() error) { s.closers = append(s.closers, step) }

func (s *Stack) say(format string, args ...any) {
	fmt.Fprintf(s.options.Log, format+"\n", args...)
}

// openLog sends what authsvc and the services log to one file.
func (s *Stack) openLog() error {
	file, err := os.Create(filepath.Join(s.work, "services.log"))
	if err != nil {
		return fmt.Errorf("open the services' log: %w", err)
	}
	s.onClose(file.Close)
	s.log = slog.New(slog.NewTextHandler(file, nil))
	redis.SetLogger(redisLog{s.log}) // it would write to standard error, once a second while Redis is away
	return nil
}

// redisLog is go-redis's own log, which is one for the whole process.
type redisLog struct{ log *slog.Logger }

func (l redisLog) Printf(ctx context.Context, format string, args ...any) {
	l.log.WarnContext(ctx, fmt.Sprintf(format, args...))
}
