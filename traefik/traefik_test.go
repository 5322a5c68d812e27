// Package traefik holds the shipped Traefik configuration. It has no code of
// its own; its tests hold the files to what they promise each other. That every
// closing setting is there is asserted where the list of them is kept, in
// cmd/sluice/check.
package traefik

import (
	"bytes"
	"maps"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"text/template"

	"github.com/Masterminds/sprig/v3"
	"go.yaml.in/yaml/v3"
)

// render gives a dynamic file the environment and parses it.
func render(t *testing.T, name string, env map[string]string) map[string]any {
	t.Helper()
	content, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	functions := sprig.TxtFuncMap()
	functions["env"] = func(name string) string { return env[name] }
	parsed, err := template.New(name).Funcs(functions).Parse(string(content))
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := parsed.Execute(&out, false); err != nil {
		t.Fatal(err)
	}
	var tree map[string]any
	if err := yaml.Unmarshal(out.Bytes(), &tree); err != nil {
		t.Fatalf("%s: %v\n%s", name, err, out.Bytes())
	}
	return tree
}

func dig(t *testing.T, tree any, path ...string) any {
	t.Helper()
	for _, key := range path {
		branch, ok := tree.(map[string]any)
		if !ok || branch[key] == nil {
			t.Fatalf("there is no %s", strings.Join(path, "."))
		}
		tree = branch[key]
	}
	return tree
}

var environment = map[string]string{
	"SLUICE_REDIS": "redis:6379", "SLUICE_AUTHSVC": "http://a:9000, http://b:9000",
	"SLUICE_USERS": "http://users", "SLUICE_PRODUCTS": "http://products", "SLUICE_ORDERS": "http://orders",
}

// TestWiringsDifferInTheProtectedChainAlone keeps the two files one.
func TestWiringsDifferInTheProtectedChainAlone(t *testing.T) {
	fast, classic := render(t, "fast.yml", environment), render(t, "classic.yml", environment)
	for _, tree := range []map[string]any{fast, classic} {
		routers, _ := dig(t, tree, "http", "routers").(map[string]any)
		for _, router := range routers {
			router := router.(map[string]any)
			var chain []string
			passed, _ := router["middlewares"].([]any)
			for _, name := range passed {
				chain = append(chain, name.(string))
			}
			router["middlewares"] = strings.ReplaceAll(strings.Join(chain, " "), "sluice-id auth gate", "gate")
		}
		middlewares, _ := dig(t, tree, "http", "middlewares").(map[string]any)
		for _, name := range []string{"gate", "sluice-id", "auth"} {
			delete(middlewares, name)
		}
	}
	if !reflect.DeepEqual(fast, classic) {
		t.Errorf("the files differ elsewhere:\n%v\n%v", fast, classic)
	}
}

// TestEveryRoutePassesAPlugin lists what is public and what is inner; all else is
// gated, and CORS comes first, since a preflight has no token (design: cors).
func TestEveryRoutePassesAPlugin(t *testing.T) {
	public := map[string]string{
		"register": "Method(`POST`) && Path(`/v1/users/register`)",
		"login":    "Method(`POST`) && Path(`/v1/users/login`)",
		"refresh":  "Method(`POST`) && Path(`/v1/users/refresh`)",
	}
	for file, protection := range map[string][]any{
		"fast.yml":    {"cors", "gate"},
		"classic.yml": {"cors", "sluice-id", "auth", "gate"},
	} {
		routers, _ := dig(t, render(t, file, environment), "http", "routers").(map[string]any)
		ready := map[string]any{"entryPoints": []any{"ping"}, "rule": "Path(`/readyz`)", "service": "ping@internal"}
		if !reflect.DeepEqual(routers["ready"], any(ready)) {
			t.Errorf("%s: ready is %v", file, routers["ready"])
		}
		delete(routers, "ready")
		if len(routers) != len(public)+4 {
			t.Errorf("%s: %d routers", file, len(routers))
		}
		for name, value := range routers {
			router := value.(map[string]any)
			chain := router["middlewares"].([]any)
			want := protection
			if rule, isPublic := public[name]; isPublic {
				want = []any{"cors", name}
				if router["rule"] != rule {
					t.Errorf("%s: public router %s matches %v", file, name, router["rule"])
				}
			}
			if len(chain) < len(want) || !slices.Equal(chain[:len(want)], want) {
				t.Errorf("%s: router %s passes %v, want %v first", file, name, chain, want)
			}
			if router["entryPoints"] != nil {
				t.Errorf("%s: router %s serves some entry points only", file, name)
			}
		}
	}
}

// TestShippedLimits are those of design: shipped-limits, in both files.
func TestShippedLimits(t *testing.T) {
	type limits = []any
	limit := func(name, key string, number int, window string, more ...any) any {
		all := map[string]any{"name": name, "key": key, "limit": number, "window": window}
		for pair := range slices.Chunk(more, 2) {
			all[pair[0].(string)] = pair[1]
		}
		return all
	}
	badToken := limit("bad-token", "ip", 30, "60s", "countStatus", []any{401})
	judged := limit("bad-token", "ip", 30, "60s", "countStatus", []any{401}, "countFrom", "gate")
	user := limits{
		limit("per-user", "user", 100, "60s", "tierHeader", "X-User-Plan", "tiers", map[string]any{"pro": 1000}),
		limit("burst", "user", 20, "1s"),
	}
	public := map[string]limits{
		"register": {limit("register", "ip", 10, "60s")},
		"login":    {limit("login", "ip", 10, "60s"), limit("login-failures", "ip", 10, "15m", "countStatus", []any{401})},
		"refresh":  {limit("refresh", "ip", 10, "60s")},
	}
	for file, protected := range map[string]map[string]limits{
		"fast.yml":    {"gate": append(limits{judged}, user...)},
		"classic.yml": {"sluice-id": {badToken}, "gate": user},
	} {
		tree := render(t, file, environment)
		maps.Copy(protected, public)
		for name, want := range protected {
			if got := dig(t, tree, "http", "middlewares", name, "plugin", "sluice", "limits"); !reflect.DeepEqual(got, any(want)) {
				t.Errorf("%s: %s has the limits %v, want %v", file, name, got, want)
			}
		}
	}
}

// TestClassicForwardAuth is design: closed-entry-points and design: classic-wiring.
func TestClassicForwardAuth(t *testing.T) {
	tree := render(t, "classic.yml", environment)
	want := map[string]any{
		"address":             "http://a:9000/auth",
		"trustForwardHeader":  false,
		"maxResponseBodySize": 4096,
		"authRequestHeaders":  []any{"Authorization", "X-Request-ID"},
		"authResponseHeaders": []any{"X-User-ID", "X-User-Plan", "X-User-Scopes", "X-Token-ID", "Authorization"},
	}
	if got := dig(t, tree, "http", "middlewares", "auth", "forwardAuth"); !reflect.DeepEqual(got, any(want)) {
		t.Errorf("forwardAuth is %v", got)
	}
	vouched := []string{}
	middlewares, _ := dig(t, tree, "http", "middlewares").(map[string]any)
	for name, middleware := range middlewares {
		if plugin, ok := middleware.(map[string]any)["plugin"]; ok && dig(t, plugin, "sluice").(map[string]any)["trustUserHeader"] != nil {
			vouched = append(vouched, name)
		}
	}
	if !slices.Equal(vouched, []string{"gate"}) {
		t.Errorf("trustUserHeader is set in %q; only the gate stands behind forwardAuth", vouched)
	}
}

// TestEnvironmentReachesTheConfiguration fills in every variable, with values
// that would break out of YAML if they were not quoted.
func TestEnvironmentReachesTheConfiguration(t *testing.T) {
	env := maps.Clone(environment)
	maps.Copy(env, map[string]string{
		"SLUICE_REDIS_USERNAME": "gateway: {x}", "SLUICE_REDIS_PASSWORD": "pa\"ss'\n- {{ # <&>", "SLUICE_REDIS_TLS": "true",
		"SLUICE_TLS_CERT": "/tls/cert.pem", "SLUICE_TLS_KEY": "/tls/key.pem", "SLUICE_REDIRECT_HTTP": "8443", "SLUICE_MIN_INSTANCES": "3",
		"SLUICE_REDIS_PASSWORD_FILE": "/run/secrets/it's", "SLUICE_ACME": "http://acme:8080", "SLUICE_KEY_PREFIX": "shop",
	})
	for _, file := range []string{"fast.yml", "classic.yml"} {
		tree := render(t, file, env)
		gate := dig(t, tree, "http", "middlewares", "gate", "plugin", "sluice")
		for _, check := range []struct {
			got  any
			want any
		}{
			{dig(t, gate, "redis", "addresses"), "redis:6379"},
			{dig(t, gate, "redis", "username"), env["SLUICE_REDIS_USERNAME"]},
			{dig(t, gate, "redis", "password"), env["SLUICE_REDIS_PASSWORD"]},
			{dig(t, gate, "redis", "passwordFile"), env["SLUICE_REDIS_PASSWORD_FILE"]},
			{dig(t, gate, "redis", "tls", "enabled"), "true"},
			{dig(t, gate, "redis", "keyPrefix"), "shop"},
			{dig(t, render(t, file, environment), "http", "middlewares", "gate", "plugin", "sluice", "redis", "keyPrefix"), "sluice"},
			{dig(t, gate, "minInstances"), "3"},
			{dig(t, tree, "tls", "stores", "default", "defaultCertificate", "certFile"), "/tls/cert.pem"},
			{dig(t, tree, "tls", "stores", "default", "defaultCertificate", "keyFile"), "/tls/key.pem"},
			{dig(t, tree, "http", "middlewares", "redirect", "redirectScheme", "port"), "8443"},
			{dig(t, tree, "http", "routers", "redirect", "entryPoints"), []any{"web", "balancedweb"}},
			{dig(t, tree, "http", "services", "users", "loadBalancer", "servers"), []any{map[string]any{"url": "http://users"}}},
			{dig(t, tree, "http", "routers", "acme", "entryPoints"), []any{"web", "balancedweb"}},
			{dig(t, tree, "http", "services", "acme", "loadBalancer", "servers"), []any{map[string]any{"url": "http://acme:8080"}}},
		} {
			if !reflect.DeepEqual(check.got, check.want) {
				t.Errorf("%s: %v, want %v", file, check.got, check.want)
			}
		}
	}
	addresses := dig(t, render(t, "fast.yml", env), "http", "middlewares", "gate", "plugin", "sluice", "auth", "addresses")
	if !reflect.DeepEqual(addresses, []any{"http://a:9000/auth", "http://b:9000/auth"}) {
		t.Errorf("auth addresses %v", addresses)
	}
}

// TestBalancer has one service a gateway and door, with the gateway's own word
// as its health, and speaks PROXY protocol v2.
func TestBalancer(t *testing.T) {
	gateways := map[string]string{
		"SLUICE_GATEWAYS_HTTP":  "10.0.0.1:8000,10.0.0.2:8001",
		"SLUICE_GATEWAYS_HTTPS": "10.0.0.1:8443, 10.0.0.2:8444",
		"SLUICE_GATEWAYS_PING":  "10.0.0.1:8082,10.0.0.2:8083",
	}
	for set, want := range map[string]string{"": "GET /readyz HTTP/1.0\r\n\r\n", "/ping": "GET /ping HTTP/1.0\r\n\r\n"} {
		gateways["SLUICE_GATEWAYS_READY"] = set
		if sent := dig(t, render(t, "balancer-dynamic.yml", gateways), "tcp", "services", "web-1", "loadBalancer", "healthCheck", "send"); sent != want {
			t.Errorf("SLUICE_GATEWAYS_READY=%s: a gateway is asked %q", set, sent)
		}
	}
	tree := render(t, "balancer-dynamic.yml", gateways)
	for name, want := range map[string][2]any{
		"web-0": {"10.0.0.1:8000", 8082}, "web-1": {"10.0.0.2:8001", 8083},
		"websecure-0": {"10.0.0.1:8443", 8082}, "websecure-1": {"10.0.0.2:8444", 8083},
	} {
		service := dig(t, tree, "tcp", "services", name, "loadBalancer")
		if servers := dig(t, service, "servers"); !reflect.DeepEqual(servers, []any{map[string]any{"address": want[0]}}) {
			t.Errorf("%s: servers %v", name, servers)
		}
		if port := dig(t, service, "healthCheck", "port"); port != want[1] {
			t.Errorf("%s: health is asked at %v", name, port)
		}
		if transport := dig(t, service, "serversTransport"); transport != "gateway" {
			t.Errorf("%s: transport %v", name, transport)
		}
	}
	if version := dig(t, tree, "tcp", "serversTransports", "gateway", "proxyProtocol", "version"); version != 2 {
		t.Errorf("PROXY protocol version %v", version)
	}
	static := render(t, "balancer.yml", nil)
	for _, point := range []string{"web", "websecure"} {
		if most := dig(t, static, "entryPoints", point, "transport", "keepAliveMaxRequests"); most != 1 {
			t.Errorf("%s: a connection that the balancer answers itself, before it has routes, lives for %v requests", point, most)
		}
	}
	if passthrough := dig(t, tree, "tcp", "routers", "websecure", "tls", "passthrough"); passthrough != true {
		t.Error("the balancer ends TLS")
	}
}
