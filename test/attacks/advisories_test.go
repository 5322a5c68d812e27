package attacks

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"
)

// advisory is a hole that Traefik, Go or a peer once had, as a regression test
// on the path that Sluice's requests take.
type advisory struct {
	name, source string
	test         func(*bed) error
}

// one sends a single message through each front and judges all of them.
func one(m func(*bed) message, fronts []front, judge func(answer, []seen) error) func(*bed) error {
	return func(b *bed) error {
		var errs []error
		for _, f := range fronts {
			o := b.fire(b.door, []probe{{front: f, message: m(b), judge: judge}})
			for _, finding := range o.findings {
				errs = append(errs, errors.New(finding))
			}
		}
		return errors.Join(errs...)
	}
}

var http1, http2s = []front{plain1, tls1}, []front{tls2, plain2}

func withFields(fields ...field) func(*bed) message {
	return func(b *bed) message { return b.protected(fields...) }
}

func bare(method, target string, fields ...field) func(*bed) message {
	return func(*bed) message {
		return message{method: method, target: target, host: echoHost, fields: fields}
	}
}

// never: nothing reaches the service.
func never(got answer, arrived []seen) error {
	if len(arrived) > 0 {
		return fmt.Errorf("%s %s arrived", arrived[0].method, arrived[0].target)
	}
	if got.status == http.StatusOK || got.status == http.StatusSwitchingProtocols {
		return errors.New("it was let in")
	}
	return nil
}

// without: it may arrive, intact, and without these headers.
func without(names ...string) func(answer, []seen) error {
	return func(got answer, arrived []seen) error {
		for _, s := range arrived {
			for _, name := range names {
				if values := s.header.Values(name); values != nil {
					return fmt.Errorf("%s: %q arrived", name, values)
				}
			}
			if err := intact(s, ann); err != nil {
				return err
			}
		}
		if got.status == http.StatusSwitchingProtocols {
			return errors.New("the protocol was switched")
		}
		return nil
	}
}

// advisories of 2024 to 2026, and those before them that this path still meets.
var advisories = []advisory{
	{"Connection drops a middleware's header", "CVE-2021-32813, GHSA-m697-4v8f-55qg",
		one(withFields(field{"Connection", "X-User-ID, X-User-Plan, X-User-Scopes, X-Request-ID"}), http1, arrivesIntact(ann))},
	{"Connection drops X-Forwarded-*", "CVE-2024-45410, GHSA-62c8-mh53-4cqv",
		one(withFields(field{"Connection", "close, X-Forwarded-Host, X-Forwarded-Proto, X-Forwarded-Port, X-Forwarded-For, X-Real-Ip"}), http1, arrivesIntact(ann))},
	{"a client's X-Forwarded-Prefix", "CVE-2024-52003, GHSA-h924-8g65-j9wg",
		one(withFields(field{"X-Forwarded-Prefix", "/" + lie}), fronts, arrivesIntact(ann))},
	{"aliases of managed headers", "CVE-2026-54763",
		one(withFields(field{"X_Forwarded_For", lie}, field{"X_User_ID", lie}), fronts, never)},
	{"aliases by other characters", "CVE-2026-88011",
		one(withFields(field{"X.Forwarded.For", lie}, field{"X.User.ID", lie}), fronts, never)},
	{"dot segments past the router", "CVE-2025-32431, GHSA-6p68-w45g-48j7",
		one(bare("POST", "/v1/users/login/../../products"), fronts, never)},
	{"escaped dot segments past the router", "CVE-2025-47952, GHSA-vrch-868g-9jx5",
		one(bare("POST", "/v1/users/login/%2e%2e/%2e%2e/products"), fronts, never)},
	{"reserved characters escaped", "CVE-2025-66490, GHSA-gm3x-23wp-hc2c",
		one(func(b *bed) message {
			return message{method: "GET", target: "/v1/products/a%2f..%2fb", host: echoHost, fields: []field{bearer(b.token)}}
		}, fronts, never)},
	{"StripPrefix and a dot segment without its slash", "CVE-2026-48020, GHSA-xf64-8mw2-4gr2",
		one(bare("POST", "/v1/users/login../products"), fronts, never)},
	{"h2c upgrade", "CVE-2026-88008, GHSA-w4v4-9rw7-5326",
		one(withFields(field{"Connection", "Upgrade, HTTP2-Settings"}, field{"Upgrade", "h2c"}, field{"HTTP2-Settings", "AAMAAABkAARAAAAAAAIAAAAA"}), http1, without("Upgrade", "HTTP2-Settings"))},
	{"h2c upgrade without a token", "CVE-2026-88008, RFC 7540 3.2",
		one(bare("GET", "/v1/products", field{"Connection", "Upgrade, HTTP2-Settings"}, field{"Upgrade", "h2c"}, field{"HTTP2-Settings", "AAMAAABkAARAAAAAAAIAAAAA"}), http1, never)},
	{"h2c upgrade, HTTP2-Settings not listed", "Bishop Fox, h2c smuggling, 2020",
		one(withFields(field{"Connection", "Upgrade"}, field{"Upgrade", "h2c"}, field{"HTTP2-Settings", "AAMAAABkAARAAAAAAAIAAAAA"}), http1, without("Upgrade"))},
	{"opaque request target", "CVE-2026-88009, GHSA-f52w-8j3h-j724",
		one(bare("GET", "http:http://"+echoHost+"/v1/products"), fronts, never)},
	{"opaque request target with a token", "CVE-2026-88009, traefik/traefik 13796",
		one(func(b *bed) message {
			return message{method: "GET", target: "mailto:v1/products", host: echoHost, fields: []field{bearer(b.token)}}
		}, fronts, never)},
	{"trailer values", "traefik/traefik 13822",
		one(func(b *bed) message {
			m := b.protected(field{"Trailer", "X-User-ID"})
			m.trailers = []field{{"X-User-ID", lie}}
			return m
		}, fronts, intactIfAny)},
	{"a proxy for CGI programs", "CVE-2016-5385, httpoxy",
		one(withFields(field{"Proxy", "http://" + lie}), fronts, without("Proxy"))},
	{"another path than the one that was judged", "CVE-2018-14773",
		one(withFields(field{"X-Original-URL", "/" + lie}, field{"X-Rewrite-URL", "/" + lie}), fronts, without("X-Original-Url", "X-Rewrite-Url"))},
	{"an address by RFC 7239", "CWE-348, RFC 7239 8.1",
		one(withFields(field{"Forwarded", "for=" + lie + ";host=" + lie}), fronts, without("Forwarded"))},
	{"a WebSocket that the service refuses, and a request behind it", "0ang3el, WebSocket smuggling, 2019",
		refusedUpgrade},
	{"an opened tunnel on a public route", "CWE-441",
		one(bare("POST", "/v1/users/login", field{"Connection", "Upgrade"}, field{"Upgrade", "websocket"}, field{"Sec-WebSocket-Version", "13"}, field{"Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="}), http1, noTunnel)},
	{"CONNECT with a body poisons the pool", "CVE-2026-71324, GHSA-3ccp-42pg-hgv6",
		func(b *bed) error {
			victim := &client{address: b.door.http, front: plain1}
			defer victim.close()
			for _, f := range fronts {
				for _, target := range []string{"", "/", "/v1/products", echoHost + ":80"} {
					for _, fields := range [][]field{nil, {bearer(b.token)}} {
						o := b.fire(b.door, []probe{{front: f, judge: never, message: message{method: "CONNECT", target: target, host: echoHost, fields: fields, body: smuggled}}})
						if len(o.findings) > 0 {
							return errors.New(o.findings[0])
						}
						if err := b.unharmed(victim); err != nil {
							return err
						}
					}
				}
			}
			if hidden := b.echo.take("smuggled"); len(hidden) > 0 {
				return fmt.Errorf("the hidden request arrived: %v", hidden)
			}
			return nil
		}},
	{"one flight, two credentials", "traefik/traefik 13816",
		oneFlight},
	{"HTTP/3 is not offered", "CVE-2026-88007, GHSA-qqjf-53cj-pwvv",
		one(withFields(), []front{tls1, tls2}, func(got answer, _ []seen) error {
			if offer := got.header.Values("Alt-Svc"); offer != nil || got.status != http.StatusOK {
				return fmt.Errorf("%d, Alt-Svc: %q", got.status, offer)
			}
			return nil
		})},
	{"the API and the dashboard", "design: closed-entry-points",
		func(b *bed) error {
			for _, path := range []string{"/api/rawdata", "/api/overview", "/dashboard/", "/debug/pprof/", "/metrics", "/ping"} {
				o := b.fire(b.door, []probe{{front: plain1, message: message{method: "GET", target: path, host: realHost}, judge: refusedWith(http.StatusNotFound)}})
				if len(o.findings) > 0 {
					return errors.New(o.findings[0])
				}
			}
			return nil
		}},
	{"content-length in HTTP/2 that lies", "RFC 9113 8.1.1",
		one(func(b *bed) message {
			m := b.protected(field{"content-length", "1"})
			m.method, m.body = "POST", "x"+smuggled
			return m
		}, http2s, refusedOrWhole)},
	{"transfer-encoding in HTTP/2", "RFC 9113 8.2.2",
		one(func(b *bed) message {
			m := b.protected(field{"transfer-encoding", "chunked"})
			m.method, m.body = "POST", "0\r\n\r\n"+smuggled
			return m
		}, http2s, never)},
	{"CRLF in an HTTP/2 value", "RFC 9113 8.2.1",
		one(withFields(field{"x-filler", "a\r\nX-User-ID: " + lie}), http2s, never)},
	{"CRLF in an HTTP/2 path", "RFC 9113 8.3.1",
		one(bare("GET", "/v1/users/login HTTP/1.1\r\nX-User-ID: "+lie+"\r\n\r\n"), http2s, never)},
	{"CRLF in an HTTP/2 method", "RFC 9113 8.3.1",
		one(bare("POST /v1/users/login HTTP/1.1\r\nX: ", "/v1/products"), http2s, never)},
	{"CRLF in an HTTP/2 authority", "RFC 9113 8.3.1",
		one(func(b *bed) message {
			m := b.protected()
			m.host = echoHost + "\r\nX-User-ID: " + lie
			return m
		}, http2s, never)},
	{"two authorities in HTTP/2", "RFC 9113 8.3.1",
		one(withFields(field{"host", "other.test"}), http2s, intactIfAny)},
	{"a proxy's credential", "RFC 9110 11.7.2",
		one(withFields(field{"Proxy-Authorization", "Basic " + lie}), fronts, intactIfAny)},
}

// refusedUpgrade: the service answers 500 instead of 101. What the client sends
// then is a request to the gateway, and no longer the service's alone.
func refusedUpgrade(b *bed) error {
	for _, f := range http1 {
		for _, version := range []string{"13", "1337"} {
			outer := b.protected(caseField("outer"), field{"Connection", "Upgrade"}, field{"Upgrade", "websocket"}, field{"Sec-WebSocket-Version", version}, field{"Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="})
			outer.target = "/v1/products?fail=500"
			answers, passed, err := b.smuggle(f, string(outer.http1())+smuggled)
			arrived := b.echo.take("outer")
			hidden := b.echo.take("smuggled")
			if err != nil || len(arrived) != 1 || passed != 1 || len(hidden) > 0 {
				return fmt.Errorf("%s: %d answers, %d from the service, which saw %d and %d hidden ones, %v", f.name, answers, passed, len(arrived), len(hidden), err)
			}
		}
	}
	return nil
}

// noTunnel: nobody without a token gets a connection of his own to a service.
func noTunnel(got answer, arrived []seen) error {
	if got.status == http.StatusSwitchingProtocols {
		return errors.New("the protocol was switched")
	}
	return nobodyIfAny(got, arrived)
}

func arrivesIntact(user who) func(answer, []seen) error {
	return func(_ answer, arrived []seen) error {
		if len(arrived) != 1 {
			return fmt.Errorf("arrived %d times", len(arrived))
		}
		return intact(arrived[0], user)
	}
}

func intactIfAny(_ answer, arrived []seen) error {
	for _, s := range arrived {
		if err := intact(s, ann); err != nil {
			return err
		}
	}
	return nil
}

func refusedWith(status int) func(answer, []seen) error {
	return func(got answer, arrived []seen) error {
		if got.status != status || len(arrived) > 0 {
			return fmt.Errorf("%d, arrived %d times", got.status, len(arrived))
		}
		return nil
	}
}

func refusedOrWhole(got answer, arrived []seen) error {
	for _, s := range arrived {
		if got.status == http.StatusOK && s.body != 1 {
			return fmt.Errorf("arrived with a body of %d", s.body)
		}
	}
	return nil
}

// oneFlight: concurrent misses of one credential make one call of authsvc, so
// credentials that share a prefix, a payload or a hash prefix must not share it.
// Half of these are good, half differ from a good one in the signature.
func oneFlight(b *bed) error {
	var wait sync.WaitGroup
	wrong := make(chan error, 64)
	deadline := time.Now().Add(patience)
	for round := range 8 {
		token := b.issue(fmt.Sprintf("flight-%d", round))
		cut := strings.LastIndex(token, ".") + 8
		flipped := map[byte]string{'A': "B"}[token[cut]]
		if flipped == "" {
			flipped = "A"
		}
		forged := token[:cut] + flipped + token[cut+1:]
		for i := range 8 {
			wait.Go(func() {
				c := &client{address: b.door.http, front: plain1}
				defer c.close()
				credential, want := token, http.StatusOK
				if i%2 == 1 {
					credential, want = forged, http.StatusUnauthorized
				}
				got, err := c.send(message{method: "GET", target: "/v1/products", host: echoHost, fields: []field{bearer(credential), caseField("flight")}})
				if err != nil || got.status != want || time.Now().After(deadline) {
					wrong <- fmt.Errorf("%d instead of %d, %v", got.status, want, err)
				}
			})
		}
		wait.Wait()
	}
	close(wrong)
	b.echo.take("flight")
	return <-wrong
}

// regressions runs the advisories as one class.
func regressions(b *bed, _ class) (o outcome) {
	for _, a := range advisories {
		o.tried++
		if err := a.test(b); err != nil {
			o.findings = append(o.findings, fmt.Sprintf("%s (%s): %v", a.name, a.source, err))
		}
	}
	return o
}
