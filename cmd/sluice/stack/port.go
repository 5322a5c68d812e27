package stack

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"syscall"
)

// Ports that freePort hands out lie below those that the kernel gives to
// outgoing connections, which would otherwise take one of them between our
// looking and Traefik's listening.
const (
	firstPort = 20000
	lastPort  = 32000
)

// freePort finds a loopback address that nobody listens on.
func freePort() (string, error) {
	for range 1000 {
		port := firstPort + rand.IntN(lastPort-firstPort)
		address := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
		if listener, err := net.Listen("tcp", address); err == nil {
			return address, listener.Close()
		}
	}
	return "", fmt.Errorf("no free port between %d and %d on 127.0.0.1", firstPort, lastPort)
}

// freePorts finds n of them, all different.
func freePorts(n int) ([]string, error) {
	var addresses []string
	seen := map[string]bool{}
	for len(addresses) < n {
		address, err := freePort()
		if err != nil {
			return nil, err
		}
		if !seen[address] {
			seen[address] = true
			addresses = append(addresses, address)
		}
	}
	return addresses, nil
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
