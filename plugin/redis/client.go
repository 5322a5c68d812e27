// Package redis is Sluice's Redis client: few commands, many calls, and never
// a request that waits for a broken Redis.
//
// What happens to a call, in order:
//
//   - Serve puts it into the channel of a connection: of the only node's, as a
//     rule, else Send finds the node that owns the key (topology.go: one server,
//     the master that Sentinel names, or a Cluster's slot map). If there is none to
//     use, or its breaker is open (breaker.go), Send says so: requests never dial
//     and never wait for a connection.
//   - The connection's writer (writer.go) encodes all that has gathered and puts
//     it out in one write; its reader (reader.go) finds the call that each line
//     answers and hands it back to its owner. Both are loops that stay in one
//     function, because it is entering functions that costs the interpreter; what
//     they share with the seldom ways is pipeline.go, the time is clock.go's.
//   - Redirects, and scripts that Redis has forgotten, are sent once more,
//     because such an answer proves that nothing ran (node.go). Nothing else
//     is ever sent twice (design: never-twice).
//   - The owner of a call without an answer in time is told so, and the call stays
//     in the pipeline for a second: what it was granted has been counted.
//   - Three bad outcomes in a row, or a lost connection, open the breaker. The
//     node's keeper probes, or dials again (node.go, conn.go), with jitter and
//     backoff, in the background, until OnReady can be told.
//
// Calls are answered in one line, a status or an integer, in RESP2; replies of
// other kinds (resp.go) are for handshakes, topology and subscriptions.
//
// Subscribe (subscription.go) runs on a connection of its own. Besides the
// caller's commands an ACL user needs SELECT (for a database other than 0),
// CLUSTER SLOTS (in a Cluster), SUBSCRIBE (where it is used) and should have
// PING and SETRANGE, which the probes are made of. Every goroutine recovers: the
// package is interpreted inside Traefik too, where a panic would take the gateway
// down.
package redis

import (
	"context"
	"crypto/tls"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluice-gateway/sluice/plugin/wait"
)

// Config says where Redis is and how to speak to it.
type Config struct {
	Addresses []string               // host:port; sentinels with MasterName, seeds with Cluster
	Username  string                 // ACL user; "default" when empty
	Password  func() (string, error) // asked at every connection, so a changed secret needs no restart; nil: none
	DB        int

	MasterName       string // Sentinel
	SentinelUsername string // the sentinels' own
	SentinelPassword string
	Cluster          bool

	TLS         *tls.Config   // nil: plain TCP; ServerName is the dialled host when empty
	Timeout     time.Duration // without any reply to calls that wait; 100ms when zero
	MaxWait     time.Duration // for one's own reply, whatever else is answered; Timeout when zero
	DialTimeout time.Duration // of a connection, handshake included; 1s when zero
	ClientName  string

	// Epoch is the instant that stamps count from; when New was called if zero.
	Epoch time.Time

	// Log hears of trouble: level is "error", "warn" or "info". It is called
	// from background goroutines, for each kind at once and then at most once a
	// minute while it lasts.
	Log func(level, message string)
}

// Client is safe for use by many goroutines.
type Client struct {
	config  Config
	ctx     context.Context
	cancel  context.CancelFunc
	monitor *monitor
	routes  atomic.Value  // *routes
	look    chan struct{} // asks the topology's goroutine to look again
	healthy atomic.Bool

	mu     sync.Mutex
	direct chan *Call // to the writer of the only node's connection; nil while there is none to use
	calls  int64      // written, or about to be
	ready  []func()   // OnReady
}

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

// aimLocked finds the way that calls take while there is but one.
func (c *Client) aimLocked() {
	c.direct = nil
	r := c.routes.Load().(*routes)
	if c.ctx.Err() != nil || r.slots != nil || len(r.nodes) != 1 || !r.nodes[0].usableLocked() {
		return
	}
	c.direct = r.nodes[0].pipeline().in
}

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

// Close ends every connection and goroutine. Pending calls end with an error,
// later ones with ErrAway. It does not wait.
func (c *Client) Close() {
	c.cancel()
	c.refreshHealth()
}

// guard runs f and survives it.
func (c *Client) guard(who string, f func()) {
	defer func() {
		if r := recover(); r != nil {
			panicked(who, r, c.monitor.report)
		}
	}()
	f()
}

// pause waits, or returns early when the context ends.
func (c *Client) pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	wait.First(ctx.Done(), timer.C)
}

// lookAgain asks for a fresh view of the topology, soon.
func (c *Client) lookAgain() {
	wait.Poke(c.look)
}
