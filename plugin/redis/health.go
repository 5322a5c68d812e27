package redis

// What a client's owner is told of it: whether it is healthy, and what it has
// counted.

// Healthy reports whether every master has a usable connection and a closed
// breaker. It is one atomic load.
func (c *Client) Healthy() bool { return c.healthy.Load() }

// OnReady registers a function to be called in the background each time the
// client becomes healthy, and at once if it is. Two calls may overlap.
func (c *Client) OnReady(ready func()) {
	c.mu.Lock()
	c.ready = append(c.ready, ready)
	healthy := c.healthy.Load()
	c.mu.Unlock()
	if healthy {
		go c.guard("OnReady", ready)
	}
}

// refreshHealth works out Healthy anew after a breaker or the routes changed.
func (c *Client) refreshHealth() {
	c.mu.Lock()
	turned := c.assessLocked()
	ready := append([]func(){}, c.ready...)
	c.mu.Unlock()
	if !turned {
		return
	}
	for _, f := range ready {
		f := f // interpreted, closures would share the loop's variable
		go c.guard("OnReady", f)
	}
}

// Stats returns the counters.
func (c *Client) Stats() Stats {
	s := c.monitor.stats()
	c.mu.Lock()
	s.Calls = c.calls
	c.mu.Unlock()
	nodes := c.routes.Load().(*routes).nodes
	s.BreakerOpen = len(nodes) == 0
	for _, n := range nodes {
		s.BreakerOpen = s.BreakerOpen || n.breaker.open.Load()
	}
	return s
}
