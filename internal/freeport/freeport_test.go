package freeport_test

import (
	"net"
	"testing"

	"github.com/sluice-gateway/sluice/internal/freeport"
)

// No address is handed out twice in a row, and each can be listened on.
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
		listener, err := net.Listen("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer listener.Close()
	}
}
