package attacks

import (
	"fmt"
	"strings"
)

// What a client must not be able to say of itself (design: what-services-receive).
var spoofed = []string{
	"X-User-ID", "X-User-Plan", "X-User-Scopes", "X-Token-ID", "X-Session-ID", "X-Request-ID",
	"X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Forwarded-Port", "X-Forwarded-Server",
	"X-Forwarded-Uri", "X-Forwarded-Method", "X-Forwarded-Prefix", "X-Real-Ip",
	"X-Forwarded-Tls-Client-Cert", "X-Forwarded-Tls-Client-Cert-Info",
}

// aliases are the characters that RFC 9110 section 5.6.2 allows in a name and
// that somebody takes for a dash (CVE-2026-54763, CVE-2026-88011).
const aliases = "_.!#$%&'*+^`|~"

// way is one manner of sending a header that is not the client's to set.
type way struct {
	name     string
	fields   []field
	trailers []field
}

// ways are all manners for one header.
func ways(name string) []way {
	lower, upper := strings.ToLower(name), strings.ToUpper(name)
	var mixed strings.Builder
	for i, c := range lower {
		if i%2 == 1 {
			mixed.WriteString(strings.ToUpper(string(c)))
		} else {
			mixed.WriteRune(c)
		}
	}
	one := func(label string, fields ...field) way { return way{name: label, fields: fields} }
	all := []way{
		one("plain", field{name, lie}),
		one("twice", field{name, lie}, field{name, lie + "2"}),
		one("in two cases", field{lower, lie}, field{upper, lie}),
		one("first empty", field{name, ""}, field{name, lie}),
		one("lower case", field{lower, lie}),
		one("upper case", field{upper, lie}),
		one("upper case, kept in HTTP/2", field{"!" + upper, lie}),
		one("mixed case", field{mixed.String(), lie}),
		one("a list", field{name, "ann, " + lie}),
		one("tabs", field{name, "\t" + lie + "\t"}),
		one("Latin-1", field{name, "\xe9" + lie}),
		one("8 KiB", field{name, strings.Repeat(lie, 1365)}),
		one("a UUID", field{name, lieUUID}),
		// RFC 9112 sections 5.1 and 5.2: no white space before the colon, no folding.
		one("space before the colon", field{name + " ", lie}),
		one("tab before the colon", field{name + "\t", lie}),
		one("leading space", field{" " + name, lie}),
		one("folded into another", field{"X-Filler", "a\r\n " + name + ": " + lie}),
		one("folded by a tab", field{"X-Filler", "a\r\n\t" + name + ": " + lie}),
		one("after a bare LF", field{"X-Filler", "a\n" + name + ": " + lie}),
		one("after a bare CR", field{"X-Filler", "a\r" + name + ": " + lie}),
		one("after CRLF", field{"X-Filler", "a\r\n" + name + ": " + lie}),
		one("after NUL", field{"X-Filler", "a\x00\r\n" + name + ": " + lie}),
		one("a line of its own in the name", field{"X-Filler: a\r\n" + name, lie}),
		one("as a pseudo header", field{":" + lower, lie}),
		one("NUL in the name", field{name + "\x00", lie}),
		// Unicode folding: U+017F is an s, U+212A a k to strings.EqualFold.
		one("long s", field{strings.NewReplacer("s", "ſ", "S", "ſ").Replace(name) + "\u200b", lie}),
		one("Kelvin sign", field{strings.NewReplacer("k", "K", "d", "ⅾ").Replace(name), lie}),
		one("a dash of another kind", field{strings.ReplaceAll(name, "-", "‐"), lie}),
		// RFC 9110 section 7.6.1: a proxy removes what Connection lists
		// (CVE-2021-32813, CVE-2024-45410).
		one("listed in Connection", field{"Connection", name}),
		one("listed in Connection after close", field{"Connection", "close, " + name}),
		one("listed in Connection in lower case", field{"connection", "keep-alive," + lower}),
		one("sent and listed in Connection", field{name, lie}, field{"Connection", name}),
		one("listed in a second Connection", field{"Connection", "keep-alive"}, field{"Connection", name}),
		one("listed in Connection with Upgrade", field{"Connection", "Upgrade, " + name}, field{"Upgrade", "foo/1"}),
		one("listed in Keep-Alive", field{"Keep-Alive", name}, field{name, lie}),
		one("listed in Proxy-Connection", field{"Proxy-Connection", name}, field{name, lie}),
		one("listed in TE", field{"TE", "trailers, " + name}, field{name, lie}),
		// Requests that the gateway turns into a tunnel or a stream of frames.
		one("with a WebSocket", field{name, lie}, field{"Connection", "Upgrade"}, field{"Upgrade", "websocket"}, field{"Sec-WebSocket-Version", "13"}, field{"Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="}),
		one("with a WebSocket, listed in Connection", field{name, lie}, field{"Connection", "Upgrade, " + name}, field{"Upgrade", "websocket"}, field{"Sec-WebSocket-Version", "13"}, field{"Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="}),
		one("with gRPC", field{name, lie}, field{"Content-Type", "application/grpc"}, field{"TE", "trailers"}),
		{name: "trailer of gRPC", fields: []field{{"Content-Type", "application/grpc+proto"}, {"TE", "trailers"}, {"Trailer", name}}, trailers: []field{{"grpc-status", "0"}, {name, lie}}},
		// RFC 9110 section 6.5.1; traefik/traefik 13822.
		{name: "trailer", fields: []field{{"Trailer", name}}, trailers: []field{{name, lie}}},
		{name: "trailer, not announced", trailers: []field{{name, lie}}},
		{name: "trailer in upper case", fields: []field{{"Trailer", upper}}, trailers: []field{{upper, lie}}},
		{name: "trailer after TE", fields: []field{{"TE", "trailers"}, {"Trailer", lower}}, trailers: []field{{lower, lie}, {name, lie}}},
		{name: "trailer, header and Connection", fields: []field{{name, lie}, {"Trailer", name}, {"Connection", name}}, trailers: []field{{name, lie}}},
	}
	for _, alias := range strings.Split(aliases, "") {
		first := strings.Replace(name, "-", alias, 1)
		last := name[:strings.LastIndex(name, "-")] + alias + name[strings.LastIndex(name, "-")+1:]
		each := strings.ReplaceAll(name, "-", alias)
		spellings := []string{each}
		if first != each {
			spellings = append(spellings, first, last)
		}
		for _, spelling := range spellings {
			all = append(all, one("as "+spelling, field{spelling, lie}))
		}
		all = append(all,
			one("as "+strings.ToLower(each), field{strings.ToLower(each), lie}),
			one("as "+each+" beside the true one", field{each, lie}, field{name, lie}),
			way{name: "trailer " + each, fields: []field{{"Trailer", each}}, trailers: []field{{each, lie}}})
	}
	return all
}

// spoofing sends every header in every way, on a protected and on a public
// route, through every front.
func spoofing(b *bed) []probe {
	var all []probe
	for _, name := range spoofed {
		for _, w := range ways(name) {
			for _, f := range fronts {
				all = append(all,
					probe{name: name + " " + w.name, front: f, message: b.protected(), judge: arrivesOnlyAs(ann)},
					probe{name: name + " " + w.name, front: f, message: public(), judge: arrivesOnlyAs(who{})})
				for i := len(all) - 2; i < len(all); i++ {
					all[i].fields = append(all[i].fields, w.fields...)
					all[i].trailers = w.trailers
				}
			}
		}
	}
	return all
}

// arrivesOnlyAs: refused, or arrived once and intact.
func arrivesOnlyAs(user who) func(answer, []seen) error {
	return func(got answer, arrived []seen) error {
		if len(arrived) > 1 {
			return fmt.Errorf("arrived %d times", len(arrived))
		}
		for _, s := range arrived {
			if err := intact(s, user); err != nil {
				return err
			}
		}
		switch {
		case len(arrived) == 1, got.status == 0, got.status >= 400 && got.status < 500:
			return nil
		default:
			return fmt.Errorf("answered %d though the service saw nothing: %.100s", got.status, got.body)
		}
	}
}
