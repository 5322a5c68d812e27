package identity

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// Collectors are the figures of judging tokens.
func (j *Judge) Collectors() []prometheus.Collector {
	return []prometheus.Collector{
		j.degraded, j.leftOut.total, issuerCollector{j.Verifier},
		counter("authsvc_verified_hits_total", "Tokens whose signature had been verified before.", &j.hits),
		counter("authsvc_verified_misses_total", "Tokens that were verified in full.", &j.misses),
	}
}

func counter(name, help string, value *atomic.Int64) prometheus.Collector {
	return prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help}, func() float64 { return float64(value.Load()) })
}

// issuerCollector shows what keys there are for each issuer's tokens.
type issuerCollector struct{ verifier *Verifier }

var (
	issuerKeys    = prometheus.NewDesc("authsvc_issuer_keys", "Keys that verify the issuer's tokens; 0 while none have ever been fetched.", []string{"issuer"}, nil)
	issuerLeftOut = prometheus.NewDesc("authsvc_issuer_keys_left_out", "Keys in the issuer's last set that were weak or could not be used.", []string{"issuer"}, nil)
)

// Describe implements prometheus.Collector.
func (c issuerCollector) Describe(out chan<- *prometheus.Desc) {
	out <- issuerKeys
	out <- issuerLeftOut
}

// Collect implements prometheus.Collector.
func (c issuerCollector) Collect(out chan<- prometheus.Metric) {
	for _, issuer := range c.verifier.issuers {
		keys, _ := issuer.Source.Keys()
		out <- prometheus.MustNewConstMetric(issuerKeys, prometheus.GaugeValue, float64(keys.Len()), issuer.Name)
		out <- prometheus.MustNewConstMetric(issuerLeftOut, prometheus.GaugeValue, float64(len(keys.LeftOut())), issuer.Name)
	}
}
