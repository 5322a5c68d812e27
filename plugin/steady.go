package plugin

import (
	"crypto/sha256"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluice-gateway/sluice/plugin/limit"
)

// The steady state: the credential, or the address where none is asked for, has
// been here before, and what the pipeline of sluice.go found out about it holds.
//
// Nearly every request is of this kind, and the pipeline spends more on carrying
// its steps' results about than on the steps. So what it found is kept: who it
// is, what the service is told of them, and the places where they spend.
// serveSteady only looks whether the decision still stands and spends.
// Interpreted, where each expression of a function costs an allocation and each
// call 0.5 to 3.5 us, that is several times faster (BenchmarkHotPath in
// test/forms).
//
// Where anything is not as expected it gives back what it took and reports
// false, and the pipeline starts from the beginning: it refuses nothing but
// what a limit's memory denies. TestSteadyIsThePipeline holds both to equal
// answers.

// standing is what is kept. It never changes, and holds nothing but what can be
// found out again.
type standing struct {
	who      *decision // nil where the gate asks for no credential
	since    int64     // who.since if the stream was whole then; else -1, a state it never has
	names    []string  // of the headers that tell the service of the user
	values   [][]string
	peer     string // what RemoteAddr begins with, where a limit goes by address
	policies []string
	places   *limit.Place // in configured order
}

// standings are those of all gates of one configuration.
type standings struct {
	kept sync.Map // credentialKey of the credential, or of the peer where the gate asks for none -> *standing
	size atomic.Int64
}

// mostStandings bounds them, to some 8 MB. Beyond it all are found out
// anew: that costs each one passage through the pipeline.
const mostStandings = 1 << 14

// mostSteady is the number of limits that serveSteady has room for.
const mostSteady = 4

// prepareSteady decides whether the gate's configuration has a steady state at
// all: limits on users, what else the auth service says of them, and addresses,
// and no exemptions.
func (g *gate) prepareSteady() {
	g.steady = (len(g.rules) > 0 || g.auth != nil) && len(g.rules) <= mostSteady &&
		len(g.exemptIPs) == 0 && len(g.exemptUsers) == 0 && !g.dryRun && !g.legacyHeaders &&
		!g.trustUserHeader && g.address.depth == 0 && len(g.address.excluded) == 0
	for _, rule := range g.rules {
		told := g.auth != nil && (rule.key == keyUser || rule.key == keyHeader && contains(g.auth.responseHeaders, rule.keyHeader))
		if rule.key != keyIP && !told {
			g.steady = false
		}
		g.bound = g.bound || g.auth != nil && (rule.key == keyIP || rule.key == keyHeader && rule.onMissing == missingIP)
		g.awaited = g.awaited || rule.awaited
	}
	g.disarms = g.auth != nil && !g.auth.keepAuthorization
}

func serveSteady(g *gate, w http.ResponseWriter, r *http.Request, h, out http.Header, id []string) bool {
	credentials, subject := h["Authorization"], ""
	if g.auth != nil {
		if len(credentials) != 1 {
			return false
		}
		subject = credentials[0]
	} else {
		if len(credentials) > 1 {
			return false
		}
		subject = peer(r.RemoteAddr)
	}
	if out["Ratelimit"] != nil {
		return false
	}
	found, ok := g.standings.kept.Load(credentialKey(sha256.Sum256([]byte(subject))))
	if !ok {
		return false
	}
	s := found.(*standing)
	if g.bound {
		if !strings.HasPrefix(r.RemoteAddr, s.peer) {
			return false
		}
	}
	now := int64(time.Since(startedAt))
	if who := s.who; who != nil {
		if now >= who.fresh.Load() {
			return false
		}
		if state := g.events.Load(); state != s.since {
			if doubted(who, state, now) == nil {
				return false
			}
		}
	}
	var spent [mostSteady]limit.Spent
	verdict := limit.Granted
	if s.places != nil {
		state := ""
		if state, verdict = limit.Spend(s.places, now, spent[:]); verdict == limit.Undecided {
			return false
		}
		out["Ratelimit-Policy"] = s.policies
		out["Ratelimit"] = []string{state}
	}
	if s.who != nil { // of a denial too: the access log tells whose it was
		if g.disarms {
			delete(h, "Authorization")
		}
		for i, name := range s.names {
			h[name] = s.values[i]
		}
	}
	if verdict == limit.Denied {
		refuseSteady(g, w, r, out, s, spent[:], id)
		return true
	}
	g.passed.Add(1)
	if g.awaited {
		watch(g, w, r, out, holdSteady(g, s, spent[:], now))
	} else if r.ContentLength != 0 || g.quiet.Load() < watchedFirst {
		watch(g, w, r, out, nil)
	} else {
		g.next.ServeHTTP(w, r)
		if len(out[requestIDHeader]) != 1 || len(out["Ratelimit"]) > 1 || len(out["Ratelimit-Policy"]) > 1 {
			g.quiet.Store(talksOver)
		}
	}
	return true
}

// keepStanding keeps what the pipeline found out about a request, if memory can
// answer the next of its kind.
func keepStanding(g *gate, t *toll, r *http.Request) {
	if len(t.rules) != len(g.rules) {
		return // refused before every limit was asked
	}
	s := &standing{who: t.who, peer: peer(r.RemoteAddr), since: -1}
	if g.auth != nil && (s.who == nil || !g.decisions.keeps(s.who)) || s.peer == "" {
		return
	}
	now := clock()
	order := t.inOrder()
	policies := make([]string, len(order))
	for n := len(order) - 1; n >= 0; n-- {
		rule, ask, head := t.rules[order[n]], &t.asks[order[n]], ""
		if n > 0 {
			head = ", "
		}
		// Limits that need no identity are asked before those that do, which then have no say.
		final := rule.identified || len(g.userLimits) == 0
		if s.places = limit.NewPlace(ask, now, head+rule.quoted, final, s.places); s.places == nil {
			return
		}
		policies[n] = rule.policyOf(ask.Limit)
	}
	s.policies = []string{strings.Join(policies, ", ")}
	key := credentialKey(sha256.Sum256([]byte(s.peer)))
	if s.who != nil {
		key = s.who.key
		if whole(s.who.since) {
			s.since = s.who.since
		}
		for name, values := range s.who.headers {
			s.names = append(s.names, name)
			s.values = append(s.values, values)
		}
	}
	if g.standings.size.Load() >= mostStandings {
		g.standings.size.Store(0)
		g.standings.kept.Clear()
	}
	if _, replaced := g.standings.kept.Swap(key, s); !replaced {
		g.standings.size.Add(1)
	}
}

// peer is a peer's address as net/http writes it, with the colon that ends it:
// "203.0.113.9:". It is "" for a peer that has none.
func peer(remote string) string { return remote[:strings.LastIndexByte(remote, ':')+1] }

// holdSteady are the permits whose answer decides whether they count.
func holdSteady(g *gate, s *standing, spent []limit.Spent, now int64) []hold {
	var holds []hold
	answers := limit.Answers(s.places, spent[:len(g.rules)])
	for i, rule := range g.rules {
		if rule.awaited {
			holds = append(holds, hold{rule: rule, held: g.engine.Hold(&answers[i], now)})
		}
	}
	return holds
}

// refuseSteady is the denial by the limit that denies for longest; what the
// others granted goes back.
func refuseSteady(g *gate, w http.ResponseWriter, r *http.Request, out http.Header, s *standing, spent []limit.Spent, id []string) {
	if s.who != nil {
		g.decisions.hits.Add(1)
	}
	rule, wait := g.rules[0], spent[0].RetryAfter
	if len(g.rules) > 1 {
		rule, wait = worstSteady(g, s, spent)
	} else {
		rule.limiter.Denied.Add(1)
	}
	deny(w, r, out, rule, wait, id[0])
}

// worstSteady is the limit that denies for longest, of several.
func worstSteady(g *gate, s *standing, spent []limit.Spent) (*limitRule, time.Duration) {
	worst := -1
	for i, rule := range g.rules {
		if !spent[i].Denied {
			continue
		}
		rule.limiter.Denied.Add(1)
		if worst < 0 || spent[i].RetryAfter > spent[worst].RetryAfter {
			worst = i
		}
	}
	limit.Return(s.places, spent[:len(g.rules)])
	return g.rules[worst], spent[worst].RetryAfter
}
