// Package web holds what the three upstream services have in common.
//
// A request is logged under the id that the gateway gave it, then reaches its
// handler: Protect refuses it unless the gateway said whose it is, ReadObject
// takes its body apart field by field and collects what is wrong with it, and
// every refusal, wherever it arises, leaves as problem+json (RFC 9457) through
// one error handler.
//
// The services trust the gateway for identity and for nothing else: they are
// reachable on the inner network alone, and X-User-ID is the one header that
// they believe (the gateway strips whatever a client sends under that name).
package web

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/labstack/echo/v4"
)

// closeGrace is how long Close waits for requests under way.
const closeGrace = 5 * time.Second

// Server is one service's HTTP side.
type Server struct {
	listener net.Listener
	http     *http.Server
	served   chan struct{} // closed once the accept loop has ended
}

// Open starts to serve the routes that register adds, on a ready listener or,
// where that is nil, on an address. The context bounds the start only; Close
// ends the service.
func Open(ctx context.Context, address string, listener net.Listener, log *slog.Logger, register func(*echo.Echo)) (*Server, error) {
	if listener == nil {
		var listening net.ListenConfig
		var err error
		if listener, err = listening.Listen(ctx, "tcp", address); err != nil {
			return nil, fmt.Errorf("listen: %w", err)
		}
	}
	s := &Server{
		listener: listener,
		http: &http.Server{
			Handler:           routes(log, register),
			ReadHeaderTimeout: 5 * time.Second,
			ReadTimeout:       15 * time.Second,
			WriteTimeout:      15 * time.Second,
			IdleTimeout:       2 * time.Minute, // longer than Traefik's 90 s, so that it never writes to a connection we are closing
			MaxHeaderBytes:    32 << 10,
			ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelWarn),
		},
		served: make(chan struct{}),
	}
	go func() {
		defer close(s.served)
		if err := s.http.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			log.Error("service stopped listening", "error", err)
		}
	}()
	return s, nil
}

func routes(log *slog.Logger, register func(*echo.Echo)) *echo.Echo {
	e := echo.New()
	e.HTTPErrorHandler = writeError
	e.IPExtractor = echo.ExtractIPDirect()
	e.Use(logRequests(log), recoverPanics)
	Get(e, "/healthz", func(c echo.Context) error { return c.JSON(http.StatusOK, map[string]string{"status": "ok"}) })
	register(e)
	return e
}

// Get registers a handler for GET and for HEAD: whatever can be fetched can be
// asked about (RFC 9110 section 9.1). net/http drops the body of the latter.
func Get(e *echo.Echo, path string, handler echo.HandlerFunc, middleware ...echo.MiddlewareFunc) {
	e.GET(path, handler, middleware...)
	e.HEAD(path, handler, middleware...)
}

// Addr is the address that the service listens on.
func (s *Server) Addr() string { return s.listener.Addr().String() }

// Close stops accepting, lets requests under way finish for a few seconds and
// cuts off what is left then. It may be called more than once.
func (s *Server) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), closeGrace)
	defer cancel()
	err := s.http.Shutdown(ctx)
	if err != nil {
		err = errors.Join(err, s.http.Close())
	}
	<-s.served
	return err
}
