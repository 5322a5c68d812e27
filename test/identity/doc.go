// Package identity holds what design: away promises against the real
// gateway: who is let in, by whom and how soon while Redis, authsvc or both are
// away, slow or back empty, and how long a revoked token lives.
//
// One bed serves all of it: three Traefik with the plugin compiled in, a
// redis-server of its own and three authsvc replicas, with a line (line_test.go)
// on every way between them that the tests cut and hold up. The numbers of a
// long run are in RESULTS.md.
package identity
