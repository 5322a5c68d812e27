package redis

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/sluice-gateway/sluice/plugin/wait"
)

const maxHops = 3 // redirects of one call

// A node is one server that calls go to, the connection to it and the breaker
// before it. With Sentinel, or several plain addresses, the one node is
// "the master", wherever that is.
type node struct {
	client  *Client
	address string          // in a Cluster: what the slot map calls it
	ctx     context.Context // ends with the client, or when the node leaves the Cluster
	leave   context.CancelFunc
	locate  func(context.Context) ([]string, error) // addresses to try, best first

	breaker  *breaker
	current  atomic.Value // *pipeline, also when it has broken; nothing before the first
	probing  atomic.Bool  // a probe of the keeper's is pending
	answered bool         // the reader's, then the keeper's: the connection has answered a call well
	everUp   bool         // the keeper's own
	backoff  backoff      // the keeper's own: between connections
}

func (c *Client) newNode(address string, locate func(context.Context) ([]string, error)) *node {
	n := &node{client: c, address: address, locate: locate, breaker: newBreaker(c.refreshHealth)}
	n.ctx, n.leave = context.WithCancel(c.ctx)
	return n
}

// pipeline returns the connection, nil before the first.
func (n *node) pipeline() *pipeline {
	if p, ok := n.current.Load().(*pipeline); ok {
		return p
	}
	return nil
}

// usableLocked reports whether calls may go to the node: its connection takes them,
// and its breaker is closed. One does not say the other: a connection that retires
// takes no more calls, and opens the breaker only when its last one is answered.
func (n *node) usableLocked() bool {
	p := n.pipeline()
	return p != nil && !p.shut && !n.breaker.open.Load()
}

// start runs the keeper. In a loop, Yaegi would start every goroutine of a
// plain "go n.keep()" on the last n: it looks the receiver up too late.
func (n *node) start() { go n.keep() }

// keep is the node's goroutine: it holds one connection open.
func (n *node) keep() {
	for n.ctx.Err() == nil {
		n.client.guard("keeper", n.connection)
		n.breaker.lost()
		n.client.pause(n.ctx, n.backoff.next())
	}
}

// connection makes a connection and stays with it until it breaks.
func (n *node) connection() {
	l, err := n.open()
	if err != nil {
		if n.ctx.Err() == nil {
			n.client.monitor.failed(err)
			n.client.monitor.log("error", Kind(err), "cannot connect: "+err.Error())
			n.client.lookAgain()
		}
		return
	}
	p := newPipeline(n, l)
	stop := context.AfterFunc(n.client.ctx, func() { p.fail(ErrClosed) })
	defer stop()
	leave := context.AfterFunc(n.ctx, p.retire)
	defer leave()
	n.client.monitor.connected(l.address, n.everUp)
	n.everUp = true
	defer p.fail(ErrClosed) // should anything below panic

	n.answered = false
	n.current.Store(p)
	n.breaker.close()
	born := time.Now()
	p.start()
	n.watch(p)
	if n.answered || time.Since(born) > longestWait {
		n.backoff.reset()
	}
	if n.ctx.Err() == nil && !errors.Is(p.err, errRetired) {
		n.client.monitor.failed(p.err)
		n.client.monitor.log("warn", Kind(p.err), "lost "+l.address+": "+p.err.Error())
	}
	n.client.lookAgain()
}

// open tries the node's addresses in turn.
func (n *node) open() (*link, error) {
	addresses, err := n.locate(n.ctx)
	if err != nil {
		return nil, err
	}
	for _, address := range addresses {
		l, failed := n.client.connect(n.ctx, address)
		if failed == nil {
			return l, nil
		}
		failed = fmt.Errorf("%s: %w", address, failed)
		if err == nil || errors.Is(err, faultReadOnly.err) { // a replica is no news beside a master that fails
			err = failed
		}
	}
	return nil, err
}

// watch stays with a connection, and probes whenever the breaker has opened.
func (n *node) watch(p *pipeline) {
	for {
		if wait.First(n.breaker.opened, p.done) == 1 {
			return
		}
		for n.breaker.open.Load() {
			timer := time.NewTimer(n.breaker.pause())
			if wait.First(timer.C, p.done) == 1 {
				timer.Stop()
				return
			}
			if n.breaker.open.Load() {
				n.probe(p)
			}
		}
	}
}

// probe sends one probe at a time. Only an answer in time proves anything, and
// then any answer does that is not itself a sign of trouble: what the ACL
// forbids, or a key of another type, has been answered all the same.
func (n *node) probe(p *pipeline) {
	if !n.probing.CompareAndSwap(false, true) {
		return
	}
	if !p.take(n.breaker.probe()) {
		n.probing.Store(false)
	}
}

// probed takes the outcome of a probe.
func (n *node) probed(call *Call, err error) {
	n.probing.Store(false)
	sick := err != nil && Kind(err) != "noperm" && (isAway(err) || n.stranded(call, faultNamed(Kind(err))))
	if !call.late && !sick {
		n.breaker.close()
	}
}

// overdue hears from the reader that calls have waited too long.
func (n *node) overdue(p *pipeline, calls int) {
	p.unproven = true
	n.client.monitor.count(ErrTimeout, calls)
	n.client.monitor.log("warn", "timeout", fmt.Sprintf("no reply within %v", n.client.config.Timeout))
	n.breaker.bad(silent, calls, "")
}

// served ends a call that Redis has answered with a status or an integer.
func (n *node) served(p *pipeline, call *Call, text string, now int64) {
	switch {
	case call.own == probe:
		n.probed(call, nil)
	case call.own == users && !call.late:
		p.unproven = false
		n.answered = true
		n.breaker.good()
	}
	endCall(call, text, nil, now)
}

// refused ends a call that Redis has answered with an error, unless it goes
// another way.
func (n *node) refused(p *pipeline, call *Call, text string, now int64) {
	f := faultOf(text)
	if call.own == users && !call.late && n.redirect(p, call, f, text) {
		return
	}
	away := f.away || n.stranded(call, f)
	switch {
	case call.own != users:
	case away:
		p.unproven = true
		n.breaker.bad(refused, 1, call.Key)
	case !call.late:
		n.breaker.good()
	}
	if f.word == "readonly" {
		p.retire() // demoted; where the master is now, the next connection finds out
	}
	if away && (f.word == "moved" || f.word == "ask") {
		n.client.monitor.log("error", f.word, p.address+" is part of a Redis Cluster: set redis.cluster to true")
	}
	if f.word == "readonly" || f.word == "clusterdown" || f.word == "moved" {
		n.client.lookAgain()
	}
	n.failed(call, replyError(text), now)
}

// failed ends a call with an error.
func (n *node) failed(call *Call, err error, now int64) {
	if call.own == probe {
		n.probed(call, err)
	}
	if call.own == users && !(call.late && errors.Is(err, ErrTimeout)) { // overdue has counted that one
		n.client.monitor.failed(err)
	}
	endCall(call, "", err, now)
}

// stranded reports whether an answer that redirect could not act on says that
// this server will serve nobody: a redirect outside a Cluster, where no slot map
// will ever follow it, and a script that is unknown though its source was sent.
// In a Cluster the server is well, and the next slot map puts things right.
func (n *node) stranded(call *Call, f *fault) bool {
	switch f.word {
	case "moved", "ask":
		return !n.client.config.Cluster
	case "noscript":
		return call.bySource
	}
	return false
}

// redirect sends a call again that Redis proved not to have executed, and
// reports whether it is on its way (design: never-twice).
func (n *node) redirect(p *pipeline, call *Call, f *fault, text string) bool {
	to := p
	switch f.word {
	case "noscript":
		if call.Script == nil || call.bySource {
			return false
		}
		call.bySource = true
		call.asking = call.asked
	case "tryagain":
		call.asking = call.asked
	case "moved", "ask":
		if f.word == "moved" {
			n.client.lookAgain()
		}
		other := n.client.nodeAt(movedTo(text, p.address))
		if other == nil || other.breaker.open.Load() {
			return false
		}
		to = other.pipeline()
		call.asked = f.word == "ask"
		call.asking = call.asked
	default:
		return false
	}
	if call.hops++; call.hops > maxHops {
		return false
	}
	return to.take(call)
}
