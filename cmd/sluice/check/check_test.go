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
	}[name]
}

func TestShippedFilesAreGood(t *testing.T) {
	for file, middlewares := range map[string][]string{
		"fast.yml":    {"gate", "login", "refresh", "register"},
		"classic.yml": {"gate", "login", "refresh", "register", "sluice-id"},
	} {
		report, err := Dynamic(filepath.Join("../../../traefik", file), shipped)
		if err != nil {
			t.Fatal(err)
		}
		if len(report.Problems) > 0 {
			t.Errorf("%s: %q", file, report.Problems)
		}
		if !slices.Equal(report.Middlewares, middlewares) {
			t.Errorf("%s: middlewares %q, want %q", file, report.Middlewares, middlewares)
		}
		if !report.Ready {
			t.Errorf("%s: no router tells that its routes are served", file)
		}
		if !slices.Contains(report.Unset, "SLUICE_TLS_CERT") || slices.Contains(report.Unset, "SLUICE_REDIS") {
			t.Errorf("%s: unset %q", file, report.Unset)
		}
	}
}

func TestDynamic(t *testing.T) {
	const good = `redis: {addresses: ["r:6379"]}`
	tests := []struct {
		name, file, content string
		want                []string // a part of each problem, in order
	}{
		{"good", "a.yml", "http: {middlewares: {gate: {plugin: {sluice: {" + good + "}}}}}", nil},
		{"keys in another case", "a.yaml", "HTTP: {Middlewares: {gate: {Plugin: {sluice: {" + good + "}}}}}", nil},
		{"toml", "a.toml", "[http.middlewares.gate.plugin.sluice.redis]\naddresses = [\"r:6379\"]", nil},
		{"numbers and booleans are text to the plugin", "a.yml",
			"http: {middlewares: {gate: {plugin: {sluice: {" + good + ", dryRun: true, limits: [{name: a, key: ip, limit: 5, window: 1s, countStatus: [401, 5xx]}]}}}}}", nil},
		{"all problems of all middlewares at once", "a.yml", `
http:
  middlewares:
    a: {plugin: {sluice: {` + good + `, colour: red}}}
    b: {plugin: {sluice: {` + good + `, limits: [{key: ip, limit: 5, window: 1s}]}}}
    other: {headers: {sslRedirect: "true"}}`,
			[]string{`middleware "a": colour`, `middleware "b": limits[0].name`}},
		{"a shape that mapstructure refuses", "a.yml", "http: {middlewares: {gate: {plugin: {sluice: {limits: {name: {deep: 1}}}}}}}",
			[]string{`middleware "gate"`}},
		{"two plugins in one middleware", "a.yml", "http: {middlewares: {gate: {plugin: {sluice: {" + good + "}, other: {}}}}}",
			[]string{`middleware "gate": names 2 plugins`}},
		{"no middleware of ours", "a.yml", "http: {routers: {}}", []string{"no middleware uses the plugin"}},
		{"template that does not parse", "a.yml", "http: {{ env }", []string{"the template fails"}},
		{"template that fails", "a.yml", `{{ fail "no" }}`, []string{"the template fails"}},
		{"no YAML", "a.yml", "http: [", []string{"Traefik drops the whole file"}},
		{"unknown extension", "a.json", "{}", []string{"neither .yml"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), test.file)
			if err := os.WriteFile(file, []byte(test.content), 0o600); err != nil {
				t.Fatal(err)
			}
			report, err := Dynamic(file, func(string) string { return "" })
			if err != nil {
				t.Fatal(err)
			}
			if len(report.Problems) != len(test.want) {
				t.Fatalf("problems %q, want %d", report.Problems, len(test.want))
			}
			for i, part := range test.want {
				if !strings.Contains(report.Problems[i], part) {
					t.Errorf("problem %q does not speak of %q", report.Problems[i], part)
				}
			}
		})
	}
}

func TestDynamicNamesUnsetVariables(t *testing.T) {
	file := filepath.Join(t.TempDir(), "a.yml")
	content := `http: {middlewares: {gate: {plugin: {sluice: {redis: {addresses: "{{ env "HERE" }}", password: "{{ env "GONE" }}"}}}}}}`
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	report, err := Dynamic(file, func(name string) string { return map[string]string{"HERE": "r:1"}[name] })
	if err != nil || len(report.Problems) > 0 || !slices.Equal(report.Unset, []string{"GONE"}) {
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
		file := filepath.Join(t.TempDir(), "a.yml")
		if err := os.WriteFile(file, []byte("http: {routers: {it: "+content+"}}"), 0o600); err != nil {
			t.Fatal(err)
		}
		if report, err := Dynamic(file, os.Getenv); err != nil || report.Ready != want {
			t.Errorf("%s: %v, %v", content, report.Ready, err)
		}
	}
}

func TestDynamicMissingFile(t *testing.T) {
	if _, err := Dynamic(filepath.Join(t.TempDir(), "none.yml"), os.Getenv); !os.IsNotExist(err) {
		t.Fatalf("error %v", err)
	}
}
