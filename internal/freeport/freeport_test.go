package freeport_test

import (
	"net"
	"testing"

	"github.com/sluice-gateway/sluice/internal/freeport"
)

// No address is handed out twice before it is listened on, and each can be.
func TestAddress(t *testing.T) {
	seen := map[string]bool{}
	for range 200 {
		address, err := freeport.Address()
		if err != nil {
			t.Fatal(err)
		}
		if seen[address] {
			t.Fatalf("%s was handed out before", address)
		}
		seen[address] = true
	}
	for address := range seen {
		listener, err := net.Listen("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer listener.Close()
	}
}
