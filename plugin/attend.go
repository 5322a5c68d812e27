package plugin

import (
	"crypto/sha256"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/sluice-gateway/sluice/plugin/config"
	"github.com/sluice-gateway/sluice/plugin/limit"
)

// attend names requests, removes what no client may set, recalls what is known of
// them, spends, and tells the service and the client; where one is refused, it says
// why. It leaves to inquire what is not known.
//
// Compiled, ServeHTTP calls it for each request. The interpreter makes room for every
// expression of a function at each call, executed or not, which is two thirds of what
// a request costs there; in a goroutine that stays in one function it does so once.
// So interpreted a few goroutines never leave it, and take the requests one by one:
// for two changes of goroutine a request, a microsecond or so, it takes a third of the
// allocations (BenchmarkHotPath in test/forms). All variables are declared ahead, as a
// declaration in the loop would allocate again. It waits for nothing but short locks.
func attend(v *visit, next chan *visit, s *seat) {
	var (
		g              *gate
		r              *http.Request
		h, out         http.Header
		p              *pass
		m              *memory
		id, made       []string
		name           string
		value, subject string
		state, comma   string
		verdict        limit.Verdict
		answers        []limit.Answer
		a              *limit.Answer
		rule           *limitRule
		no             *refusal
		reset, wait    time.Duration
		retry          string
		now            int64
		spent          bool
		i              int
	)
	for {
		g = v.gate
		r = v.r
		h = r.Header
		verdict = granted
		v.clear = false
		v.status = 0
		if !v.again {
			out = v.w.Header()
			v.out = out
			v.no = nil
			v.answers = nil
			v.holds = nil
			v.fresh = false
			v.asked = false
			v.granted = false
			v.watched = r.ContentLength != 0 || g.quiet.Load() < watchedFirst
			id = out[config.RequestIDHeader] // put there by another of our middlewares on the way (classic wiring): no client can have
			if id == nil {
				if g.vouched {
					id = vouchedID(g, r)
				} else {
					made = <-uuids // what was received into is assigned to in no other way: Yaegi cannot
					id = made
				}
			}
			h[config.RequestIDHeader] = id
			out[config.RequestIDHeader] = id
			for _, name = range g.stripped {
				delete(h, name)
			}
			if h["Connection"] != nil {
				cutConnection(h)
			}
			if r.ProtoMajor > 1 {
				if strings.IndexByte(r.URL.RawQuery, ' ') >= 0 {
					v.no = brokenTarget
				}
			} else if r.Method == http.MethodConnect {
				v.no = tunnel
			}
			p = g.open
			if p == nil || len(h["Authorization"]) > 1 {
				// No value of a field holds a line's end.
				subject = g.kind
				for _, value = range h["Authorization"] {
					if g.auth == nil {
						value = "" // their number alone counts
					}
					subject += value + "\n"
				}
				if g.byAddress {
					subject += "\r" + r.RemoteAddr[:strings.LastIndexByte(r.RemoteAddr, ':')+1]
				}
				for _, name = range g.inputs {
					subject += "\r"
					if name == config.HostField {
						subject += r.Host
					}
					for _, value = range h[name] {
						subject += value + "\n"
					}
				}
				now = int64(time.Since(startedAt))
				m = g.memory
				m.mu.RLock()
				v.key = sha256.Sum256([]byte(subject))
				p = m.passes[v.key]
				m.mu.RUnlock()
				if p != nil && now >= p.until {
					p = nil
				}
				subject = "" // no token outlives its request here
			}
			v.pass = p
		} else {
			p = v.pass
			out = v.out
			id = out[config.RequestIDHeader]
			now = int64(time.Since(startedAt)) // the auth service may have taken a second (design: order-of-steps)
		}
		no = v.no
		wait = 0
		if p != nil && (no == nil || v.again) {
			if g.disarms {
				delete(h, "Authorization")
			}
			for i, name = range p.names { // of a denial too: the access log tells whose it was
				h[name] = p.values[i]
			}
			if p.asks != nil {
				if v.answers == nil {
					v.answers = make([]limit.Answer, len(p.asks))
				}
				answers = v.answers
				if !v.granted {
					v.spending.Handles = p.handles
					v.spending.Now = now
					v.spending.Answers = answers
					if s == nil {
						limit.Spend(&v.spending, nil)
					} else {
						s.spender.Next <- &v.spending
						spent = <-v.spending.Done
						if !spent {
							panic("a limit could not be looked up")
						}
					}
					verdict = v.spending.Verdict
				}
				if verdict == granted || v.asked || verdict != limit.Undecided && !g.dryRun {
					state = ""
					comma = ""
					for i, rule = range p.rules {
						a = &answers[i]
						if a.Verdict != limit.Undecided && a.Verdict != limit.Needless {
							reset = a.Reset
							if a.Verdict == limit.Denied { // the client is told when a request could pass
								reset = a.RetryAfter
							}
							state += comma + rule.quoted + strconv.FormatInt(a.Remaining, 10) + ";t=" + strconv.FormatInt(int64((reset+almostSecond)/time.Second), 10)
							comma = ", "
						}
					}
					if out["Ratelimit"] != nil {
						joinEarlier(out, p, state)
					} else {
						out["Ratelimit-Policy"] = p.policy
						out["Ratelimit"] = []string{state}
					}
					if g.legacyHeaders {
						announceLegacy(out, p, answers)
					}
				}
				if verdict != granted && !g.dryRun && no == nil && (v.asked || verdict != limit.Undecided) {
					// The limit that denies for longest is named, and its Retry-After is theirs
					// (design: answers). What others granted goes back (I7).
					for i, rule = range p.rules {
						a = &answers[i]
						if a.Verdict == limit.Denied {
							rule.limiter.Denied.Add(1)
							if p.asks[i].Cost > p.asks[i].Limit {
								no = tooLarge(&rule.LimitSettings) // whatever others say, no waiting helps
							} else if no == nil || no.wait != 0 && a.RetryAfter > wait {
								wait = a.RetryAfter
								no = rule.usedUp
							}
						} else if a.Verdict == granted {
							g.engine.GiveBack(a)
						}
					}
					if v.holds != nil {
						settleAll(v.holds, false)
					}
					if !v.fresh && p.who != nobody {
						g.decisions.hits.Add(1)
					}
					if no == nil || verdict == limit.Unavailable {
						wait = 0
						no = uncounted
					}
				}
			}
			if verdict == granted && no == nil && !p.awaited {
				v.clear = true
				if v.fresh {
					g.allowed.Add(1)
				} else {
					p.passed.Add(1)
				}
			}
		}
		if no != nil {
			v.status = no.status
			retry = ""
			if no.wait != 0 {
				if wait < no.wait {
					wait = no.wait
				}
				retry = strconv.FormatInt(int64((wait+almostSecond)/time.Second), 10)
				out["Retry-After"] = []string{retry}
				retry = `"retry_after":` + retry + ","
			}
			if no.challenge != nil {
				out["Www-Authenticate"] = no.challenge
			}
			if no.head != "" {
				out["Content-Type"] = problemType
				v.body = []byte(no.head + retry + `"request_id":"` + id[0] + `"}`)
			} else {
				v.body = handOn(no, out, id[0])
			}
			out["Cache-Control"] = notStored
			out["Content-Length"] = []string{strconv.Itoa(len(v.body))}
			if r.ContentLength != 0 {
				closeUnread(out, r)
			}
		}
		v.verdict = verdict
		v.unknown = no == nil && !v.asked && (p == nil || verdict == limit.Undecided || verdict != granted && g.dryRun)
		if next == nil {
			return
		}
		if v.lent && (v.clear || v.status != 0) {
			v.w = nil
			v.r = nil
		} else if v.lent {
			v.lent = false // it may take its time
			visits <- newVisit()
		}
		if !v.unknown {
			v.done <- true
		} else if idle.Add(-1) >= 0 {
			inquiries <- v
		} else {
			idle.Add(1)
			go takeDesk(v)
		}
		v = <-next
		s.visit = v
	}
}

const (
	granted      = limit.Granted
	almostSecond = time.Second - 1
)
