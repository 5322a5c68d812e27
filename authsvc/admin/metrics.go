package admin

import (
	"context"

	"github.com/labstack/echo/v4"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/sluice-gateway/sluice/authsvc/listener"
	"github.com/sluice-gateway/sluice/authsvc/store"
)

// metrics are authsvc's own figures and, at every scrape, those that the
// gateways put into their heartbeats. Labels are names from configurations and
// ids of instances, never users, keys or tokens (design: operator-tokens).
func (i *Interface) metrics(l *listener.Listener) echo.HandlerFunc {
	i.revoked = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "authsvc_revocations_total", Help: "Revocations, by what was revoked.",
	}, []string{"kind"})
	registry := prometheus.NewRegistry()
	registry.MustRegister(
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		i.revoked,
		counterFunc("authsvc_redis_round_trips_total", "Calls to Redis.", i.Store.RoundTrips),
		counterFunc("authsvc_redis_odd_replies_total", "Replies of Redis that were no answers to what was asked.", i.Store.OddReplies),
		counterFunc("authsvc_panics_total", "Panics that were survived.", func() int64 { return i.Store.Panics() + i.Tasks.Panics.Load() }),
		gaugeFunc("authsvc_redis_away", "1 while the breaker is open.", i.Store.Away),
		gaugeFunc("authsvc_events_alive", "1 while revocation events arrive.", i.Store.StreamAlive),
		&gatewayCollector{i.Store},
	)
	registry.MustRegister(l.Collectors()...)
	registry.MustRegister(i.Judge.Collectors()...)
	registry.MustRegister(i.Sessions.Collectors()...)
	return echo.WrapHandler(promhttp.HandlerFor(registry, promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError}))
}

func counterFunc(name, help string, value func() int64) prometheus.Collector {
	return prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help}, func() float64 { return float64(value()) })
}

func gaugeFunc(name, help string, value func() bool) prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, func() float64 { return number(value()) })
}

func number(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// gatewayCollector shows the gateways' counters. A plugin inside Traefik has no
// metrics endpoint of its own; this is where its figures come out.
type gatewayCollector struct{ store *store.Store }

var (
	gatewayUp = prometheus.NewDesc("sluice_gateway_up", "1 for every living gateway, 0 for one that has been silent for up to ten minutes: stopped, or refused by Redis.", []string{"instance", "version"}, nil)

	gatewayDenied = prometheus.NewDesc("sluice_gateway_denied_total", "Requests denied, by limit.", []string{"instance", "limit"}, nil)
	gatewayErrors = prometheus.NewDesc("sluice_gateway_redis_errors_total", "Failed Redis calls, by kind.", []string{"instance", "kind"}, nil)

	gatewayFigures = []struct {
		name, help string
		kind       prometheus.ValueType
	}{
		{"allowed_total", "Requests allowed.", prometheus.CounterValue},
		{"degraded_total", "Requests decided without Redis.", prometheus.CounterValue},
		{"redis_calls_total", "Calls to Redis.", prometheus.CounterValue},
		{"alone", "1 while the gateway decides limits without Redis, as far as it could tell.", prometheus.GaugeValue},
		{"breaker_open", "1 while the gateway holds Redis to be away; while it lasts, no heartbeat says so.", prometheus.GaugeValue},
		{"breaker_opened_total", "How often the gateway took Redis to be away.", prometheus.CounterValue},
		{"decision_hits_total", "Auth decisions served from the cache.", prometheus.CounterValue},
		{"decision_misses_total", "Auth decisions asked for.", prometheus.CounterValue},
		{"auth_errors_total", "Auth calls that failed.", prometheus.CounterValue},
		{"events_lost_total", "Losses of the event stream.", prometheus.CounterValue},
		{"keys", "Limiter keys in memory.", prometheus.GaugeValue},
	}
	gatewayDescs = func() (descs []*prometheus.Desc) {
		for _, figure := range gatewayFigures {
			descs = append(descs, prometheus.NewDesc("sluice_gateway_"+figure.name, figure.help, []string{"instance"}, nil))
		}
		return descs
	}()
)

// Describe implements prometheus.Collector.
func (g *gatewayCollector) Describe(out chan<- *prometheus.Desc) {
	for _, desc := range append([]*prometheus.Desc{gatewayUp, gatewayDenied, gatewayErrors}, gatewayDescs...) {
		out <- desc
	}
}

// Collect implements prometheus.Collector. While Redis is away it shows
// nothing, and authsvc_redis_away says why.
func (g *gatewayCollector) Collect(out chan<- prometheus.Metric) {
	gateways, err := g.store.Gateways(context.Background())
	if err != nil {
		return
	}
	for _, gateway := range gateways {
		c := gateway.Counters
		out <- prometheus.MustNewConstMetric(gatewayUp, prometheus.GaugeValue, number(!gateway.Stale), gateway.Instance, gateway.Version)
		for i, value := range []float64{
			c.Allowed, c.Degraded, c.RedisCalls, number(gateway.Alone != nil), c.BreakerOpen, c.BreakerOpened, c.DecisionHits,
			c.DecisionMisses, c.AuthErrors, c.EventsLost, c.Keys,
		} {
			out <- prometheus.MustNewConstMetric(gatewayDescs[i], gatewayFigures[i].kind, value, gateway.Instance)
		}
		for limit, denied := range c.Denied {
			out <- prometheus.MustNewConstMetric(gatewayDenied, prometheus.CounterValue, denied, gateway.Instance, limit)
		}
		for kind, failed := range c.RedisErrors {
			out <- prometheus.MustNewConstMetric(gatewayErrors, prometheus.CounterValue, failed, gateway.Instance, kind)
		}
	}
}
