package attacks

import (
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
)

// lie is in every value that a client must not be able to set.
const lie = "f0rged"

// lieUUID is the same for X-Request-ID, whose form it has (design: request-id).
const lieUUID = "f0f0f0f0-1111-4111-8111-111111111111"

var uuid = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)

// who is the identity that a service has to be told; the zero value is nobody.
type who struct{ user, plan, scopes string }

var ann = who{"ann", "pro", "read"}

// folded is a header's name as the careless read it: CGI and WSGI make one
// variable of X-User-ID, X_User_ID and X.User.ID, whatever the case
// (RFC 3875 section 4.1.18; CVE-2026-54763, CVE-2026-88011).
func folded(name string) string {
	return strings.Map(func(c rune) rune {
		switch {
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9':
			return c
		case 'A' <= c && c <= 'Z':
			return c + 'a' - 'A'
		default:
			return '-'
		}
	}, name)
}

// intact judges a request that reached the service (design: what-services-receive): who
// sent it is told once, in one spelling, by the gateway; nothing of what the
// client said of itself is left. Names of trailers are handed on, since the
// gateway announces what it was announced, and their values never (traefik/traefik
// 13822); what a client writes into a header of its own, as X-Filler, is its own.
func intact(s seen, user who) error {
	want := map[string][]string{
		"x-user-id": {user.user}, "x-user-plan": {user.plan}, "x-user-scopes": {user.scopes},
		"x-forwarded-for": {"127.0.0.1"}, "x-real-ip": {"127.0.0.1"}, "x-forwarded-host": {s.host},
		"x-token-id": nil, "x-session-id": nil, "authorization": nil, "proxy-authorization": nil,
		"x-forwarded-uri": nil, "x-forwarded-method": nil, "x-forwarded-prefix": nil,
		"x-forwarded-tls-client-cert": nil, "x-forwarded-tls-client-cert-info": nil,
	}
	got := map[string][]string{}
	for _, part := range []http.Header{s.header, s.trailer} {
		for name, values := range part {
			name = folded(name)
			got[name] = append(got[name], values...)
			if line := strings.Join(values, " "); name != "x-filler" && (strings.Contains(line, lie) || strings.Contains(line, lieUUID)) {
				return fmt.Errorf("%s: %.60q arrived", name, values)
			}
		}
	}
	for name, values := range want {
		if len(values) == 1 && values[0] == "" {
			values = nil
		}
		if !slices.Equal(got[name], values) {
			return fmt.Errorf("%s: %.60q instead of %q", name, got[name], values)
		}
	}
	if proto := got["x-forwarded-proto"]; len(proto) != 1 || !slices.Contains([]string{"http", "https", "ws", "wss"}, proto[0]) {
		return fmt.Errorf("x-forwarded-proto: %q", proto)
	}
	if id := got["x-request-id"]; len(id) != 1 || !uuid.MatchString(id[0]) {
		return fmt.Errorf("x-request-id: %q", id)
	}
	return nil
}
