// Package authsvc is the forward-auth service: it says whose a bearer token
// is, issues tokens of its own and takes them back.
//
// Open takes a configuration (package config), opens what tokens are signed and
// verified with (package keys), connects to Redis (package store), and listens
// twice. The public listener answers gateways: /auth, keys, health (package
// public). The admin one issues and revokes and is never reachable from outside
// (package admin); the commands of package operator are its clients.
//
// A request to /auth goes this way:
//
//  1. credential (package public): exactly one Authorization header, `Bearer`,
//     one token.
//  2. verify (package identity over package token): the token's form, then its
//     signature by a key of an issuer that the configuration trusts, then its
//     claims. A token whose every byte was verified before is not verified
//     again while the issuers' keys stay as they are.
//  3. status (package store): revoked, session ended, voided with all of the
//     user's tokens? Memory first, Redis only for what memory cannot know.
//  4. scope: what the caller demands by ?scope=.
//  5. answer: the identity as headers, and how long it may be believed.
//
// What is refused on the way becomes a problem for the client and a line for the
// operator (packages refusal and listener).
//
// # The status cache
//
// Step 3 has to be free for a hot token, and two caches were measured for it:
// go-redis's client-side caching (CLIENT TRACKING) and a map of our own that
// lives by the events the gateways need anyway. Neither sends Redis a command
// for a hot token; against the pipelined round trip they cost 1/50 and 1/240
// of the time (store/bench_test.go runs all three on the machine at hand). We
// keep the map, less for the factor of 5 than for what the tracking cannot do:
// it works on Cluster and Sentinel and with a password that changes, where
// go-redis switches tracking off; it keeps what it knows while Redis is away;
// and a numbered event that is missing tells of a loss that a silent tracking
// connection does not show.
package authsvc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/sluice-gateway/sluice/authsvc/admin"
	"github.com/sluice-gateway/sluice/authsvc/config"
	"github.com/sluice-gateway/sluice/authsvc/identity"
	"github.com/sluice-gateway/sluice/authsvc/internal/task"
	"github.com/sluice-gateway/sluice/authsvc/keys"
	"github.com/sluice-gateway/sluice/authsvc/listener"
	"github.com/sluice-gateway/sluice/authsvc/public"
	"github.com/sluice-gateway/sluice/authsvc/session"
	"github.com/sluice-gateway/sluice/authsvc/store"
	"github.com/sluice-gateway/sluice/internal/version"
)

// Service is a whole authsvc. Set the fields, Open, Close; it is what the
// command, the one-machine stack and the tests run.
type Service struct {
	Config *config.Config
	// PublicListener and AdminListener are used, and closed, in place of
	// Config.Listen and Config.AdminListen.
	PublicListener, AdminListener net.Listener
	Log                           *slog.Logger // without one: Config.Log on standard error

	log     *slog.Logger
	store   *store.Store
	judge   *identity.Judge
	keyDir  *keys.Dir
	admin   *keys.Secret
	issuing *keys.Secret
	refresh *session.RefreshTokens
	tracing *listener.Tracing
	health  *listener.Health

	keysChanged chan struct{} // holds a token while Redis does not show the keys as they are

	publicAddr, adminAddr net.Addr
	servers               []*http.Server
	cancel                context.CancelFunc
	tasks                 *task.Group
}

// Open starts the service. It returns once both listeners accept; Redis and
// the issuers' key servers need not be there. On error everything that was
// begun has been ended.
func (s *Service) Open(ctx context.Context) (err error) {
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	if err := s.Config.Validate(); err != nil {
		return err
	}
	s.log = s.Log
	if s.log == nil {
		s.log = newLogger(s.Config.Log, os.Stderr)
	}
	opened := time.Now()
	background, cancel := context.WithCancel(context.Background())
	s.cancel = cancel
	s.tasks = &task.Group{Log: s.log}

	verifier, err := s.openKeys(background)
	if err != nil {
		return err
	}
	if s.tracing, err = listener.OpenTracing(ctx, s.Config.Tracing, version.Version(), s.log); err != nil {
		return err
	}
	options, err := storeOptions(s.Config, s.log)
	if err != nil {
		return err
	}
	if s.store, err = store.Open(options); err != nil {
		return err
	}
	s.judge = identity.NewJudge(verifier, s.store)
	s.health = &listener.Health{Keys: s.keyDir, Judge: s.judge, Store: s.store, Deny: s.Config.OnRedisFailure == "deny", Since: opened}
	both := listener.New(s.log, s.tracing)
	outer := public.Handler(both, s.health, s.judge, s.keyDir, s.Config.Own.PublishAhead)
	inner := (&admin.Interface{
		Config: s.Config, Keys: s.keyDir, Judge: s.judge, Store: s.store, Tasks: s.tasks, Admin: s.admin, Issuing: s.issuing,
		Sessions: session.New(s.Config, s.refresh, s.keyDir, s.judge, s.store, s.log),
	}).Handler(both, s.health)
	if s.publicAddr, err = s.serve(s.PublicListener, s.Config.Listen, "listen", outer); err != nil {
		return err
	}
	if s.adminAddr, err = s.serve(s.AdminListener, s.Config.AdminListen, "adminListen", inner); err != nil {
		return err
	}
	s.tasks.Go(background, "publish keys", s.publishKeys)
	s.log.Info("authsvc is up", "public", s.publicAddr.String(), "admin", s.adminAddr.String(), "version", version.Version())
	return nil
}

// openKeys reads the own keys, the secrets beside them and the issuers' keys,
// and reports every mistake found on the way at once.
func (s *Service) openKeys(background context.Context) (*identity.Verifier, error) {
	c := s.Config
	verifier, err := identity.NewVerifier(c, s.log)
	if err != nil {
		return nil, err
	}
	s.keysChanged = make(chan struct{}, 1)
	var m config.Mistakes
	s.keyDir, err = keys.OpenDir(c.Own, c.Longest(), func() {
		verifier.KeysChanged()
		select {
		case s.keysChanged <- struct{}{}:
		default:
		}
	}, s.log)
	if err != nil {
		return nil, err
	}
	if !s.keyDir.None() {
		s.tasks.Go(background, "own keys", s.keyDir.Watch)
	}
	if s.admin, err = keys.OpenSecret(s.keyDir, "admin.token", c.AdminToken, c.AdminTokenFile); err != nil {
		m.Add("adminTokenFile", c.AdminTokenFile, err.Error())
	}
	if s.issuing, err = keys.OpenSecret(s.keyDir, "issuer.token", c.IssuerToken, c.IssuerTokenFile); err != nil {
		m.Add("issuerTokenFile", c.IssuerTokenFile, err.Error())
	}
	if s.refresh, err = session.OpenRefreshTokens(s.keyDir); err != nil {
		m.Add("own.keyDir", c.Own.KeyDir, err.Error())
	}
	if !s.keyDir.None() {
		verifier.TrustOwn(s.keyDir)
	} else if len(c.Issuers) == 0 {
		s.log.Warn("no issuers and no own.keyDir: every token is refused; this authsvc serves limits and metrics alone")
	}
	for i, foreign := range c.Issuers {
		source, err := keys.Open(background, foreign, verifier.KeysChanged, s.log)
		if err != nil {
			m.Add(fmt.Sprintf("issuers[%d]", i), foreign.Name, err.Error())
			continue
		}
		s.tasks.Go(background, "keys of "+foreign.Name, source.Watch)
		verifier.Trust(foreign, source)
	}
	return verifier, m.Err()
}

// serve answers on a listener, with limits that no slow or huge request can
// outlast: requests here are one line, one header and small bodies. Headers may
// be twice what the shipped gateway lets through, so that whatever passed there
// is judged here.
func (s *Service) serve(listener net.Listener, address, option string, handler http.Handler) (net.Addr, error) {
	if listener == nil {
		var err error
		if listener, err = net.Listen("tcp", address); err != nil {
			return nil, fmt.Errorf("%w (choose another address with --%s)", err, option)
		}
	}
	server := &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      15 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64<<10 + s.Config.Tokens.MaxBytes,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
	s.servers = append(s.servers, server)
	s.tasks.Go(context.Background(), option, func(context.Context) {
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			s.log.Error("listener failed", "address", listener.Addr().String(), "error", err)
		}
	})
	return listener.Addr(), nil
}

// Close lets requests in flight finish for a few seconds and ends everything.
func (s *Service) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	var errs []error
	for _, server := range s.servers {
		if err := server.Shutdown(ctx); err != nil {
			errs = append(errs, server.Close())
		}
	}
	if s.cancel != nil {
		s.cancel()
	}
	if s.tasks != nil {
		s.tasks.Wait()
	}
	if s.store != nil {
		errs = append(errs, s.store.Close())
	}
	if s.tracing != nil {
		errs = append(errs, s.tracing.Close(ctx))
	}
	return errors.Join(errs...)
}

// PublicAddr is where /auth is answered, once Open has returned.
func (s *Service) PublicAddr() net.Addr { return s.publicAddr }

// AdminAddr is where the admin interface is answered.
func (s *Service) AdminAddr() net.Addr { return s.adminAddr }

// AdminToken is the bearer token for all of the admin interface.
func (s *Service) AdminToken() string { return s.admin.Value() }

// IssuerToken is the bearer token for issuing, refreshing and revoking tokens.
func (s *Service) IssuerToken() string { return s.issuing.Value() }

// publishKeys shows public keys and schedule in Redis (design: signing-keys), for
// operators and tools. Nothing is ever read back from there as a key: whoever
// writes to Redis could forge users then.
func (s *Service) publishKeys(ctx context.Context) {
	every := time.NewTicker(10 * time.Second)
	defer every.Stop()
	for {
		for _, key := range s.keyDir.Living() {
			jwk, public, err := key.PublicJWK()
			if err != nil || !public {
				continue
			}
			err = s.store.PublishKey(ctx, store.PublishedKey{
				ID: key.KeyID, Algorithm: key.Algorithm, JWK: jwk, Activates: key.Activates, Retires: key.Retires,
			})
			if err != nil && !errors.Is(err, store.ErrAway) {
				s.log.Warn("public key not published", "error", err)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-s.keysChanged:
		case <-every.C:
		}
	}
}

func newLogger(l config.Log, w io.Writer) *slog.Logger {
	var level slog.Level
	_ = level.UnmarshalText([]byte(l.Level)) // Validate has seen it
	options := &slog.HandlerOptions{Level: level}
	if l.Format == "text" {
		return slog.New(slog.NewTextHandler(w, options))
	}
	return slog.New(slog.NewJSONHandler(w, options))
}
