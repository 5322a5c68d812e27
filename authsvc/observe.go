package authsvc

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"runtime/debug"
	"time"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"github.com/sluice-gateway/sluice/authsvc/config"
	"github.com/sluice-gateway/sluice/authsvc/refusal"
)

// What middleware and handlers tell each other by echo's context.
const (
	refusedKey   = "refused"    // *refusal.Refusal
	issuerKey    = "issuer"     // name of the issuer of a token that was accepted
	issuingKey   = "issuing"    // bool: the issuer token, not the admin token, opened the door
	requestIDKey = "request id" // string
	actionKey    = "action"     // *action, on the admin listener
)

func (s *Service) newEcho() *echo.Echo {
	e := echo.New()
	e.HideBanner, e.HidePort = true, true
	e.HTTPErrorHandler = refuseEcho
	e.Use(s.observe)
	return e
}

// observe gives every request its id, its line in the log, its place in the
// metrics and its span. None of the four holds a token, a secret, a user or a
// key: the path is logged as the route's pattern (RULES 29). An operator's
// action names its target as well (action.go).
func (s *Service) observe(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) (err error) {
		started := time.Now()
		c.Set(requestIDKey, acceptRequestID(c.Request().Header.Get(config.HeaderRequestID)))
		end := s.tracing.begin(c)
		defer func() {
			// One bad request must not end the process; what went wrong is in
			// the log with its stack, and the client learns nothing of it.
			if panicked := recover(); panicked != nil {
				err = fmt.Errorf("panic: %v", panicked)
				s.log.Error("panic", "error", err, "stack", string(debug.Stack()))
			}
			if err != nil {
				c.Error(err)
				err = nil
			}
			no, _ := c.Get(refusedKey).(*refusal.Refusal)
			end(c.Response().Status, no)
			s.metrics.observe(c.Path(), c.Response().Status, no, time.Since(started))
			s.logRequest(c, no, time.Since(started))
		}()
		return next(c)
	}
}

func (s *Service) logRequest(c echo.Context, no *refusal.Refusal, took time.Duration) {
	level := slog.LevelInfo
	attributes := []slog.Attr{
		slog.String("method", method(c.Request().Method)),
		slog.String("route", c.Path()),
		slog.Int("status", c.Response().Status),
		slog.Duration("took", took),
		slog.String("request_id", requestID(c)),
	}
	if issuer, ok := c.Get(issuerKey).(string); ok {
		attributes = append(attributes, slog.String("issuer", issuer))
	}
	if a, ok := c.Get(actionKey).(*action); ok {
		attributes = append(attributes, a.attributes(c, no)...)
	}
	if no != nil {
		attributes = append(attributes, slog.String("refused", no.Error()))
		if no.Status == http.StatusInternalServerError {
			level = slog.LevelError
		}
	}
	switch c.Path() {
	case "/healthz", "/readyz", "/readyz/issuing", "/metrics":
		level = min(level, slog.LevelDebug) // asked every few seconds, always the same
	}
	s.log.LogAttrs(c.Request().Context(), level, "request", attributes...)
}

// method keeps strangers' inventions out of logs and labels.
func method(name string) string {
	switch name {
	case "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS":
		return name
	}
	return "other"
}

// acceptRequestID keeps the gateway's id, if it is a canonical UUID: anything
// else could forge lines in the log.
func acceptRequestID(presented string) string {
	if id, err := uuid.Parse(presented); err == nil && id.String() == presented {
		return presented
	}
	return uuid.NewString()
}

func requestID(c echo.Context) string {
	id, _ := c.Get(requestIDKey).(string)
	return id
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

// refuseEcho is Echo's error handler: its own errors (404, 405, 413) become
// problems as well.
func refuseEcho(err error, c echo.Context) {
	var fromEcho *echo.HTTPError
	no := refusal.Of(err)
	if errors.As(err, &fromEcho) {
		no = &refusal.Refusal{Status: fromEcho.Code, Detail: http.StatusText(fromEcho.Code), Cause: err}
	}
	c.Set(refusedKey, no)
	if !c.Response().Committed {
		no.Write(c.Response(), requestID(c))
	}
}
