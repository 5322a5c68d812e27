package redis

import "strings"

// ParseReply reads one reply as it stands on the wire, under the bounds that
// hold for a server's: for those who play the server, in tests and simulations.
func ParseReply(wire string) (Reply, error) {
	return newParser(strings.NewReader(wire), maxReply).read()
}
