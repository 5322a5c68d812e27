package redis

import (
	"context"
	"time"
)

// How a client begins, and how it ends.

// New starts connecting in the background and returns at once.
func New(config Config) *Client {
	c := newClient(config)
	c.discover()
	return c
}

func newClient(config Config) *Client {
	if config.Timeout <= 0 {
		config.Timeout = 100 * time.Millisecond
	}
	if config.MaxWait < config.Timeout {
		config.MaxWait = config.Timeout
	}
	if config.DialTimeout <= 0 {
		config.DialTimeout = time.Second
	}
	if config.Epoch.IsZero() {
		config.Epoch = time.Now()
	}
	c := &Client{config: config, monitor: newMonitor(config.Log), look: make(chan struct{}, 1)}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	c.routes.Store(&routes{})
	return c
}

// Close ends every connection and goroutine. Pending calls end with an error,
// later ones with ErrAway. It does not wait.
func (c *Client) Close() {
	c.cancel()
	c.refreshHealth()
}
