package redis

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/sluice-gateway/sluice/plugin/wait"
)

// A node's keeper is the goroutine that holds a connection to it open.

func (c *Client) newNode(address string, locate func(context.Context) ([]string, error)) *node {
	n := &node{client: c, address: address, locate: locate, breaker: newBreaker(c.refreshHealth)}
	n.ctx, n.leave = context.WithCancel(c.ctx)
	return n
}

// start runs the keeper. In a loop, Yaegi would start every goroutine of a
// plain "go n.keep()" on the last n: it looks the receiver up too late.
func (n *node) start() { go n.keep() }

// keep holds one connection open.
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

// start runs the writer and the reader.
func (p *pipeline) start() {
	p.mu.Lock()
	p.armLocked(p.now() + int64(rest))
	p.mu.Unlock()
	go write(p)
	go read(p)
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
