package redis

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/sluice-gateway/sluice/plugin/wait"
)

// read is the reader's goroutine: it hands lines to calls until the connection
// breaks, and then ends what is left.
func read(p *pipeline) {
	defer close(p.done)
	defer func() {
		if r := recover(); r != nil {
			p.fail(panicked("reader", r, p.report))
		}
	}()
	p.abandon(receive(p))
}

// receive hands each line to the call that it answers. Like write it stays in
// one function; what is rare is done by those it calls.
func receive(p *pipeline) error {
	var (
		epoch  = p.epoch
		in     = p.lines
		flight = p.flight

		line []byte
		end  int // of the line's text
		now  int64
		err  error
		call *Call // only ever received into: Yaegi cannot assign to it any more
		to   chan<- interface{}
	)
	defer func() {
		if r := recover(); r != nil {
			p.fail(panicked("reader", r, p.report))
			if p.hand != nil {
				p.putBack(p.hand) // to be ended with the others
			}
		}
	}()

	p.progress = p.now()
	for {
		line, err = in.ReadSlice('\n')
		now = int64(time.Since(epoch))
		if err != nil || len(p.partial) > 0 {
			line, err = p.mend(line, err, now)
			if err != nil {
				return err
			}
			if line == nil {
				continue
			}
		}
		end = len(line) - 2
		if end < 1 || line[end] != '\r' {
			return malformed(line)
		}
		p.progress = now
		if len(p.held) > 0 {
			err = p.answered(p.takeHeld(), line[0], string(line[1:end]), now)
			if err != nil {
				return err
			}
			continue
		}
		if len(flight) == 0 {
			return unasked(line)
		}
		call = <-flight
		p.hand = call
		if line[0] != kindStatus || call.late || call.asking || call.own != users || p.unproven {
			err = p.answered(call, line[0], string(line[1:end]), now)
			p.hand = nil
			if err != nil {
				return err
			}
			continue
		}
		call.Line = string(line[1:end])
		call.At = now
		to = call.To
		if to != nil {
			to <- call
		}
		p.hand = nil
	}
}

// answered is the whole of what a reply may mean.
func (p *pipeline) answered(call *Call, kind byte, text string, now int64) error {
	switch kind {
	case kindStatus, kindError:
	case kindInt:
		if _, err := strconv.ParseInt(text, 10, 64); err != nil {
			p.putBack(call)
			return malformed([]byte(":" + text))
		}
	default:
		p.putBack(call)
		return fmt.Errorf("%w: a reply of kind %q to a call", ErrProtocol, string(rune(kind)))
	}
	switch {
	case call.asking: // the reply to its ASKING; its own is still to come
		call.asking = false
		p.putBack(call)
	case kind == kindError:
		p.node.refused(p, call, text, now)
	default:
		p.node.served(p, call, text, now)
	}
	return nil
}

// mend deals with what is not a whole line: it keeps a part until the rest comes,
// and looks at the clock when the deadline has passed. nil, nil is: read on.
func (p *pipeline) mend(line []byte, err error, now int64) ([]byte, error) {
	if len(p.partial)+len(line) > maxReply {
		return nil, tooLong(append(p.partial, line...))
	}
	p.partial = append(p.partial, line...)
	switch {
	case err == nil:
		whole := p.partial
		p.partial = nil
		return whole, nil
	case errors.Is(err, bufio.ErrBufferFull):
		return nil, nil
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, p.quiet(now)
	}
	return nil, networkError(err)
}

// unasked is the error of a line that answers no call: a farewell, such as
// "max number of clients", or a mistake.
func unasked(line []byte) error {
	if line[0] == kindError {
		return replyError(string(line[1 : len(line)-2]))
	}
	return fmt.Errorf("%w: a reply that answers no call", ErrProtocol)
}

// takeHeld returns the oldest of the calls that had to be looked at before they
// were answered.
func (p *pipeline) takeHeld() *Call {
	call := p.held[0]
	p.held = p.held[1:]
	return call
}

// putBack makes the call the oldest again.
func (p *pipeline) putBack(call *Call) {
	p.held = append([]*Call{call}, p.held...)
}

// abandon ends every call that the broken pipeline still holds. Calls of which
// Redis has at most a part are known not to have run.
func (p *pipeline) abandon(cause error) {
	p.fail(cause)
	for !wait.Closed(p.written) {
		p.collect() // the writer may wait for room
		wait.First(p.written, time.After(glance))
	}
	p.collect()
	p.mu.Lock()
	p.err = p.cause
	p.mu.Unlock()
	p.node.breaker.lost()

	// Every write but the last went out whole. Counted from the end, because its
	// first calls may belong to others by now and encode differently.
	whole, end := len(p.held), p.last.size
	for i := 0; i < p.last.calls && whole > 0 && end > p.last.sent; i++ {
		whole--
		end -= len(appendCall(nil, p.held[whole]))
	}
	unsent := fmt.Errorf("%w: %w", ErrAway, p.err)
	for i, call := range p.held {
		if i < whole {
			p.give(call, p.err)
		} else {
			p.give(call, unsent)
		}
	}
	p.held = nil
	for _, call := range p.withdraw() {
		p.give(call, unsent)
	}
}

// give ends a call without a reply, and goes on if that panics.
func (p *pipeline) give(call *Call, err error) {
	defer func() {
		if r := recover(); r != nil {
			p.fail(panicked("owner", r, p.report))
		}
	}()
	p.node.failed(call, err, p.now())
}
