package plugin

import (
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/sluice-gateway/sluice/plugin/limit"
)

// The steady state: the token is known, and of every limit's key it is known
// whether it has a permit.
//
// Nearly every request is of this kind, and the pipeline of sluice.go spends
// more on carrying its steps' results about than on the steps. serveSteady is
// the same steps in one function, with nothing to carry. Compiled it saves
// allocations; interpreted, where a call costs 0.5 to 1.5 us and a method 3.5 us,
// it is several times faster (BenchmarkHotPath in test/forms shows both).
//
// Where anything is not as expected it gives back what it took and reports
// false, and the pipeline starts from the beginning: it refuses nothing but
// what a limit's memory denies. TestSteadyIsThePipeline holds both to equal
// answers.

// prepareSteady decides whether the gate's configuration has a steady state at
// all: limits on users and addresses, and no exemptions.
func (g *gate) prepareSteady() {
	g.steady = len(g.rules) > 0 && len(g.rules) <= mostSteady &&
		len(g.exemptIPs) == 0 && len(g.exemptUsers) == 0 && !g.dryRun && !g.legacyHeaders &&
		!g.trustUserHeader && g.address.depth == 0 && len(g.address.excluded) == 0
	policies := []string{}
	for _, rule := range g.rules {
		if rule.key != keyIP && (rule.key != keyUser || g.auth == nil) {
			g.steady = false
		}
		rule.byAddress = rule.key == keyIP
		g.addressed = g.addressed || rule.byAddress
		g.awaited = g.awaited || rule.awaited
		policies = append(policies, rule.policy)
	}
	g.addressesLast = len(g.userLimits) == 0
	g.policies = []string{strings.Join(policies, ", ")}
}

// mostSteady is the number of limits that serveSteady has room for.
const mostSteady = 4

func serveSteady(g *gate, w http.ResponseWriter, r *http.Request, out http.Header, id string) bool {
	h := r.Header
	now := int64(time.Since(startedAt))
	var who *decision
	user, address := "", ""
	credentials := h["Authorization"]
	if len(credentials) > 1 {
		return false
	}
	if g.auth != nil {
		if len(credentials) == 0 {
			return false
		}
		if who = remembered(g.decisions, credentials[0], now); who == nil {
			return false
		}
		user = who.limited
	}
	if g.addressed {
		if address = peerKey(r.RemoteAddr); address == "" {
			return false
		}
	}
	if out["Ratelimit"] != nil {
		return false
	}
	policies := g.policies
	var answers [mostSteady]limit.Answer
	state, denied := make([]byte, 0, 128), false
	for i, rule := range g.rules {
		key, permits := user, rule.limit
		if rule.byAddress {
			key = address
		}
		if rule.varies && who != nil {
			if permits = permitted(rule, who.headers); permits != rule.limit {
				policies = steadyPolicies(g, who.headers)
			}
		}
		a := &answers[i]
		left := time.Duration(0)
		switch limit.Spend(rule.limiter, key, permits, rule.cost, now, a) {
		case limit.Granted:
			left = a.Reset
		case limit.Denied:
			left, denied = a.RetryAfter, true
		}
		if a.Verdict != limit.Granted && !steadyDenial(g, rule, a, permits) {
			giveBack(g, answers[:i])
			return false
		}
		if i > 0 {
			state = append(state, ", "...)
		}
		state = strconv.AppendInt(append(state, rule.quoted...), a.Remaining, 10)
		state = strconv.AppendInt(append(state, ";t="...), int64((left+time.Second-1)/time.Second), 10)
	}
	out["Ratelimit-Policy"] = policies
	out["Ratelimit"] = []string{string(state)}
	if who != nil {
		identifySteady(g, h, who) // of a denial too: the access log tells whose it was
	}
	if denied {
		refuseSteady(g, w, r, out, answers[:len(g.rules)], id)
		return true
	}
	g.backend.allowed.Add(1)
	if g.awaited {
		forward(g.next, w, r, heldSteady(g, answers[:len(g.rules)], now))
	} else {
		g.next.ServeHTTP(w, r)
	}
	return true
}

// steadyDenial tells whether the memory of a limit denies the request for good:
// a limit on addresses is asked before the others, which then have no say.
func steadyDenial(g *gate, rule *limitRule, a *limit.Answer, permits int64) bool {
	return a.Verdict == limit.Denied && rule.byAddress == g.addressesLast && rule.cost <= permits
}

// identifySteady puts on the request what the service is told of the user.
func identifySteady(g *gate, h http.Header, who *decision) {
	g.decisions.hits.Add(1)
	if !g.auth.keepAuthorization {
		delete(h, "Authorization")
	}
	for name, values := range who.headers {
		h[name] = values
	}
}

// giveBack returns what has been granted.
func giveBack(g *gate, answers []limit.Answer) {
	for i := range answers {
		if answers[i].Verdict == limit.Granted {
			g.engine.GiveBack(&answers[i])
		}
	}
}

// heldSteady are the permits whose answer decides whether they count.
func heldSteady(g *gate, answers []limit.Answer, now int64) []hold {
	var holds []hold
	for i, rule := range g.rules {
		if rule.awaited {
			holds = append(holds, hold{rule: rule, held: g.engine.Hold(&answers[i], now)})
		}
	}
	return holds
}

// refuseSteady is the denial by the limit that denies for longest; what the
// others granted goes back.
func refuseSteady(g *gate, w http.ResponseWriter, r *http.Request, out http.Header, answers []limit.Answer, id string) {
	worst := -1
	for i, rule := range g.rules {
		if answers[i].Verdict != limit.Denied {
			continue
		}
		rule.limiter.Denied.Add(1)
		if worst < 0 || answers[i].RetryAfter > answers[worst].RetryAfter {
			worst = i
		}
	}
	if len(answers) > 1 {
		giveBack(g, answers)
	}
	deny(w, r, out, g.rules[worst], answers[worst].RetryAfter, id)
}

// steadyPolicies is RateLimit-Policy for a user whose tier has limits of its
// own.
func steadyPolicies(g *gate, h http.Header) []string {
	policies := []string{}
	for _, rule := range g.rules {
		policies = append(policies, rule.policyOf(permitted(rule, h)))
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
