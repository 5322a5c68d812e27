package redis

import (
	"errors"
	"fmt"
	"os"
	"time"
)

const (
	patience = time.Second      // a pipeline without a reply for so long is dead
	rest     = time.Second      // an idle one is pinged this often
	glance   = time.Millisecond // time to see that bytes wait after all
)

// Read gives the parser its bytes and keeps the time while there are none. The
// parser never sees a deadline, so a reply that stops half way and goes on
// later is whole in the end.
func (p *pipeline) Read(to []byte) (int, error) {
	for {
		n, err := p.conn.Read(to)
		if n > 0 || (err != nil && !errors.Is(err, os.ErrDeadlineExceeded)) {
			return n, err
		}
		now := time.Now()
		overdue, spent, dead := p.late(now)
		if overdue && !spent || dead {
			// The deadline may have passed because this goroutine, or the
			// machine, was busy. Bytes that wait are not a timeout (RULES 4).
			if n, err = p.peek(to); n > 0 || err != nil {
				return n, err
			}
		}
		if overdue {
			p.declare()
		}
		if dead {
			return 0, fmt.Errorf("%w: no reply for %v", ErrTimeout, patience)
		}
		if err := p.rearm(now); err != nil {
			return 0, err
		}
	}
}

// peek reads what is there already. It tries again when the machine was too
// slow to tell "nothing" from "not looked".
func (p *pipeline) peek(to []byte) (int, error) {
	for try := 0; try < 3; try++ {
		start := time.Now()
		p.mu.Lock()
		p.armed = start.Add(glance)
		p.conn.SetReadDeadline(p.armed)
		p.mu.Unlock()
		n, err := p.conn.Read(to)
		if n > 0 || (err != nil && !errors.Is(err, os.ErrDeadlineExceeded)) {
			return n, err
		}
		if time.Since(start) < 2*glance {
			break
		}
	}
	return 0, nil
}

// oldestLocked returns the oldest pending batch with an unanswered call that
// has not been declared timed out.
func (p *pipeline) oldestLocked() *batch {
	for i := len(p.pending) - 1; i >= 0; i-- {
		if p.pending[i] == p.declared {
			if i+1 < len(p.pending) {
				return p.pending[i+1]
			}
			return nil
		}
	}
	if len(p.pending) > 0 {
		return p.pending[0]
	}
	return nil
}

// late tells whether calls have run out of time, whether that is so though others
// were answered meanwhile, and whether the connection has.
func (p *pipeline) late(now time.Time) (overdue, spent, dead bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	b := p.oldestLocked()
	overdue = b != nil && !now.Before(p.due(b))
	spent = overdue && !now.Before(b.clock.Add(p.longest)) && p.progress.After(b.clock)
	dead = len(p.pending) > 0 && !now.Before(p.endLocked())
	return overdue, spent, dead
}

// due is when the batch's calls are late. Redis is silent, or gone, when it answers
// nothing for one timeout. As long as it answers, whatever call that be, it is at
// work, and who waits for longer waits for a machine that is busy, with us perhaps: a
// flood must not make gateways decide without a Redis that is well. So calls wait
// on, but none for ever.
func (p *pipeline) due(b *batch) time.Time {
	due := b.clock.Add(p.timeout)
	if alive := p.progress.Add(p.timeout); alive.After(due) {
		due = alive
	}
	if last := b.clock.Add(p.longest); last.Before(due) {
		due = last
	}
	return due
}

// endLocked is when the connection is given up unless a reply comes.
func (p *pipeline) endLocked() time.Time {
	from := p.pending[0].clock
	if p.progress.After(from) {
		from = p.progress
	}
	return from.Add(patience)
}

// declare tells every waiter of this connection that its answer is late, not
// only the first: whoever came after it would wait for the same silence
// (RULES 35). What the writer has not taken yet is withdrawn altogether.
func (p *pipeline) declare() {
	p.mu.Lock()
	pending, withdrawn := p.pending, p.queue
	p.queue = nil
	p.wire, p.since = p.wire[:0], time.Time{}
	if len(pending) > 0 {
		p.declared = pending[len(pending)-1]
	}
	p.mu.Unlock()
	late := 0
	for _, b := range pending {
		from := 0
		if b == p.head {
			from = p.next
		}
		for _, call := range b.calls[from:] {
			if call.late {
				continue
			}
			call.late = true
			late++
			if call.TimedOut != nil {
				call.TimedOut()
			}
		}
	}
	if p.overdue != nil {
		p.overdue(late)
	}
	for _, call := range withdrawn {
		p.settle(call, Reply{}, fmt.Errorf("%w: withdrawn, its connection is silent", ErrAway))
	}
}

// rearm sets the next deadline and pings an idle connection.
func (p *pipeline) rearm(now time.Time) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cause != nil {
		return p.cause
	}
	p.armed = now.Add(rest)
	switch {
	case len(p.pending) > 0:
		if end := p.endLocked(); end.Before(p.armed) {
			p.armed = end
		}
		if b := p.oldestLocked(); b != nil && p.due(b).Before(p.armed) {
			p.armed = p.due(b)
		}
	case len(p.queue) > 0: // the writer will arm it
	case p.retired:
		return errRetired
	default:
		ping := &Call{Name: "PING", probe: true, Done: nothing}
		p.queue = append(p.queue, ping)
		p.wire = ping.appendTo(p.wire)
		p.ready.Signal()
	}
	if soon := now.Add(p.timeout); p.retired && soon.Before(p.armed) {
		p.armed = soon
	}
	p.conn.SetReadDeadline(p.armed)
	return nil
}

// armLocked makes the reader look at the clock at t at the latest. Later
// deadlines are left to the reader, which sets its next one whenever one has
// passed: a busy connection moves its deadline forty times a second, not once
// a call.
func (p *pipeline) armLocked(t time.Time) {
	if p.armed.IsZero() || t.Before(p.armed) {
		p.armed = t
		p.conn.SetReadDeadline(t) // an error means the connection is closed: Read will say so
	}
}
