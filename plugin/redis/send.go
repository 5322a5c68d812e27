package redis

import (
	"fmt"
	"time"
)

// The way of calls to a connection's writer, and whether it is open: all under the
// client's mu.

// Serve sends the calls that come through the channel until that is closed. One
// that cannot be sent now goes back to its To at once. Serve waits for nobody but
// the readers of To.
//
// Like write it stays in one function: what nearly every call needs is done here,
// and Send does the rest.
func Serve(c *Client, calls <-chan *Call) {
	var call *Call
	var ok bool
	for {
		call, ok = <-calls
		if !ok {
			return
		}
		c.mu.Lock()
		ok = len(c.direct) < cap(c.direct)
		if ok {
			c.calls++
			c.direct <- call
		}
		c.mu.Unlock()
		if !ok && !Send(c, call) && call.To != nil {
			call.To <- call
		}
	}
}

// Send hands a call over and never waits. It reports false, and the call has
// ended with ErrAway without a word to To, if nothing of it was written and
// nothing will be: there is no usable connection, its breaker is open, or too many
// calls wait for it.
func Send(c *Client, call *Call) bool {
	r := c.routes.Load().(*routes)
	sent := false
	if owner := r.owner(call.Key); owner != nobody && !r.nodes[owner].breaker.open.Load() {
		if p := r.nodes[owner].pipeline(); p != nil {
			c.mu.Lock()
			if sent = p.takeLocked(call); sent {
				c.calls++
			}
			c.mu.Unlock()
		}
	}
	if !sent {
		c.monitor.away.Add(1)
		call.Err = errRefused
		call.At = int64(time.Since(c.config.Epoch))
	}
	return sent
}

// errRefused is made once: during an outage every call gets it.
var errRefused = fmt.Errorf("%w: no usable connection", ErrAway)

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

// usableLocked reports whether calls may go to the node: its connection takes them,
// and its breaker is closed. One does not say the other: a connection that retires
// takes no more calls, and opens the breaker only when its last one is answered.
func (n *node) usableLocked() bool {
	p := n.pipeline()
	return p != nil && !p.shut && !n.breaker.open.Load()
}

// aimLocked finds the way that calls take while there is but one.
func (c *Client) aimLocked() {
	c.direct = nil
	r := c.routes.Load().(*routes)
	if c.ctx.Err() != nil || r.slots != nil || len(r.nodes) != 1 || !r.nodes[0].usableLocked() {
		return
	}
	c.direct = r.nodes[0].pipeline().in
}

// assessLocked works out Healthy and the way that calls take, and reports whether
// the client has become healthy.
func (c *Client) assessLocked() bool {
	nodes := c.routes.Load().(*routes).nodes
	healthy := len(nodes) > 0 && c.ctx.Err() == nil
	for _, n := range nodes {
		healthy = healthy && n.usableLocked()
	}
	was := c.healthy.Load()
	if was && !healthy && c.ctx.Err() == nil {
		c.monitor.opens.Add(1)
	}
	c.healthy.Store(healthy)
	c.aimLocked()
	return healthy && !was
}
