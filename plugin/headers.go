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
const (
	tokenIDHeader   = "X-Token-Id"
	sessionIDHeader = "X-Session-Id"
)

// identityHeaders are what authsvc tells of a user unless configured otherwise.
var identityHeaders = []string{"X-User-Id", "X-User-Plan", "X-User-Scopes"}

// strippedHeaders are those that no client may set: they are removed from
// every request before anything reads them (design: stripped-headers). A middleware without
// auth, as on a public route, removes the usual ones: the service behind it
// believes them all the same.
func strippedHeaders(s *settings) []string {
	names := []string{tokenIDHeader, sessionIDHeader}
	if s.trustUserHeader {
		return names
	}
	names = append(names, s.userHeader)
	if s.auth != nil {
		names = append(names, s.auth.responseHeaders...)
	} else {
		names = append(names, identityHeaders...)
	}
	for _, rule := range s.limits {
		if rule.tierHeader != "" {
			names = append(names, rule.tierHeader)
		}
		if rule.limitHeader != "" {
			names = append(names, rule.limitHeader)
		}
	}
	var once []string
	for _, name := range names {
		if !contains(once, name) {
			once = append(once, name)
		}
	}
	return once
}

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
