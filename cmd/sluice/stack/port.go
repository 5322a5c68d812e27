package stack

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"sync/atomic"
	"syscall"
)

// Ports that freePort hands out lie below those that the kernel gives to
// outgoing connections, which would otherwise take one of them between our
// looking and Traefik's listening.
const (
	firstPort = 20000
	portCount = 12000
)

// portsTried walks through the range from a random start, so that no port is
// handed out twice before it is listened on, and hardly one that another
// process has just been given.
var portsTried = func() *atomic.Uint32 {
	var start atomic.Uint32
	start.Store(rand.Uint32N(portCount))
	return &start
}()

// freePort finds a loopback address that nobody listens on.
func freePort() (string, error) {
	for range portCount {
		port := firstPort + portsTried.Add(1)%portCount
		address := net.JoinHostPort("127.0.0.1", strconv.Itoa(int(port)))
		if listener, err := net.Listen("tcp", address); err == nil {
			return address, listener.Close()
		}
	}
	return "", fmt.Errorf("no free port from %d to %d on 127.0.0.1", firstPort, firstPort+portCount-1)
}

// vacant tries a front door's address, replacing port 0 by a free one, so that
// a taken port is a sentence about a flag and not a line in Traefik's log.
func vacant(flag string, address *string) error {
	host, port, err := net.SplitHostPort(*address)
	if err != nil {
		return fmt.Errorf("--%s=%s: write host:port, such as 127.0.0.1:8080", flag, *address)
	}
	if port == "0" && (host == "127.0.0.1" || host == "localhost") {
		*address, err = freePort()
		return err
	}
	listener, err := net.Listen("tcp", *address)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("--%s=%s: the port is in use; stop what listens there, or name another such as --%s=%s",
			flag, *address, flag, net.JoinHostPort(host, "0"))
	case errors.Is(err, syscall.EACCES):
		return fmt.Errorf("--%s=%s: this user may not listen there; name a port above 1023", flag, *address)
	case err != nil:
		return fmt.Errorf("--%s=%s: cannot listen there: %v", flag, *address, err)
	}
	*address = listener.Addr().String()
	return listener.Close()
}
