package attacks

import (
	"testing"

	"github.com/sluice-gateway/sluice/cmd/sluice/stack"
)

// class is one kind of attack.
type class struct {
	name   string
	source string
	sample int // cases of the short form
	least  int // cases of the full form, which the suite promises
	run    func(*bed, class) outcome
	where  func(setup) bool // nil: everywhere
}

// A setup is a stack under attack.
type setup struct {
	name, wiring, form string
	gateways           int
	again              bool // what another setup has met in full; the short form tries a few of each class
}

// setups: both wirings, the form that a stock Traefik interprets, and several
// gateways, which clients reach by way of the balancer.
var setups = []setup{
	{name: "fast", wiring: stack.Fast, form: stack.Compiled, gateways: 1},
	{name: "classic", wiring: stack.Classic, form: stack.Compiled, gateways: 1},
	{name: "fast, interpreted", wiring: stack.Fast, form: stack.Interpreted, gateways: 1, again: true},
	{name: "fast, three gateways", wiring: stack.Fast, form: stack.Compiled, gateways: 3, again: true},
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
	{"identity spoofing", "CVE-2026-54763, CVE-2026-88011, CVE-2021-32813, CVE-2024-45410, CVE-2024-52003, RFC 9110 6.5.1, 7.6.1, RFC 3875", 900, 500, generated(spoofing), nil},
	{"Authorization reaching a service", "DESIGN 1, RFC 9110 11.6, 5.3", 400, 500, generated(authorization), nil},
	{"paths without a token", "CVE-2025-32431, CVE-2025-47952, CVE-2025-66490, CVE-2026-48020, RFC 3986 6, RFC 9112 3.2", 900, 1000, generated(paths), nil},
	{"paths read in two ways", "as above, and CWE-436", 500, 1000, generated(desync), nil},
	{"another user's record", "OWASP API1:2023", 200, 500, generated(strangers), nil},
	{"advisories", "advisories_test.go names each", 0, len(advisories), regressions, nil},
	{"request smuggling", "CWE-444, CVE-2025-22871, RFC 9112 2.2, 5.2, 6.1, 6.3, 7.1", 160, 300, smuggling, nil},
	{bypassClass, "DESIGN 9, OWASP API4:2023", 120, 150, bypassing, nil},
	{"addresses by PROXY protocol", "RULES 31, RFC 4291 2.5.5, RFC 6177, CWE-348", 0, 40, proxied, balanced},
	{"a writer of Redis with an account", "RULES 1, 26, CWE-345", 0, len(rewrites), writingRedis, once},
	{"exhaustion", "exhaustion_test.go names each", 0, 1000, exhaustion, once},
}

const bypassClass = "rate limits"

// TestAttacks tries everything on every setup.
func TestAttacks(t *testing.T) {
	for _, s := range setups {
		t.Run(s.name, func(t *testing.T) {
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
					o.class, o.source, o.wiring = c.name, c.source, s.name
					o.report(t)
					if *full && o.tried < c.least {
						t.Errorf("%d cases, at least %d are promised", o.tried, c.least)
					}
					results.classes = append(results.classes, o)
				})
			}
		})
	}
}
