package plugin

import (
	"crypto/sha256"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/sluice-gateway/sluice/plugin/limit"
)

// question is a credential to be judged: memory does not tell of it.
type question struct {
	decisions  *decisions
	r          *http.Request
	credential string
	key        memoryKey
	call       *call // that answers it
	done       chan bool
}

// askAuth puts a credential to the auth service, and is its decision or the refusal.
func askAuth(d *decisions, r *http.Request, credential string, s *seat) (*decision, *refusal) {
	d.misses.Add(1)
	q := &question{decisions: d, r: r, credential: credential}
	if s == nil {
		takeBench(q, nil)
	} else {
		if s.questions == nil {
			s.questions = make(chan *question)
			go judgeFor(s.questions)
		}
		q.done = make(chan bool, 1)
		s.questions <- q
		<-q.done
	}
	if q.call.away {
		d.errors.Add(1)
		if kept := d.stale(q.key); kept != nil {
			return kept, nil
		}
	}
	return q.call.decision, q.call.no
}

// judge puts questions to the first address that can judge them, and keeps what may be
// kept. An answer of 5xx, or none, sends a question to the next address; each may use
// its part of the time that is left, so that one that is silent leaves some to others.
// What is asked already is waited for.
//
// Like attend it is a function that is called for each question or, interpreted, never
// left. It waits, so each who inquires has one in it of his own.
func judge(q *question, next chan *question, s *bench) {
	var (
		d             *decisions
		c             *authClient
		m             *memory
		stream        *eventStream
		r             *http.Request
		key           memoryKey
		mine, other   *call
		address       *authAddress
		answer        *authAnswer
		err           error
		kept          *decision
		h             http.Header
		values        []string
		name, control string
		peer          netip.Addr
		l             life
		sent, since   int64
		position      int64
		now, down     int64
		i             int
	)
	for {
		d = q.decisions
		r = q.r
		m = d.memory
		key = sha256.Sum256([]byte(q.credential))
		q.key = key
		mine = &call{done: make(chan struct{})}
		q.call = mine
		d.mu.Lock()
		other = d.calls[key]
		if other == nil {
			d.calls[key] = mine
		}
		d.mu.Unlock()
		if other != nil {
			<-other.done
		}
		if other != nil && other.shared {
			q.call = other
		} else {
			// The other's answer may depend on more than the credential (an auth service
			// that looks at the path): it is not ours (RULES 33).
			c = d.client
			stream = d.stream
			sent = int64(time.Since(startedAt))
			since = stream.state.Load()
			position = stream.revocations.Load()
			peer = parseAddress(r.RemoteAddr)
			h = http.Header{
				"User-Agent":         userAgent,
				"Authorization":      []string{q.credential},
				"X-Forwarded-Method": []string{r.Method},
				"X-Forwarded-Host":   []string{r.Host},
				"X-Forwarded-Uri":    []string{r.URL.RequestURI()},
				"X-Forwarded-Proto":  schemes[r.TLS != nil],
				"X-Forwarded-For":    []string{peer.String()},
			}
			for _, name = range handedOn {
				values = r.Header[name]
				if values != nil {
					h[name] = values
				}
			}
			mine.away = true
			for i, address = range c.addresses {
				now = int64(time.Since(startedAt))
				down = address.down.Load()
				// Of those that come after it was down long enough, one tries it.
				if down != 0 && (now < down || !address.down.CompareAndSwap(down, now+downFor)) {
					address.trouble.still(now)
					continue
				}
				answer, err = askAt(c, address, h, (c.timeout-time.Duration(now-sent))/time.Duration(len(c.addresses)-i))
				if err != nil || !answer.decides || address.trouble.lasts.Load() {
					note(c, address, answer, err)
				}
				if err != nil {
					address.down.Store(clock() + downFor)
					continue
				}
				if down != 0 {
					address.down.Store(0)
				}
				if answer.status < 500 {
					mine.away = false
					break
				}
			}
			kept = nil
			if mine.away {
				mine.shared = true
				mine.no = authAway()
			} else {
				// An auth service that decides by path, method or cookie does not say that its
				// answer depends on the credential alone: it is neither kept nor shared (RULES 33).
				values = answer.header["Vary"]
				mine.shared = len(values) == 1 && strings.EqualFold(strings.TrimSpace(values[0]), "Authorization")
				if answer.user == "" {
					mine.no = answer.refusal(r)
				} else {
					kept = &decision{key: key, user: answer.user, limited: limit.Key(limit.UserKey, answer.user), headers: http.Header{}, sent: sent, since: since}
					for _, name = range d.auth.responseHeaders {
						values = answer.header[name]
						if values != nil {
							kept.headers[name] = values
							kept.names = append(kept.names, name)
							kept.values = append(kept.values, values)
						}
					}
					kept.events = append(kept.events, userName(kept.user))
					values = answer.header[tokenIDHeader]
					if len(values) > 0 && values[0] != "" {
						kept.events = append(kept.events, tokenName(values[0]))
					}
					values = answer.header[sessionIDHeader]
					if len(values) > 0 && values[0] != "" {
						kept.events = append(kept.events, sessionName(values[0]))
					}
					values = answer.header["Cache-Control"]
					if len(values) != 1 || values[0] != control || answer.header["Age"] != nil {
						l = cacheLife(answer.header)
						control = ""
						if len(values) == 1 && answer.header["Age"] == nil {
							control = values[0] // most say the same
						}
					}
					kept.fresh = sent + int64(l.fresh)
					kept.stale = kept.fresh + int64(l.staleIfError)
					mine.decision = kept
				}
			}
			d.mu.Lock()
			if !mine.away && m.decisions[key] != nil {
				d.forgetLocked(m.decisions[key]) // whatever it says, it says it anew: what it allowed before is void
			}
			// An event may have overtaken the answer: revoked after it was given and before it
			// got here (RULES 8).
			if kept != nil && mine.shared && l.fresh > 0 && (stream.revocations.Load() == position || !stream.revokedSince(position, kept.events)) {
				storeLocked(d, kept)
			}
			if other == nil {
				delete(d.calls, key)
			}
			d.mu.Unlock()
			close(mine.done)
		}
		if next == nil {
			return
		}
		q.credential = "" // no token outlives its request here
		r = nil
		h = nil
		q.done <- true
		q = <-next
		if q == nil {
			return
		}
		s.question = q
	}
}

// judgeFor judges for one who inquires, as long as he does.
func judgeFor(questions chan *question) {
	for {
		q := <-questions
		if q == nil {
			return
		}
		takeBench(q, questions)
	}
}

// bench is where one who judges works.
type bench struct{ question *question }

// takeBench judges until there are no more questions, or until one makes it panic,
// which would end Traefik: that one is answered as if the service were away.
func takeBench(q *question, next chan *question) {
	s := &bench{question: q}
	defer func() {
		if p := recover(); p != nil {
			logLine("error", fmt.Sprint("a request made the gate panic, and its token was not judged: ", p))
			q := s.question
			d, mine := q.decisions, q.call
			mine.away = true
			mine.no = authAway()
			mine.shared = false // others may be luckier
			d.mu.Lock()
			if d.calls[q.key] == mine {
				delete(d.calls, q.key)
			}
			d.mu.Unlock()
			close(mine.done)
			if next != nil {
				q.done <- true
			}
		}
	}()
	judge(q, next, s)
}
