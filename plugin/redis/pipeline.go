package redis

import (
	"errors"
	"fmt"
	"net"
	"runtime/debug"
	"sync"
	"time"
)

const (
	maxQueue = 1 << 20  // bytes that may wait for the writer
	maxKept  = 64 << 10 // a write buffer that grew larger is given back
	maxStack = 2 << 10  // bytes of a panic's stack in the log
)

// errRetired ends a pipeline that was asked to finish: its server is no longer
// the one to talk to.
var errRetired = errors.New("redis: connection retired")

// A pipeline carries calls over one connection. Callers encode into a buffer;
// the writer puts the whole buffer out in one Write; the reader hands replies
// to calls in order. The reader is also the only timekeeper, and the only one
// that ends calls, so that "exactly once" needs no bookkeeping: a timeout is
// declared by whoever would have seen the reply (RULES 4).
type pipeline struct {
	address string
	raw     net.Conn                                 // the TCP connection; closing it unblocks reader and writer
	conn    net.Conn                                 // raw, or TLS over it
	timeout time.Duration                            // without any reply
	longest time.Duration                            // for one, whatever else is answered
	settle  func(call *Call, reply Reply, err error) // ends a call
	overdue func(calls int)                          // so many calls just timed out; nil: nobody asks
	pushed  func(Reply) bool                         // takes what answers no call; nil: pushes are dropped
	broken  func()                                   // called before the calls of a broken pipeline end; nil: nobody asks
	report  func(level, message string)

	done chan struct{} // closed when every call has ended
	err  error         // why; to be read after done

	// The reader's own.
	parser   *parser
	head     *batch
	clock    time.Time // of the head
	next     int       // index of the head's call whose reply comes next
	progress time.Time // the last whole reply
	declared *batch    // the newest batch whose calls timed out

	mu      sync.Mutex
	ready   *sync.Cond // the queue is no longer empty, or the pipeline is broken
	queue   []*Call    // encoded, not yet taken by the writer
	wire    []byte     // their bytes
	spare   []byte     // the buffer that the writer gave back
	since   time.Time  // first write of the oldest redirected call in queue
	pending []*batch   // taken by the writer, oldest first
	armed   time.Time  // the read deadline that is set
	retired bool       // takes no more calls, ends when the last is answered
	cause   error      // set once broken
	written chan struct{}
}

// A batch is what went out in one write.
type batch struct {
	calls     []*Call
	clock     time.Time // from when the timeout runs: the write's end, its beginning until then
	inherited bool      // clock is that of an earlier write: a call in it was redirected
	size      int       // bytes to write
	sent      int       // bytes written
}

// newPipeline takes over a connection that has shaken hands.
func newPipeline(l *link, timeout, longest time.Duration) *pipeline {
	p := &pipeline{
		address: l.address,
		raw:     l.raw,
		conn:    l.conn,
		timeout: timeout,
		longest: longest,
		done:    make(chan struct{}),
		written: make(chan struct{}),
	}
	p.ready = sync.NewCond(&p.mu)
	p.parser = newParser(p, maxReply)
	return p
}

// start runs the two goroutines. The functions must be set by now.
func (p *pipeline) start() {
	p.mu.Lock()
	p.armLocked(time.Now().Add(rest))
	p.mu.Unlock()
	go p.write()
	go p.read()
}

// send queues the calls as one write and reports false if they cannot be sent:
// then they are the caller's again. It never waits for the network. A call that
// was redirected tells when it was first written: its time has been running
// since, so that redirects do not multiply the timeout.
func (p *pipeline) send(calls []*Call, since time.Time) bool {
	var wire []byte
	for _, call := range calls {
		wire = call.appendTo(wire)
	}
	p.mu.Lock()
	if p.cause != nil || p.retired || (len(p.wire) > 0 && len(p.wire)+len(wire) > maxQueue) {
		p.mu.Unlock()
		return false
	}
	if len(p.queue) == 0 {
		p.ready.Signal()
	}
	p.queue = append(p.queue, calls...)
	p.wire = append(p.wire, wire...)
	if !since.IsZero() && (p.since.IsZero() || since.Before(p.since)) {
		p.since = since
	}
	p.mu.Unlock()
	return true
}

// retire lets the pipeline finish what is pending and end.
func (p *pipeline) retire() {
	p.mu.Lock()
	p.retired = true
	p.armLocked(time.Now()) // wakes the reader
	p.mu.Unlock()
}

// fail breaks the pipeline. The reader notices and ends the calls.
func (p *pipeline) fail(cause error) {
	p.mu.Lock()
	if p.cause == nil {
		p.cause = cause
	}
	p.ready.Broadcast()
	p.mu.Unlock()
	p.raw.Close() // not conn: closing TLS writes, and may block
}

// write is the writer's goroutine.
func (p *pipeline) write() {
	defer close(p.written)
	defer func() {
		if r := recover(); r != nil {
			p.fail(panicked("writer", r, p.report))
		}
	}()
	for {
		b, wire := p.take()
		if b == nil {
			return
		}
		n, err := p.conn.Write(wire)
		p.sent(b, wire, n)
		if err != nil {
			p.fail(networkError(err))
			return
		}
	}
}

// take waits for the queue and makes it the newest pending batch.
func (p *pipeline) take() (*batch, []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.queue) == 0 && p.cause == nil {
		p.ready.Wait()
	}
	if p.cause != nil {
		return nil, nil
	}
	b := &batch{calls: p.queue, clock: time.Now(), size: len(p.wire)}
	if !p.since.IsZero() {
		b.clock, b.inherited = p.since, true
	}
	wire := p.wire
	p.queue = nil // one by one: Yaegi panics at a nil within a parallel assignment
	p.wire = p.spare
	p.spare = nil
	p.since = time.Time{}
	p.pending = append(p.pending, b)
	p.armLocked(b.clock.Add(p.timeout)) // runs during the write too: a write that blocks is an answer that does not come
	return b, wire
}

// sent notes the end of a write: from here on the batch's timeout runs.
func (p *pipeline) sent(b *batch, wire []byte, n int) {
	p.mu.Lock()
	b.sent = n
	if !b.inherited {
		b.clock = time.Now()
	}
	if cap(wire) <= maxKept {
		p.spare = wire[:0]
	}
	p.mu.Unlock()
}

// read is the reader's goroutine.
func (p *pipeline) read() {
	defer close(p.done)
	defer func() {
		if r := recover(); r != nil {
			panicked("reader", r, p.report)
		}
	}()
	err := p.receive()
	p.fail(err)
	<-p.written // how much of the last write got out is known now
	p.mu.Lock()
	p.err = p.cause
	p.mu.Unlock()
	if p.broken != nil {
		p.broken()
	}
	p.abandon()
}

// receive hands out replies until the connection fails.
func (p *pipeline) receive() (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = panicked("reader", r, p.report)
		}
	}()
	p.progress = time.Now()
	for {
		reply, err := p.parser.read()
		if err != nil {
			return networkError(err)
		}
		if p.pushed != nil && p.pushed(reply) {
			continue
		}
		if p.pushed == nil && reply.kind == kindPush {
			continue
		}
		call := p.answered()
		if call == nil {
			if reply.kind == kindError { // a farewell, such as "max number of clients"
				return replyError(reply.text)
			}
			return fmt.Errorf("%w: a reply that answers no call", ErrProtocol)
		}
		p.progress = time.Now()
		p.settle(call, reply, nil)
	}
}

// answered returns the call whose reply has just come.
func (p *pipeline) answered() *Call {
	if p.head == nil {
		p.mu.Lock()
		if len(p.pending) > 0 {
			p.head, p.next = p.pending[0], 0
			p.clock = p.head.clock
		}
		p.mu.Unlock()
		if p.head == nil {
			return nil
		}
	}
	call := p.head.calls[p.next]
	if call.asking {
		// The +OK of its ASKING comes first.
		call.asking = false
		return &Call{Done: nothing, probe: true}
	}
	if p.next++; p.next == len(p.head.calls) {
		p.mu.Lock()
		p.pending = p.pending[1:]
		p.mu.Unlock()
		p.head = nil
	}
	return call
}

// abandon ends every call that the broken pipeline still holds. Calls of which
// Redis has at most a part are known not to have run.
func (p *pipeline) abandon() {
	p.mu.Lock()
	pending, queue := p.pending, p.queue
	p.pending = nil
	p.queue = nil
	p.mu.Unlock()
	unsent := fmt.Errorf("%w: %w", ErrAway, p.err)
	for _, b := range pending {
		from := 0
		if b == p.head {
			from = p.next
		}
		// Counted from the end, because calls before from belong to others by
		// now and may encode differently.
		whole, end := len(b.calls), b.size
		for whole > from && end > b.sent {
			whole--
			end -= len(b.calls[whole].appendTo(nil))
		}
		for _, call := range b.calls[from:whole] {
			p.end(call, p.err)
		}
		for _, call := range b.calls[whole:] {
			p.end(call, unsent)
		}
	}
	for _, call := range queue {
		p.end(call, unsent)
	}
}

// nothing is the Done of calls whose outcome only the pipeline looks at.
func nothing(reply Reply, err error) {}

// end is settle for a goroutine that must go on if the caller's Done panics.
func (p *pipeline) end(call *Call, err error) {
	defer func() {
		if r := recover(); r != nil {
			panicked("callback", r, p.report)
		}
	}()
	p.settle(call, Reply{}, err)
}

// panicked reports a panic and makes an error of it: in a plugin, a goroutine
// that panics takes Traefik with it.
func panicked(who string, value interface{}, report func(level, message string)) error {
	err := fmt.Errorf("redis: panic in %s: %v", who, value)
	if report != nil {
		report("error", err.Error()+"\n"+clip(string(debug.Stack()), maxStack))
	}
	return err
}
