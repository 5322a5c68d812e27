package attacks

import (
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/sluice-gateway/sluice/cmd/sluice/stack"
)

// class is one kind of attack.
type class struct {
	name   string
	source string
	sample int // cases of the short form
	least  int // cases of the full form, which the suite promises
	// alive: of a hundred cases of the full form, so many reach the service at least,
	// since a gateway that refuses everything holds nothing. How many of a sample do
	// hangs on what it holds; there the usual requests say it.
	alive int
	run   func(*bed, class) outcome
	where func(setup) bool // nil: everywhere
}

// A setup is a stack under attack.
type setup struct {
	name, wiring, form string
	gateways           int
	fastProxy          bool // Traefik's experimental.fastProxy
	again              bool // what another setup has met in full; the short form tries a few of each class
}

// setups: both wirings, the form that a stock Traefik interprets, and several
// gateways, which clients reach by way of the balancer. Full runs try Traefik's
// fastProxy as well.
var setups = []setup{
	{name: "fast", wiring: stack.Fast, form: stack.Compiled, gateways: 1},
	{name: "classic", wiring: stack.Classic, form: stack.Compiled, gateways: 1},
	{name: "fast, interpreted", wiring: stack.Fast, form: stack.Interpreted, gateways: 1, again: true},
	{name: "fast, three gateways", wiring: stack.Fast, form: stack.Compiled, gateways: 3, again: true},
	{name: "fast, fastProxy", wiring: stack.Fast, form: stack.Compiled, gateways: 1, fastProxy: true},
}

func balanced(s setup) bool { return s.gateways > 1 }

// once: what does not depend on the plugin's form, nor on the balancer.
func once(s setup) bool { return !s.again }

// expected is how many outcomes a whole run has.
func expected() (n int) {
	for _, s := range setups {
		for _, c := range classes {
			if c.where == nil || c.where(s) {
				n++
			}
		}
	}
	return n
}

// generated makes a class of probes.
func generated(make func(*bed) []probe) func(*bed, class) outcome {
	return func(b *bed, c class) outcome {
		b.echo.rewind()
		o := b.fire(b.door, sample(make(b), c.sample))
		// Whatever a library on the service's side would have made of it.
		for _, secret := range []string{"\nauthorization:", b.token, "\nx_user", "\nx.user"} {
			if b.echo.heard(secret) {
				o.findings = append(o.findings, "the service received the bytes "+secret)
			}
		}
		return o
	}
}

// classes is the whole suite.
var classes = []class{
	{name: "identity spoofing", source: "CVE-2026-54763, CVE-2026-88011, CVE-2021-32813, CVE-2024-45410, CVE-2024-52003, RFC 9110 6.5.1, 7.6.1, RFC 3875",
		sample: 900, least: 500, alive: 25, run: generated(spoofing)},
	{name: "Authorization reaching a service", source: "design: what-services-receive, RFC 9110 11.6, 5.3", sample: 400, least: 500, alive: 40, run: generated(authorization)},
	{name: "paths without a token", source: "CVE-2025-32431, CVE-2025-47952, CVE-2025-66490, CVE-2026-48020, RFC 3986 6, RFC 9112 3.2", sample: 900, least: 1000, alive: 1, run: generated(paths)},
	{name: "paths read in two ways", source: "as above, and CWE-436", sample: 500, least: 1000, alive: 20, run: generated(desync)},
	{name: "another user's record", source: "OWASP API1:2023", sample: 200, least: 500, run: generated(strangers)},
	{name: "modes that let more in", source: "docs/configuration.md: optional, dryRun", sample: 200, least: 500, alive: 15, run: generated(modes)},
	{name: "advisories", source: "advisories_test.go names each", least: len(advisories), run: regressions},
	{name: "request smuggling", source: "CWE-444, CVE-2025-22871, RFC 9112 2.2, 5.2, 6.1, 6.3, 7.1", sample: 160, least: 300, alive: 10, run: smuggling},
	{name: "HTTP/2 written as HTTP/1.1", source: "CWE-444, CWE-113, RFC 9113 8.1.1, 8.2, 8.3, 10.3, RFC 8441", sample: 300, least: 300, alive: 10, run: downgrading},
	{name: bypassClass, source: "design: closed-entry-points, OWASP API4:2023", sample: 120, least: 150, run: bypassing},
	{name: refundedClass, source: "refunds_test.go names each; CWE-799", sample: 14, least: 90, run: refunding},
	{name: "addresses by PROXY protocol", source: "design: client-address, RFC 4291 2.5.5, RFC 6177, CWE-348", least: 40, run: proxied, where: balanced},
	{name: "what services take", source: "OWASP API1, API2, API3, API4, API7:2023, CWE-204, CWE-613, CWE-918, RFC 6750, RFC 7009", sample: 60, least: 500, run: serving, where: once},
	{name: "a writer of Redis with an account", source: "design: status-only, design: signing-keys, CWE-345", least: len(rewrites) + len(falseEntries) + 1, run: writingRedis, where: once},
	{name: "exhaustion", source: "exhaustion_test.go names each", least: 1000, run: exhaustion, where: once},
	{name: "what Traefik's fastProxy does otherwise", source: "fastproxy_test.go", least: len(differences), run: differing, where: compared},
	{name: "secrets in logs", source: "CWE-532, design: operator-tokens; a case is a line", least: 1000, run: logged},
}

const (
	bypassClass   = "rate limits"
	refundedClass = "permits refunded"
)

// TestAttacks tries everything on every setup.
func TestAttacks(t *testing.T) {
	if *full {
		t.Parallel() // with TestTheSuiteBites, which waits, mostly
	}
	for _, s := range setups {
		t.Run(s.name, func(t *testing.T) {
			if s.fastProxy && !*full {
				t.Skip("only with -full: no form of the plugin, and no wiring")
			}
			b := open(t, s)
			for _, c := range classes {
				if c.where != nil && !c.where(s) {
					continue
				}
				if s.again {
					c.sample = (c.sample + 5) / 6
				}
				t.Run(c.name, func(t *testing.T) {
					o := c.run(b.on(t), c)
					if c.alive > 0 {
						o.findings = append(o.findings, b.on(t).fire(b.door, usual(b)).findings...)
					}
					o.class, o.source, o.wiring = c.name, c.source, s.name
					o.report(t)
					if *full && o.tried < c.least && !(s.fastProxy && c.name == refundedClass) {
						t.Errorf("%d cases, at least %d are promised", o.tried, c.least)
					}
					if *full && o.reached*100 < o.tried*c.alive {
						t.Errorf("%d of %d cases reached the service, at least %d %% should", o.reached, o.tried, c.alive)
					}
					results.classes = append(results.classes, o)
				})
			}
		})
	}
}

// served is a door that a handler is behind, and no gateway.
func served(t *testing.T, h http.Handler) door {
	open := func(start func(*httptest.Server)) string {
		server := httptest.NewUnstartedServer(h)
		server.EnableHTTP2 = true
		server.Config.Protocols = new(http.Protocols)
		server.Config.Protocols.SetHTTP1(true)
		server.Config.Protocols.SetHTTP2(true)
		server.Config.Protocols.SetUnencryptedHTTP2(true)
		server.Config.ErrorLog = log.New(io.Discard, "", 0) // what is sent is wrong on purpose
		start(server)
		t.Cleanup(server.Close)
		return hostOf(t, server.URL)
	}
	return door{open((*httptest.Server).Start), open((*httptest.Server).StartTLS)}
}

// TestRefusingEverythingIsFound: a gateway that lets nothing through passes every
// attack, and none of what has to arrive.
func TestRefusingEverythingIsFound(t *testing.T) {
	b := &bed{t: t, echo: startEcho(t), wiring: stack.Fast, token: "a.b.c"}
	o := b.fire(served(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) })), usual(b))
	if o.tried == 0 || len(o.findings) != o.tried {
		t.Errorf("%d of %d usual requests are missed", len(o.findings), o.tried)
	}
}

// TestEveryCaseIsTried, whatever the one before it did to the connection.
func TestEveryCaseIsTried(t *testing.T) {
	b := &bed{t: t, echo: startEcho(t)}
	var all []probe
	for range 50 {
		for _, f := range http2s {
			m := message{method: "POST", target: "/v1/orders", host: echoHost, body: "{}"}
			all = append(all, probe{front: f, message: m, judge: func(_ answer, arrived []seen) error {
				if len(arrived) != 1 {
					return fmt.Errorf("arrived %d times", len(arrived))
				}
				return nil
			}})
			m.fields = []field{{"x-filler", "a\nb"}}
			all = append(all, probe{front: f, message: m, judge: never})
		}
	}
	o := b.fire(served(t, b.echo), all)
	o.report(t)
}
