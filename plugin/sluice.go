// Package plugin is Sluice's policy for Traefik: who is this, and may they,
// now? One source, interpreted by a stock Traefik or compiled into ours.
//
// Every request passes, in this order (RULES 15):
//
//	requestid.go  a name for the request, on its way in and out
//	headers.go    what only the auth step may set is removed
//	sluice.go     a target that HTTP/1.1 cannot carry is refused
//	limits.go     limits that need no identity: address, header, global
//	identity.go   the credential is judged: from memory (decisions.go), which
//	              events.go keeps honest, or by authsvc (authclient.go)
//	limits.go     limits on users
//	response.go   on to the service
//
// and refusal.go writes the answer where one of them says no. The limits
// themselves are package limit's, their rule package window's, and the way to
// Redis package redis's.
//
// Two wirings. Fast: `auth` is configured and all of the above happens here.
// Classic: Traefik's forwardAuth stands before this middleware and has put
// X-User-ID on the request; trustUserHeader says so, and a middleware without
// auth and limits before it all removes what clients sent.
//
// A mistake in the configuration closes the route: New logs all of them once
// and returns a handler that answers 503. Returning an error would make Traefik
// leave the router out, and a broader one might take its requests, unguarded
// (RULES 6).
package plugin

import (
	"context"
	"net/http"
	"net/netip"
	"strings"

	"github.com/sluice-gateway/sluice/plugin/limit"
)

// gate is the middleware on one router. It holds no state of its own: what
// changes lives in shared.go.
type gate struct {
	next http.Handler

	stripped        []string
	address         addressStrategy
	auth            *authSettings
	userHeader      string
	trustUserHeader bool
	decisions       *decisions

	backend      *backend
	engine       *limit.Engine
	policy       limit.Policy
	rules        []*limitRule // every limit, in configured order
	clientLimits []*limitRule // those that need no identity
	userLimits   []*limitRule
	exemptIPs    []netip.Prefix
	exemptUsers  map[string]bool

	dryRun        bool
	legacyHeaders bool

	// What serveSteady needs; steady is whether it can ever serve.
	steady        bool
	addressed     bool     // some limit goes by address
	addressesLast bool     // and no other limit is asked after those
	awaited       bool     // the answer decides whether some permit counts
	policies      []string // RateLimit-Policy where every limit is the plain one
}

// New builds the middleware. It never needs the network, and fails for no
// configuration.
func New(ctx context.Context, next http.Handler, config *Config, name string) (http.Handler, error) {
	s, problems := config.read()
	if len(problems) > 0 {
		logLine("error", "the middleware "+name+" is misconfigured and answers 503:\n  "+strings.Join(problems, "\n  "))
		return misconfigured{}, nil
	}
	g := &gate{
		next:            next,
		stripped:        strippedHeaders(s),
		address:         s.address,
		auth:            s.auth,
		userHeader:      s.userHeader,
		trustUserHeader: s.trustUserHeader,
		policy:          s.policy,
		exemptIPs:       s.exemptIPs,
		exemptUsers:     s.exemptUsers,
		dryRun:          s.dryRun,
		legacyHeaders:   s.legacyHeaders,
	}
	if len(s.limits) > 0 || s.auth != nil {
		g.backend = holdBackend(ctx, &s.redis)
		g.engine = g.backend.engine
	}
	if s.auth != nil {
		g.decisions = holdDecisions(ctx, s, g.backend)
	}
	g.rules = s.limits
	for i, rule := range s.limits {
		rule.position = i
		rule.awaited = rule.count != nil || rule.refund != nil
		rule.limiter = holdLimiter(ctx, g.backend, rule, s.maxKeys, s.address.subnet, s.policy)
		rule.varies = rule.tierHeader != "" || rule.limitHeader != ""
		rule.policy = rule.describe(rule.limit)
		rule.denial = denialHead(rule)
		rule.quoted = `"` + rule.name + `";r=`
		if rule.key == keyUser {
			g.userLimits = append(g.userLimits, rule)
		} else {
			g.clientLimits = append(g.clientLimits, rule)
		}
	}
	g.prepareSteady()
	return g, nil
}

// ServeHTTP is the pipeline, or the short way through it (steady.go).
func (g *gate) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	out := w.Header()
	id := requestID(g, out, r)
	strip(g, r.Header)
	if r.ProtoMajor > 1 && refuseTarget(w, r, id) {
		return
	}
	if !g.steady || !serveSteady(g, w, r, out, id) {
		servePipeline(g, w, r, out, id)
	}
}

// refuseTarget refuses white space in a query: Go's server takes it over HTTP/2,
// and in HTTP/1.1 it would end the target.
func refuseTarget(w http.ResponseWriter, r *http.Request, id string) bool {
	if strings.IndexByte(r.URL.RawQuery, ' ') < 0 {
		return false
	}
	brokenTarget().write(w, r, id)
	return true
}

// servePipeline takes every step by itself. (A function of its own, for the
// interpreter's sake: what is in ServeHTTP costs the short way too.)
func servePipeline(g *gate, w http.ResponseWriter, r *http.Request, out http.Header, id string) {
	t := toll{gate: g}
	no := g.admit(&t, r)
	t.announce(out)
	if no != nil {
		no.write(w, r, id)
		return
	}
	forward(g.next, w, r, t.holds)
}

// admit asks who it is and whether they may.
func (g *gate) admit(t *toll, r *http.Request) *refusal {
	exempt := len(g.exemptIPs) > 0 && within(g.exemptIPs, g.address.address(r))
	if len(g.clientLimits) > 0 && !exempt {
		if no := t.demand(g.clientLimits, r, ""); no != nil {
			return no
		}
	}
	who, no := g.identify(r)
	if no != nil {
		settle(t.holds, no.status)
		return no
	}
	if len(g.userLimits) > 0 && !exempt && !g.exemptUsers[who.user] {
		if no := t.demand(g.userLimits, r, who.limited); no != nil {
			t.giveBack()
			return no
		}
	}
	if g.backend != nil {
		g.backend.allowed.Add(1)
	}
	return nil
}

// misconfigured is the closed route.
type misconfigured struct{}

func (misconfigured) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	id := newUUID()
	w.Header()[requestIDHeader] = id
	unavailable("The gateway is misconfigured; its log says how.", 0).write(w, r, id[0])
}
