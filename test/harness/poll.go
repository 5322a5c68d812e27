// Package harness holds what the tests of this module start and ask: a real
// Redis, Traefik, authsvc or a whole stack, an auth service that judges by
// spelling, upstreams that tell what reached them; and how they are asked.
package harness

import (
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/internal/freeport"
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
	address, err := freeport.Address()
	if err != nil {
		t.Fatal(err)
	}
	return address
}
