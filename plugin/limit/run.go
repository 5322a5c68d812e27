package limit

import (
	"fmt"
	"time"

	"github.com/sluice-gateway/sluice/plugin/redis"
	"github.com/sluice-gateway/sluice/plugin/window"
)

// run steps the core until it is told to end and nothing is under way: it takes a
// message, does what that asks for, makes the calls that are needed now, and ends
// the jobs whose answers all stand.
//
// It is one function, with its variables made once, for the interpreter's sake:
// there an expression costs an allocation each time a function is called, and
// nothing in one that goes on. So what nearly every reservation passes is written
// out here, and what is rare is a call. BenchmarkColdPath in test/forms.
func run(c *core) {
	var (
		message      interface{}
		found        interface{}
		ok           bool
		j            *job
		b            *bucket
		l            *Limiter
		w            *waiter
		others       []*waiter
		f            *flight
		h, old       *lease
		d            denial
		ask          *Ask
		answer       *Answer
		call         *redis.Call
		overdue      *redis.Overdue
		now          int64
		ends, until  int64
		left, spare  int64
		word         string
		extra        int64
		offset, step int64
		i            int
		missing      int
		refused      int
		inbox        = c.inbox
		replies      = c.replies
		calls        = c.calls
	)
	for !c.closing || c.pending > 0 || c.ticking {
		message = <-inbox
		c.current = message

		if j, ok = message.(*job); ok {
			// A request: its keys' buckets, and what memory says by now.
			if j.now > now {
				now = j.now
			}
			j.deadline = now - c.lag + c.longest
			missing, refused = 0, 0
			for i = range j.asks {
				ask = &j.asks[i]
				answer = &j.answers[i]
				if answer.Verdict == Undecided {
					l = ask.Limiter
					found = l.table.buckets[ask.Key]
					if found != nil {
						b = found.(*bucket)
						answer.bucket = b
						recall(c, j, i, now)
					} else if len(l.table.ring) < l.table.capacity {
						b = &bucket{limiter: l, name: ask.Key, limit: ask.Limit, used: true}
						l.table.ring = append(l.table.ring, b)
						l.table.buckets[ask.Key] = b
						c.keys.Add(1)
					} else {
						b = makeRoom(c, l, ask, now)
					}
					answer.bucket = b
				}
				// All limits are looked at, though one denial decides: the client
				// is told of the one that denies for longest.
				if answer.Verdict == Undecided {
					missing++
				} else if answer.Verdict == Denied {
					refused++
				}
			}
			if refused > 0 {
				refuse(c, j, now)
			} else if missing == 0 {
				j.done <- true
			} else if ask = &j.asks[0]; len(j.asks) == 1 && b.flight == nil && !b.shared && ask.Cost <= ask.Limit {
				j.open = 1
				b.queue = append(b.queue, &waiter{job: j})
				c.launches = append(c.launches, b)
			} else {
				askFor(c, j, now)
			}
		} else if call, ok = message.(*redis.Call); ok {
			// A call has ended. Redis's word replaces what was known of the key,
			// and the permits go to those who wait, the rest into a lease.
			c.pending--
			if call.At > now {
				now = call.At
			}
			if f, ok = call.Tag.(*flight); !ok {
				beaten(c, call, now)
			} else if f.bucket == nil {
				rehearsed(c, call, f, now)
			} else {
				b = f.bucket.(*bucket)
				l = b.limiter
				if f.report {
					c.reports--
				}
				if call.Err == nil {
					// The clock as it is known, nearly always.
					offset = f.grant.Now - f.sent/1000
					step = offset - c.offset
					if c.known && step < closely && step > -closely {
						c.told = offset
					} else if !tellTime(c, f.grant.Now, f.sent, now) {
						call.Err = fmt.Errorf("%w: %s", errSense, call.Line)
					}
				}
				if call.Err != nil {
					crash(c, b, f, call.Err, now)
				} else {
					if b.ledger.owing {
						learn(&b.ledger, &f.grant.Counts, &f.debt)
						adopt(b)
					} else {
						b.ledger.seen = f.grant.Counts
						if !b.ledger.heard {
							b.ledger.heard = true
						}
					}
					if f.need > 0 {
						ends = f.sent + ((f.grant.Counts.Index+1)*l.window-f.grant.Now)*1000
						until = ends
						if until > f.sent+leaseLife {
							until = f.sent + leaseLife
						}
						h = &lease{
							left: f.grant.Need + f.grant.Extra, limit: f.limit, ends: ends, until: until,
							generation: f.grant.Counts.Generation, index: f.grant.Counts.Index, room: f.room,
						}
						if f.exact {
							exactly(f, h)
						}
						b.room = f.room
						if f.grant.Need < f.need || f.room < f.cost || b.edge {
							d = conclude(b, f, now)
						} else {
							d = denial{}
						}
						if now >= until && h.left > 0 {
							tooLate(c, b, f, h, d)
						} else {
							left = 0
							b.mu.Lock()
							if old = b.lease; old != nil { // set aside while the call was under way
								left = old.left
								old.left = 0
							}
							b.lease = h
							b.denial = d
							for _, w = range f.waiters {
								if w.released {
									continue
								}
								j = w.job.(*job)
								answer = &j.answers[w.at]
								if h.left >= f.cost { // as grantFrom, whose call would cost as much as all else here
									h.left -= f.cost
									answer.Verdict = Granted
									answer.Remaining = (h.left + h.room) / f.cost
									answer.Reset = time.Duration(h.ends - now)
									if h.ends < now {
										answer.Reset = 0
									}
									answer.lease = h
									answer.cost = f.cost
									if h.next != 0 {
										answer.instant = h.next
										h.next += f.cost
									}
								} else {
									refuseLocked(b, f.cost, &answer.Outcome, now)
								}
								w.released = true
								j.open--
								if j.open == 0 {
									c.settled = append(c.settled, j)
								}
							}
							spare = h.left
							if f.exact {
								h.left = 0
							}
							b.mu.Unlock()
							if left > 0 {
								returnTo(b, old, left, old.next)
							}
							b.atSweep = spare
							if spare > 0 {
								if f.exact {
									// Somebody has ceased to wait. Spent later the permit
									// would not be of the instant that the log has.
									returnTo(b, h, spare, h.next)
								}
								watch(c, b, now)
							}
						}
					}
					if f.grant.Need+f.grant.Extra > 0 && (c.ailing || !c.counted) {
						wrote(c, f.sent)
					}
				}
				b.flight = nil
				if len(b.queue) > 0 || b.ledger.owing {
					next(c, b, now)
				}
			}
		} else if overdue, ok = message.(*redis.Overdue); ok {
			if overdue.At > now {
				now = overdue.At
			}
			timedOut(c, overdue, now)
		} else {
			now = other(c, message, now)
		}

		// The calls that are needed now, and the jobs that are done.
		for len(c.launches)+len(c.settled) > 0 {
			if len(c.settled) > 0 {
				j = c.settled[0].(*job)
				if len(j.answers) == 1 && j.answers[0].Verdict == Granted {
					j.done <- true
				} else {
					settle(c, j, now)
				}
				if len(c.settled) == 1 {
					c.settled = c.settled[:0] // its room is used again
				} else {
					c.settled = c.settled[1:]
				}
				continue
			}
			b = c.launches[0].(*bucket)
			if b.flight != nil {
				c.launches = c.launches[1:]
				continue
			}
			l = b.limiter
			f = &flight{bucket: b, sent: now, limit: b.limit, cost: 1, report: b.reporting}
			b.reporting = false
			extra = 0
			if len(b.queue) > 0 {
				// For the first in the queue and all who want the same.
				others = nil
				f.waiters = b.queue[:0]
				for _, w = range b.queue {
					if w.released {
						continue
					}
					j = w.job.(*job)
					ask = &j.asks[w.at]
					if f.need == 0 {
						f.limit = ask.Limit
						f.cost = ask.Cost
					}
					if ask.Limit == f.limit && ask.Cost == f.cost {
						f.waiters = append(f.waiters, w)
						f.need += f.cost
					} else {
						others = append(others, w)
					}
				}
				b.queue = others
				if b.lease != nil {
					// Permits left over count towards the need: given back in the
					// call that asks, they are there to be granted (design: whole-requests).
					setLease(b, nil)
				}
				b.limit = f.limit
				if f.limit <= window.MaxExact && l.window >= window.ShortestExact {
					extra = 0 // each permit is for a request that waits
				} else if b.demand.last != 0 {
					b.demand.asked += f.need
					extra = reserve(b, now, c.instances) / f.cost * f.cost
				} else { // one request says nothing of how many will come
					b.demand.last = now
				}
			}
			f.exact = f.limit <= window.MaxExact && l.window >= window.ShortestExact
			f.ask = window.Ask{
				Window: l.window, Limit: f.limit, Cost: f.cost,
				Need: f.need, Extra: extra, Instances: c.instances,
				Seen: b.ledger.seen, Owed: b.ledger.owed,
			}
			if b.ledger.owing {
				f.brings = true
				f.debt = b.ledger.depart(l.window)
			}
			b.flight = f
			if f.limit != l.asked.Limit || f.cost != l.asked.Cost || f.need != l.asked.Need || extra != l.asked.Extra || c.instances != l.asked.Instances {
				l.asked = f.ask
				l.head = window.Head(l.window, f.limit, f.cost, f.need, extra, c.instances)
			}
			word = l.head + f.ask.Seen.Told
			if f.brings || f.ask.Seen.Told == "" && f.ask.Seen.Index+f.ask.Seen.Generation > 0 {
				word = window.Word(l.head, &f.ask)
			}
			call = &redis.Call{Key: l.prefix + b.name + "}", Script: script, Args: []string{word}, To: replies, Tag: f}
			if len(calls) < cap(calls) {
				c.pending++
				calls <- call
			} else {
				if f.report {
					c.reports--
				}
				crash(c, b, f, errBusy, now)
				b.flight = nil
				next(c, b, now)
			}
			if len(c.launches) == 1 {
				c.launches = c.launches[:0]
			} else {
				c.launches = c.launches[1:]
			}
		}
		if c.restless && !c.ticking && !(c.closing && c.pending == 0) {
			c.ticking = true
			c.tickFrom = now
			c.wake <- struct{}{}
		}
	}
}

// other takes the messages that are rare, and tells the time by then.
func other(c *core, message interface{}, now int64) int64 {
	switch m := message.(type) {
	case tick:
		now = later(now, m.now)
		c.ticking = false
		notice(c, now)
		look(c, now)
	case nudge:
		c.restless = true
	case *returned:
		now = later(now, m.now)
		takeBack(c, m.answer.bucket, &m.answer, m.done, now)
	case *beat:
		now = later(now, m.now)
		if !c.counted || c.exact.trouble() != nil {
			m.calls = append(m.calls, rehearse(c, now)...)
		}
		for _, call := range m.calls {
			send(c, call, now)
		}
	case *capacity:
		if m.limiter.table.capacity == 0 {
			c.limits.PushBack(m.limiter)
		}
		m.limiter.table.allow(m.keys)
	case *dropped:
		dismiss(c, m.limiter)
	case closing:
		c.closing = true
	}
	return now
}
