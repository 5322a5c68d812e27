package redis

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"
)

// A slotRange is owned by one master.
type slotRange struct {
	first, last int64 // inclusive
	owner       string
}

// mapSlots reads the Cluster's slot map and connects to every master in it.
func (c *Client) mapSlots(ctx context.Context) error {
	view := c.routes.Load().(*routes)
	var ask []string
	for _, n := range view.nodes {
		if !n.breaker.open.Load() {
			ask = append(ask, n.address)
		}
	}
	for _, seed := range c.config.Addresses {
		if !contains(ask, seed) {
			ask = append(ask, seed)
		}
	}
	for _, n := range view.nodes {
		if !contains(ask, n.address) {
			ask = append(ask, n.address)
		}
	}
	err := errors.New("redis: no cluster address")
	for _, address := range ask {
		var ranges []slotRange
		if ranges, err = c.askSlots(ctx, address); err == nil {
			c.reroute(ranges)
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return err
}

// askSlots asks one server who owns which slots. It has a connection of its
// own: the map of a large Cluster is longer than any reply to a call may be.
func (c *Client) askSlots(ctx context.Context, address string) ([]slotRange, error) {
	l, err := c.dial(ctx, address, maxSlotReply)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", address, err)
	}
	defer l.raw.Close()
	stop := context.AfterFunc(ctx, func() { l.raw.Close() })
	defer stop()
	if err := c.greet(l); err != nil {
		return nil, fmt.Errorf("%s: %w", address, err)
	}
	l.raw.SetDeadline(time.Now().Add(c.config.DialTimeout))
	replies, err := l.ask([]string{"CLUSTER", "SLOTS"})
	if err != nil {
		return nil, fmt.Errorf("%s: CLUSTER SLOTS: %w", address, err)
	}
	ranges, err := readSlots(replies[0], address)
	if err != nil {
		return nil, fmt.Errorf("%s: CLUSTER SLOTS: %w", address, err)
	}
	return ranges, nil
}

// readSlots reads CLUSTER SLOTS: an array of
//
//	first slot, last slot, master [host or null, port, id, ...], replicas ...
//
// A host that is null, empty or "?" is the one that was asked.
func readSlots(r reply, asked string) ([]slotRange, error) {
	list, err := r.array()
	if err != nil {
		return nil, err
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("%w: nobody owns a slot", faultNamed("clusterdown").err)
	}
	ranges := make([]slotRange, 0, len(list))
	for _, entry := range list {
		if len(entry.list) < 3 || len(entry.list[2].list) < 2 {
			return nil, fmt.Errorf("%w: a slot range without master", ErrProtocol)
		}
		first, err1 := entry.list[0].integer()
		last, err2 := entry.list[1].integer()
		port, err3 := entry.list[2].list[1].integer()
		if err1 != nil || err2 != nil || err3 != nil || first < 0 || first > last || last >= slotCount {
			return nil, fmt.Errorf("%w: not a slot range", ErrProtocol)
		}
		owner := addressOn(entry.list[2].list[0].text, strconv.FormatInt(port, 10), asked)
		ranges = append(ranges, slotRange{first, last, owner})
	}
	return ranges, nil
}

// reroute makes the view in which the ranges' owners are the masters: nodes
// that stay keep their connection, new ones connect, and those that left
// finish what is pending and go.
func (c *Client) reroute(ranges []slotRange) {
	layout := fmt.Sprint(ranges)
	old := c.routes.Load().(*routes)
	if old.layout == layout {
		return
	}
	known := map[string]*node{}
	for _, n := range old.nodes {
		known[n.address] = n
	}
	next := &routes{slots: make([]int, slotCount), layout: layout}
	for slot := range next.slots {
		next.slots[slot] = nobody
	}
	place := map[string]int{}
	for _, r := range ranges {
		at, ok := place[r.owner]
		if !ok {
			at = len(next.nodes)
			place[r.owner] = at
			n := known[r.owner]
			if n == nil {
				n = c.newNode(r.owner, fixed(r.owner))
				n.start()
			}
			delete(known, r.owner)
			next.nodes = append(next.nodes, n)
		}
		for slot := r.first; slot <= r.last; slot++ {
			next.slots[slot] = at
		}
	}
	c.routes.Store(next)
	for _, gone := range known {
		gone.leave()
	}
	c.refreshHealth()
}

// fixed locates a node that has one address. The parameter it ignores has a
// name because Yaegi, without one, writes it over the variable that is captured.
func fixed(address string) func(context.Context) ([]string, error) {
	return func(ctx context.Context) ([]string, error) { return []string{address}, ctx.Err() }
}
