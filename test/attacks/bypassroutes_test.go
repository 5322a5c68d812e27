package attacks

import (
	"fmt"
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
	const middleware = "    limited-NAME:\n      plugin:\n        sluice:\n          redis: *redis\n          AUTH\n          EXTRA\n          limits:\n            - {name: limited-NAME, KEY, limit: LIMIT, window: 1h}\n"
	for _, limit := range []struct {
		name, key, extra string
		user, optional   bool
	}{
		{name: "ip", key: "key: ip"},
		{name: "user", key: "key: user", user: true},
		{name: "tier", key: "key: user, tierHeader: X-User-Plan, tiers: {pro: 6}", user: true},
		{name: "header", key: `key: "header:X-Client", onMissingKey: deny`},
		{name: "refund", key: `key: "header:X-Client", onMissingKey: deny, refundStatus: ["5xx"]`},
		{name: "guess", key: `key: "header:X-Client", onMissingKey: deny, countStatus: [401]`},
		{name: "small", key: `key: "header:X-Client", onMissingKey: deny`, extra: "maxKeys: 100"},
		{name: "proxied", key: "key: ip", extra: "ipStrategy: {depth: 1}\n          trustedProxies: [192.0.2.0/24]"},
		{name: "global", key: "key: global"},
		{name: "exempt-ip", key: "key: ip", extra: "exempt: {ips: [203.0.113.0/24], users: [root]}"},
		{name: "exempt-user", key: "key: user", user: true, extra: "exempt: {ips: [203.0.113.0/24], users: [root]}"},
		{name: "few", key: "key: user", user: true, extra: "maxKeys: 100"},
		{name: "dry", key: "key: user", user: true, extra: `dryRun: "true"`},
		{name: "optional", key: "key: user", user: true, optional: true},
	} {
		if limit.optional && wiring == stack.Classic {
			continue
		}
		identity, auth := "", "legacyHeaders: false"
		if limit.user {
			auth = `auth: {addresses: '{{ env "SLUICE_AUTHSVC" }}/auth'}`
			if wiring == stack.Classic {
				identity, auth = "sluice-id, auth, ", "trustUserHeader: true"
			}
		}
		if limit.name == "few" && wiring == stack.Fast {
			auth = `auth: {cacheSize: "100", addresses: '{{ env "SLUICE_AUTHSVC" }}/auth'}`
		}
		if limit.optional {
			auth = `auth: {optional: "true", addresses: '{{ env "SLUICE_AUTHSVC" }}/auth'}`
			limit.key, limit.extra = "key: global", "dryRun: false"
		}
		extra := limit.extra
		if extra == "" {
			extra = "dryRun: false"
		}
		fill := strings.NewReplacer("§", "`", "NAME", limit.name, "IDENTITY", identity, "AUTH", auth, "EXTRA", extra, "KEY", limit.key, "LIMIT", fmt.Sprint(map[bool]int{true: 600000, false: allowance}[limit.optional]))
		routers += fill.Replace(router)
		middlewares += fill.Replace(middleware)
	}
	return routers, strings.TrimSuffix("\n"+middlewares, "\n")
}
