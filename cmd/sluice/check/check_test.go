package check

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// shipped is an environment such as `sluice up` gives to Traefik.
func shipped(name string) string {
	return map[string]string{
		"SLUICE_REDIS":    "redis:6379",
		"SLUICE_AUTHSVC":  "http://authsvc:9000, http://authsvc-2:9000",
		"SLUICE_USERS":    "http://users:9100",
		"SLUICE_PRODUCTS": "http://products:9200",
		"SLUICE_ORDERS":   "http://orders:9300",

		"SLUICE_GATEWAYS_HTTP":  "a:1",
		"SLUICE_GATEWAYS_HTTPS": "a:2",
		"SLUICE_GATEWAYS_PING":  "a:3",
	}[name]
}

// TestShippedFilesAreGood demands not even a warning of anything that is shipped.
func TestShippedFilesAreGood(t *testing.T) {
	const root = "../../../"
	for _, test := range []struct {
		names       []string
		static      string
		middlewares []string
		ready       bool
	}{
		{[]string{"traefik/fast.yml"}, "traefik/traefik.yml", []string{"gate", "login", "refresh", "register"}, true},
		{[]string{"traefik/classic.yml"}, "traefik/traefik.yml", []string{"gate", "login", "refresh", "register", "sluice-id"}, true},
		{[]string{"deploy/kubernetes"}, "", []string{"-gate", "-login", "-refresh", "-register"}, true},
		{[]string{"deploy/kubernetes/routes.yaml"}, "deploy/kubernetes/traefik.yml", []string{"-gate", "-login", "-refresh", "-register"}, true},
		{[]string{"compose.yaml"}, "", nil, false},
		{[]string{"compose.yaml", "compose.compiled.yaml", "compose.acme.yaml"}, "", nil, false},
		{[]string{"deploy"}, "", []string{"-gate", "-login", "-refresh", "-register"}, true},
	} {
		o := Options{Getenv: shipped}
		for _, name := range test.names {
			o.Names = append(o.Names, root+name)
		}
		if test.static != "" {
			o.Static = root + test.static
		}
		report, err := Check(o)
		if err != nil {
			t.Fatal(err)
		}
		if len(report.Findings) > 0 {
			t.Errorf("%s: %v", test.names, report.Findings)
		}
		if !slices.Equal(report.Middlewares, test.middlewares) {
			t.Errorf("%s: middlewares %q, want %q", test.names, report.Middlewares, test.middlewares)
		}
		if report.Ready != test.ready {
			t.Errorf("%s: ready %v", test.names, report.Ready)
		}
	}
}

// TestShippedFolder holds two files of which either is meant to be used, and a
// balancer: no error, and one warning that says so.
func TestShippedFolder(t *testing.T) {
	report, err := Check(Options{Names: []string{"../../../traefik"}, Getenv: shipped})
	if err != nil {
		t.Fatal(err)
	}
	if errors := report.Errors(); len(errors) > 0 {
		t.Errorf("errors %q", errors)
	}
	for _, f := range report.Findings {
		if !strings.Contains(f.Text, "Traefik keeps the first") {
			t.Errorf("%s", f)
		}
	}
}

const goodRedis = `redis: {addresses: ["r:6379"]}`

// check is Check of one file, whose findings come without its name.
func check(t *testing.T, name, content string, o Options) []string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	o.Names = append(o.Names, path)
	if o.Getenv == nil {
		o.Getenv = func(string) string { return "" }
	}
	report, err := Check(o)
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, f := range report.Findings {
		found = append(found, strings.TrimPrefix(strings.TrimPrefix(f.String(), filepath.Dir(path)+"/"), name))
	}
	return found
}

func TestCheck(t *testing.T) {
	gate := "middlewares: {gate: {plugin: {sluice: {" + goodRedis + "}}}}"
	route := "routers: {a: {rule: Path(`/`), service: s, middlewares: [gate]}}, services: {s: {loadBalancer: {servers: [{url: 'http://s'}]}}}"
	whole := "http: {" + route + ", " + gate + "}"
	with := func(config string) string {
		return "http: {" + route + ", middlewares: {gate: {plugin: {sluice: {" + goodRedis + ", " + config + "}}}}}"
	}
	const limit = "name: a, key: ip, limit: 5, window: 1s"
	tests := []struct {
		name, file, content string
		want                []string // a part of each finding, in order
	}{
		{"good", "a.yml", whole, nil},
		{"middlewares alone", "a.yml", "http: {" + gate + "}", nil},
		{"services alone", "a.yml", "http: {services: {s: {loadBalancer: {servers: [{url: 'http://s'}]}}}}", nil},
		{"routers alone", "a.yml", "http:\n  routers:\n    a: {rule: Path(`/`), service: s,\n      middlewares: [gate]}",
			[]string{`:3: warning: router "a": the service "s" does not exist in what was checked`, `:4: warning: router "a": the middleware "gate" does not exist in what was checked`}},
		{"keys in another case", "a.yaml", "HTTP: {Middlewares: {gate: {Plugin: {sluice: {" + goodRedis + "}}}}}", nil},
		{"toml", "a.toml", "[http.middlewares.gate.plugin.sluice.redis]\naddresses = [\"r:6379\"]", nil},
		{"lines of toml", "a.toml", "[http.middlewares.gate.plugin.sluice]\n\n[http.middlewares.gate.plugin.sluice.redis]\naddresses = [\"r:6379\"]\ntimeot = \"1s\"\n[[http.middlewares.gate.plugin.sluice.limits]]\nname = \"a\"\nkey = \"ip\"\nlimit = 5\nwindow = \"60\"",
			[]string{`:5: error: middleware "gate": redis.timeot: unknown key`, `:10: error: middleware "gate": limits[0].window: "60"`}},
		{"numbers and booleans are text to the plugin", "a.yml", with("dryRun: true, limits: [{name: a, key: ip, limit: 5, window: 1s, countStatus: [401, 5xx]}]"), nil},
		{"all problems of all middlewares at once", "a.yml", `
http:
  middlewares:
    a: {plugin: {sluice: {` + goodRedis + `, colour: red}}}
    b: {plugin: {sluice: {` + goodRedis + `, limits: [{key: ip, limit: 5, window: 1s}]}}}
    other: {headers: {sslRedirect: "true"}}`,
			[]string{`:4: error: middleware "a": colour: unknown key`, `:5: error: middleware "b": limits[0].name`}},
		{"two plugins in one middleware", "a.yml", "http: {middlewares: {gate: {plugin: {sluice: {" + goodRedis + "}, other: {}}}}}",
			[]string{`middleware "gate": names 2 plugins`}},
		{"no middleware of ours", "a.yml", "http: {routers: {a: {rule: Path(`/`), service: ping@internal}}}", []string{"no middleware uses the plugin"}},
		{"template that does not parse", "a.yml", "http:\n  {{ env }", []string{":2: error: the template fails"}},
		{"template that fails", "a.yml", `{{ fail "no" }}`, []string{"the template fails"}},
		{"no YAML", "a.yml", "http: [", []string{"Traefik drops the whole file"}},
		{"unknown extension", "a.json", "{}", []string{"neither .yml"}},
		{"a tab", "a.yml", "http:\n  routers:\n\t\ta: {}", []string{":3: error: Traefik drops the whole file: the line is indented by a tab"}},
		{"a key twice", "a.yml", "http:\n  middlewares: {}\n  middlewares: {}", []string{`:3: error: Traefik drops the whole file: mapping key "middlewares" already defined at line 2`}},
		{"a second document", "a.yml", whole + "\n---\nhttp: {}", []string{":3: error: Traefik reads a file up to the first ---"}},
		{"a slip at the top", "a.yml", "htpp: {}", []string{`:1: error: htpp: unknown section, which Traefik ignores in silence with all below it; did you mean "http"?`}},
		{"lines of a template", "a.yml", "http:\n{{- range list 1 2 }}\n  # {{ . }}\n\n{{- end }}\n  middlewares:\n{{- with \"x\" }}\n    gate: {plugin: {sluice: {" + goodRedis + ",\n      colour: red}}}\n{{- end }}",
			[]string{`:9: error: middleware "gate": colour: unknown key`}},

		{"a rule that does not parse", "a.yml", strings.Replace(whole, "Path(`/`)", "PathPrefx(`/`)", 1), []string{`router "a": rule "PathPrefx(` + "`/`" + `)", so Traefik does not install it: there is no matcher PathPrefx; did you mean "PathPrefix"?`}},
		{"a rule with and", "a.yml", strings.Replace(whole, "Path(`/`)", "Path(`/`) and Host(`a`)", 1), []string{"write && for and"}},
		{"a rule with two paths", "a.yml", strings.Replace(whole, "Path(`/`)", "'Path(`/`, `/a`)'", 1), []string{"Path takes 1 argument, not 2; join several by ||"}},
		{"no rule", "a.yml", strings.Replace(whole, "rule: Path(`/`), ", "", 1), []string{`router "a": has no rule`}},
		{"no such middleware", "a.yml", strings.Replace(whole, "[gate]", "[gate, gaet]", 1), []string{`router "a": the middleware "gaet" does not exist, so Traefik does not install the router; did you mean "gate"?`}},
		{"no such service", "a.yml", strings.Replace(whole, "service: s", "service: t", 1), []string{`router "a": the service "t" does not exist, so Traefik does not install the router; did you mean "s"?`}},
		{"no such internal service", "a.yml", strings.Replace(whole, "service: s", "service: pong@internal", 1), []string{`no service "pong@internal" of its own; did you mean "ping"?`}},
		{"of another provider", "a.yml", strings.Replace(whole, "service: s", "service: s@docker", 1), nil},
		{"a gate on no router", "a.yml", strings.Replace(whole, "[gate]", "[]", 1), []string{`middleware "gate": no router uses it, so it protects and limits nothing`}},
		{"a gate in a chain", "a.yml", strings.Replace(strings.Replace(whole, "[gate]", "[all]", 1), "middlewares: {gate", "middlewares: {all: {chain: {middlewares: [gate]}}, gate", 1), nil},
		{"an unknown key of Traefik's", "a.yml", strings.Replace(whole, "service: s", "service: s, entrypoint: [web]", 1), []string{`http.routers.a.entrypoint: unknown key, so Traefik drops the whole file`}},
		{"a map where Traefik needs a list", "a.yml", strings.Replace(whole, "[gate]", "{gate: {}}", 1), []string{"http.routers.a.middlewares: is a map, where a list is needed", "no router uses it"}},
		{"a list where Traefik needs a map", "a.yml", "http: {routers: [{rule: Path(`/`)}]}", []string{"http.routers: is a list, where a map is needed"}},
		{"no number", "a.yml", strings.Replace(whole, "service: s", "service: s, priority: high", 1), []string{`http.routers.a.priority: "high": write a whole number`}},
		{"an empty middleware", "a.yml", strings.Replace(whole, "middlewares: {gate", "middlewares: {b: {}, gate", 1), []string{`middleware "b": is empty`}},
		{"a middleware of two kinds", "a.yml", strings.Replace(whole, "middlewares: {gate", "middlewares: {b: {addPrefix: {prefix: /a}, stripPrefix: {prefixes: [/a]}}, gate", 1), []string{`middleware "b": is addPrefix and stripPrefix at once`}},

		{"a timeout without a unit", "a.yml", with("auth: {addresses: ['http://a/auth'], timeout: 25}"), []string{`auth.timeout: "25": has no unit; write 25s or 25ms (the default is 1s)`}},
		{"a timeout of Redis without a unit", "a.yml", strings.Replace(whole, `["r:6379"]`, `["r:6379"], timeout: 25`, 1), []string{`redis.timeout: "25": has no unit; write 25s or 25ms (the default is 100ms)`}},
		{"a window in days", "a.yml", with("limits: [{name: a, key: ip, limit: 5, window: 30d}]"), []string{`limits[0].window: "30d": has a unit that durations lack; write 720h`}},
		{"a number with a comma", "a.yml", with("limits: [{name: a, key: ip, limit: 100,000, window: 1s}]"), []string{`limits[0].000: unknown key without a value, which Traefik leaves out in silence; a number is written without commas`}},
		{"an unknown key without a value", "a.yml", with("colour: "), []string{`colour: unknown key without a value, which Traefik leaves out in silence`}},
		{"a known key without a value", "a.yml", with("exempt: "), nil},
		{"the plugin's keys at the top", "a.yml", goodRedis + "\nlimits: [{" + limit + "}]", []string{`:1: error: redis: unknown section, which Traefik ignores in silence with all below it; keys of the plugin stand under http.middlewares.<name>.plugin.sluice`, `:2: error: limits: unknown section`}},
		{"labels at the top", "a.yml", "labels:\n  - traefik.enable=true", []string{`; labels stand under services.<name>.labels of a compose file`}},
		{"a map where the plugin needs a list", "a.yml", with("limits: {per-user: {limit: 5, window: 1s}}"), []string{"limits: is a map, where a list is needed: begin each limit with - "}},
		{"a text where the plugin needs a map", "a.yml", strings.Replace(whole, goodRedis, "redis: r:6379", 1), []string{`redis: is the value "r:6379", where a map is needed, such as redis: {addresses:`}},
		{"a map where the plugin needs a value", "a.yml", with("minInstances: {count: 3}"), []string{"minInstances: is a map, where one value is needed"}},
		{"a misspelt key of the plugin", "a.yml", with("limits: [{" + limit + ", onMisingKey: deny}]"), []string{`did you mean "onMissingKey"?`}},
		{"nobody tells the user", "a.yml", with("limits: [{name: a, key: user, limit: 5, window: 1s}]"), []string{"limits[0].key: user, but nothing tells this middleware who the user is"}},
		{"auth tells the user", "a.yml", with("auth: {addresses: ['http://a/auth']}, limits: [{name: a, key: user, limit: 5, window: 1s}]"), nil},
		{"a client tells the user", "a.yml", with("trustUserHeader: true, limits: [{name: a, key: user, limit: 5, window: 1s}]"), []string{`"gate" has trustUserHeader: true, but nothing before it on this router says who the user is`}},
		{"forwardAuth tells the user", "a.yml", strings.Replace(strings.Replace(with("trustUserHeader: true, limits: [{name: a, key: user, limit: 5, window: 1s}]"), "[gate]", "[auth, gate]", 1), "middlewares: {gate", "middlewares: {auth: {forwardAuth: {address: 'http://a/auth'}}, gate", 1), nil},
		{"a plugin that is misspelt", "a.yml", "http: {middlewares: {gate: {plugin: {sluce: {}}}}}", []string{`the plugin "sluce" is not registered; did you mean "sluice"?`}},
		{"the plugin under another name", "a.yml", "http: {middlewares: {gate: {plugin: {edge: {" + goodRedis + ", colour: red, limits: [{" + limit + "}]}}}}}",
			[]string{`warning: middleware "gate": taken for this plugin by its keys`, "colour: unknown key"}},

		{"labels", "compose.yaml", `
services:
  api:
    image: api
    labels:
      - traefik.enable=true
      - traefik.http.routers.api.rule=Host(` + "`${DOMAIN:-a.example}`" + `)
      - traefik.http.routers.api.middlewares=gate, gaet
      - traefik.http.routers.api.entryponts=web
      - traefik.http.services.api.loadbalancer.server.port=80
      - traefik.http.middlewares.gate.plugin.sluice.redis.addresses=r:6379
      - traefik.http.middlewares.gate.plugin.sluice.limits[0].name=a
      - traefik.http.middlewares.gate.plugin.sluice.limits[0].key=ip
      - traefik.http.middlewares.gate.plugin.sluice.limits[0].limit=5
      - traefik.http.middlewares.gate.plugin.sluice.limits[0].window=60
`, []string{`:8: error: router "api": the middleware "gaet" does not exist`, `:9: error: http.routers.api.entryponts: unknown key, so Traefik drops all labels`, `:15: error: middleware "gate": limits[0].window: "60"`}},
		{"labels as a map, and entry points by flags", "compose.yaml", `
services:
  traefik:
    image: traefik
    command: ["--entryPoints.web.address=:80", "--experimental.plugins.edge.moduleName=github.com/sluice-gateway/sluice"]
  api:
    image: api
    labels:
      traefik.http.routers.api.rule: Host(` + "`${DOMAIN}`" + `) && PathPrefix(` + "`/`" + `)
      traefik.http.routers.api.entrypoints: wbe
      traefik.http.routers.api.middlewares: gate
      traefik.http.middlewares.gate.plugin.edge.redis.addresses: r:6379
`, []string{`:10: error: router "api": the entry point "wbe" does not exist in the static configuration; there are web; did you mean "web"?`}},

		{"resources", "routes.yaml", `
apiVersion: traefik.io/v1alpha1
kind: Middleware
metadata: {name: gate, namespace: shop}
spec:
  plugin:
    sluice:
      redis: {addresses: ["r:6379"]}
      limits:
        - {name: a, key: user, limit: 5, window: 1s}
---
apiVersion: traefik.io/v1alpha1
kind: IngressRoute
metadata: {name: api, namespace: shop}
spec:
  entrypoints: [web]
  routes:
    - kind: Rule
      match: Host('a')
      middlewares: [{name: gaet}]
      services: [{name: s, port: 80}]
`, []string{
			`:4: error: middleware "shop-gate": no router uses it`,
			`:10: error: middleware "shop-gate": limits[0].key: user`,
			`:19: error: router "shop-api, routes[0]": rule "Host('a')"`,
			`:20: error: router "shop-api, routes[0]": the middleware "shop-gaet" does not exist, so Traefik does not install the router; did you mean "shop-gate"?`,
		}},
		{"an Ingress uses a gate", "routes.yaml", `
apiVersion: traefik.io/v1alpha1
kind: Middleware
metadata: {name: gate}
spec: {plugin: {sluice: {redis: {addresses: ["r:6379"]}}}}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: api
  annotations: {traefik.ingress.kubernetes.io/router.middlewares: shop-gate@kubernetescrd}
spec: {}
`, nil},
		{"resources of version 2", "routes.yaml", "apiVersion: traefik.containo.us/v1alpha1\nkind: Middleware\nmetadata: {name: gate}\nspec: {}", []string{`:1: error: Middleware "gate": apiVersion "traefik.containo.us/v1alpha1" is none that Traefik 3 reads`}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			found := check(t, test.file, test.content, Options{})
			if len(found) != len(test.want) {
				t.Fatalf("found %q, want %d", found, len(test.want))
			}
			for i, part := range test.want {
				if !strings.Contains(found[i], part) {
					t.Errorf("%q does not speak of %q", found[i], part)
				}
			}
		})
	}
}

// TestCheckWithStatic knows entry points, resolvers and the plugin's name.
func TestCheckWithStatic(t *testing.T) {
	static := filepath.Join(t.TempDir(), "traefik.yml")
	content := strings.ReplaceAll(strings.ReplaceAll(read(t, shippedStatic), "    sluice:\n", "    edge:\n"), "providers:", "certificatesResolvers: {le: {acme: {storage: a}}}\nproviders:")
	if err := os.WriteFile(static, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	found := check(t, "a.yml", `
http:
  routers:
    a:
      rule: Path(`+"`/`"+`)
      service: ping@internal
      entryPoints: [websecur]
      middlewares: [gate]
      tls: {certResolver: el}
  middlewares:
    gate: {plugin: {edge: {`+goodRedis+`}}}
`, Options{Static: static})
	want := []string{`:7: error: router "a": the entry point "websecur" does not exist in the static configuration; there are balancedweb, balancedwebsecure, ping, web, websecure; did you mean "websecure"?`,
		`:9: error: router "a": the certificate resolver "el" does not exist; did you mean "le"?`}
	if !slices.Equal(found, want) {
		t.Errorf("found %q", found)
	}
}

// TestForwardedHeadersReachTheGate compares ipStrategy with what the entry points
// leave of X-Forwarded-For.
func TestForwardedHeadersReachTheGate(t *testing.T) {
	const strategy = `, trustedProxies: [10.0.0.0/8], ipStrategy: `
	for _, test := range []struct {
		forwarded, points, gate string
		good                    bool
	}{
		{"insecure: false", "[web]", strategy + "{depth: 1}", false},
		{"insecure: false", "[]", strategy + "{excludedIPs: [10.1.0.0/16]}", false},
		{"insecure: false", "[web]", strategy + "{ipv6Subnet: 56}", true},
		{"insecure: false", "[web]", strategy + "{depth: 0}", true},
		{"trustedIPs: [10.0.0.0/8]", "[web]", strategy + "{depth: 1}", true},
		{"trustedIPs: '10.0.0.0/8'", "[]", strategy + "{depth: 1}", true},
	} {
		static := filepath.Join(t.TempDir(), "traefik.yml")
		if err := os.WriteFile(static, []byte(strings.ReplaceAll(read(t, shippedStatic), "insecure: false", test.forwarded)), 0o600); err != nil {
			t.Fatal(err)
		}
		found := check(t, "a.yml", `
http:
  routers:
    a: {rule: Path(`+"`/`"+`), service: ping@internal, entryPoints: `+test.points+`, middlewares: [gate]}
  middlewares:
    gate: {plugin: {sluice: {`+goodRedis+test.gate+`}}}
`, Options{Static: static})
		if good := len(found) == 0; good != test.good || !good && !strings.HasPrefix(found[0], `:4: error: router "a": "gate" has ipStrategy, which reads X-Forwarded-For, but Traefik removes that header on`) {
			t.Errorf("%+v: found %q", test, found)
		}
	}
}

func read(t *testing.T, name string) string {
	t.Helper()
	content, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

// TestFilesAreOneConfiguration splits a configuration over a folder.
func TestFilesAreOneConfiguration(t *testing.T) {
	dir := t.TempDir()
	for name, content := range map[string]string{
		"routers.yml":     "http: {routers: {a: {rule: Path(`/`), service: s, middlewares: [gate]}}}",
		"deep/gate.yaml":  "http: {middlewares: {gate: {plugin: {sluice: {" + goodRedis + "}}}}}",
		"services.toml":   "[http.services.s.loadBalancer]\n[[http.services.s.loadBalancer.servers]]\nurl = \"http://s\"",
		"notes.txt":       "not: [yaml",
		"prometheus.yml":  "scrape_configs: []",
		".hidden/bad.yml": "http: [",
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	report, err := Check(Options{Names: []string{dir}, Getenv: os.Getenv})
	if err != nil || len(report.Findings) > 0 || len(report.Files) != 3 || report.Routers != 1 {
		t.Fatalf("%+v, %v", report, err)
	}
}

// TestNothingIsNoConfiguration: a command that failed writes nothing into the pipe.
func TestNothingIsNoConfiguration(t *testing.T) {
	for _, content := range []string{"", " \n\n"} {
		report, err := Check(Options{Names: []string{"-"}, Stdin: strings.NewReader(content), Getenv: os.Getenv})
		if err != nil || len(report.Findings) != 1 || !strings.Contains(report.Findings[0].String(), "(standard input): error: is empty") {
			t.Errorf("%q: %+v, %v", content, report, err)
		}
	}
}

func TestUnsetVariables(t *testing.T) {
	report, err := Check(Options{Names: []string{"-"},
		Stdin:  strings.NewReader(`http: {middlewares: {gate: {plugin: {sluice: {redis: {addresses: "{{ env "HERE" }}", password: "{{ env "GONE" }}"}}}}}}`),
		Getenv: func(name string) string { return map[string]string{"HERE": "r:1"}[name] }})
	if err != nil || len(report.Findings) > 0 || !slices.Equal(report.Unset, []string{"GONE"}) {
		t.Fatalf("%+v, %v", report, err)
	}
}

func TestReadyRouter(t *testing.T) {
	for content, want := range map[string]bool{
		"{entryPoints: [ping], rule: Path(`/readyz`), service: ping@internal}":               true,
		"{entryPoints: 'web, ping', rule: 'Path(`/readyz`)', Service: ping@internal}":        true,
		"{rule: Path(`/readyz`), service: ping@internal}":                                    false,
		"{entryPoints: [ping], rule: Path(`/alive`), service: ping@internal}":                false,
		"{entryPoints: [ping], rule: Path(`/readyz`), middlewares: [a], service: elsewhere}": false,
	} {
		report, err := Check(Options{Names: []string{"-"}, Stdin: strings.NewReader("http: {routers: {it: " + content + "}}"), Getenv: os.Getenv})
		if err != nil || report.Ready != want {
			t.Errorf("%s: %v, %v", content, report.Ready, err)
		}
		if ours := strings.Contains(content, "ping]") || strings.Contains(content, ", ping'"); report.Ours != ours {
			t.Errorf("%s: our entry points: %v", content, report.Ours)
		}
	}
}

func TestMissingFile(t *testing.T) {
	if _, err := Check(Options{Names: []string{filepath.Join(t.TempDir(), "none.yml")}, Getenv: os.Getenv}); !os.IsNotExist(err) {
		t.Fatalf("error %v", err)
	}
}

// TestFilesOfTheGateway are notes, unless the gateway runs here.
func TestFilesOfTheGateway(t *testing.T) {
	content := `http: {middlewares: {gate: {plugin: {sluice: {redis: {addresses: ["r:1"], passwordFile: /run/nowhere}}}}}}`
	if found := check(t, "a.yml", content, Options{}); len(found) > 0 {
		t.Errorf("found %q", found)
	}
	if found := check(t, "a.yml", content, Options{Here: true}); len(found) != 1 || !strings.Contains(found[0], "redis.passwordFile: \"/run/nowhere\": cannot be read") {
		t.Errorf("found %q", found)
	}
}
