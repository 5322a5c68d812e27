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
	{"identity spoofing", "CVE-2026-54763, CVE-2026-88011, CVE-2021-32813, CVE-2024-45410, CVE-2024-52003, RFC 9110 6.5.1, 7.6.1, RFC 3875", 900, 500, generated(spoofing)},
	{"Authorization reaching a service", "DESIGN 1, RFC 9110 11.6, 5.3", 400, 500, generated(authorization)},
	{"paths without a token", "CVE-2025-32431, CVE-2025-47952, CVE-2025-66490, CVE-2026-48020, RFC 3986 6, RFC 9112 3.2", 900, 1000, generated(paths)},
	{"paths read in two ways", "as above, and CWE-436", 500, 1000, generated(desync)},
	{"another user's record", "OWASP API1:2023", 200, 500, generated(strangers)},
	{"advisories", "advisories_test.go names each", 0, len(advisories), regressions},
	{"request smuggling", "CWE-444, CVE-2025-22871, RFC 9112 2.2, 5.2, 6.1, 6.3, 7.1", 160, 300, smuggling},
	{bypassClass, "DESIGN 9, OWASP API4:2023", 120, 150, bypassing},
	{"a writer of Redis with an account", "RULES 1, 26, CWE-345", 0, len(rewrites), writingRedis},
	{"exhaustion", "exhaustion_test.go names each", 0, 1000, exhaustion},
}

const bypassClass = "rate limits"

// TestAttacks tries everything on both wirings.
func TestAttacks(t *testing.T) {
	for _, wiring := range []string{stack.Fast, stack.Classic} {
		t.Run(wiring, func(t *testing.T) {
			b := open(t, wiring)
			for _, c := range classes {
				t.Run(c.name, func(t *testing.T) {
					o := c.run(b.on(t), c)
					o.class, o.source, o.wiring = c.name, c.source, wiring
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
