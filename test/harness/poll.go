// Package harness holds what the tests of this module start and ask: a real
// Redis, upstreams that tell what reached them, raw HTTP.
package harness

import (
	"net"
	"testing"
	"time"
)

// Eventually asks until the answer is nil and fails the test with the last one
// when the time is over.
func Eventually(t testing.TB, within time.Duration, what string, ask func() error) {
	t.Helper()
	deadline := time.Now().Add(within)
	for {
		err := ask()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %v: %v", what, within, err)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// FreeAddress is a loopback address that nobody listens on at the moment.
func FreeAddress(t testing.TB) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().String()
}
