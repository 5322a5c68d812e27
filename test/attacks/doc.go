// Package attacks tries every known way around a gateway of this kind on the
// running thing: the real Traefik with the plugin compiled in, a real Redis,
// authsvc and the services, in both wirings, over HTTP/1.1 and HTTP/2, with and
// without TLS (design: closed-entry-points).
//
// Every attack is a row: its name, where it comes from (CVE, RFC, advisory),
// what is sent, and what must hold. Most rows share one judgement: a request
// either never reaches the service, or it arrives with the identity that the
// gateway found out and without anything a client said of itself (intact_test.go).
// Requests are written byte by byte (wire_test.go), since no client library
// would send most of them, and the service keeps a tape of all bytes that reach
// it (echo_test.go), since a library would read most of them kindly.
//
// The suite bites: weakened_test.go opens each closing setting in turn, on a
// gateway of its own, and demands that the attack it closes then succeeds.
//
//	go test ./attacks                      a sample of every class
//	go test ./attacks -timeout 40m -full   everything; writes RESULTS.md
package attacks
