// Package plugin is Sluice's policy for Traefik: who is this, and may they,
// now? One source, interpreted by a stock Traefik or compiled into ours.
//
// Every request passes, in this order (RULES 15):
//
//	requestid.go  a name for the request, on its way in and out
//	headers.go    what only the auth step may set is removed
//	sluice.go     a target that HTTP/1.1 cannot carry is refused
//	limits.go     limits that need no identity: address, a client's header, global
//	identity.go   the credential is judged: from memory (decisions.go), which
//	              events.go keeps honest, or by authsvc (authclient.go)
//	limits.go     limits on users, and all that go by what identity.go found out
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
	"sync"
	"sync/atomic"

	"github.com/sluice-gateway/sluice/plugin/limit"
)

// gate is the middleware on one router. It holds no state of its own: what
// changes lives in shared.go, once for all routers.
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
	rules        []*limitRule // in configured order, those that are asked whoever comes
	clientLimits []*limitRule // of them those that need no identity
	doubtLimits  []*limitRule // clientLimits, and those that count the gate's judgement alone
	userLimits   []*limitRule // those that do: by user, or by what else the auth step says
	exemptIPs    []netip.Prefix
	exemptUsers  map[string]bool

	dryRun        bool
	legacyHeaders bool

	plain     bool // there is nothing to ask
	vouched   bool // trusted proxies may name a request
	steady    bool // serveSteady can serve
	bound     bool // a standing is of one credential at one address
	disarms   bool // the credential stays here
	awaited   bool // the answer decides whether some permit counts
	standings *standings
	events    *atomic.Int64 // the state of the stream of revocations
	passed    *atomic.Int64 // requests that serveSteady let pass
	quiet     atomic.Int64  // answers that left our headers alone (response.go)
}

// New builds the middleware. It never needs the network, and fails for no
// configuration.
func New(ctx context.Context, next http.Handler, config *Config, name string) (http.Handler, error) {
	makingUUIDs.Do(func() { go makeUUIDs(uuids) })
	s, problems := config.read()
	if len(problems) > 0 {
		mistakes.tell(ctx, name, problems)
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
		vouched:         len(s.address.trusted) > 0,
		legacyHeaders:   s.legacyHeaders,
	}
	if len(s.limits) > 0 || s.auth != nil {
		g.backend = holdBackend(ctx, &s.redis)
		g.engine = g.backend.engine
		g.passed = &g.backend.allowed
	}
	if s.auth != nil {
		g.decisions = holdDecisions(ctx, s, g.backend)
		g.passed = &g.decisions.passed
		g.events = &g.backend.stream.state
	}
	for i, rule := range s.limits {
		rule.position = i
		rule.awaited = rule.count != nil || rule.refund != nil
		rule.identified = needsIdentity(rule, s.auth)
		holdLimiter(ctx, g.backend, rule, s.maxKeys, s.address.subnet, s.policy)
		rule.policy = rule.describe(rule.limit)
		rule.denial = denialHead(rule)
		rule.quoted = `"` + rule.name + `";r=`
		if rule.countFrom == gatesAnswers {
			g.doubtLimits = append(g.doubtLimits, rule)
			continue
		}
		g.rules = append(g.rules, rule)
		if rule.identified {
			g.userLimits = append(g.userLimits, rule)
		} else {
			g.clientLimits = append(g.clientLimits, rule)
			g.doubtLimits = append(g.doubtLimits, rule)
		}
	}
	g.plain = g.auth == nil && len(g.rules) == 0 && !g.trustUserHeader
	g.prepareSteady()
	if g.steady {
		g.standings = holdStandings(ctx, g, config)
	}
	return g, nil
}

// ServeHTTP is the pipeline, or the short way through it (steady.go). What every
// request needs is written out here, for the interpreter's sake.
func (g *gate) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	out, h := w.Header(), r.Header
	id := out[requestIDHeader] // put there by another of our middlewares on the way (classic wiring): no client can have
	if id == nil {
		if g.vouched {
			id = vouchedID(g, r)
		}
		if id == nil {
			id = newUUID()
		}
	}
	h[requestIDHeader] = id
	out[requestIDHeader] = id
	for _, name := range g.stripped {
		delete(h, name)
	}
	if h["Connection"] != nil {
		cutConnection(h)
	}
	if r.ProtoMajor > 1 {
		if refuseTarget(w, r, id) {
			return
		}
	} else if r.Method == http.MethodConnect {
		tunnel().write(w, r, id[0])
		return
	}
	if g.steady {
		if serveSteady(g, w, r, h, out, id) {
			return
		}
	}
	servePipeline(g, w, r, out, id)
}

// refuseTarget refuses white space in a query: Go's server takes it over HTTP/2,
// and in HTTP/1.1 it would end the target.
func refuseTarget(w http.ResponseWriter, r *http.Request, id []string) bool {
	if strings.IndexByte(r.URL.RawQuery, ' ') < 0 {
		return false
	}
	brokenTarget().write(w, r, id[0])
	return true
}

// servePipeline takes every step by itself. (A function of its own, for the
// interpreter's sake: what is in ServeHTTP costs the short way too.)
func servePipeline(g *gate, w http.ResponseWriter, r *http.Request, out http.Header, id []string) {
	if g.plain && len(r.Header["Authorization"]) < 2 {
		if r.ContentLength != 0 || g.quiet.Load() < watchedFirst {
			watch(g, w, r, out, nil)
			return
		}
		g.next.ServeHTTP(w, r)
		if len(out[requestIDHeader]) != 1 {
			g.quiet.Store(talksOver)
		}
		return
	}
	t := toll{gate: g}
	no := g.admit(&t, r)
	t.announce(out)
	if g.steady && (len(t.answers) == 0 || t.answers[0].Remembered) {
		keepStanding(g, &t, r)
	}
	if no != nil {
		no.write(w, r, id[0])
		return
	}
	watch(g, w, r, out, t.holds)
}

// admit asks who it is and whether they may.
func (g *gate) admit(t *toll, r *http.Request) *refusal {
	exempt := len(g.exemptIPs) > 0 && within(g.exemptIPs, g.address.address(r))
	limits := g.clientLimits
	if len(g.doubtLimits) > len(limits) && g.mustJudge(r) {
		limits = g.doubtLimits
	}
	if len(limits) > 0 && !exempt {
		if no := t.demand(limits, r, ""); no != nil {
			return no
		}
	}
	who, no := g.identify(r)
	t.who = who.decision
	if no != nil {
		settleByGate(t.holds, no.status)
		return no
	}
	if len(limits) > len(g.clientLimits) {
		t.acquit()
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

// told remembers of which mistakes the log has been told.
type told struct {
	mu   sync.Mutex
	said map[string]<-chan struct{} // by middleware: what ends when the configuration does
}

// tell writes a middleware's mistakes once a configuration: Traefik makes a
// middleware for each router and entry point, all under one context.
func (t *told) tell(ctx context.Context, name string, problems []string) {
	id := name + "\n" + strings.Join(problems, "\n")
	t.mu.Lock()
	defer t.mu.Unlock()
	if now, before := ctx.Done(), t.said[id]; now != nil {
		if now == before {
			return
		}
		t.said[id] = now
		context.AfterFunc(ctx, func() { t.forget(id, now) })
	}
	for _, problem := range problems {
		logLine("error", "the middleware "+name+" is misconfigured and answers 503: "+problem)
	}
}

func (t *told) forget(id string, configuration <-chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.said[id] == configuration {
		delete(t.said, id)
	}
}

// misconfigured is the closed route.
type misconfigured struct{}

func (misconfigured) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	id := newUUID()
	w.Header()[requestIDHeader] = id
	unavailable("The gateway is misconfigured; its log says how.", 0).write(w, r, id[0])
}
