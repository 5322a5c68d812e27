package redis

import (
	"context"
	"errors"
	"fmt"
	"net"

	"github.com/sluice-gateway/sluice/plugin/wait"
)

// askSentinels asks all sentinels at once where the master is. The address
// that most of them name comes first: one that was cut off from the others may
// still believe in the old master.
func (c *Client) askSentinels(ctx context.Context) ([]string, error) {
	type answer struct {
		address string
		err     error
	}
	answers := make(chan answer, len(c.config.Addresses))
	for _, sentinel := range c.config.Addresses {
		sentinel := sentinel // interpreted, closures would share the loop's variable
		go func() {
			a := answer{err: fmt.Errorf("redis: sentinel %s gave no answer", sentinel)}
			defer func() { answers <- a }()
			c.guard("sentinel", func() {
				a.address, a.err = c.askSentinel(ctx, sentinel)
			})
		}()
	}
	votes := map[string]int{}
	var masters []string
	var err error
	for range c.config.Addresses {
		a := <-answers
		if a.err != nil {
			err = a.err
			continue
		}
		if votes[a.address]++; votes[a.address] == 1 {
			masters = append(masters, a.address)
		}
	}
	if len(masters) == 0 {
		if err == nil {
			err = errors.New("redis: no sentinel address")
		}
		return nil, err
	}
	for i := 1; i < len(masters); i++ {
		for k := i; k > 0 && votes[masters[k]] > votes[masters[k-1]]; k-- {
			masters[k], masters[k-1] = masters[k-1], masters[k]
		}
	}
	return masters, nil
}

func (c *Client) askSentinel(ctx context.Context, sentinel string) (string, error) {
	l, err := c.dial(ctx, sentinel, maxReply)
	if err != nil {
		return "", fmt.Errorf("sentinel %s: %w", sentinel, err)
	}
	defer l.raw.Close()
	stop := context.AfterFunc(ctx, func() { l.raw.Close() })
	defer stop()
	var commands [][]string
	if c.config.SentinelPassword != "" {
		auth := []string{"AUTH", c.config.SentinelPassword}
		if c.config.SentinelUsername != "" {
			auth = []string{"AUTH", c.config.SentinelUsername, c.config.SentinelPassword}
		}
		commands = append(commands, auth)
	}
	commands = append(commands, []string{"SENTINEL", "get-master-addr-by-name", c.config.MasterName})
	replies, err := l.ask(commands...)
	if err != nil {
		return "", fmt.Errorf("sentinel %s: %w", sentinel, err)
	}
	for _, r := range replies {
		if r.kind == kindError {
			return "", fmt.Errorf("sentinel %s: %w", sentinel, replyError(r.text))
		}
	}
	last := replies[len(replies)-1]
	if last.kind != kindArray || len(last.list) != 2 {
		return "", fmt.Errorf("redis: sentinel %s knows no master %q", sentinel, c.config.MasterName)
	}
	return net.JoinHostPort(last.list[0].text, last.list[1].text), nil
}

// checkMaster gives up the connection to a master that the sentinels have
// replaced: it may be cut off and still take writes that will be lost.
func (c *Client) checkMaster(ctx context.Context) error {
	masters, err := c.askSentinels(ctx)
	if err != nil {
		return err
	}
	n := c.routes.Load().(*routes).nodes[0]
	p := n.pipeline()
	if p == nil || wait.Closed(p.done) || contains(masters[:1], p.address) {
		return nil
	}
	// Sentinels learn of a failover one after the other, and one that is cut off
	// never does. While they disagree the majority decides: it comes first.
	c.monitor.log("info", "failover", "the master is now "+masters[0])
	p.retire()
	return nil
}
