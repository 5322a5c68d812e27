package attacks

import (
	"strings"

	"github.com/sluice-gateway/sluice/cmd/sluice/stack"
)

// allowance is the limit of every route that the bypasses are tried on, and
// proAllowance what the plan pro is granted.
const (
	allowance    = 3
	proAllowance = 6
)

// bypassRoutes are routes with small limits, each counted by itself.
func bypassRoutes(wiring string) (routers, middlewares string) {
	const router = "    limited-NAME:\n      rule: Host(§" + echoHost + "§) && PathPrefix(§/limited/NAME§)\n      priority: 5000\n      middlewares: [IDENTITYlimited-NAME]\n      service: echo\n"
	const middleware = "    limited-NAME:\n      plugin:\n        sluice:\n          redis: *redis\n          AUTH\n          EXTRA\n          limits:\n            - {name: limited-NAME, KEY, limit: 3, window: 1h}\n"
	for _, limit := range []struct {
		name, key, extra string
		user             bool
	}{
		{name: "ip", key: "key: ip"},
		{name: "user", key: "key: user", user: true},
		{name: "tier", key: "key: user, tierHeader: X-User-Plan, tiers: {pro: 6}", user: true},
		{name: "header", key: `key: "header:X-Client", onMissingKey: deny`},
		{name: "small", key: `key: "header:X-Client", onMissingKey: deny`, extra: "maxKeys: 100"},
		{name: "proxied", key: "key: ip", extra: "ipStrategy: {depth: 1}\n          trustedProxies: [192.0.2.0/24]"},
		{name: "global", key: "key: global"},
	} {
		identity, auth := "", "legacyHeaders: false"
		if limit.user {
			identity, auth = "", `auth: {addresses: '{{ env "SLUICE_AUTHSVC" }}/auth'}`
			if wiring == stack.Classic {
				identity, auth = "sluice-id, auth, ", "trustUserHeader: true"
			}
		}
		extra := limit.extra
		if extra == "" {
			extra = "dryRun: false"
		}
		fill := strings.NewReplacer("§", "`", "NAME", limit.name, "IDENTITY", identity, "AUTH", auth, "EXTRA", extra, "KEY", limit.key)
		routers += fill.Replace(router)
		middlewares += fill.Replace(middleware)
	}
	return routers, strings.TrimSuffix("\n"+middlewares, "\n")
}
