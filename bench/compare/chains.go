package main

import "fmt"

// Gateways that a chain may run in.
const (
	compiled    = "compiled"    // Traefik with the plugin compiled in
	interpreted = "interpreted" // the same binary, which interprets the plugin
	fastProxy   = "fastProxy"   // compiled, with Traefik's experimental.fastProxy
	nginx       = "nginx"
)

// Loads: which credentials and keys the requests of a run carry. All requests
// have the same headers, whatever the chain makes of them.
const (
	hot     = "hot"     // hotUsers tokens, again and again
	zipf    = "zipf"    // zipfUsers tokens, popular ones more often
	newKeys = "newKeys" // hot tokens; every request has an X-Key that no other had
	newAll  = "newAll"  // every request has a user, a token and a key that no other had
)

// Answers: what a chain's status codes have to be.
const (
	allPass = "pass" // 200 alone
	allDeny = "deny" // 429 alone, and nothing reaches the upstream
	mixed   = "mix"  // 200 and 429, both
)

// chain is one way through a gateway.
type chain struct {
	name     string // in flags, paths and the chart
	title    string // in the table
	gateway  string
	load     string
	answers  string
	identity bool // the upstream gets X-User-ID and no Authorization
	ours     bool // a sluice middleware is part of it: X-Request-ID
	limited  bool // RateLimit headers
	legacy   bool // X-RateLimit headers
	proxied  bool // the client is whom X-Forwarded-For names
	latency  bool // measured open loop as well

	middlewares []map[string]any // of Traefik
	chart       bool
}

// plenty is a limit that nobody reaches.
const plenty = 30_000_000

// chains lists every chain, for the addresses of one bed.
func chains(b *bed) []chain {
	redisAt := func(address string) map[string]any {
		return map[string]any{"addresses": []string{address}}
	}
	auth := map[string]any{"addresses": []string{b.auth + "/auth"}}
	sluice := func(config map[string]any) map[string]any {
		if config["redis"] == nil {
			config["redis"] = redisAt(b.redis.address)
		}
		return map[string]any{"plugin": map[string]any{"sluice": config}}
	}
	limit := func(name, key string, permits int, window string) map[string]any {
		return map[string]any{"name": name, "key": key, "limit": permits, "window": window}
	}
	limits := func(all ...map[string]any) []map[string]any { return all }
	forwardAuth := map[string]any{"forwardAuth": map[string]any{
		"address":             b.auth + "/auth",
		"trustForwardHeader":  false,
		"maxResponseBodySize": 4096,
		"authRequestHeaders":  []string{"Authorization"},
		"authResponseHeaders": []string{"X-User-ID", "X-User-Plan", "X-User-Scopes", "X-Token-ID", "Authorization"},
	}}
	rateLimit := func(header string, redis bool) map[string]any {
		config := map[string]any{"average": plenty / 60, "period": "1s", "burst": plenty / 60}
		if header != "" {
			config["sourceCriterion"] = map[string]any{"requestHeaderName": header}
		}
		if redis {
			config["redis"] = map[string]any{"endpoints": []string{b.redis.address}}
		}
		return map[string]any{"rateLimit": config}
	}
	with := func(all ...map[string]any) []map[string]any { return all }
	shipped := func(name func(string) string) []map[string]any {
		return limits(
			map[string]any{"name": name("bad-token"), "key": "ip", "limit": plenty, "window": "60s", "countStatus": []string{"401"}, "countFrom": "gate"},
			map[string]any{"name": name("three"), "key": "user", "limit": plenty, "window": "60s", "tierHeader": "X-User-Plan", "tiers": map[string]any{"pro": plenty / 2}},
			limit(name("burst"), "user", plenty/60, "1s"))
	}

	list := []chain{
		{name: "bare", title: "bare Traefik", gateway: compiled, load: hot, answers: allPass, latency: true, chart: true},
		{name: "bare-again", title: "bare Traefik again (A/A: the noise)", gateway: compiled, load: hot, answers: allPass, latency: true},
		{name: "no-op", title: "a plugin that does nothing, interpreted", gateway: interpreted, load: hot, answers: allPass,
			middlewares: with(map[string]any{"plugin": map[string]any{"noop": map[string]any{"unused": "1"}}})},
		{name: "traefik-memory", title: "Traefik rateLimit in memory, one address", gateway: compiled, load: hot, answers: allPass, middlewares: with(rateLimit("", false))},
		{name: "traefik-redis", title: "Traefik rateLimit in Redis, one address", gateway: compiled, load: hot, answers: allPass, latency: true, chart: true, middlewares: with(rateLimit("", true))},
		{name: "traefik-redis-new", title: "Traefik rateLimit in Redis, every request a new key", gateway: compiled, load: newKeys, answers: allPass, middlewares: with(rateLimit("X-Key", true))},
		{name: "forwardauth", title: "forwardAuth", gateway: compiled, load: hot, answers: allPass, identity: true, chart: true, middlewares: with(forwardAuth)},
		{name: "forwardauth-redis", title: "forwardAuth + rateLimit in Redis", gateway: compiled, load: hot, answers: allPass, identity: true, latency: true, chart: true, middlewares: with(forwardAuth, rateLimit("X-User-ID", true))},
		{name: "forwardauth-redis-new", title: "forwardAuth + rateLimit in Redis, every request a new token and key", gateway: compiled, load: newAll, answers: allPass, identity: true, middlewares: with(forwardAuth, rateLimit("X-User-ID", true))},
		{name: "nginx", title: "nginx + Lua + Redis (a GET and an EVALSHA)", gateway: nginx, load: hot, answers: allPass, identity: true, latency: true, chart: true},
		{name: "bare-fastproxy", title: "bare Traefik with fastProxy", gateway: fastProxy, load: hot, answers: allPass, chart: true},
		{name: "fast-fastproxy", title: "Sluice fast, hot tokens, compiled, with fastProxy", gateway: fastProxy, load: hot, answers: allPass, identity: true, ours: true, limited: true, chart: true,
			middlewares: with(sluice(map[string]any{"auth": auth, "limits": limits(limit("fastproxy", "user", plenty, "60s"))}))},
	}
	for _, form := range []string{compiled, interpreted} {
		name := func(s string) string { return s + "-" + form }
		ours := func(c chain, config map[string]any) {
			c.title = fmt.Sprintf("Sluice %s, %s", c.title, form)
			c.name, c.gateway, c.ours = name(c.name), form, true
			c.limited = config["limits"] != nil
			c.middlewares = append(c.middlewares, sluice(config))
			list = append(list, c)
		}
		ours(chain{name: "id", title: "with neither auth nor limits (request id only)", load: hot, answers: allPass}, map[string]any{"userHeader": "X-User-ID"})
		ours(chain{name: "limits", title: "limits only, one address", load: hot, answers: allPass, chart: true},
			map[string]any{"limits": limits(limit(name("address"), "ip", plenty, "60s"))})
		ours(chain{name: "limits-new", title: "limits only, every request a new key", load: newKeys, answers: allPass},
			map[string]any{"limits": limits(limit(name("new"), "header:X-Key", 100, "60s"))})
		ours(chain{name: "classic", title: "classic: forwardAuth + limits", load: hot, answers: allPass, identity: true, latency: true, chart: true, middlewares: with(forwardAuth)},
			map[string]any{"trustUserHeader": "true", "limits": limits(limit(name("classic"), "user", plenty, "60s"))})
		ours(chain{name: "fast", title: "fast, hot tokens", load: hot, answers: allPass, identity: true, latency: true, chart: true},
			map[string]any{"auth": auth, "limits": limits(limit(name("fast"), "user", plenty, "60s"))})
		ours(chain{name: "fast-three", title: "fast, three limits as shipped", load: hot, answers: allPass, identity: true, latency: true, chart: true},
			map[string]any{"auth": auth, "limits": shipped(name)})
		// The address of the measured connections is exempt, and whom they
		// forward for is not: without depth no limit would be asked.
		ours(chain{name: "fast-proxied", title: "fast, three limits as shipped, behind a proxy (depth 1), with exempt lists and legacy headers", load: hot, answers: allPass, identity: true, legacy: true, proxied: true, chart: true},
			map[string]any{"auth": auth, "limits": shipped(func(s string) string { return name("proxied-" + s) }),
				"ipStrategy": map[string]any{"depth": 1}, "trustedProxies": []string{"127.0.0.0/8"}, "legacyHeaders": "true",
				"exempt": map[string]any{"ips": []string{"127.0.0.0/8", "192.0.2.0/24", "2001:db8::/32"}, "users": []string{"root", "monitor", "billing"}}})
		ours(chain{name: "fast-zipf", title: fmt.Sprintf("fast, %d Zipf users at 100 a minute", zipfUsers), load: zipf, answers: mixed, identity: true, chart: true},
			map[string]any{"auth": auth, "limits": limits(limit(form[:1], "user", 100, "60s"))})
		ours(chain{name: "fast-new", title: "fast, every request a new token and key", load: newAll, answers: allPass, identity: true},
			map[string]any{"auth": auth, "limits": limits(limit(name("fast-new"), "user", 100, "60s"))})
		ours(chain{name: "fast-denied", title: "fast, all denied", load: hot, answers: allDeny, identity: true, chart: true},
			map[string]any{"auth": auth, "limits": limits(limit(name("denied"), "user", 1, "744h"))})
		ours(chain{name: "fast-down", title: "fast, hot tokens, Redis down", load: hot, answers: allPass, identity: true},
			map[string]any{"auth": auth, "redis": redisAt(b.doomed.address), "limits": limits(limit(name("down"), "user", plenty, "60s"))})
	}
	return list
}
