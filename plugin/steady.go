package plugin

import (
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/sluice-gateway/sluice/plugin/limit"
)

// The steady state: the token is known, every limit's key holds a lease.
//
// Nearly every request is of this kind, and the pipeline of sluice.go spends
// more on carrying its steps' results about than on the steps. serveSteady is
// the same steps in one function, with nothing to carry. Compiled it saves
// allocations; interpreted, where a call costs 0.5 us and a method 2 us, it is
// several times faster (BenchmarkHotPath in test/forms shows both).
//
// Where anything is not as expected it gives back what it took and reports
// false, and the pipeline starts from the beginning: it never refuses, so every
// refusal has one origin. TestSteadyIsThePipeline holds both to equal answers.

// prepareSteady decides whether the gate's configuration has a steady state at
// all: limits of one kind, no exemptions, and answers that need no watching.
func (g *gate) prepareSteady() {
	rules := g.userLimits
	if g.auth == nil {
		rules = g.clientLimits
	}
	g.steady = len(rules) > 0 && len(rules) <= mostSteady && len(rules) == len(g.userLimits)+len(g.clientLimits) &&
		len(g.exemptIPs) == 0 && len(g.exemptUsers) == 0 && !g.dryRun && !g.legacyHeaders &&
		!g.trustUserHeader && g.address.depth == 0 && len(g.address.excluded) == 0
	policies := []string{}
	for _, rule := range rules {
		if rule.awaitsAnswer() || g.auth == nil && rule.key != keyIP {
			g.steady = false
		}
		policies = append(policies, rule.policy)
	}
	g.steadyRules = rules
	g.policies = []string{strings.Join(policies, ", ")}
}

// mostSteady is the number of limits that serveSteady has room for.
const mostSteady = 4

func serveSteady(g *gate, w http.ResponseWriter, r *http.Request) bool {
	h := r.Header
	out := w.Header()
	now := int64(time.Since(startedAt))
	key := ""
	var who *decision
	credentials := h["Authorization"]
	if g.auth == nil {
		if len(credentials) <= 1 {
			key = peerKey(r.RemoteAddr)
		}
	} else if len(credentials) == 1 {
		if who = remembered(g.decisions, credentials[0], now); who != nil {
			key = who.limited
		}
	}
	if key == "" || out["Ratelimit"] != nil {
		return false
	}
	policies := g.policies
	var answers [mostSteady]limit.Answer
	state := make([]byte, 0, 128)
	for i, rule := range g.steadyRules {
		permits := rule.limit
		if rule.varies && who != nil {
			permits = rule.permitted(who.headers)
			if permits != rule.limit {
				policies = steadyPolicies(g, who.headers)
			}
		}
		if !limit.Spend(rule.limiter, key, permits, rule.cost, now, &answers[i]) {
			for taken := 0; taken < i; taken++ {
				g.engine.GiveBack(&answers[taken])
			}
			return false
		}
		if i > 0 {
			state = append(state, ", "...)
		}
		state = append(state, rule.quoted...)
		state = strconv.AppendInt(state, answers[i].Remaining, 10)
		state = append(state, ";t="...)
		state = strconv.AppendInt(state, int64((answers[i].Reset+time.Second-1)/time.Second), 10)
	}
	out["Ratelimit-Policy"] = policies
	out["Ratelimit"] = []string{string(state)}
	if who != nil {
		g.decisions.hits.Add(1)
		if !g.auth.keepAuthorization {
			delete(h, "Authorization")
		}
		for name, values := range who.headers {
			h[name] = values
		}
	}
	g.backend.allowed.Add(1)
	g.next.ServeHTTP(w, r)
	return true
}

// steadyPolicies is RateLimit-Policy for a user whose tier has limits of its
// own.
func steadyPolicies(g *gate, h http.Header) []string {
	policies := []string{}
	for _, rule := range g.steadyRules {
		policies = append(policies, rule.policyOf(rule.permitted(h)))
	}
	return []string{strings.Join(policies, ", ")}
}

// peerKey is the key of an IPv4 peer, which net/http writes as 203.0.113.9:4711;
// "" for any other, whose address takes more to name.
func peerKey(remote string) string {
	colon := strings.IndexByte(remote, ':')
	if colon <= 0 || colon != strings.LastIndexByte(remote, ':') {
		return ""
	}
	return limit.IPKey + remote[:colon]
}
