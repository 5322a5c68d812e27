package redis

import (
	"context"
	"errors"
	"time"

	"github.com/sluice-gateway/sluice/plugin/wait"
)

const (
	sentinelPeriod = 2 * time.Second  // between looks at the sentinels
	clusterPeriod  = 10 * time.Second // between looks at a healthy Cluster's slot map
	lookGap        = 100 * time.Millisecond
)

// discover starts what the configured topology needs.
func (c *Client) discover() {
	switch {
	case c.config.Cluster:
		go c.follow(clusterPeriod, c.mapSlots)
	case c.config.MasterName != "":
		c.one(c.askSentinels)
		go c.follow(sentinelPeriod, c.checkMaster)
	default:
		c.one(c.configured)
	}
}

// configured locates the master among plain addresses: the first that answers
// as one.
func (c *Client) configured(ctx context.Context) ([]string, error) {
	if len(c.config.Addresses) == 0 {
		return nil, errors.New("redis: no address")
	}
	return c.config.Addresses, ctx.Err()
}

// one routes everything to a single node.
func (c *Client) one(locate func(context.Context) ([]string, error)) {
	n := c.newNode("", locate)
	c.routes.Store(&routes{nodes: []*node{n}})
	n.start()
}

// follow looks at the topology now, then once a period, and soon after
// lookAgain. A view that cannot be had is tried again within a second.
func (c *Client) follow(period time.Duration, look func(context.Context) error) {
	for c.ctx.Err() == nil {
		rest := period
		c.guard("topology", func() {
			if err := look(c.ctx); err != nil && c.ctx.Err() == nil {
				c.monitor.failed(err)
				c.monitor.log("error", "topology", err.Error())
			}
		})
		if !c.healthy.Load() && rest > time.Second {
			rest = time.Second
		}
		c.pause(c.ctx, lookGap)
		timer := time.NewTimer(rest - lookGap)
		wait.First(c.ctx.Done(), c.look, timer.C)
		timer.Stop()
	}
}
