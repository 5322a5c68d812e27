package attacks

import (
	"fmt"
	"net/http"
	"strings"
)

// downgrades are HTTP/2 requests that would be another, or two, once they are
// written as HTTP/1.1 (RFC 9113 sections 8.1.1, 8.2, 8.3 and 10.3; James Kettle,
// HTTP/2: The Sequel is Always Worse, 2021). The gateway speaks HTTP/1.1 to
// services, so whatever HTTP/2 lets through is a line break away from a header.
func downgrades(b *bed) []probe {
	var all []probe
	const path = "/v1/orders"
	usual := func(changed ...field) []field {
		pseudo := []field{{":method", "POST"}, {":scheme", "https"}, {":authority", echoHost}, {":path", path}}
		for i, f := range pseudo {
			for _, with := range changed {
				if f.name == with.name {
					pseudo[i].value = with.value
				}
			}
		}
		return pseudo
	}
	// A method that is none, and a body that ends early, are noticed where Traefik
	// writes the request to the service, and it takes that for its own failure.
	fails := false
	add := func(name string, pseudo []field, body string, trailers []field, fields ...field) {
		m := message{method: "POST", target: path, host: echoHost, pseudo: pseudo, body: body, trailers: trailers, fields: append([]field{bearer(b.token)}, fields...)}
		for _, f := range http2s {
			all = append(all, probe{name: name, front: f, message: m, judge: wholeAndIntact(path, len(body), fails), fails: fails})
		}
	}
	poisons := []string{"\r\n", "\n", "\r", "\x00", "\r\nX-User-ID: " + lie, "\nX-User-ID: " + lie, "\rX-User-ID: " + lie, "\r\n\r\n" + smuggled, "\n\n" + smuggled, "\r\nTransfer-Encoding: chunked", "\r\nContent-Length: 0\r\n\r\n" + smuggled,
		" ", "\t", "\x0b", "\x0c", "\x7f", "\x1b", "\u2028", "\u0085", "č\r", "嘊嘍X-User-ID: a", "%0d%0aX-User-ID: a", ": ", "; ", ", "}
	for _, poison := range poisons {
		for _, body := range []string{"", smuggled} {
			label := func(place string) string { return fmt.Sprintf("%.30q in %s, body of %d", poison, place, len(body)) }
			add(label("a value"), usual(), body, nil, field{"x-filler", "a" + poison + "b"})
			add(label("the end of a value"), usual(), body, nil, field{"x-filler", "a" + poison})
			add(label("the beginning of a value"), usual(), body, nil, field{"x-filler", poison + "a"})
			add(label("a name"), usual(), body, nil, field{"!x-filler" + poison + "x", "a"})
			add(label("the end of a name"), usual(), body, nil, field{"!x-filler" + poison, "a"})
			add(label(":path"), usual(field{":path", path + poison + "x"}), body, nil)
			add(label("a query"), usual(field{":path", path + "?a=" + poison + "x"}), body, nil)
			if strings.Contains(poison, " ") {
				all[len(all)-1].judge, all[len(all)-2].judge = refusedAsBroken, refusedAsBroken
			}
			add(label(":path as a line"), usual(field{":path", path + " HTTP/1.1" + poison + "x"}), body, nil)
			fails = true
			add(label(":method"), usual(field{":method", "POST" + poison + "x"}), body, nil)
			fails = false
			add(label(":scheme"), usual(field{":scheme", "https" + poison + "x"}), body, nil)
			if poison != ": " { // Traefik takes it for a port, and Go's client writes an empty Host for it
				add(label(":authority"), usual(field{":authority", echoHost + poison + "x"}), body, nil)
			}
			add(label("host"), usual(), body, nil, field{"host", echoHost + poison + "x"})
			add(label("a cookie"), usual(), body, nil, field{"cookie", "a=b" + poison}, field{"cookie", "c=d"})
			add(label("content-type"), usual(), body, nil, field{"content-type", "text/plain" + poison})
			add(label("Authorization"), usual(), body, nil, field{"authorization", "Bearer " + poison + b.token})
			add(label("a trailer"), usual(), body, []field{{"x-filler", "a" + poison + "b"}})
			add(label("a trailer's name"), usual(), body, []field{{"!x-filler" + poison + "x", "a"}})
		}
	}
	// RFC 9113 section 8.2.2: HTTP/2 frames bodies and connections by itself.
	framed := []string{"", "0\r\n\r\n" + smuggled, fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(smuggled), smuggled)}
	for _, f := range []field{
		{"transfer-encoding", "chunked"}, {"transfer-encoding", "identity"}, {"transfer-encoding", "gzip, chunked"}, {"transfer-encoding", ""}, {"transfer-encoding", " chunked"}, {"transfer-encoding", "trailers"}, {"!Transfer-Encoding", "chunked"}, {"transfer-encoding\t", "chunked"}, {"transfer_encoding", "chunked"},
		{"connection", "close"}, {"connection", "keep-alive"}, {"connection", "x-user-id, x-request-id"}, {"connection", "transfer-encoding"}, {"connection", "content-length"}, {"connection", "upgrade"}, {"proxy-connection", "keep-alive"}, {"keep-alive", "timeout=5"}, {"upgrade", "h2c"}, {"upgrade", "websocket"}, {"http2-settings", "AAMAAABk"},
		{"te", "chunked"}, {"te", "trailers, chunked"}, {"te", "gzip"}, {"trailer", "content-length"}, {"trailer", "transfer-encoding"}, {"trailer", "authorization"}, {"expect", "100-continue"}, {"expect", "200-ok"},
	} {
		for _, body := range framed {
			add(fmt.Sprintf("%s: %s, body of %d", f.name, f.value, len(body)), usual(), body, nil, f)
		}
	}
	for _, body := range framed {
		n := fmt.Sprint(len(body))
		for _, lengths := range [][]string{
			{"0"}, {"1"}, {n + "0"}, {"+" + n}, {"-1"}, {"-0"}, {"0x10"}, {"1e1"}, {n + ", " + n}, {n + "," + n}, {n, n}, {n, "0"}, {"0", n}, {" " + n}, {n + " "}, {"0" + n}, {""}, {"a"}, {n + ";"}, {"18446744073709551616"}, {n + "\x00"}, {n + ".0"}, {"１"},
		} {
			fails = true
			var fields []field
			for _, length := range lengths {
				fields = append(fields, field{"content-length", length})
			}
			add(fmt.Sprintf("content-length %q, body of %d", lengths, len(body)), usual(), body, nil, fields...)
			if len(lengths) == 1 {
				add(fmt.Sprintf("content-length %q and chunked, body of %d", lengths, len(body)), usual(), body, nil, append(fields, field{"transfer-encoding", "chunked"})...)
			}
			fails = false
		}
		add(fmt.Sprintf("content-length as a trailer, body of %d", len(body)), usual(), body, []field{{"content-length", "0"}})
		add(fmt.Sprintf("transfer-encoding as a trailer, body of %d", len(body)), usual(), body, []field{{"transfer-encoding", "chunked"}})
	}
	// RFC 9113 section 8.3: one of each pseudo-header, before all others, and no more.
	for i, f := range usual() {
		without := append(append([]field{}, usual()[:i]...), usual()[i+1:]...)
		if f.name != ":authority" || !b.fastProxy { // what fastProxy makes of it is one of differences
			add(f.name+" is missing", without, "", nil)
			add(f.name+" is empty", usual(field{f.name, ""}), "", nil)
		}
		add(f.name+" after the others", without, "", nil, field{"x-filler", "a"}, f)
		add(f.name+" twice", append(usual(), f), "", nil)
		add(f.name+" twice, otherwise", append(usual(), field{f.name, "/v1/users/login"}), "", nil)
		add(f.name+" as a trailer", usual(), "", []field{f})
		add(f.name+" in capitals", append(without, field{"!" + strings.ToUpper(f.name), f.value}), "", nil)
	}
	for _, f := range []field{{":status", "200"}, {":protocol", "websocket"}, {":foo", lie}, {":", lie}, {":x-user-id", lie}, {"::path", path}, {":path:", path}, {"", lie}, {":host", "other.test"}} {
		add("unknown pseudo-header "+f.name, append(usual(), f), "", nil)
		add("unknown pseudo-header "+f.name+" first", append([]field{f}, usual()...), "", nil)
	}
	add("extended CONNECT (RFC 8441)", append(usual(field{":method", "CONNECT"}), field{":protocol", "websocket"}), "", nil)
	for _, scheme := range []string{"http", "HTTPS", "ftp", "https://other.test/v1/users/login?", "file", "javascript", "h2c", "a b"} {
		add(":scheme "+scheme, usual(field{":scheme", scheme}), "", nil)
	}
	for _, target := range []string{"*", "v1/orders", "http://" + echoHost + path, "https://other.test" + path, "//other.test" + path, path + "#" + path, path + "\\..\\users", "?" + path, "http:" + path, "mailto:v1/orders", path + "?a=b c", path + "/../orders", path + "/%2e%2e/orders", path + ";a=b", " " + path, "/" + path} {
		add(":path "+target, usual(field{":path", target}), "", nil)
	}
	for _, authority := range []string{"user@" + echoHost, echoHost + ":80", echoHost + ":x", strings.ToUpper(echoHost), echoHost + "/v1/users/login", echoHost + "?", echoHost + "#", echoHost + ", other.test", "other.test, " + echoHost, "[" + echoHost + "]", "other.test@" + echoHost, echoHost + "\\other.test", echoHost + "."} {
		add(":authority "+authority, usual(field{":authority", authority}), "", nil)
		add("host "+authority+" beside :authority", usual(), "", nil, field{"host", authority})
	}
	return all
}

// refusedAsBroken: not handed on as a request line of four words, which each
// service would read in its own way.
func refusedAsBroken(got answer, arrived []seen) error {
	if len(arrived) > 0 || got.status != 0 && got.status != http.StatusBadRequest || got.status == http.StatusBadRequest && got.header.Get("X-Request-Id") == "" {
		return fmt.Errorf("answered %d, arrived %d times: %.100s", got.status, len(arrived), got.body)
	}
	return nil
}

// wholeAndIntact: refused, or arrived once as what was sent, body and all.
func wholeAndIntact(path string, body int, fails bool) func(answer, []seen) error {
	return func(got answer, arrived []seen) error {
		if fails && len(arrived) == 0 && got.status == http.StatusInternalServerError {
			return nil
		}
		if err := arrivesOnlyAs(ann)(got, arrived); err != nil {
			return err
		}
		for _, s := range arrived {
			target, _, _ := strings.Cut(s.target, "?")
			if s.method != http.MethodPost || target != path || s.body != body {
				return fmt.Errorf("arrived as %s %s with a body of %d instead of %d", s.method, s.target, s.body, body)
			}
			if strings.EqualFold(s.header.Get("Connection"), "upgrade") || s.header.Get("Http2-Settings") != "" {
				return fmt.Errorf("arrived with Connection: %q", s.header.Values("Connection"))
			}
		}
		return nil
	}
}

// downgrading sends them, and looks for what they hid.
func downgrading(b *bed, c class) outcome {
	o := b.fire(b.door, sample(downgrades(b), c.sample))
	for _, f := range fronts {
		victim := &client{address: b.door.address(f), front: f}
		for range 8 {
			if err := b.unharmed(victim); err != nil {
				o.findings = append(o.findings, f.name+": "+err.Error())
			}
		}
		victim.close()
	}
	for _, s := range b.echo.take("smuggled") {
		o.findings = append(o.findings, fmt.Sprintf("a hidden request arrived: %s %s %v", s.method, s.target, s.header))
	}
	return o
}
