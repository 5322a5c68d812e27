// Package listener is what authsvc's two listeners share.
//
// A request meets observe first: it gets an id, or keeps the gateway's, and a
// span of the gateway's trace (tracing.go). Then its handler runs. What the
// handler refuses, and a panic, becomes a problem, and at the end there are a line
// in the log and figures in the metrics. Health checks are the same on both, too
// (health.go).
package listener

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strconv"
	"time"

	"github.com/labstack/echo/v4"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/sluice-gateway/sluice/authsvc/config"
	"github.com/sluice-gateway/sluice/authsvc/refusal"
)

// Listener makes routers whose requests are observed.
type Listener struct {
	log       *slog.Logger
	tracing   *Tracing
	requests  *prometheus.CounterVec
	durations *prometheus.HistogramVec
}

// New observes with a log and traces.
func New(log *slog.Logger, tracing *Tracing) *Listener {
	return &Listener{
		log: log, tracing: tracing,
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "authsvc_requests_total", Help: "Requests by route, status and refusal code.",
		}, []string{"route", "status", "code"}),
		durations: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "authsvc_request_duration_seconds", Help: "Time to answer, by route.",
			Buckets: []float64{.00005, .0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, 1, 5},
		}, []string{"route"}),
	}
}

// Router has no routes yet.
func (l *Listener) Router() *echo.Echo {
	e := echo.New()
	e.HideBanner, e.HidePort = true, true
	e.HTTPErrorHandler = refuseEcho
	e.Use(l.observe)
	return e
}

// Collectors are the figures of all requests.
func (l *Listener) Collectors() []prometheus.Collector {
	return []prometheus.Collector{l.requests, l.durations}
}

// observe gives every request its id, its line in the log, its place in the
// metrics and its span. None of the four holds a token, a secret, a user or a
// key: the path is logged as the route's pattern (design: operator-tokens). What a handler adds
// by Note stands in the log beside that: of an operator's action, its target.
func (l *Listener) observe(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) (err error) {
		started := time.Now()
		c.Set(requestIDKey, acceptRequestID(c.Request().Header.Get(config.HeaderRequestID)))
		end := l.tracing.begin(c)
		defer func() {
			// One bad request must not end the process; what went wrong is in
			// the log with its stack, and the client learns nothing of it.
			if panicked := recover(); panicked != nil {
				err = fmt.Errorf("panic: %v", panicked)
				l.log.Error("panic", "error", err, "stack", string(debug.Stack()))
			}
			if err != nil {
				c.Error(err)
				err = nil
			}
			no, _ := c.Get(refusedKey).(*refusal.Refusal)
			end(c.Response().Status, no)
			l.count(c.Path(), c.Response().Status, no, time.Since(started))
			l.logRequest(c, no, time.Since(started))
		}()
		return next(c)
	}
}

func (l *Listener) logRequest(c echo.Context, no *refusal.Refusal, took time.Duration) {
	level := slog.LevelInfo
	attributes := []slog.Attr{
		slog.String("method", method(c.Request().Method)),
		slog.String("route", c.Path()),
		slog.Int("status", c.Response().Status),
		slog.Duration("took", took),
		slog.String("request_id", RequestID(c)),
	}
	if note, ok := c.Get(noteKey).(func(*refusal.Refusal) []slog.Attr); ok {
		attributes = append(attributes, note(no)...)
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
	l.log.LogAttrs(c.Request().Context(), level, "request", attributes...)
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
		no.Write(c.Response(), RequestID(c))
	}
}

func (l *Listener) count(route string, status int, no *refusal.Refusal, took time.Duration) {
	code := ""
	if no != nil {
		code = no.Code
	}
	l.requests.WithLabelValues(route, strconv.Itoa(status), code).Inc()
	l.durations.WithLabelValues(route).Observe(took.Seconds())
}
