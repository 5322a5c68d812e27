package plugin

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/sluice-gateway/sluice/plugin/config"
	"github.com/sluice-gateway/sluice/plugin/limit"
	"github.com/sluice-gateway/sluice/plugin/wait"
)

// question is a credential to be judged: memory does not tell of it.
type question struct {
	decisions  *decisions
	r          *http.Request
	credential string
	key        memoryKey
	call       *call // that answers it
	complained bool  // of an address
	done       chan bool
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
		ctx           context.Context
		cancel        context.CancelFunc
		request       *http.Request
		response      *http.Response
		kept          *decision
		h             http.Header
		told, values  []string
		name, control string
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
		kept = m.decisions[key]
		if kept != nil && clock() >= standsUntil(kept, m.state) {
			kept = nil
		}
		if other == nil && kept == nil {
			d.calls[key] = mine
		}
		d.mu.Unlock()
		if other != nil && kept == nil {
			<-other.done
		}
		if kept != nil { // by a call that has ended since memory was asked
			mine.decision = kept
		} else if other != nil && other.shared {
			q.call = other
		} else {
			// The other's answer may depend on more than the credential (an auth service
			// that looks at the path): it is not ours (design: decision-cache).
			c = d.client
			stream = d.stream
			sent = int64(time.Since(startedAt))
			since = stream.state.Load()
			position = stream.revocations.Load()
			told = []string{q.credential, r.Method, r.Host, r.URL.RequestURI(), parseAddress(r.RemoteAddr).String()}
			h = http.Header{
				"User-Agent":         userAgent,
				"X-Forwarded-Method": told[1:2:2],
				"X-Forwarded-Host":   told[2:3:3],
				"X-Forwarded-Uri":    told[3:4:4],
				"X-Forwarded-For":    told[4:5:5],
				"X-Forwarded-Proto":  schemes[r.TLS != nil],
			}
			if q.credential != "" {
				h["Authorization"] = told[0:1:1]
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
				// This alone bounds the wait for a connection, the header and the body. It is no
				// request's own, as the answer may serve others too: the end of one must not take
				// it from them.
				ctx, cancel = context.WithTimeout(context.Background(), (c.timeout-time.Duration(now-sent))/time.Duration(len(c.addresses)-i))
				request = address.request.WithContext(ctx)
				request.Header = h
				response, err = c.transport.RoundTrip(request)
				answer = &authAnswer{}
				if err == nil {
					answer.status = response.StatusCode
					answer.header = response.Header
					if response.ContentLength != 0 {
						answer.body, err = io.ReadAll(io.LimitReader(response.Body, largestAuthBody))
					}
					response.Body.Close()
				}
				cancel()
				values = answer.header[c.userHeader]
				if answer.status >= 200 && answer.status < 300 && len(values) == 1 {
					answer.user = values[0]
				}
				answer.decides = answer.user != "" || answer.status == http.StatusUnauthorized || answer.status == http.StatusForbidden
				if err != nil || !answer.decides || address.trouble.lasts.Load() {
					note(q, address, answer, err)
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
				// answer depends on the credential alone: it is neither kept nor shared (design: decision-cache).
				values = answer.header["Vary"]
				mine.shared = len(values) == 1 && strings.EqualFold(strings.TrimSpace(values[0]), "Authorization")
				if answer.user == "" {
					mine.no = answer.refusal(r)
				} else {
					kept = &decision{key: key, user: answer.user, limited: limit.Key(limit.UserKey, answer.user), headers: http.Header{}, sent: sent, since: since}
					for _, name = range d.auth.ResponseHeaders {
						values = answer.header[name]
						if values != nil {
							kept.headers[name] = values
							kept.names = append(kept.names, name)
							kept.values = append(kept.values, values)
						}
					}
					kept.events = append(kept.events, userName(kept.user))
					values = answer.header[config.TokenIDHeader]
					if len(values) > 0 && values[0] != "" {
						kept.events = append(kept.events, tokenName(values[0]))
					}
					values = answer.header[config.SessionIDHeader]
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
			// got here (design: event-stream).
			if kept != nil && mine.shared && l.fresh > 0 && (stream.revocations.Load() == position || !stream.revokedSince(position, kept.events)) {
				if len(d.ring) < d.auth.CacheSize {
					d.ring = append(d.ring, kept)
				} else {
					d.forgetLocked(d.ring[d.hand])
					d.ring[d.hand] = kept
					d.hand = (d.hand + 1) % len(d.ring)
				}
				m.mu.Lock()
				m.decisions[key] = kept
				m.mu.Unlock()
				for _, name = range kept.events {
					kept.places = append(kept.places, len(d.named[name]))
					d.named[name] = append(d.named[name], kept)
				}
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

// note tells the log what is wrong with an address, or that nothing is any more. What
// a question without a credential meets may be otherwise for one that has one.
func note(q *question, address *authAddress, answer *authAnswer, err error) {
	c := q.decisions.client
	wrong := c.wrong(answer, err)
	if wrong == nil && (q.credential != "" || q.complained) {
		address.trouble.over(clock(), c.again(address))
	} else if wrong != nil && (q.credential != "" || !wrong.withCredential) {
		address.trouble.met(clock(), wrong.kind, c.tell(address, wrong))
		q.complained = true
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

// greet asks an address as soon as it is configured, without a credential, so
// that the log tells of a wrong one before a user does. It does so until there
// is an answer; from then on requests find out what it is worth.
func greet(c *authClient, s *config.AuthSettings, address *authAddress) {
	alone := *c
	// Whether requests pass it over is decided by what they meet themselves.
	alone.addresses = []*authAddress{{url: address.url, request: address.request, trouble: address.trouble}}
	nothing := newDecisions(s, &alone, newEventStream(clock, "")) // that anybody else would find
	r := address.request.Clone(context.Background())
	r.RemoteAddr = "127.0.0.1:0"
	complained := false
	for {
		q := &question{decisions: nothing, r: r, complained: complained}
		takeBench(q, nil)
		if !q.call.away || wait.First(time.After(time.Second), c.closed) == 1 {
			return
		}
		complained = q.complained
	}
}
