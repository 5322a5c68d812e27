package redis

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/sluice-gateway/sluice/plugin/wait"
)

const (
	patience = time.Second      // a pipeline without a reply for so long is dead
	rest     = time.Second      // an idle one is pinged this often
	glance   = time.Millisecond // time to see that bytes wait after all
	tardy    = int64(2 * glance)
)

// quiet is called when the deadline has passed without a whole reply. It tells
// the owners of calls that have run out of time, and sets the next deadline; an
// error ends the connection.
func (p *pipeline) quiet(now int64) error {
	p.mu.Lock()
	belated := now-p.armed > tardy
	p.mu.Unlock()
	overdue, spent, dead := p.late(now)
	if (overdue && !spent) || (belated && (overdue || dead)) {
		// The deadline may have passed because this goroutine was busy, with an
		// owner that did not take its calls perhaps, or the machine. Bytes that
		// wait are not a timeout (design: late-replies).
		there, err := p.peek()
		if there || err != nil {
			return err
		}
		now = p.now()
		if belated && overdue && !spent {
			p.excuse(now)
			overdue = false
		}
	}
	if overdue {
		p.declare(now)
	}
	if dead {
		return fmt.Errorf("%w: no reply for %v", ErrTimeout, patience)
	}
	return p.rearm(now)
}

// peek tells whether bytes are there already. It tries again when the machine was
// too slow to tell "nothing" from "not looked".
func (p *pipeline) peek() (bool, error) {
	for try := 0; try < 3; try++ {
		start := p.now()
		p.mu.Lock()
		p.armLocked(start + int64(glance))
		p.mu.Unlock()
		_, err := p.lines.Peek(1)
		if err == nil {
			return true, nil
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return false, networkError(err)
		}
		if p.now()-start < tardy {
			break
		}
	}
	return false, nil
}

// oldest returns the oldest unanswered call whose owner has not been told that it
// is overdue.
func (p *pipeline) oldest() *Call {
	for _, call := range p.held {
		if !call.late {
			return call
		}
	}
	if len(p.flight) == 0 {
		return nil
	}
	call := <-p.flight
	p.held = append(p.held, call)
	return call
}

// late tells whether calls have run out of time, whether they have so whatever
// else is answered, and whether the connection has.
func (p *pipeline) late(now int64) (overdue, spent, dead bool) {
	if call := p.oldest(); call != nil {
		overdue = now >= p.due(call)
		spent = now >= call.since+p.longest
	}
	return overdue, spent, len(p.held) > 0 && now >= p.end()
}

// due is when the call is late. Redis is silent, or gone, when it answers nothing
// for one timeout. As long as it answers, whatever call that be, it is at work,
// and who waits for longer waits for a machine that is busy, with us perhaps: a
// flood must not make gateways decide without a Redis that is well. What this
// process was late itself counts for nothing either. So calls wait on, but none
// for ever.
func (p *pipeline) due(call *Call) int64 {
	from := call.since
	if p.progress > from {
		from = p.progress
	}
	p.mu.Lock()
	if p.excused > from {
		from = p.excused
	}
	p.mu.Unlock()
	if last := call.since + p.longest; last < from+p.timeout {
		return last
	}
	return from + p.timeout
}

// end is when the connection is given up unless a reply comes.
func (p *pipeline) end() int64 {
	from := p.held[0].since
	if p.progress > from {
		from = p.progress
	}
	return from + int64(patience)
}

// excuse notes that Redis may have been silent because this process was late:
// silence is measured anew.
func (p *pipeline) excuse(now int64) {
	p.mu.Lock()
	p.excused = now
	p.mu.Unlock()
}

// declare tells every owner of this connection's calls that they are overdue, not
// only the first: whoever came after it would wait for the same silence
// (design: three-timeouts). What the writer has not taken yet is withdrawn altogether.
func (p *pipeline) declare(now int64) {
	p.collect()
	var late []*Call
	for _, call := range p.held {
		if !call.late {
			call.late = true
			late = append(late, call)
		}
	}
	withdrawn := p.withdraw()
	p.node.overdue(p, len(late))
	for len(late) > 0 {
		late = tell(late, now)
	}
	for _, call := range withdrawn {
		p.node.failed(call, errWithdrawn, now)
	}
}

var errWithdrawn = fmt.Errorf("%w: withdrawn, its connection is silent", ErrAway)

// tell sends one message about all calls that have the first one's To, and
// returns the others.
func tell(late []*Call, now int64) []*Call {
	to := late[0].To
	var same, others []*Call
	for _, call := range late {
		if call.To == to {
			same = append(same, call)
		} else {
			others = append(others, call)
		}
	}
	if to != nil {
		to <- &Overdue{Calls: same, At: now}
	}
	return others
}

// rearm sets the next deadline, and pings a connection that has been idle for so
// long.
func (p *pipeline) rearm(now int64) error {
	finished := wait.Closed(p.written)
	call := p.oldest()
	next := now + int64(rest)
	if len(p.held) > 0 && p.end() < next {
		next = p.end()
	}
	if call != nil && p.due(call) < next {
		next = p.due(call)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if call == nil && len(p.flight) > 0 {
		return nil // it has come since: the passed deadline leads back here
	}
	if len(p.held) == 0 {
		if finished {
			return errRetired
		}
		if lively := p.progress + int64(rest); now < lively {
			next = lively
		} else {
			p.take(&Call{Name: "PING", own: ping})
		}
	}
	if p.retired && now+p.timeout < next {
		next = now + p.timeout
	}
	p.armLocked(next)
	return nil
}
