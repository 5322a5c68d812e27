// Package listener is what authsvc's two listeners share.
//
// A request meets observe first: it gets an id, or keeps the gateway's, and a
// span of the gateway's trace (tracing.go). Then its handler runs. What the
// handler refuses, and a panic, becomes a problem, and at the end there are a line
// in the log and figures in the metrics. Health checks are the same on both, too
// (health.go).
package listener

import (
	"log/slog"

	"github.com/labstack/echo/v4"
	"github.com/prometheus/client_golang/prometheus"

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

// What is told by echo's context.
const (
	refusedKey   = "refused"    // *refusal.Refusal
	requestIDKey = "request id" // string
	noteKey      = "note"       // func(*refusal.Refusal) []slog.Attr
)

// Note adds to the line that a request gets in the log. It is asked at the end,
// with what refused the request; nil: nothing did.
func Note(c echo.Context, attributes func(no *refusal.Refusal) []slog.Attr) {
	c.Set(noteKey, attributes)
}
