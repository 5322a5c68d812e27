package plugin

import (
	"net/http"
	"net/netip"
	"strings"

	"github.com/sluice-gateway/sluice/plugin/config"
)

// clientOf is the address that limits go by: an IPv4-mapped address as IPv4, an
// IPv6 address cut to its subnet, without zone. A household that rotates
// through its /64 stays one client.
func clientOf(s *config.AddressSettings, r *http.Request) string {
	address := addressOf(s, r)
	if address.Is6() {
		address = networkOf(s, address)
	}
	return address.String()
}

func networkOf(s *config.AddressSettings, address netip.Addr) netip.Addr {
	network, err := address.Prefix(s.Subnet)
	if err != nil {
		return address
	}
	return network.Addr()
}

func addressOf(s *config.AddressSettings, r *http.Request) netip.Addr {
	peer := parseAddress(r.RemoteAddr)
	if s.Depth > 0 || len(s.Excluded) > 0 {
		return forwardedFor(s, r, peer)
	}
	return peer
}

// forwardedFor is the address that X-Forwarded-For tells, if the peer may say so.
func forwardedFor(s *config.AddressSettings, r *http.Request, peer netip.Addr) netip.Addr {
	if !within(s.Trusted, peer) {
		return peer
	}
	chain := strings.Split(strings.Join(r.Header["X-Forwarded-For"], ","), ",")
	if s.Depth > 0 {
		if s.Depth <= len(chain) {
			if address := parseAddress(chain[len(chain)-s.Depth]); address.IsValid() {
				return address
			}
		}
		return peer
	}
	for i := len(chain) - 1; i >= 0; i-- {
		address := parseAddress(chain[i])
		if !address.IsValid() {
			break // beyond a word that is no address nothing can be trusted
		}
		if !within(s.Excluded, address) {
			return address
		}
	}
	return peer
}

// parseAddress reads an address with or without port; invalid where it is
// neither.
func parseAddress(text string) netip.Addr {
	pair, err := netip.ParseAddrPort(text)
	if err != nil {
		return parseBare(text)
	}
	return pair.Addr().Unmap().WithZone("")
}

// parseBare reads what is not just an address with its port. (Apart, since nearly all
// are, and the interpreter makes room for every line of a function.)
func parseBare(text string) netip.Addr {
	if trimmed := strings.TrimSpace(text); trimmed != text {
		return parseAddress(trimmed)
	}
	address, err := netip.ParseAddr(strings.Trim(text, "[]"))
	if err != nil {
		return netip.Addr{}
	}
	return address.Unmap().WithZone("")
}

// within tells whether one of the networks holds the address.
func within(networks []netip.Prefix, address netip.Addr) bool {
	for _, network := range networks {
		if network.Contains(address) {
			return true
		}
	}
	return false
}
