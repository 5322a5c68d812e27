package plugin

import (
	"net/http"
	"strings"
)

// Headers by direction. "in" is what a client sends, "on" what the service
// receives, "out" what the client gets back.
//
//	Authorization       in; not on, unless auth.keepAuthorization
//	X-User-ID, -Plan,   on: only as the auth step of this request wrote them,
//	-Scopes, tier and   whatever came in; with trustUserHeader as forwardAuth
//	limit headers       wrote them just before us
//	X-Token-ID,         between authsvc and the plugin only
//	X-Session-ID
//	X-Request-ID        in: from trusted proxies; on and out: always
//	RateLimit,          out, on every limited response
//	RateLimit-Policy
//	Retry-After         out, with 429 and 503
//
// cutConnection leaves of Connection what hopByHop keeps.
//
// A protocol that is not written in ASCII is none, and a request to switch to it
// is ignored (RFC 9110, section 7.8): Traefik's proxy would answer it 500.
func cutConnection(h http.Header) {
	h["Connection"] = hopByHop(h["Connection"])
	if strings.IndexFunc(strings.Join(h["Upgrade"], ""), unprintable) >= 0 {
		delete(h, "Upgrade")
	}
}

func unprintable(c rune) bool { return c < ' ' || c > '~' }

// hopByHop keeps of Connection what it is for. A proxy removes every header
// that Connection lists (RFC 9110, section 7.6.1), so "Connection: X-User-ID"
// would make Traefik drop the identity that we set, after we set it.
func hopByHop(values []string) []string {
	var kept []string
	for _, name := range strings.Split(strings.Join(values, ","), ",") {
		name = strings.TrimSpace(name)
		switch strings.ToLower(name) {
		case "close", "keep-alive", "upgrade", "te", "http2-settings":
			kept = append(kept, name)
		}
	}
	if kept == nil {
		return nil
	}
	return []string{strings.Join(kept, ", ")}
}
