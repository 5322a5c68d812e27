package redis

import (
	"context"
	"errors"
	"fmt"
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
			if s.established {
				s.established = false
				s.backoff.reset()
				if ctx.Err() == nil {
					c.guard("lost", lost)
				}
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
	established bool
	attempt     int // picks another node of a Cluster after a failure
	backoff     backoff
}

// A hearing is one connection of a subscription.
type hearing struct {
	link  *link
	home  *node       // whose server it is
	heard atomic.Bool // something, since the keeper looked
	ended chan error  // why the keeper closed it
	done  chan struct{}
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
	defer l.raw.Close()
	h := &hearing{link: l, home: home, ended: make(chan error, 1), done: make(chan struct{})}
	defer close(h.done)
	go s.client.guard("subscription", func() { s.keep(h) })
	err = s.listen(h)
	if len(h.ended) > 0 {
		err = <-h.ended
	}
	if !errors.Is(err, errRetired) {
		s.failed(err)
	}
}

func (s *subscription) failed(err error) {
	if s.ctx.Err() != nil {
		return
	}
	s.attempt++
	s.client.monitor.failed(err)
	s.client.monitor.log("error", "subscription "+Kind(err), "cannot listen to "+s.channel+": "+err.Error())
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

// listen takes messages until the connection breaks.
//
//	"subscribe", channel, count
//	"message", channel, payload
//	"pong", ""
func (s *subscription) listen(h *hearing) error {
	if err := h.say("SUBSCRIBE", s.channel); err != nil {
		return err
	}
	for {
		r, err := h.link.parser.read()
		if err != nil {
			return networkError(err)
		}
		h.heard.Store(true)
		switch {
		case r.kind == kindError:
			return replyError(r.text)
		case r.kind != kindArray || len(r.list) == 0:
			return fmt.Errorf("%w: not what a subscription hears", ErrProtocol)
		case r.list[0].text == "subscribe":
			s.established = true
		case r.list[0].text == "message" && len(r.list) == 3 && r.list[2].kind == kindBulk:
			s.message(r.list[2].text)
		}
	}
}

func (h *hearing) say(words ...string) error {
	h.link.conn.SetWriteDeadline(time.Now().Add(patience))
	_, err := h.link.conn.Write(appendCommand(nil, words...))
	return networkError(err)
}

// keep closes the connection when it is silent, though pinged, when its node has
// gone from the Cluster or talks to another server now, and when nobody wants it
// any more. Silence is counted in looks: what this process had no time to look at
// is not counted.
func (s *subscription) keep(h *hearing) {
	const looks = 8 // in rest, and in patience
	defer h.link.raw.Close()
	tick := time.NewTicker(rest / looks)
	defer tick.Stop()
	for quiet := 1; ; quiet++ {
		switch wait.First(tick.C, s.ctx.Done(), h.done) {
		case 1:
			h.ended <- ErrClosed
			return
		case 2:
			return
		}
		if h.heard.Swap(false) {
			quiet = 0
		}
		current := h.home.pipeline()
		var why error
		switch {
		case h.home.ctx.Err() != nil || (current.address != h.link.address && !wait.Closed(current.done)):
			why = errRetired
		case quiet == looks:
			why = h.say("PING")
		case quiet == 2*looks:
			why = fmt.Errorf("%w: no reply for %v", ErrTimeout, patience)
		}
		if why != nil {
			h.ended <- why
			return
		}
	}
}
