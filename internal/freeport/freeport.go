// Package freeport finds a loopback address for a program that is about to
// listen.
package freeport

import (
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"sync/atomic"
)

// The ports lie below those that the kernel gives to outgoing connections, which
// would otherwise take one of them between our looking and the program's
// listening.
const (
	first = 20000
	count = 12000
)

// tried walks through the range from a random start, so that no port is handed
// out twice before it is listened on, and hardly one that another process has
// just been given.
var tried = func() *atomic.Uint32 {
	var start atomic.Uint32
	start.Store(rand.Uint32N(count))
	return &start
}()

// Address is host:port on 127.0.0.1 where nobody listens.
func Address() (string, error) {
	for range count {
		port := first + tried.Add(1)%count
		address := net.JoinHostPort("127.0.0.1", strconv.Itoa(int(port)))
		if listener, err := net.Listen("tcp", address); err == nil {
			return address, listener.Close()
		}
	}
	return "", fmt.Errorf("no free port from %d to %d on 127.0.0.1", first, first+count-1)
}
