package plugin

import (
	"errors"
	"math"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/sluice-gateway/sluice/plugin/config"
	"github.com/sluice-gateway/sluice/plugin/limit"
	"github.com/sluice-gateway/sluice/plugin/window"
)

// outcome is what became of a request that was let through.
type outcome struct {
	status int
	fault  bool // the client may have brought it about
	own    bool // Traefik's, as no answer came from the service
}

// counts tells whether the permit is used up. An error that the client may have
// brought about always counts: it would decide itself what it is charged for.
// What Traefik says in the service's stead gives nothing back, but a limit that
// counts some statuses alone does not count it either: a service that is away
// would lock everybody out who calls it.
func (rule *limitRule) counts(o outcome) bool {
	if o.fault {
		return true
	}
	if rule.Count != nil && !rule.Count.Has(o.status) {
		return false
	}
	return rule.Refund == nil || o.own || !rule.Refund.Has(o.status)
}

// permitted is the limit that holds for this request: the one an identity
// header carries, that of the user's tier, or the plain one. Both headers have
// just been written by the auth step, else headers.go has removed them.
func permitted(rule *limitRule, h http.Header) int64 {
	if rule.LimitHeader != "" {
		if n, ok := ownLimit(rule, h[rule.LimitHeader]); ok {
			return n
		}
	}
	if rule.TierHeader != "" {
		if n, ok := tierLimit(rule, h[rule.TierHeader]); ok {
			return n
		}
	}
	return rule.Limit
}

// unlimited in a limit header is the most that a limit can be.
const unlimited = "unlimited"

// ownLimit is the limit that the auth service names: a whole number, also as
// programs write it that know no other kind (1000000.0, 1e+06), or unlimited.
func ownLimit(rule *limitRule, values []string) (int64, bool) {
	text, most := strings.TrimSpace(strings.Join(values, ", ")), window.MaxLimit
	if text == "" {
		return 0, false
	}
	if strings.EqualFold(text, unlimited) {
		return most, true
	}
	if n, err := strconv.ParseInt(text, 10, 64); err == nil && n >= 0 && n <= most {
		return n, true
	}
	n, err := strconv.ParseFloat(text, 64)
	if err != nil && !errors.Is(err, strconv.ErrRange) || strings.Trim(text, "0123456789+-.eE") != "" || n < 0 || n != math.Trunc(n) {
		rule.oddities.unread.say(rule, text, "which is neither a whole number of requests nor "+strconv.Quote(unlimited)+": its limit of "+strconv.FormatInt(rule.Limit, 10)+", or its tier's, holds instead")
		return 0, false
	}
	if n > float64(most) {
		rule.oddities.beyond.say(rule, text, "more than a limit can be: "+strconv.FormatInt(most, 10)+" holds instead")
		return most, true
	}
	return int64(n), true
}

// tierLimit is the limit of the tier that the header names. Of several, as roles
// are, the first counts.
func tierLimit(rule *limitRule, values []string) (int64, bool) {
	if len(values) == 1 {
		if n, ok := rule.Tiers[values[0]]; ok {
			return n, true
		}
	}
	roles := strings.FieldsFunc(strings.Join(values, ","), func(c rune) bool { return c == ' ' || c == '\t' || c == ',' })
	for _, tier := range rule.Ranked {
		if config.Contains(roles, tier) {
			return rule.Tiers[tier], true
		}
	}
	return 0, false
}

// hold is a permit whose answer decides whether it counts.
type hold struct {
	rule *limitRule
	held *limit.Hold
}

// hostOf is the host that a limit counts by. It is one, whatever its spelling, with
// port, in capitals or with a dot at its end: Traefik routes all of them alike, and
// each would have a limit of its own.
func hostOf(r *http.Request) string {
	host := r.Host
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	return strings.TrimSuffix(strings.ToLower(strings.Trim(host, "[]")), ".")
}

// headerValue is a field's value without the white space around it. HTTP/1.1
// trims that; over HTTP/2 Go hands it on, though RFC 9113, section 8.2.1, forbids
// it, and each spelling would have a limit of its own.
func headerValue(values []string) string {
	if len(values) == 0 {
		return ""
	}
	return strings.Trim(values[0], " \t")
}

// askEach asks each limit for itself about what memory does not tell: in a dry run
// none refuses.
func askEach(g *gate, asks []limit.Ask, answers []limit.Answer) {
	for i := range answers {
		if answers[i].Verdict == limit.Undecided {
			limit.Take(g.engine, &g.policy, asks[i:i+1], answers[i:i+1], clock())
		}
	}
}

// countDenials counts what limits would have denied.
func countDenials(p *pass, answers []limit.Answer) {
	for i := range answers {
		if answers[i].Verdict == limit.Denied {
			p.rules[i].limiter.Denied.Add(1)
		}
	}
}

// giveBack returns every permit of a request that is refused for another reason.
func giveBack(g *gate, answers []limit.Answer, holds []hold) {
	for i := range answers {
		g.engine.GiveBack(&answers[i])
	}
	settleAll(holds, false)
}

func settleAll(holds []hold, counts bool) {
	for _, h := range holds {
		h.held.Settle(counts)
	}
}

// takeHolds adds to holds the permits whose answer decides whether they count.
func takeHolds(g *gate, p *pass, answers []limit.Answer, holds []hold) []hold {
	for i, rule := range p.rules {
		if !rule.awaited {
			continue
		}
		if held := g.engine.Hold(&answers[i], g.engine.Now()); held != nil {
			holds = append(holds, hold{rule: rule, held: held})
		}
	}
	return holds
}

// settleByGate lets the gate's own refusal decide.
func settleByGate(holds []hold, status int) {
	for _, h := range holds {
		h.held.Settle(h.rule.CountFrom != config.ServicesAnswers && h.rule.counts(outcome{status: status}))
	}
}

// settleBy lets what became of the request decide which permits count.
func settleBy(holds []hold, o outcome) {
	for _, h := range holds {
		h.held.Settle(h.rule.counts(o))
	}
}

// joinEarlier adds to what a middleware before this one, of ours as a rule, has said
// of its limits (classic wiring).
func joinEarlier(out http.Header, p *pass, state string) {
	out["Ratelimit-Policy"] = join(out["Ratelimit-Policy"], p.policy[0])
	out["Ratelimit"] = join(out["Ratelimit"], state)
}

func join(earlier []string, items string) []string {
	if len(earlier) > 0 {
		items = earlier[0] + ", " + items
	}
	return []string{items}
}

var legacyNames = []string{"X-Ratelimit-Limit", "X-Ratelimit-Remaining", "X-Ratelimit-Reset"}

// legacyOf are their values; nil where there is none.
func legacyOf(h http.Header) [][]string {
	var all [][]string
	for _, name := range legacyNames {
		all = append(all, h[name])
	}
	return all
}

// announceLegacy writes the X-RateLimit headers of the limit closest to its
// end; X-RateLimit-Reset is in seconds, for a client that is out of it until a
// request could pass.
func announceLegacy(h http.Header, p *pass, answers []limit.Answer) {
	least := -1
	for i := range answers {
		decided := answers[i].Verdict != limit.Undecided && answers[i].Verdict != limit.Needless
		if decided && (least < 0 || answers[i].Remaining < answers[least].Remaining) {
			least = i
		}
	}
	if least < 0 {
		return
	}
	a := &answers[least]
	reset := a.Reset
	if a.Verdict == limit.Denied {
		reset = a.RetryAfter
	}
	for i, n := range []int64{p.asks[least].Limit, a.Remaining, seconds(reset)} {
		value := strconv.FormatInt(n, 10)
		if earlier := h[legacyNames[i]]; earlier != nil {
			earlier[0] = value // in place: a middleware of ours before this one insists on its own (response.go)
		} else {
			h[legacyNames[i]] = []string{value}
		}
	}
}

// describe is the limit's item of RateLimit-Policy: `"per-user";q=100;w=60`.
func (rule *limitRule) describe(limit int64) string {
	return strconv.Quote(rule.Name) + ";q=" + strconv.FormatInt(limit, 10) + ";w=" + strconv.FormatInt(seconds(rule.Window), 10)
}

// seconds rounds up.
func seconds(d time.Duration) int64 {
	if d <= 0 {
		return 0
	}
	return int64((d + time.Second - 1) / time.Second)
}
