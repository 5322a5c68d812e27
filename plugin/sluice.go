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
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/http"

	"github.com/sluice-gateway/sluice/plugin/config"
)

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
		rule.usedUp = usedUp(l)
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

// prepare finds out by what the requests of the gate differ, and which passes are
// its own: those of all routers that have its configuration are found out once.
func (g *gate) prepare(written *Config) {
	g.allowed = &g.uncalled
	if g.backend != nil {
		g.allowed = &g.backend.allowed
	}
	g.judges = g.auth != nil || g.trustUserHeader
	if len(g.rules) == 0 && !g.judges {
		g.open = &pass{who: nobody, passed: g.allowed}
	}
	over := ""
	switch {
	case g.decisions != nil:
		g.memory = g.decisions.memory
		over = g.decisions.identity
	case g.backend != nil:
		g.memory = g.backend.memory
		over = g.backend.identity
	default:
		g.memory = newMemory()
	}
	anonymous := g.auth == nil || g.auth.Optional
	g.byAddress = len(g.exemptIPs) > 0
	if g.trustUserHeader {
		g.inputs = append(g.inputs, g.userHeader)
	}
	for _, rule := range g.rules {
		over += "\n" + rule.state
		if rule.Key == config.KeyIP || rule.OnMissing == config.MissingIP && (rule.Key == config.KeyHeader || rule.Key == config.KeyUser && anonymous) {
			g.byAddress = true
		}
		if rule.Key == config.KeyHeader && !rule.told {
			g.inputs = append(g.inputs, rule.KeyHeader)
		}
		if g.trustUserHeader {
			g.inputs = append(g.inputs, rule.TierHeader, rule.LimitHeader)
		}
	}
	if g.byAddress && (g.address.Depth > 0 || len(g.address.Excluded) > 0) {
		g.inputs = append(g.inputs, "X-Forwarded-For")
	}
	text, _ := json.Marshal(written) // strings alone
	sum := sha256.Sum256([]byte(over + "\n" + string(text)))
	g.kind = hex.EncodeToString(sum[:]) + "\n"
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

// conclude is the end of a visit that is decided, but not clear. It reports whether the
// request is to go on to the service all the same.
func conclude(v *visit, w http.ResponseWriter, r *http.Request) bool {
	if v.status == 0 {
		return goOn(v, w, r)
	}
	status, body := v.status, v.body
	if v.lent {
		visits <- v // the client may take its time
	}
	give(w, status, body)
	return false
}

// goOn is of a visit that nothing was written down for: its answer decides whether its
// permits count, nothing is refused in a dry run, or attend has panicked.
func goOn(v *visit, w http.ResponseWriter, r *http.Request) bool {
	g, p := v.gate, v.pass
	if v.no != nil {
		v.no.write(w, r, newUUID())
		return false
	}
	if v.verdict != granted {
		countDenials(p, v.answers)
	}
	if v.fresh {
		g.allowed.Add(1)
	} else {
		p.passed.Add(1)
	}
	if p.awaited {
		watch(g, w, r, v.out, takeHolds(g, p, v.answers, v.holds))
		return false
	}
	return true
}

// misconfigured is the closed route.
type misconfigured struct{}

func (misconfigured) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	unavailable("The gateway is misconfigured; its log says how.", 0).write(w, r, newUUID())
}
