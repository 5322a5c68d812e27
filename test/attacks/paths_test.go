package attacks

import (
	"bytes"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
)

// spellings are other ways to write a path (CVE-2025-32431, CVE-2025-47952,
// CVE-2025-66490, CVE-2026-48020; RFC 3986 section 6). Some mean the same to
// somebody on the way, and that is enough.
func spellings(path string) []string {
	parts := strings.Split(strings.TrimPrefix(path, "/"), "/")
	all := []string{path}
	add := func(variants ...string) { all = append(all, variants...) }
	for i := 0; i <= len(parts); i++ {
		before, after := "/"+strings.Join(parts[:i], "/"), "/"+strings.Join(parts[i:], "/")
		if i == 0 {
			before = ""
		}
		for _, between := range []string{
			"/", "//", "/.", "/x/..", "/%2e", "/%2E", "/x/%2e%2e", "/x/%2E.", "/x/.%2e", "/.;", "/;", "/x/..;", "/..", "/%2e%2e", "/%2e%2e%2f", "/..%2f",
			"/%2f", "%2f", "%2F", "%5c", "/%5c", "\\", "/x/..\\", "/x/%5c..", "/%252e", "/x/%252e%252e", "%252f", "%00", "/%00", "%0a", "%0d%0a", "%20", "/%20", "%09",
			";", ";x=1", "%3b", "%3Bx=1", "%23", "#", "%3f", "%3F", "?", "%25", "/%c0%ae%c0%ae", "/%u002e", "%ef%bc%8f", "∕", "/x/%2e%2e;/", ".json", "~", "+", "*", "@", ":80",
		} {
			add(before + between + after)
		}
	}
	for i, part := range parts {
		replace := func(with string) string {
			changed := slices.Clone(parts)
			changed[i] = with
			return "/" + strings.Join(changed, "/")
		}
		add(replace(strings.ToUpper(part)), replace(strings.ToUpper(part[:1])+part[1:]), replace(escape(part)), replace(escape(part[:1])+part[1:]),
			replace(strings.ToUpper(escape(part))), replace(escape(escape(part))), replace(" "+part), replace(part+"%20"), replace(part+"."))
	}
	return all
}

// escape percent-encodes every byte.
func escape(text string) string {
	var out strings.Builder
	for _, c := range []byte(text) {
		fmt.Fprintf(&out, "%%%02x", c)
	}
	return out.String()
}

// guarded are the paths that need a token.
var guarded = []string{"/v1/products", "/v1/products/p-1001", "/v1/orders", "/v1/orders/o-1", "/v1/users/ann", "/v1/users/login", "/v1/users/logout"}

// throughPublic begin where nobody needs a token, and try to end elsewhere.
func throughPublic(path string) (all []string) {
	for _, public := range []string{"/v1/users/login", "/v1/users/register", "/v1/users/refresh"} {
		for _, up := range []string{"/../../..", "/%2e%2e/%2e%2e/%2e%2e", "/..%2f..%2f..", "/..;/..;/..;", ";/../../..", "/..\\..\\..", "%2f..%2f..%2f..", "/%252e%252e/%252e%252e/%252e%252e", "#/../../..", "?/../../.."} {
			all = append(all, public+up+path)
		}
	}
	return all
}

// targets are the forms of RFC 9112 section 3.2 that are no plain path.
func targets(path string) []string {
	return []string{
		"http://" + echoHost + path, "http://other.test" + path, "http://" + realHost + path, "https://" + echoHost + path, "//" + echoHost + path, "http:" + path, "http:/" + path[1:], "mailto:" + path,
		"http://" + echoHost + ":80" + path, "http://user@" + echoHost + path, "http://" + echoHost + "/v1/users/login/.." + path, "urn:" + path, "file://" + path, echoHost + ":443", "*", path[1:], "", "?" + path, path + " HTTP/1.1\r\nX-Ignore: a",
		path + "\tHTTP/1.1", path + "?a=b;c=d", path + "?token=x#", "/?/../" + path,
	}
}

// paths tries to reach a guarded path without a token.
func paths(*bed) []probe {
	var all []probe
	for _, path := range guarded {
		for _, target := range slices.Concat(spellings(path), throughPublic(path), targets(path)) {
			for _, f := range fronts {
				for _, method := range []string{"GET", "POST"} {
					all = append(all, probe{name: "no token", front: f, judge: needsNoToken, message: message{method: method, target: target, host: echoHost}})
				}
			}
		}
		for _, method := range []string{"HEAD", "PUT", "PATCH", "DELETE", "TRACE", "OPTIONS", "get", "Post", "FOO", "PRI", "CONNECT", "M-SEARCH", "GET,POST"} {
			for _, f := range fronts {
				for _, more := range [][]field{nil, {{"X-HTTP-Method-Override", "POST"}}, {{"X-Method-Override", "POST"}}, {{"X-Original-URL", "/v1/users/login"}}, {{"X-Rewrite-URL", "/v1/users/login"}}, {{"X-Forwarded-Uri", "/v1/users/login"}, {"X-Forwarded-Method", "POST"}},
					{{"Origin", "https://example.org"}, {"Access-Control-Request-Method", "GET"}}} {
					all = append(all, probe{name: fmt.Sprintf("no token, %v", more), front: f, judge: needsNoToken, message: message{method: method, target: path, host: echoHost, fields: more}})
				}
			}
		}
	}
	return all
}

var publicPath = regexp.MustCompile(`^/v1/users/(login|register|refresh)(\?.*)?$`)

// needsNoToken: what arrives without a token is POST to one of the three public
// paths, spelled as every reader spells them.
func needsNoToken(_ answer, arrived []seen) error {
	if len(arrived) > 1 {
		return fmt.Errorf("arrived %d times", len(arrived))
	}
	for _, s := range arrived {
		if s.method != http.MethodPost || !publicPath.MatchString(s.target) {
			return fmt.Errorf("%s %s arrived without a token", s.method, s.target)
		}
		if err := intact(s, who{}); err != nil {
			return err
		}
	}
	return nil
}

// spelledPlainly is a path that no reader takes for another: no dot segments,
// no empty ones, and nothing of what the closed gateway refuses to hand on in
// escaped form.
var spelledPlainly = regexp.MustCompile(`(?i)(^[^/]|//|/\.\.?(/|$|;)|%2f|%5c|%00|%3b|%25|%3f|%23|%2e|\\)`)

// desync sends the same paths with ann's token: whatever arrives says ann, and is
// a path that the gateway and the service read alike.
func desync(b *bed) []probe {
	var all []probe
	for _, path := range guarded {
		for _, target := range slices.Concat(spellings(path), throughPublic(path), targets(path)) {
			for _, f := range fronts {
				all = append(all, probe{name: "with a token", front: f, message: message{method: "GET", target: target, host: echoHost, fields: []field{bearer(b.token)}},
					judge: func(got answer, arrived []seen) error {
						if len(arrived) > 1 {
							return fmt.Errorf("arrived %d times", len(arrived))
						}
						for _, s := range arrived {
							if path, _, _ := strings.Cut(s.target, "?"); spelledPlainly.MatchString(path) {
								return fmt.Errorf("%s arrived", s.target)
							}
							if err := intact(s, ann); err != nil {
								return err
							}
						}
						return nil
					}})
			}
		}
	}
	return all
}

// strangers asks the real services for another user's record and order, in every
// spelling, with ann's token.
func strangers(b *bed) []probe {
	var bob struct {
		AccessToken string `json:"access_token"`
		User        struct{ ID string }
	}
	const mail = "b0b@example.org"
	b.ask("POST", b.ready.HTTP+"/v1/users/register", "", map[string]string{"email": mail, "password": "correct horse", "name": "Bob"}, &bob)
	var catalogue struct{ Items []struct{ ID string } }
	b.ask("GET", b.ready.HTTP+"/v1/products", bob.AccessToken, nil, &catalogue)
	var order struct{ ID string }
	b.ask("POST", b.ready.HTTP+"/v1/orders", bob.AccessToken, map[string]any{"items": []any{map[string]any{"product_id": catalogue.Items[0].ID, "quantity": 1}}}, &order)
	if bob.User.ID == "" || order.ID == "" {
		b.t.Fatalf("no record to steal: %+v %+v", bob, order)
	}
	var own struct{ Email string }
	if b.ask("GET", b.ready.HTTP+"/v1/users/"+bob.User.ID, bob.AccessToken, nil, &own); own.Email != mail {
		b.t.Fatalf("bob does not get his own record: %+v", own)
	}
	var all []probe
	for _, path := range []string{"/v1/users/" + bob.User.ID, "/v1/orders/" + order.ID} {
		for _, target := range slices.Concat(spellings(path), throughPublic(path), targets(path)) {
			for _, f := range fronts {
				all = append(all, probe{name: "another user's", front: f, message: message{method: "GET", target: target, host: realHost,
					fields: []field{bearer(b.token), {"X-User-ID", bob.User.ID}}},
					judge: func(got answer, arrived []seen) error {
						for _, s := range arrived { // an absolute target may name the echoing service
							if err := intact(s, ann); err != nil {
								return err
							}
						}
						if bytes.Contains(got.body, []byte(mail)) || bytes.Contains(got.body, []byte(`"total_cents"`)) {
							return fmt.Errorf("bob's record: %s", got.body)
						}
						return nil
					}})
			}
		}
	}
	return all
}
