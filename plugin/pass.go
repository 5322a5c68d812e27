package plugin

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"math"
	"net/http"
	"sync"
	"sync/atomic"

	"github.com/sluice-gateway/sluice/plugin/limit"
)

// pass is what is known of the requests of one kind: those with one credential, and
// where the configuration goes by more, from one address and with the same values of
// some headers (describe). It never changes, and holds nothing but what can be found
// out again.
type pass struct {
	key   memoryKey // where memory has it
	who   *decision // nobody, where no credential was judged
	until int64     // monotonic ns: it stands as long as memory has it, but no longer

	names  []string // of the headers that tell the service of the user
	values [][]string

	rules   []*limitRule // the limits that apply, in configured order
	asks    []limit.Ask  // what is asked of each
	heads   []string     // what stands before each of them in RateLimit
	places  *limit.Place // where: in memory; nil before they were asked
	policy  []string     // RateLimit-Policy, as a header's values
	awaited bool         // the answer decides whether some permit counts

	passed *atomic.Int64 // counts those who get through

	// Of a pass that was just found out, and is one request's:
	fresh   bool
	lasting bool           // memory has room for each of its keys
	partial bool           // of the limits that are asked before identity
	answers []limit.Answer // of the limits that were asked already
	holds   []hold
	no      *refusal
}

// nobody's decision stands for ever.
var nobody = &decision{fresh: math.MaxInt64}

// memory is what requests look up: passes, and the decisions that they come of. A
// pass that is in it stands, until its time: what ends it takes it out.
type memory struct {
	mu        sync.RWMutex
	state     int64 // of the stream of revocations (events.go)
	passes    map[memoryKey]*pass
	age       int64 // how often all passes were forgotten
	decisions map[memoryKey]*decision
}

// memoryKey is a SHA-256: of the whole credential, or of all that makes a kind of
// requests. What clients prove themselves by is not kept.
type memoryKey [sha256.Size]byte

// mostPasses bounds them, to some 8 MB. Beyond it all are found out anew.
const mostPasses = 1 << 14

func newMemory() *memory {
	return &memory{passes: map[memoryKey]*pass{}, decisions: map[memoryKey]*decision{}}
}

// keepPass has the next requests of the kind served by the pass, as long as its
// decision stands: one that is not kept itself is out of revocations' reach.
func keepPass(m *memory, key memoryKey, p *pass) {
	m.mu.Lock()
	if p.who == nobody || m.decisions[p.who.key] == p.who {
		keepPassLocked(m, key, p)
	}
	m.mu.Unlock()
}

func keepPassLocked(m *memory, key memoryKey, p *pass) {
	who := p.who
	if len(m.passes) >= mostPasses {
		m.forgetPassesLocked()
	}
	p.key = key
	p.until = standsUntil(who, m.state)
	if who != nobody {
		if who.age != m.age {
			who.kinds = nil
			who.age = m.age
		}
		if old := m.passes[key]; old == nil || old.who != who {
			who.kinds = append(who.kinds, key)
		}
	}
	m.passes[key] = p
}

func (m *memory) forgetPassesLocked() {
	m.passes = map[memoryKey]*pass{}
	m.age++
}

// doubt forgets all passes, since the stream of revocations has come to another
// state.
func (m *memory) doubt(state int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.state = state
	m.forgetPassesLocked()
}

// end takes out a decision, and the passes that came of it.
func (m *memory) end(old *decision) {
	m.mu.Lock()
	defer m.mu.Unlock()
	old.fresh = 0
	if m.decisions[old.key] == old {
		delete(m.decisions, old.key)
	}
	if old.age == m.age {
		for _, key := range old.kinds {
			delete(m.passes, key)
		}
	}
	old.kinds = nil
}

// drop has the requests of a pass found out anew.
func (m *memory) drop(p *pass) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.passes[p.key] == p {
		m.passes[p.key] = &pass{who: p.who} // its decision lists the key already
	}
}

// prepare finds out by what the requests of the gate differ, and which passes are
// its own: those of all routers that have its configuration are found out once.
func (g *gate) prepare(config *Config) {
	if g.auth == nil && len(g.rules) == 0 && !g.trustUserHeader {
		g.open = &pass{who: nobody, passed: &g.uncalled}
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
	anonymous := g.auth == nil || g.auth.optional
	g.byAddress = len(g.exemptIPs) > 0
	if g.trustUserHeader {
		g.inputs = append(g.inputs, g.userHeader)
	}
	for _, rule := range g.rules {
		over += "\n" + rule.state
		if rule.key == keyIP || rule.onMissing == missingIP && (rule.key == keyHeader || rule.key == keyUser && anonymous) {
			g.byAddress = true
		}
		if rule.key == keyHeader && !rule.told {
			g.inputs = append(g.inputs, rule.keyHeader)
		}
		if g.trustUserHeader {
			g.inputs = append(g.inputs, rule.tierHeader, rule.limitHeader)
		}
	}
	if g.byAddress && (g.address.depth > 0 || len(g.address.excluded) > 0) {
		g.inputs = append(g.inputs, "X-Forwarded-For")
	}
	text, _ := json.Marshal(config) // strings alone
	sum := sha256.Sum256([]byte(over + "\n" + string(text)))
	g.kind = hex.EncodeToString(sum[:]) + "\n"
}

// findOut finds out what no pass tells, in the order of RULES 15: limits that need
// no identity, identity. The limits on users are left to whoever asks. Where it
// refuses, the pass is of the limits that were asked before.
func findOut(g *gate, r *http.Request, subject string) *pass {
	exempt := len(g.exemptIPs) > 0 && within(g.exemptIPs, addressOf(&g.address, r))
	credentials := r.Header["Authorization"]
	var kept *decision
	if g.auth != nil && len(credentials) == 1 {
		kept = remembered(g.decisions, credentials[0])
	}
	rules := g.clientLimits
	if len(g.doubtLimits) > len(rules) && kept == nil && (len(credentials) > 0 || !g.auth.optional) {
		rules = g.doubtLimits
	}
	first := &pass{}
	if len(rules) > 0 && !exempt {
		if first = askFirst(g, rules, r); first.no != nil {
			return first
		}
	}
	who, no := identify(g, r, credentials, kept)
	if first.no = no; no != nil {
		settleByGate(first.holds, no.status)
		if g.dryRun {
			countDenials(first, first.answers)
		}
		return first
	}
	rules = g.rules
	if exempt {
		rules = nil
	} else if g.exemptUsers[who.user] {
		rules = g.clientLimits
	}
	key := memoryKey(sha256.Sum256([]byte(subject)))
	if len(rules) > 0 && equal(rules, first.rules) { // all have been asked
		first.key = key
		first.told(who)
		if first.lasting {
			keepAsIs(g, first)
		}
		return first
	}
	p, no := newPass(g, rules, r, who)
	if first.no = no; no != nil {
		giveBack(g, first)
		return first
	}
	p.key = key
	if len(p.asks) == 0 {
		keepPass(g.memory, key, p)
	}
	now := *p
	if len(first.rules) > 0 {
		moveOn(first, &now)
	}
	now.fresh = true
	if g.backend != nil {
		now.passed = &g.backend.allowed // its decision has been counted
	}
	return &now
}

// askFirst asks the limits that need no identity.
func askFirst(g *gate, rules []*limitRule, r *http.Request) *pass {
	first, no := newPass(g, rules, r, visitor{})
	if no != nil {
		return &pass{no: no}
	}
	first.fresh = true
	first.partial = true
	first.answers = make([]limit.Answer, len(first.asks))
	if !ask(g, first, first.answers) {
		first.no = refusalBy(g, first, first.answers)
		return first
	}
	first.holds = takeHolds(g, first, first.answers)
	return first
}

// equal tells whether the limits are the same.
func equal(a, b []*limitRule) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

// settleDown gives a pass its places, now that its limits have been asked, and has
// the next requests of the kind served by it, if memory has room for each of its
// keys.
func settleDown(g *gate, p *pass, answers []limit.Answer) {
	p.lasting = true
	for i := len(p.asks) - 1; i >= 0; i-- {
		place, stays := limit.NewPlace(&p.asks[i], &answers[i], i, p.heads[i], p.places)
		p.places = place
		p.lasting = p.lasting && stays
	}
	if p.lasting && !p.partial {
		keepAsIs(g, p)
	}
}

// keepAsIs keeps a pass that was found out by a request for others.
func keepAsIs(g *gate, p *pass) {
	kept := *p
	kept.fresh = false
	kept.partial = false
	kept.answers = nil
	kept.holds = nil
	kept.passed = passedBy(g, kept.who)
	keepPass(g.memory, kept.key, &kept)
}

// told makes the pass a visitor's.
func (p *pass) told(who visitor) {
	if who.decision != nil {
		p.who = who.decision
		p.names = who.decision.names
		p.values = who.decision.values
	}
}

// passedBy counts those who get through by what is known of such a visitor.
func passedBy(g *gate, who *decision) *atomic.Int64 {
	switch {
	case who != nobody:
		return &g.decisions.passed
	case g.backend != nil:
		return &g.backend.allowed
	}
	return &g.uncalled
}

// newPass is what the given limits ask of a request of such a visitor.
func newPass(g *gate, rules []*limitRule, r *http.Request, who visitor) (*pass, *refusal) {
	p := &pass{who: nobody}
	p.told(who)
	said := r.Header
	if who.decision != nil {
		said = who.decision.headers
	}
	p.passed = passedBy(g, p.who)
	address := ""
	for _, rule := range rules {
		key := ""
		switch rule.key {
		case keyUser:
			key = who.limited
		case keyHeader:
			value := ""
			if rule.told {
				value = headerValue(said[rule.keyHeader])
			} else {
				value = fieldValue(r, rule.keyHeader)
			}
			if value != "" {
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
				return nil, missingKey(rule)
			}
			if rule.key != keyIP && rule.onMissing == missingSkip {
				continue
			}
			if address == "" {
				address = limit.Key(limit.IPKey, clientOf(&g.address, r))
			}
			key = address
		}
		p.rules = append(p.rules, rule)
		p.asks = append(p.asks, limit.Ask{Limiter: rule.limiter, Key: key, Limit: permitted(rule, said), Cost: rule.cost})
		p.awaited = p.awaited || rule.awaited
	}
	if len(p.rules) == 0 {
		return p, nil
	}
	policy, comma := "", ""
	for i, rule := range p.rules {
		p.heads = append(p.heads, comma+rule.quoted)
		policy += comma + rule.policyOf(p.asks[i].Limit)
		comma = ", "
	}
	p.policy = []string{policy}
	return p, nil
}

// moveOn takes over what was decided for the first limits, and ends those that count
// the gate's answers alone: the credential is good.
func moveOn(first, p *pass) {
	p.answers = make([]limit.Answer, len(p.rules))
	for i, rule := range p.rules {
		for j, earlier := range first.rules {
			if earlier == rule {
				p.answers[i] = first.answers[j]
			}
		}
	}
	for _, h := range first.holds {
		if h.rule.countFrom == gatesAnswers {
			h.held.Settle(false)
		} else {
			p.holds = append(p.holds, h)
		}
	}
}
