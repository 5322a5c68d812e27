// Package plugin is Sluice's policy for Traefik: who is this, and may they,
// now? One source, interpreted by a stock Traefik or compiled into ours.
//
// Every request passes, in this order (design: order-of-steps):
//
//	requestid.go  a name for the request, on its way in and out
//	headers.go    what only the auth step may set is removed
//	sluice.go     a target that HTTP/1.1 cannot carry is refused
//	attend.go     what is known of such requests is recalled (pass.go),
//	inquire.go    or found out:
//	limits.go       limits that need no identity: address, a client's header, global
//	identity.go     the credential is judged: from memory (decisions.go), which
//	                events.go keeps honest, or by authsvc (authclient.go)
//	limits.go     limits on users, and all others where nothing had to be found out
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
// (design: closed-on-mistake).
package plugin

import (
	"context"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/sluice-gateway/sluice/plugin/config"
	"github.com/sluice-gateway/sluice/plugin/limit"
)

// gate is the middleware on one router. It holds no state of its own: what
// changes lives in shared.go, once for all routers.
type gate struct {
	next http.Handler

	stripped        []string
	address         config.AddressSettings
	auth            *config.AuthSettings
	userHeader      string
	trustUserHeader bool
	decisions       *decisions

	backend       *backend
	engine        *limit.Engine
	policy        limit.Policy
	rules         []*limitRule // in configured order, those that are asked whoever comes
	clientLimits  []*limitRule // of them those that need no identity, and are asked before it
	unknownLimits []*limitRule // clientLimits, and those that count the gate's judgement alone
	exemptIPs     []netip.Prefix
	exemptUsers   map[string]bool

	dryRun        bool
	legacyHeaders bool
	vouched       bool // trusted proxies may name a request
	disarms       bool // the credential stays here

	// By what passes are found (pass.go).
	open      *pass    // of all requests, where there is nothing to find out
	kind      string   // of the passes; then by the credential,
	byAddress bool     // the client's address
	inputs    []string // and other headers
	memory    *memory

	judges   bool          // it has to be found out who asks
	allowed  *atomic.Int64 // requests that got through, but for those of decisions.passed
	quiet    atomic.Int64  // answers that left our headers alone (response.go)
	uncalled atomic.Int64  // requests that nobody limits nor judges
}

// Config is the middleware's configuration as Traefik decodes it.
type Config = config.Config

// CreateConfig is what Traefik decodes a middleware's configuration onto. Every
// default is filled in when it is read, not here: a default inside `auth` or an item
// of `limits` could not live here, since mapstructure allocates those afresh
// (design: defaults), and one place for all of them is easier to trust.
func CreateConfig() *Config {
	return &Config{}
}

// New builds the middleware. It never needs the network, and fails for no
// configuration.
func New(ctx context.Context, next http.Handler, written *Config, name string) (http.Handler, error) {
	makingUUIDs.Do(func() { go makeUUIDs(uuids) })
	if resident {
		attending.Do(takeSeats)
	}
	s, problems := written.Read()
	if len(problems) > 0 {
		mistakes.tell(ctx, name, problems)
		return misconfigured{}, nil
	}
	g := &gate{
		next:            next,
		stripped:        s.Stripped(),
		address:         s.Address,
		auth:            s.Auth,
		userHeader:      s.UserHeader,
		trustUserHeader: s.TrustUserHeader,
		policy:          s.Policy,
		exemptIPs:       s.ExemptIPs,
		exemptUsers:     s.ExemptUsers,
		dryRun:          s.DryRun,
		vouched:         len(s.Address.Trusted) > 0,
		legacyHeaders:   s.LegacyHeaders,
		disarms:         s.Auth != nil && !s.Auth.KeepAuthorization,
	}
	if len(s.Limits) > 0 || s.Auth != nil {
		g.backend = holdBackend(ctx, &s.Redis)
		g.engine = g.backend.engine
	}
	if s.Auth != nil {
		g.decisions = holdDecisions(ctx, s, g.backend)
	}
	for _, l := range s.Limits {
		rule := &limitRule{LimitSettings: *l}
		rule.awaited = rule.Count != nil || rule.Refund != nil
		rule.varies = rule.TierHeader != "" || rule.LimitHeader != ""
		rule.told = rule.Key == config.KeyHeader && s.Auth != nil && config.Contains(s.Auth.ResponseHeaders, rule.KeyHeader)
		rule.identified = rule.told || config.NeedsIdentity(l, s.Auth)
		holdLimiter(ctx, g.backend, rule, s.MaxKeys, s.Address.Subnet, s.Policy)
		rule.policy = rule.describe(rule.Limit)
		rule.usedUp = usedUp(rule)
		rule.quoted = `"` + rule.Name + `";r=`
		if rule.CountFrom == config.GatesAnswers {
			g.unknownLimits = append(g.unknownLimits, rule)
			continue
		}
		g.rules = append(g.rules, rule)
		if !rule.identified {
			g.clientLimits = append(g.clientLimits, rule)
			g.unknownLimits = append(g.unknownLimits, rule)
		}
	}
	g.prepare(written)
	return g, nil
}

// ServeHTTP is the way of every request, in any configuration. What is known of such
// requests is recalled; what is not is found out, and then goes the same way.
func (g *gate) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var v *visit
	if resident {
		v = <-visits
	} else {
		v = &visit{}
	}
	v.gate = g
	v.w = w
	v.r = r
	if resident {
		arrivals <- v
		<-v.done
	} else {
		seeTo(v)
	}
	out, watched := v.out, v.watched
	if !v.clear {
		if !conclude(v, w, r) {
			return
		}
	} else if v.lent {
		visits <- v
	}
	if watched {
		watch(g, w, r, out, nil)
		return
	}
	g.next.ServeHTTP(w, r)
	if len(out[config.RequestIDHeader]) != 1 || len(out["Ratelimit"]) > 1 || len(out["Ratelimit-Policy"]) > 1 {
		g.quiet.Store(talksOver)
	}
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
	unavailable("The gateway is misconfigured; its log says how.", 0).write(w, r, newUUID())
}
