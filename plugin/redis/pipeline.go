package redis

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"runtime/debug"
	"sync"
	"time"

	"github.com/sluice-gateway/sluice/plugin/wait"
)

const (
	maxQueue = 4096    // calls that may wait for the writer, and as many for their replies
	maxStack = 2 << 10 // bytes of a panic's stack in the log
)

// errRetired ends a pipeline that was asked to finish: its server is no longer
// the one to talk to.
var errRetired = errors.New("redis: connection retired")

// A pipeline carries calls over one connection: from callers through in to the
// writer, through flight to the reader, and from there to their owners. Whoever
// takes a call out of a channel has it alone, so that "exactly once" needs no
// bookkeeping; and as the reader is the only timekeeper too, a timeout is declared
// by whoever would have seen the reply (design: late-replies).
type pipeline struct {
	node    *node
	address string
	epoch   time.Time
	raw     net.Conn      // the TCP connection; closing it unblocks reader and writer
	conn    net.Conn      // raw, or TLS over it
	lines   *bufio.Reader // of conn
	timeout int64         // ns without any reply
	longest int64         // ns for one, whatever else is answered
	flight  chan *Call    // written or about to be, oldest first

	taken *Call // the writer's own: on its way from in to flight

	done    chan struct{} // closed when every call has ended
	err     error         // why; to be read after done
	written chan struct{} // closed when the writer has gone
	last    torn          // the write that it failed at; to be read after written

	// Guarded by the client's mu.
	in   chan *Call // not yet taken by the writer; closed when nothing more comes
	shut bool       // takes no more calls

	// The reader's own.
	hand     *Call   // on its way from flight to its owner
	partial  []byte  // of a line that has not come to its end
	held     []*Call // out of flight and not answered, oldest first: the late ones, and one that was looked at
	progress int64   // the last whole reply
	unproven bool    // it has not answered well since it was made, or since something went wrong

	mu      sync.Mutex
	armed   int64 // the read deadline that is set
	excused int64 // until then the process itself was late
	retired bool  // ends when the last call is answered
	cause   error // set once broken
}

// torn is a write that failed.
type torn struct {
	calls int // in it
	size  int // bytes
	sent  int // bytes that got out
}

// newPipeline takes over a connection that has shaken hands.
func newPipeline(n *node, l *link) *pipeline {
	config := &n.client.config
	return &pipeline{
		node:     n,
		address:  l.address,
		epoch:    config.Epoch,
		raw:      l.raw,
		conn:     l.conn,
		lines:    l.parser.in,
		timeout:  int64(config.Timeout),
		longest:  int64(config.MaxWait),
		in:       make(chan *Call, maxQueue),
		flight:   make(chan *Call, maxQueue),
		done:     make(chan struct{}),
		written:  make(chan struct{}),
		unproven: true,
	}
}

// start runs the two goroutines.
func (p *pipeline) start() {
	p.mu.Lock()
	p.armLocked(p.now() + int64(rest))
	p.mu.Unlock()
	go write(p)
	go read(p)
}

func (p *pipeline) now() int64 { return int64(time.Since(p.epoch)) }

// take queues a call of the client's own, or one that is sent again. If it
// reports false the call is the caller's again.
func (p *pipeline) take(call *Call) bool {
	c := p.node.client
	c.mu.Lock()
	defer c.mu.Unlock()
	return p.takeLocked(call)
}

// takeLocked needs the client's mu. Nobody else adds to the channel meanwhile, so
// that it does not block.
func (p *pipeline) takeLocked(call *Call) bool {
	if p.shut || len(p.in) == cap(p.in) {
		return false
	}
	p.in <- call
	return true
}

// next returns the channel that replaced the one given, or nil: the pipeline
// takes no more calls, and the writer is done.
func (p *pipeline) next(in chan *Call) chan *Call {
	c := p.node.client
	c.mu.Lock()
	defer c.mu.Unlock()
	if p.in == in {
		return nil
	}
	return p.in
}

// shutDown has the pipeline take no more calls.
func (p *pipeline) shutDown() {
	c := p.node.client
	c.mu.Lock()
	defer c.mu.Unlock()
	if p.shut {
		return
	}
	p.shut = true
	close(p.in)
	c.assessLocked()
}

// withdraw returns the calls that the writer has not taken. It may be blocked, or
// about to take the next: that is why the channel is replaced, not emptied.
func (p *pipeline) withdraw() []*Call {
	c := p.node.client
	c.mu.Lock()
	old := p.in
	if !p.shut {
		p.in = make(chan *Call, maxQueue)
		close(old)
		c.aimLocked()
	}
	c.mu.Unlock()
	return drain(old)
}

// drain takes what is left in a closed channel, unless somebody else does.
func drain(in chan *Call) []*Call {
	var all []*Call
	for {
		call := <-in
		if call == nil {
			return all
		}
		all = append(all, call)
	}
}

// retire lets the pipeline finish what is pending and end.
func (p *pipeline) retire() {
	p.shutDown()
	p.mu.Lock()
	p.retired = true
	p.mu.Unlock()
	p.wake()
}

// leave is the writer's last act.
func (p *pipeline) leave() {
	close(p.written)
	p.wake() // which ends a retired pipeline if nothing is pending
}

// wake makes the reader look at the clock.
func (p *pipeline) wake() {
	p.mu.Lock()
	p.armLocked(p.now())
	p.mu.Unlock()
}

// fail breaks the pipeline. The reader notices and ends the calls.
func (p *pipeline) fail(cause error) {
	p.mu.Lock()
	if p.cause == nil {
		p.cause = cause
	}
	p.mu.Unlock()
	p.shutDown()
	p.raw.Close() // not conn: closing TLS writes, and may block
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

// collect takes all calls out of flight.
func (p *pipeline) collect() {
	for len(p.flight) > 0 {
		call := <-p.flight
		p.held = append(p.held, call)
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

func (p *pipeline) report(level, message string) { p.node.client.monitor.report(level, message) }

// panicked reports a panic and makes an error of it: in a plugin, a goroutine
// that panics takes Traefik with it.
func panicked(who string, value interface{}, report func(level, message string)) error {
	err := fmt.Errorf("redis: panic in %s: %v", who, value)
	report("error", err.Error()+"\n"+clip(string(debug.Stack()), maxStack))
	return err
}
