package stack

import (
	"errors"
	"fmt"
	"net"
	"syscall"

	"github.com/sluice-gateway/sluice/internal/freeport"
)

// vacant tries a front door's address, replacing port 0 by a free one, so that
// a taken port is a sentence about a flag and not a line in Traefik's log.
func vacant(flag string, address *string) error {
	host, port, err := net.SplitHostPort(*address)
	if err != nil {
		return fmt.Errorf("--%s=%s: write host:port, such as 127.0.0.1:8080", flag, *address)
	}
	if port == "0" && (host == "127.0.0.1" || host == "localhost") {
		*address, err = freeport.Address()
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
