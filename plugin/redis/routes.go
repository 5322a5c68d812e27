package redis

import (
	"context"
	"net"
	"sync/atomic"
)

// A node is one server that calls go to, the connection to it and the breaker
// before it. With Sentinel, or several plain addresses, the one node is
// "the master", wherever that is.
type node struct {
	client  *Client
	address string          // in a Cluster: what the slot map calls it
	ctx     context.Context // ends with the client, or when the node leaves the Cluster
	leave   context.CancelFunc
	locate  func(context.Context) ([]string, error) // addresses to try, best first

	breaker  *breaker
	current  atomic.Value // *pipeline, also when it has broken; nothing before the first
	probing  atomic.Bool  // a probe of the keeper's is pending
	answered bool         // the reader's, then the keeper's: the connection has answered a call well
	everUp   bool         // the keeper's own
	backoff  backoff      // the keeper's own: between connections
}

// routes is one view of the topology. It never changes; a new view replaces it.
type routes struct {
	nodes  []*node
	slots  []int  // in a Cluster: by slot, the index of its master in nodes, or nobody
	layout string // the slot map that slots was made from
}

// nobody owns a slot that is in no range of the map.
const nobody = -1

// owner returns the index of the node that owns the key, or nobody.
func (r *routes) owner(key string) int {
	if r.slots != nil && key != "" {
		return r.slots[slotOf(key)]
	}
	for i, n := range r.nodes {
		if !n.breaker.open.Load() {
			return i
		}
	}
	return nobody
}

// nodeAt finds the node at an address.
func (c *Client) nodeAt(address string) *node {
	for _, n := range c.routes.Load().(*routes).nodes {
		if n.address == address {
			return n
		}
	}
	return nil
}

// contains tells whether an address is one of a list.
func contains(list []string, s string) bool {
	for _, item := range list {
		if item == s {
			return true
		}
	}
	return false
}

// addressOn joins host and port; without a host it is that of the server asked.
func addressOn(host, port, asked string) string {
	if host == "" || host == "?" {
		host, _, _ = net.SplitHostPort(asked)
	}
	return net.JoinHostPort(host, port)
}
