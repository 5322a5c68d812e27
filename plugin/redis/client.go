// Package redis is Sluice's Redis client: few commands, many calls, and never
// a request that waits for a broken Redis.
//
// What happens to a call, in order:
//
//   - Serve puts it into the channel of a connection (send.go): of the only node's,
//     as a rule, else Send finds the node that owns the key (routes.go; topology.go
//     draws them: one server, the master that Sentinel names, or a Cluster's slot
//     map). If there is none to use, or its breaker is open (breaker.go), Send says
//     so: requests never dial and never wait for a connection.
//   - The connection's writer (writer.go) encodes all that has gathered and puts
//     it out in one write; its reader (reader.go) finds the call that each line
//     answers and hands it back to its owner. Both are loops that stay in one
//     function, because it is entering functions that costs the interpreter; what
//     they share with the seldom ways is pipeline.go, the time is clock.go's, the
//     end end.go's.
//   - Redirects, and scripts that Redis has forgotten, are sent once more,
//     because such an answer proves that nothing ran (answer.go). Nothing else
//     is ever sent twice (design: never-twice).
//   - The owner of a call without an answer in time is told so, and the call stays
//     in the pipeline for a second: what it was granted has been counted.
//   - Three bad outcomes in a row, or a lost connection, open the breaker. The
//     node's keeper probes, or dials again (keeper.go, conn.go), with jitter and
//     backoff, in the background, until OnReady can be told (health.go).
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

// guard runs f and survives it.
func (c *Client) guard(who string, f func()) {
	defer func() {
		if r := recover(); r != nil {
			_ = panicked(who, r, c.monitor.report) // reported; what ran is over
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
