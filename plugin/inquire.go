package plugin

import (
	"fmt"
	"net/http"
	"time"

	"github.com/sluice-gateway/sluice/plugin/config"
	"github.com/sluice-gateway/sluice/plugin/limit"
)

// inquire finds out what memory does not tell of a visit, keeps it, and has the visit
// attended to once more. Where its pass is known, it is Redis who tells. Of a newcomer
// it is found out, in the order of design: order-of-steps,
//
//	what the limits say that need no identity, and those that count the gate's judgement;
//	who it is;
//	what the other limits say.
//
// So it goes round at most twice: who comes is written down as a pass of some of the
// limits, and these are asked.
//
// Compiled, it is called; interpreted, a goroutine stays in it (attend). But it waits,
// for Redis and for the auth service. So there are as many as there are requests that
// wait, and those with nothing to do wait for the next.
func inquire(v *visit, next chan *visit, s *seat) {
	var (
		g              *gate
		r              *http.Request
		known, exempt  bool
		credentials    []string
		kept           *decision
		who            visitor
		judged         bool
		no             *refusal
		rules          []*limitRule
		rule, earlier  *limitRule
		said, fields   http.Header
		key, address   string
		value          string
		permits        int64
		policy, item   string
		p, before      *pass
		answers, asked []limit.Answer
		holds          []hold
		undecided      bool
		passes         bool
		handle         *limit.Handle
		stay, stays    bool
		m              *memory
		i, j           int
	)
	for {
		g = v.gate
		r = v.r
		p = v.pass
		known = p != nil
		answers = v.answers
		undecided = true
		if !known {
			exempt = len(g.exemptIPs) > 0 && within(g.exemptIPs, addressOf(&g.address, r))
			credentials = r.Header["Authorization"]
			kept = nil
			if g.auth != nil && len(credentials) == 1 {
				kept = remembered(g.decisions, credentials[0])
			}
			judged = !g.judges && len(credentials) < 2 // there is no more to know of who it is
			rules = g.clientLimits
			if exempt {
				rules = nil
			} else if judged {
				rules = g.rules
			} else if kept == nil && g.auth != nil && (len(credentials) > 0 || !g.auth.Optional) {
				rules = g.unknownLimits
			}
			who = visitor{}
			no = nil
			holds = nil
			before = nil
			asked = nil
			address = ""
		}
		for {
			if !known {
				p = &pass{who: nobody, until: forever, passed: g.allowed}
				said = r.Header
				if who.decision != nil {
					said = who.decision.headers
				}
				for _, rule = range rules {
					key = ""
					if rule.Key == config.KeyUser {
						key = who.limited
					} else if rule.Key == config.KeyGlobal {
						key = limit.GlobalKey
					} else if rule.Key == config.KeyHeader {
						fields = r.Header
						if rule.told {
							fields = said
						}
						value = headerValue(fields[rule.KeyHeader])
						if rule.KeyHeader == config.HostField {
							value = hostOf(r)
						}
						if value != "" {
							key = limit.Key(limit.HeaderKey, value)
						}
					}
					if key == "" {
						if rule.Key != config.KeyIP && rule.OnMissing == config.MissingSkip {
							continue
						}
						if rule.Key != config.KeyIP && rule.OnMissing == config.MissingDeny {
							if g.dryRun {
								continue
							}
							no = missingKey(&rule.LimitSettings)
							break
						}
						if address == "" {
							address = limit.Key(limit.IPKey, clientOf(&g.address, r))
						}
						key = address
					}
					permits = rule.Limit
					item = rule.policy
					if rule.varies {
						permits = permitted(rule, said)
						if permits != rule.Limit {
							item = rule.describe(permits)
						}
					}
					if p.asks == nil {
						p.rules = make([]*limitRule, 0, len(rules))
						p.asks = make([]limit.Ask, 0, len(rules))
						policy = item
					} else {
						policy += ", " + item
					}
					p.rules = append(p.rules, rule)
					p.asks = append(p.asks, limit.Ask{Limiter: rule.limiter, Key: key, Limit: permits, Cost: rule.Cost})
					p.awaited = p.awaited || rule.awaited
				}
				if no != nil {
					// It is told of the limits that were asked before.
					giveBack(g, asked, holds)
					answers = asked
					if before != nil {
						p = before
					} else {
						p.asks = nil
					}
					break
				}
				answers = nil
				undecided = false
				if p.asks != nil {
					p.policy = []string{policy}
					answers = make([]limit.Answer, len(p.asks))
					undecided = true
				}
				if before != nil {
					// What was answered before stands.
					undecided = false
					for i, rule = range p.rules {
						for j, earlier = range before.rules {
							if earlier == rule {
								answers[i] = asked[j]
							}
						}
						undecided = undecided || answers[i].Verdict == limit.Undecided
					}
					holds = forgive(holds)
				}
			}
			passes = true
			if g.dryRun {
				askEach(g, p.asks, answers)
			} else if undecided {
				passes = limit.Take(g.engine, &g.policy, p.asks, answers, int64(time.Since(startedAt)))
			}
			if known || judged || !passes {
				break
			}
			if p.awaited {
				holds = takeHolds(g, p, answers, holds)
			}
			who, no = identify(g, r, credentials, kept, s)
			if no != nil {
				settleByGate(holds, no.status)
				if g.dryRun {
					countDenials(p, answers)
				}
				break
			}
			judged = true
			rules = g.rules
			if exempt {
				rules = nil
			} else if g.exemptUsers[who.user] {
				rules = g.clientLimits
			}
			if equal(rules, p.rules) {
				break // all have been asked
			}
			before = p
			asked = answers
		}
		if known {
			if limit.Moved(p.handles, answers) {
				g.memory.drop(p)
			}
		} else {
			if who.decision != nil {
				p.who = who.decision
				p.names = who.decision.names
				p.values = who.decision.values
				p.passed = &g.decisions.passed
			}
			stay = true
			for i = len(p.asks) - 1; i >= 0; i-- {
				handle, stays = limit.NewHandle(&p.asks[i], &answers[i], p.handles)
				p.handles = handle
				stay = stay && stays
			}
			// The next such requests are served by the pass, if memory has room for each of
			// its keys, and as long as its decision stands: one that is not kept itself is
			// out of revocations' reach.
			if judged && no == nil && stay {
				m = g.memory
				m.mu.Lock()
				if p.who == nobody || m.decisions[p.who.key] == p.who {
					if len(m.passes) >= mostPasses {
						m.forgetPassesLocked()
					}
					if p.who != nobody {
						bindLocked(m, v.key, p)
					}
					p.key = v.key
					m.passes[v.key] = p
				}
				m.mu.Unlock()
			}
			v.pass = p
			v.answers = answers
			v.holds = holds
			v.no = no
			v.fresh = true
		}
		v.asked = true
		v.granted = passes && !g.dryRun
		v.again = true
		if next == nil {
			return
		}
		arrivals <- v
		if idle.Add(1) > mostIdle {
			if idle.Add(-1) >= 0 {
				return
			}
			idle.Add(1) // somebody has sent one already
		}
		v = <-next
		s.visit = v
	}
}

// takeDesk inquires, beginning with the given visit, until enough others wait, or until
// a request makes it panic, which would end Traefik: that one is refused.
func takeDesk(v *visit) {
	s := &seat{visit: v}
	defer func() {
		if p := recover(); p != nil {
			logLine("error", fmt.Sprint("a request made the gate panic and was refused: ", p))
			giveUp(s.visit)
		}
		if s.questions != nil {
			close(s.questions)
		}
	}()
	inquire(v, inquiries, s)
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

// forgive ends the permits that count the gate's answers alone, of a credential that is
// good, and leaves the others.
func forgive(holds []hold) []hold {
	var others []hold
	for _, h := range holds {
		if h.rule.CountFrom == config.GatesAnswers {
			h.held.Settle(false)
		} else {
			others = append(others, h)
		}
	}
	return others
}

// giveUp refuses a request that made panic who saw to it.
func giveUp(v *visit) {
	v.clear = false
	v.status = 0
	v.no = unavailable("The gateway could not read the request.", 0)
	v.done <- true
}
