package plugin

import (
	"errors"
	"math"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/sluice-gateway/sluice/plugin/limit"
	"github.com/sluice-gateway/sluice/plugin/window"
)

// What a limit's key may be.
const (
	keyUser   = "user"
	keyIP     = "ip"
	keyHeader = "header:"
	keyGlobal = "global"
)

// What to do with a request that has no such key.
const (
	missingIP   = "ip"
	missingDeny = "deny"
	missingSkip = "skip"
)

// Whose answer count and refund speak of, where that is not anybody's: the gate's,
// when it judges the credential, or the service's. What counts the gate's answers
// alone is asked only where the gate has to judge, and comes back at once where it
// finds the credential good.
const (
	anyAnswers      = ""
	gatesAnswers    = "gate"
	servicesAnswers = "service"
)

// limitRule is one configured limit.
type limitRule struct {
	name        string
	key         string // one of the four above
	keyHeader   string // of keyHeader
	limit       int64
	window      time.Duration
	cost        int64
	tierHeader  string
	tiers       map[string]int64
	ranked      []string // the tiers' names: who has several is of the first
	limitHeader string
	onMissing   string
	count       *statusSet // nil: every answer counts
	refund      *statusSet // nil: no answer gives the permit back
	countFrom   string     // whose answer that is, one of the three above

	position   int // in the configuration, which orders the RateLimit headers
	limiter    *limit.Limiter
	oddities   *oddities
	identified bool   // what the auth step says decides its key or its number: it is asked after that
	awaited    bool   // the answer's status decides whether the permit counts
	policy     string // RateLimit-Policy for the plain limit
	denial     string // the body of its denials, up to the seconds to wait
	quoted     string // `"name"`, with what follows it in RateLimit
}

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
	if rule.count != nil && !rule.count.has(o.status) {
		return false
	}
	return rule.refund == nil || o.own || !rule.refund.has(o.status)
}

// needsIdentity tells whether a limit's key or number comes from what the auth
// step says.
func needsIdentity(rule *limitRule, auth *authSettings) bool {
	return rule.key == keyUser || rule.tierHeader != "" || rule.limitHeader != "" ||
		rule.key == keyHeader && auth != nil && contains(auth.responseHeaders, rule.keyHeader)
}

// permitted is the limit that holds for this request: the one an identity
// header carries, that of the user's tier, or the plain one. Both headers have
// just been written by the auth step, else headers.go has removed them.
func permitted(rule *limitRule, h http.Header) int64 {
	if rule.limitHeader != "" {
		if n, ok := ownLimit(rule, h[rule.limitHeader]); ok {
			return n
		}
	}
	if rule.tierHeader != "" {
		if n, ok := tierLimit(rule, h[rule.tierHeader]); ok {
			return n
		}
	}
	return rule.limit
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
		rule.oddities.unread.say(rule, text, "which is neither a whole number of requests nor "+strconv.Quote(unlimited)+": its limit of "+strconv.FormatInt(rule.limit, 10)+", or its tier's, holds instead")
		return 0, false
	}
	if n > float64(most) {
		rule.oddities.beyond.say(rule, text, "more than a limit can be: "+strconv.FormatInt(most, 10)+" holds instead")
		return most, true
	}
	return int64(n), true
}

// oddities are what a limit had to say of its limitHeader, for all routers that
// have it.
type oddities struct{ unread, beyond oddity }

// oddity is one kind of it: at most one line a minute.
type oddity struct {
	said    atomic.Int64 // when, in monotonic ns; 0 is never
	skipped atomic.Int64
}

// longestQuote bounds what a line repeats.
const longestQuote = 64

func (o *oddity) say(rule *limitRule, value, meaning string) {
	now, last := clock(), o.said.Load()
	if last != 0 && now-last < int64(time.Minute) || !o.said.CompareAndSwap(last, now) {
		o.skipped.Add(1)
		return
	}
	if len(value) > longestQuote {
		value = value[:longestQuote] + "..."
	}
	if n := o.skipped.Swap(0); n > 0 {
		meaning += " (and " + strconv.FormatInt(n, 10) + " more such requests since the last line)"
	}
	logLine("warn", "the limit "+rule.name+" reads "+strconv.Quote(value)+" from "+rule.limitHeader+", "+meaning)
}

// tierLimit is the limit of the tier that the header names. Of several, as roles
// are, the first counts.
func tierLimit(rule *limitRule, values []string) (int64, bool) {
	if len(values) == 1 {
		if n, ok := rule.tiers[values[0]]; ok {
			return n, true
		}
	}
	roles := strings.FieldsFunc(strings.Join(values, ","), func(c rune) bool { return c == ' ' || c == '\t' || c == ',' })
	for _, tier := range rule.ranked {
		if contains(roles, tier) {
			return rule.tiers[tier], true
		}
	}
	return 0, false
}

// toll is what the limits said of one request, and what it holds of them.
type toll struct {
	gate    *gate
	rules   []*limitRule // those that apply, in the order in which they were asked
	asks    []limit.Ask
	answers []limit.Answer
	holds   []hold
	who     *decision // on the request's credential; nil without one
}

// hold is a permit whose answer decides whether it counts.
type hold struct {
	rule *limitRule
	held *limit.Hold
}

// demand asks the given limits, all of them or none (I7). The user comes as the
// limit's key; "" is anonymous.
func (t *toll) demand(rules []*limitRule, r *http.Request, user string) *refusal {
	g := t.gate
	from := len(t.rules)
	address := ""
	for _, rule := range rules {
		key := ""
		switch rule.key {
		case keyUser:
			if user != "" {
				key = user
			}
		case keyHeader:
			if value := fieldValue(r, rule.keyHeader); value != "" {
				key = limit.Key(limit.HeaderKey, value)
			}
		case keyGlobal:
			key = limit.GlobalKey
		}
		if key == "" {
			if rule.key != keyIP && rule.onMissing == missingDeny {
				if g.dryRun {
					continue
				}
				return missingKey(rule)
			}
			if rule.key != keyIP && rule.onMissing == missingSkip {
				continue
			}
			if address == "" {
				address = g.address.client(r)
			}
			key = limit.Key(limit.IPKey, address)
		}
		t.rules = append(t.rules, rule)
		t.asks = append(t.asks, limit.Ask{Limiter: rule.limiter, Key: key, Limit: permitted(rule, r.Header), Cost: rule.cost})
		t.answers = append(t.answers, limit.Answer{})
	}
	if from == len(t.rules) {
		return nil
	}
	if g.dryRun {
		t.rehearse(from)
	} else if !g.engine.Take(&g.policy, t.asks[from:], t.answers[from:]) {
		return t.denied(from)
	}
	for i := from; i < len(t.rules); i++ {
		if t.rules[i].awaited {
			t.holds = append(t.holds, hold{rule: t.rules[i], held: g.engine.Hold(&t.answers[i], g.engine.Now())})
		}
	}
	return nil
}

// hostField is the name of the one field that may be a key and that Go keeps
// outside of the headers, together with HTTP/2's :authority.
const hostField = "Host"

// fieldValue is what a limit counts by. A host is one, whatever its spelling, with
// port, in capitals or with a dot at its end: Traefik routes all of them alike, and
// each would have a limit of its own.
func fieldValue(r *http.Request, name string) string {
	if name != hostField {
		return headerValue(r.Header[name])
	}
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

// rehearse is a dry run of the limits from the given one on: each decides and
// counts by itself, since none refuses.
func (t *toll) rehearse(from int) {
	for i := from; i < len(t.asks); i++ {
		t.gate.engine.Take(&t.gate.policy, t.asks[i:i+1], t.answers[i:i+1])
		if t.answers[i].Verdict == limit.Denied {
			t.rules[i].limiter.Denied.Add(1)
		}
	}
}

// denied is the refusal by the limits from the given one on: it names the one
// that denies for longest, and its Retry-After is theirs (RULES 32).
func (t *toll) denied(from int) *refusal {
	worst := -1
	for i := from; i < len(t.answers); i++ {
		a := &t.answers[i]
		if a.Verdict == limit.Unavailable {
			return unavailable("The rate limit cannot be checked at the moment.", a.RetryAfter)
		}
		if a.Verdict != limit.Denied {
			continue
		}
		t.rules[i].limiter.Denied.Add(1)
		if worst < 0 || a.RetryAfter > t.answers[worst].RetryAfter {
			worst = i
		}
	}
	never := t.asks[worst].Cost > t.asks[worst].Limit
	return tooMany(t.rules[worst], t.answers[worst].RetryAfter, never)
}

// giveBack returns every permit: the request was refused by a limit that was
// asked after these (I7).
func (t *toll) giveBack() {
	for i := range t.answers {
		if !t.rules[i].awaited {
			t.gate.engine.GiveBack(&t.answers[i])
		}
	}
	for _, h := range t.holds {
		h.held.Settle(false)
	}
}

// settleByGate lets the gate's own refusal decide.
func settleByGate(holds []hold, status int) {
	for _, h := range holds {
		h.held.Settle(h.rule.countFrom != servicesAnswers && h.rule.counts(outcome{status: status}))
	}
}

// acquit is the end of the limits that count the gate's answers alone: the
// credential is good. Nothing of them is left in the toll.
func (t *toll) acquit() {
	holds := t.holds
	t.holds = nil
	for _, h := range holds {
		if h.rule.countFrom == gatesAnswers {
			h.held.Settle(false)
		} else {
			t.holds = append(t.holds, h)
		}
	}
	n := 0
	for i, rule := range t.rules {
		if rule.countFrom == gatesAnswers {
			continue
		}
		t.rules[n] = rule
		t.asks[n] = t.asks[i]
		t.answers[n] = t.answers[i]
		n++
	}
	t.rules = t.rules[:n]
	t.asks = t.asks[:n]
	t.answers = t.answers[:n]
}

// settle lets what became of the request decide which permits count.
func settle(holds []hold, o outcome) {
	for _, h := range holds {
		h.held.Settle(h.rule.counts(o))
	}
}

// announce writes the RateLimit headers, limits in configured order.
func (t *toll) announce(h http.Header) {
	if len(t.rules) == 0 {
		return
	}
	order := t.inOrder()
	policies, state := "", ""
	for n, i := range order {
		rule, answer := t.rules[i], &t.answers[i]
		if n > 0 {
			policies += ", "
		}
		policies += rule.policyOf(t.asks[i].Limit)
		if answer.Verdict == limit.Undecided {
			continue // another limit's denial made asking this one needless
		}
		if state != "" {
			state += ", "
		}
		state += rule.quoted + strconv.FormatInt(answer.Remaining, 10) + ";t=" + strconv.FormatInt(seconds(t.reset(i)), 10)
	}
	join(h, "Ratelimit-Policy", policies)
	join(h, "Ratelimit", state)
	if t.gate.legacyHeaders {
		t.announceLegacy(h)
	}
}

// join adds items to a list header that a middleware of ours before this one
// may have begun (classic wiring).
func join(h http.Header, name, items string) {
	if earlier := h[name]; earlier != nil && items != "" {
		items = earlier[0] + ", " + items
	}
	if items != "" {
		h[name] = []string{items}
	}
}

// reset is when the quota is worth asking about again: at the end of the
// window, or for a client that is out of it when a request could pass.
func (t *toll) reset(i int) time.Duration {
	if a := &t.answers[i]; a.Verdict == limit.Denied {
		return a.RetryAfter
	}
	return t.answers[i].Reset
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
// end; X-RateLimit-Reset is in seconds.
func (t *toll) announceLegacy(h http.Header) {
	least := -1
	for i := range t.answers {
		if t.answers[i].Verdict != limit.Undecided && (least < 0 || t.answers[i].Remaining < t.answers[least].Remaining) {
			least = i
		}
	}
	if least < 0 {
		return
	}
	for i, n := range []int64{t.asks[least].Limit, t.answers[least].Remaining, seconds(t.reset(least))} {
		value := strconv.FormatInt(n, 10)
		if earlier := h[legacyNames[i]]; earlier != nil {
			earlier[0] = value // in place: a middleware of ours before this one insists on its own (response.go)
		} else {
			h[legacyNames[i]] = []string{value}
		}
	}
}

// inOrder are the indexes of the rules by configured position. They were asked
// in that order but for limits on users, which come after the others.
func (t *toll) inOrder() []int {
	order := make([]int, len(t.rules))
	for i := range order {
		at := i
		for at > 0 && t.rules[order[at-1]].position > t.rules[i].position {
			order[at] = order[at-1]
			at--
		}
		order[at] = i
	}
	return order
}

// policyOf is the limit's item of RateLimit-Policy: `"per-user";q=100;w=60`.
func (rule *limitRule) policyOf(limit int64) string {
	if limit == rule.limit {
		return rule.policy
	}
	return rule.describe(limit)
}

func (rule *limitRule) describe(limit int64) string {
	return strconv.Quote(rule.name) + ";q=" + strconv.FormatInt(limit, 10) + ";w=" + strconv.FormatInt(seconds(rule.window), 10)
}

// seconds rounds up.
func seconds(d time.Duration) int64 {
	if d <= 0 {
		return 0
	}
	return int64((d + time.Second - 1) / time.Second)
}
