package redis

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/sluice-gateway/sluice/plugin/wait"
)

// Subscribe listens to a channel in the background, on a connection of its own
// that follows the master and is made again, with backoff, whenever it breaks.
// It is pinged every second; no answer within a second breaks it.
//
// lost is called each time an established subscription was interrupted, before
// the next one begins: messages in between are gone, Redis keeps none. After
// stop neither is called by a connection that was not there already. Both
// functions are called from one goroutine each connection, never two at a time.
func (c *Client) Subscribe(channel string, message func(payload string), lost func()) (stop func()) {
	ctx, cancel := context.WithCancel(c.ctx)
	s := &subscription{client: c, channel: channel, message: message, ctx: ctx}
	go func() {
		for ctx.Err() == nil {
			c.guard("subscription", s.connection)
			if s.established.CompareAndSwap(true, false) && ctx.Err() == nil {
				c.guard("lost", lost)
			}
			c.pause(ctx, s.backoff.next())
		}
	}()
	return cancel
}

type subscription struct {
	client      *Client
	channel     string
	message     func(payload string)
	ctx         context.Context
	established atomic.Bool
	attempt     int // picks another node of a Cluster after a failure
	backoff     backoff
}

// connection subscribes once and stays until the connection breaks or Redis'
// topology has moved on.
func (s *subscription) connection() {
	home, address := s.address()
	if address == "" {
		return
	}
	l, err := s.client.connect(s.ctx, address)
	if err != nil {
		s.failed(err)
		return
	}
	p := newPipeline(l, patience, patience)
	p.report = s.client.journal.report
	p.pushed = s.pushed
	p.settle = func(call *Call, reply Reply, err error) {
		if err == nil && reply.kind == kindError {
			err = replyError(reply.text)
		}
		call.Done(reply, err)
	}
	stop := context.AfterFunc(s.ctx, func() { p.fail(ErrClosed) })
	defer stop()
	defer p.fail(ErrClosed) // should anything below panic
	p.send([]*Call{{Name: "SUBSCRIBE", Args: []string{s.channel}, Done: func(_ Reply, err error) {
		if err != nil {
			p.fail(err)
			return
		}
		s.established.Store(true)
	}}}, time.Time{})
	p.start()
	s.stay(p, home)
	<-p.done
	if s.established.Load() {
		s.backoff.reset()
	}
	if !errors.Is(p.err, errRetired) {
		s.failed(p.err)
	}
}

func (s *subscription) failed(err error) {
	if s.ctx.Err() != nil {
		return
	}
	s.attempt++
	s.client.journal.failed(err)
	s.client.journal.log("error", "subscription "+Kind(err), "cannot listen to "+s.channel+": "+err.Error())
}

// address is that of the node the calls of this channel's slot go to, so that
// a failover is followed as soon as calls do. In a Cluster any master relays
// every message; after a failure the next one is tried.
func (s *subscription) address() (*node, string) {
	r := s.client.routes.Load().(*routes)
	if len(r.nodes) == 0 {
		return nil, ""
	}
	at := 0
	if r.slots != nil {
		at = (slotOf(s.channel) + s.attempt) % len(r.nodes)
	}
	n := r.nodes[at]
	if p := n.pipeline(); p != nil && !wait.Closed(p.done) {
		return n, p.address
	}
	return n, ""
}

// stay returns when the connection breaks, and retires it when its node has
// gone from the Cluster or talks to another server now.
func (s *subscription) stay(p *pipeline, home *node) {
	tick := time.NewTicker(rest / 4)
	defer tick.Stop()
	for {
		if wait.First(tick.C, p.done) == 1 {
			return
		}
		current := home.pipeline()
		if home.ctx.Err() != nil || (current.address != p.address && !wait.Closed(current.done)) {
			p.fail(errRetired)
			return
		}
	}
}

// pushed takes messages: a push in RESP3, an array in RESP2.
//
//	"message", channel, payload
//
// The confirmation of SUBSCRIBE, though a push too, answers our call.
func (s *subscription) pushed(reply Reply) bool {
	if (reply.kind != kindPush && reply.kind != kindArray) || len(reply.list) == 0 {
		return false
	}
	switch reply.list[0].text {
	case "subscribe", "pong":
		return false
	case "message":
		if len(reply.list) == 3 && reply.list[2].kind == kindBulk {
			s.message(reply.list[2].text)
		}
	}
	return true
}
