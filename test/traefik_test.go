package test

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/sluice-gateway/sluice/cmd/sluice/check"
	"github.com/sluice-gateway/sluice/traefik/build"
)

var updateFields = flag.Bool("updateFields", false, "write cmd/sluice/check/traefik.json from Traefik's types")

const fieldsFile = "../cmd/sluice/check/traefik.json"

type file struct{ Extension, Content string }

// answer is what Traefik's packages say (testdata/traefik).
type answer struct {
	HTTP, TCP, Dynamic, Static []string
	Effective                  []map[string]any
	Fields                     map[string]any
}

// askTraefik compiles testdata/traefik in the module that Traefik is built from,
// with the flags of that build, so that all of it is in the build cache.
func askTraefik(t *testing.T, question map[string]any) (a answer) {
	t.Helper()
	if testing.Short() {
		t.Skip("compiles against Traefik")
	}
	dir := filepath.Join(t.TempDir(), "module")
	if err := build.Module(t.Context(), build.Options{}, dir); err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile("testdata/traefik/main.go")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(dir, "ask"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "ask/main.go"), program, 0o600); err != nil {
		t.Fatal(err)
	}
	asked, err := json.Marshal(question)
	if err != nil {
		t.Fatal(err)
	}
	command := exec.CommandContext(t.Context(), "go", "run", "-trimpath", "-buildvcs=false", "-mod=readonly", "-ldflags=-s -w", "./ask")
	command.Dir = dir
	command.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=", "CGO_ENABLED=0")
	command.Stdin = bytes.NewReader(asked)
	var out, complaints bytes.Buffer
	command.Stdout, command.Stderr = &out, &complaints
	if err := command.Run(); err != nil {
		t.Fatalf("%v\n%s", err, complaints.String())
	}
	if err := json.Unmarshal(out.Bytes(), &a); err != nil {
		t.Fatal(err)
	}
	return a
}

// TestCheckAgreesWithTraefik puts the same rules, dynamic and static files to
// `sluice check` and to the packages of the very Traefik that is built, and holds
// the fields that check knows to Traefik's types.
func TestCheckAgreesWithTraefik(t *testing.T) {
	httpRules, tcpRules := rules(httpAtoms), rules(tcpAtoms)
	statics, openings := staticFiles(t)
	said := askTraefik(t, map[string]any{"HTTP": httpRules, "TCP": tcpRules, "Dynamic": dynamicFiles, "Static": statics})

	t.Run("fields", func(t *testing.T) {
		got, err := json.MarshalIndent(said.Fields, "", " ")
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, '\n')
		if *updateFields {
			if err := os.WriteFile(fieldsFile, got, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(fieldsFile)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s is not what Traefik %s has: run this test with -updateFields", fieldsFile, build.Version)
		}
	})

	t.Run("rules", func(t *testing.T) {
		refused := 0
		compare := func(rule, traefik string, err error) {
			if (err != nil) != (traefik != "") {
				t.Errorf("rule %q: check says %v, Traefik %q", rule, err, traefik)
			}
			if traefik != "" {
				refused++
			}
		}
		for i, rule := range httpRules {
			compare(rule, said.HTTP[i], check.Rule(rule))
		}
		for i, rule := range tcpRules {
			compare(rule, said.TCP[i], check.TCPRule(rule))
		}
		if all := len(httpRules) + len(tcpRules); refused < all/10 || refused > all*9/10 {
			t.Errorf("%d of %d rules are refused, which shows little", refused, all)
		}
	})

	t.Run("dynamic", func(t *testing.T) {
		for i, f := range dynamicFiles {
			problems := checked(t, check.Options{}, f)
			has := func(texts ...string) bool {
				return slices.ContainsFunc(problems, func(p string) bool {
					return slices.ContainsFunc(texts, func(text string) bool { return strings.Contains(p, text) })
				})
			}
			if drops := has("drops the whole file", "write a ", "write true"); drops != (said.Dynamic[i] != "") {
				t.Errorf("%s: check says %q, Traefik %q", f.Content, problems, said.Dynamic[i])
			}
			// Worse than dropped: Traefik takes it and makes something else of it.
			if misread := slices.Contains(misreadFiles, f.Content); misread != has("is needed") || misread && said.Dynamic[i] != "" {
				t.Errorf("%s: check says %q, Traefik %q", f.Content, problems, said.Dynamic[i])
			}
		}
	})

	// Only what Traefik really leaves open is an error, whatever is not written.
	t.Run("static", func(t *testing.T) {
		for i, f := range statics {
			if said.Static[i] != "" {
				t.Fatalf("%s: Traefik does not start: %s", f.Content, said.Static[i])
			}
			name := filepath.Join(t.TempDir(), "static"+f.Extension)
			if err := os.WriteFile(name, []byte(f.Content), 0o600); err != nil {
				t.Fatal(err)
			}
			report, err := check.Check(check.Options{Static: name, Getenv: os.Getenv})
			if err != nil {
				t.Fatal(err)
			}
			var all strings.Builder
			for _, finding := range report.Findings {
				fmt.Fprintln(&all, finding)
			}
			for path, open := range really(said.Effective[i]) {
				section := path[:strings.LastIndex(path, ".")] // of the seven switches, where none is written
				if said := strings.Contains(all.String(), path+":") || strings.Contains(all.String(), section+": missing"); said != open {
					t.Errorf("%s\n%s: open in Traefik: %v, said: %v\n%s", openings[i], path, open, said, all.String())
				}
			}
		}
	})
}

func checked(t *testing.T, o check.Options, f file) []string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "file"+f.Extension)
	if err := os.WriteFile(name, []byte(f.Content), 0o600); err != nil {
		t.Fatal(err)
	}
	o.Names, o.Getenv = append(o.Names, name), func(string) string { return "" }
	report, err := check.Check(o)
	if err != nil {
		t.Fatal(err)
	}
	return report.Errors()
}

var httpAtoms = []string{
	"Host(`example.com`)", "host(`example.com`)", "HOST(`a`)", "Hostregexp(`^a$`)", "hOST(`a`)", "Host(`bücher.example`)", "Host(`*`)", "Host(``)", "Host()",
	"Host(`a`, `b`)", "Host(\"a\")", "Host('a')", "Host(`a)", "Host(a)", "Host(1)", "HostRegexp(`(`)", "HostRegexp(`{sub:[a-z]+}.example.com`)", "HostRegexp(`ü`)",
	"Path(`/a`)", "Path(`a`)", "PathPrefix(`/`)", "PathPrefix(``)", "PathPrefix(`/a`, `/b`)", "PathRegexp(`^/v1/[^/]+$`)", "PathRegexp(`[`)", "PathPrefx(`/`)",
	"Method(`GET`)", "Method(`GET`,`POST`)", "Headers(`a`, `b`)", "Header(`a`, `b`)", "Header(`a`)", "HeaderRegexp(`a`, `(`)", "HeaderRegexp(`(`, `a`)",
	"Query(`a`)", "Query(`a`, `b`)", "Query(`a`, `b`, `c`)", "Query(`a=b`)", "QueryRegexp(`(`)", "QueryRegexp(`a`, `(`)", "QueryRegexp(`a`, `b`)",
	"ClientIP(`10.0.0.0/8`)", "ClientIP(`::1`)", "ClientIP(`10.0.0.1/33`)", "ClientIP(`010.0.0.1`)", "ClientIP(`fe80::1%eth0`)", "ClientIP(`10.0.0.1`, `10.0.0.2`)",
	"", "true", "`/a`", "Path", "Path.a(`/`)", "nil", "!", "HostSNI(`*`)", "(Path(`/a`))", "!(Path(`/a`))", "!!Path(`/a`)", "-Path(`/a`)", "Path(`/a`)[0]",
	"Path(Path(`/a`))", "func() {}", "Path(`/a`)...", "Path([]string{`/a`}...)", "Path(`/a` + `/b`)", "Path(`/a`) // all", "Path(`/a`);", "{}",
}

var tcpAtoms = []string{
	"HostSNI(`*`)", "HostSNI(`example.com`)", "HostSNI(`*.example.com`)", "HostSNI(`a*b`)", "HostSNI(`a b`)", "HostSNI(``)", "HostSNI(`a`, `b`)", "HostSNI(`10.0.0.1`)",
	"HostSNI(`bücher`)", "HostSNIRegexp(`^a`)", "HostSNIRegexp(`(`)", "HostSNIRegexp(`ü`)", "hostsni(`*`)", "Hostsni(`*`)", "ClientIP(`10.0.0.0/8`)", "ClientIP(`x`)",
	"ALPN(`h2`)", "ALPN(`acme-tls/1`)", "ALPN(`h2`, `h3`)", "Path(`/`)", "",
}

// rules are the atoms, and formulas made of them at random.
func rules(atoms []string) []string {
	random := rand.New(rand.NewPCG(1, 2))
	var formula func(depth int) string
	formula = func(depth int) string {
		atom := atoms[random.IntN(len(atoms))]
		if depth == 0 {
			return atom
		}
		a, b := formula(depth-1), formula(depth-1)
		switch random.IntN(8) {
		case 0:
			return "(" + a + ") || " + b
		case 1, 2:
			return a + " && " + b
		case 3:
			return "!(" + a + ")"
		case 4:
			return a + []string{" and ", " ", " , ", " & ", " == ", " AND ", " || || ", "\n&& "}[random.IntN(8)] + b
		default:
			return atom
		}
	}
	all := slices.Clone(atoms)
	for i := range 600 {
		all = append(all, formula(1+i%3))
	}
	return all
}

// misreadFiles are of dynamicFiles.
var misreadFiles = []string{
	"http: {routers: {a: {rule: Path(`/a`), service: s, middlewares: {gate: {}}}}}",
	"http: {routers: [{rule: Path(`/a`), service: s}]}",
	"http: {services: {s: {loadbalancer: {servers: {url: http://a}}}}}",
}

// dynamicFiles are taken or dropped as a whole.
var dynamicFiles = []file{
	{".yml", "http: {routers: {a: {rule: Path(`/a`), service: s}}, services: {s: {loadBalancer: {servers: [{url: http://a}]}}}}"},
	{".yml", "http: {routers: {a: {rul: Path(`/a`), service: s}}}"},
	{".yml", "http: {routers: {a: {Rule: Path(`/a`), SERVICE: s, entrypoints: [web]}}}"},
	{".yml", "http: {routers: {a: {rule: Path(`/a`), service: s, priority: high}}}"},
	{".yml", "http: {routers: {a: {rule: Path(`/a`), service: s, priority: \"10\"}}}"},
	{".yml", "http: {routers: {a: {rule: Path(`/a`), service: s, middlewares: gate}}}"},
	{".yml", "http: {routers: {a: {rule: Path(`/a`), service: s, middlewares: {gate: {}}}}}"},
	{".yml", "http: {routers: [{rule: Path(`/a`), service: s}]}"},
	{".yml", "http: {middlewares: {a: {headrs: {}}}}"},
	{".yml", "http: {middlewares: {a: {rateLimit: {average: ten}}}}"},
	{".yml", "http: {middlewares: {a: {rateLimit: {average: 10, period: 1m}}}}"},
	{".yml", "http: {middlewares: {a: {rateLimit: {average: 10, period: soon}}}}"},
	{".yml", "http: {middlewares: {a: {plugin: {any: {thing: [1, {b: c}]}}}}}"},
	{".yml", "http: {middlewares: {a: {headers: {sslRedirect: maybe}}}}"},
	{".yml", "http: {middlewares: {a: {forwardAuth: {address: http://a, adress: b}}}}"},
	{".yml", "http: {services: {s: {loadbalancer: {servers: {url: http://a}}}}}"},
	{".yml", "http: {services: {s: {loadBalancer: {servers: [{url: http://a, wight: 1}]}}}}"},
	{".yml", "http: {services: {s: {weighted: {services: [{name: a, weight: 1}]}}}}"},
	{".yml", "tcp: {routers: {a: {rule: HostSNI(`*`), service: s, tls: {passthrough: true}}}}"},
	{".yml", "tcp: {routers: {a: {rule: HostSNI(`*`), service: s, tls: {passtrough: true}}}}"},
	{".yml", "udp: {services: {s: {loadBalancer: {servers: [{address: a:1}]}}}}"},
	{".yml", "tls: {options: {default: {minVersion: VersionTLS12}}, stores: {default: {defaultCertificate: {certFile: a, keyFile: b}}}}"},
	{".yml", "tls: {options: {default: {minVersions: VersionTLS12}}}"},
	{".yml", "http: {middlewares: {a: {plugin: {x: {}}}}, middlewares: {}}"},
	{".yml", "http:\n\trouters: {}"},
	{".yml", "http: ["},
	{".yml", "{{ if }}"},
	{".toml", "[http.routers.a]\nrule = \"Path(`/a`)\"\nservice = \"s\"\n[http.services.s.loadBalancer]\n[[http.services.s.loadBalancer.servers]]\nurl = \"http://a\""},
	{".toml", "[http.routers.a]\nrul = \"Path(`/a`)\""},
	{".toml", "[http.routers.a\n"},
}

// staticFiles are the shipped one with one setting changed at a time, and small
// ones that leave nearly all to Traefik.
func staticFiles(t *testing.T) (files []file, names []string) {
	t.Helper()
	shipped, err := os.ReadFile("../traefik/traefik.yml")
	if err != nil {
		t.Fatal(err)
	}
	add := func(name string, change func(tree map[string]any)) {
		var tree map[string]any
		if err := yaml.Unmarshal(shipped, &tree); err != nil {
			t.Fatal(err)
		}
		change(tree)
		content, err := yaml.Marshal(tree)
		if err != nil {
			t.Fatal(err)
		}
		files, names = append(files, file{".yml", string(content)}), append(names, name)
	}
	add("shipped", func(map[string]any) {})
	for _, path := range []string{
		"global", "global.checkNewVersion", "global.sendAnonymousUsage", "experimental.abortOnPluginFailure",
		"entryPoints.web.http.aliasHeadersStrategy", "entryPoints.web.http.sanitizePath", "entryPoints.web.http.encodedCharacters",
		"entryPoints.web.http.encodedCharacters.allowEncodedSlash", "entryPoints.web.http.encodedCharacters.allowEncodedSemicolon",
		"entryPoints.web.http.maxHeaderBytes", "entryPoints.web.http2", "entryPoints.web.http", "entryPoints.web.transport",
		"entryPoints.web.transport.respondingTimeouts", "entryPoints.web.transport.respondingTimeouts.readTimeout", "entryPoints.web.transport.respondingTimeouts.idleTimeout",
		"entryPoints.web.forwardedHeaders", "entryPoints.balancedweb.proxyProtocol",
	} {
		add("without "+path, func(tree map[string]any) {
			steps := strings.Split(path, ".")
			for _, step := range steps[:len(steps)-1] {
				tree = tree[step].(map[string]any)
			}
			delete(tree, steps[len(steps)-1])
		})
	}
	point := func(changed map[string]any) func(map[string]any) {
		return func(tree map[string]any) {
			web := tree["entryPoints"].(map[string]any)["web"].(map[string]any)
			for key, value := range changed {
				web[key] = value
			}
		}
	}
	for _, timeout := range []any{"0s", 0, "0", "10s", 10} {
		add(fmt.Sprint("readTimeout ", timeout), point(map[string]any{"transport": map[string]any{"respondingTimeouts": map[string]any{"readTimeout": timeout}}}))
		add(fmt.Sprint("idleTimeout ", timeout), point(map[string]any{"transport": map[string]any{"respondingTimeouts": map[string]any{"idleTimeout": timeout}}}))
	}
	for _, strategy := range []string{"keep", "delete", "reject"} {
		add("aliasHeadersStrategy "+strategy, point(map[string]any{"http": map[string]any{"aliasHeadersStrategy": strategy}}))
	}
	add("sanitizePath false", point(map[string]any{"http": map[string]any{"sanitizePath": false}}))
	add("insecure", point(map[string]any{"forwardedHeaders": map[string]any{"insecure": true}, "proxyProtocol": map[string]any{"insecure": true}}))
	add("call home", func(tree map[string]any) {
		tree["global"] = map[string]any{"sendAnonymousUsage": true, "checkNewVersion": true}
	})
	add("an open API", func(tree map[string]any) { tree["api"] = map[string]any{"insecure": true} })
	files = append(files, file{".toml", "[entryPoints.web]\naddress = \":80\"\n[experimental.localPlugins.sluice]\nmoduleName = \"github.com/sluice-gateway/sluice\"\n"})
	return files, append(names, "TOML with nothing in it")
}

// really tells of what Traefik takes a configuration for what is open in it.
func really(effective map[string]any) map[string]bool {
	at := func(path ...string) any {
		var found any = effective
		for _, step := range path {
			branch, _ := found.(map[string]any)
			found = nil
			for key, value := range branch {
				if strings.EqualFold(key, step) {
					found = value
				}
			}
		}
		return found
	}
	number := func(value any) float64 { n, _ := value.(float64); return n }
	open := map[string]bool{
		"global.checkNewVersion":              at("global", "checkNewVersion") == true,
		"global.sendAnonymousUsage":           at("global", "sendAnonymousUsage") == true,
		"experimental.abortOnPluginFailure":   at("experimental", "abortOnPluginFailure") != true,
		"api.insecure":                        at("api", "insecure") == true,
		"entryPoints.web.http.sanitizePath":   at("entryPoints", "web", "http", "sanitizePath") != true,
		"entryPoints.web.http.maxHeaderBytes": number(at("entryPoints", "web", "http", "maxHeaderBytes")) > 32768,

		"entryPoints.web.http.aliasHeadersStrategy":  at("entryPoints", "web", "http", "aliasHeadersStrategy") != "reject",
		"entryPoints.web.http2.maxConcurrentStreams": number(at("entryPoints", "web", "http2", "maxConcurrentStreams")) > 100,
		"entryPoints.web.forwardedHeaders.insecure":  at("entryPoints", "web", "forwardedHeaders", "insecure") == true,
		"entryPoints.web.proxyProtocol.insecure":     at("entryPoints", "web", "proxyProtocol", "insecure") == true,
	}
	for _, timeout := range []string{"readTimeout", "idleTimeout"} {
		value := at("entryPoints", "web", "transport", "respondingTimeouts", timeout)
		open["entryPoints.web.transport.respondingTimeouts."+timeout] = value == nil || value == "0s" || value == 0.0
	}
	for _, character := range []string{"Slash", "Semicolon"} {
		section, written := at("entryPoints", "web", "http", "encodedCharacters").(map[string]any)
		allowed := section["allowEncoded"+character] == true
		open["entryPoints.web.http.encodedCharacters.allowEncoded"+character] = !written || allowed
	}
	return open
}
