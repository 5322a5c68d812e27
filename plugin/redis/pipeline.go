package redis

import (
	"bufio"
	"errors"
	"net"
	"sync"
	"time"
)

const maxQueue = 4096 // calls that may wait for the writer, and as many for their replies

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

func (p *pipeline) now() int64 { return int64(time.Since(p.epoch)) }

// pipeline returns the node's connection, nil before the first.
func (n *node) pipeline() *pipeline {
	if p, ok := n.current.Load().(*pipeline); ok {
		return p
	}
	return nil
}

// wake makes the reader look at the clock.
func (p *pipeline) wake() {
	p.mu.Lock()
	p.armLocked(p.now())
	p.mu.Unlock()
}

// armLocked sets the deadline at which the reader looks at the clock. The writer
// only moves it forward, and leaves the next to the reader: a busy connection
// moves its deadline forty times a second, not once a call.
func (p *pipeline) armLocked(at int64) {
	p.armed = at
	p.conn.SetReadDeadline(p.epoch.Add(time.Duration(at))) // an error means the connection is closed: the read will say so
}

// collect takes all calls out of flight.
func (p *pipeline) collect() {
	for len(p.flight) > 0 {
		call := <-p.flight
		p.held = append(p.held, call)
	}
}

func (p *pipeline) report(level, message string) { p.node.client.monitor.report(level, message) }
