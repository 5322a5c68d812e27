package check

import (
	"os"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

const shippedStatic = "../../../traefik/traefik.yml"

func TestShippedStaticFileIsClosed(t *testing.T) {
	report, err := Check(Options{Static: shippedStatic, Getenv: os.Getenv})
	if err != nil || len(report.Findings) > 0 {
		t.Fatalf("%v, %v", report.Findings, err)
	}
}

// TestEveryClosingSettingIsAsserted opens the shipped file at one place at a
// time, on every entry point, and demands that it is noticed.
func TestEveryClosingSettingIsAsserted(t *testing.T) {
	type edit struct {
		path  string
		value any // nil: remove the key
		want  string
	}
	edits := []edit{
		{"global.checkNewVersion", nil, "global.checkNewVersion"},
		{"global.sendAnonymousUsage", true, "global.sendAnonymousUsage"},
		{"experimental.abortOnPluginFailure", false, "abortOnPluginFailure"},
		{"experimental.localPlugins", nil, "experimental.localPlugins"},
		{"experimental.fastProxy", map[string]any{}, "experimental.fastProxy"},
		{"api", map[string]any{"insecure": true}, "api.insecure"},
		{"providers.rest", map[string]any{"insecure": true}, "providers.rest.insecure"},
		{"entryPoints", nil, "entryPoints: none"},
	}
	for _, point := range []string{"web", "websecure", "balancedweb", "balancedwebsecure", "ping"} {
		on := "entryPoints." + point + "."
		edits = append(edits,
			edit{on + "http.aliasHeadersStrategy", nil, on + "http.aliasHeadersStrategy"},
			edit{on + "http.aliasHeadersStrategy", "delete", on + "http.aliasHeadersStrategy"},
			edit{on + "http.sanitizePath", false, on + "http.sanitizePath"},
			edit{on + "http.maxHeaderBytes", 65536, on + "http.maxHeaderBytes"},
			edit{on + "http2.maxConcurrentStreams", nil, on + "http2.maxConcurrentStreams"},
			edit{on + "transport.respondingTimeouts.readTimeout", "0s", on + "transport.respondingTimeouts.readTimeout"},
			edit{on + "transport.respondingTimeouts.idleTimeout", 0, on + "transport.respondingTimeouts.idleTimeout"},
			edit{on + "http3", map[string]any{}, on + "http3"},
			edit{on + "forwardedHeaders.insecure", "true", on + "forwardedHeaders.insecure"},
			edit{on + "forwardedHeaders.trustedIPs", []any{"10.0.0.0/8", "0.0.0.0/0"}, on + "forwardedHeaders.trustedIPs"},
			edit{on + "proxyProtocol", map[string]any{"insecure": true}, on + "proxyProtocol.insecure"},
			edit{on + "proxyProtocol", map[string]any{"trustedIPs": "10.0.0.1,::/0"}, on + "proxyProtocol.trustedIPs"},
		)
		for _, character := range encodedCharacters {
			path := on + "http.encodedCharacters." + character
			edits = append(edits, edit{path, nil, path}, edit{path, true, path})
		}
	}
	content, err := os.ReadFile(shippedStatic)
	if err != nil {
		t.Fatal(err)
	}
	for _, edit := range edits {
		var tree map[string]any // anew: anchors share their branches
		if err := yaml.Unmarshal(content, &tree); err != nil {
			t.Fatal(err)
		}
		set(t, tree, strings.Split(edit.path, "."), edit.value)
		open, weak := Openings(tree)
		found := append(open, weak...)
		noticed := false
		for _, opening := range found {
			noticed = noticed || strings.HasPrefix(opening, edit.want) || strings.Contains(opening, edit.want+":")
		}
		if !noticed {
			t.Errorf("%s = %v is not noticed: %q", edit.path, edit.value, found)
		}
	}
}

func set(t *testing.T, tree map[string]any, path []string, value any) {
	t.Helper()
	for _, key := range path[:len(path)-1] {
		branch, ok := tree[key].(map[string]any)
		if !ok {
			t.Fatalf("the shipped file has no %s", strings.Join(path, "."))
		}
		tree = branch
	}
	last := path[len(path)-1]
	if value == nil {
		if _, there := tree[last]; !there {
			t.Fatalf("the shipped file has no %s", strings.Join(path, "."))
		}
		delete(tree, last)
		return
	}
	tree[last] = value
}

func TestStaticReadsCommaListsAndPlainSeconds(t *testing.T) {
	if !limited(60) || !limited("1m") || limited("0s") || limited("soon") {
		t.Error("limited misreads a timeout")
	}
	if got := list("a, b,c"); len(got) != 3 {
		t.Errorf("list = %q", got)
	}
}

// TestOnlyWhatIsOpenIsAnError leaves to Traefik what it does well by itself.
// test/traefik_test.go puts the same to Traefik.
func TestOnlyWhatIsOpenIsAnError(t *testing.T) {
	report, err := Check(Options{Names: []string{"-"}, Getenv: os.Getenv, Stdin: strings.NewReader(`
entryPoints:
  web:
    address: ":80"
    http:
      aliasHeadersStrategy: reject
      encodedCharacters:
        allowEncodedSlash: false
        allowEncodedBackSlash: false
        allowEncodedNullCharacter: false
        allowEncodedSemicolon: false
        allowEncodedPercent: false
        allowEncodedQuestionMark: false
        allowEncodedHash: false
experimental:
  abortOnPluginFailure: true
  plugins:
    gate: {moduleName: github.com/sluice-gateway/sluice, version: v0.1.0}
`)})
	if err != nil {
		t.Fatal(err)
	}
	if errors := report.Errors(); len(errors) > 0 {
		t.Errorf("errors %q", errors)
	}
	for _, f := range report.Findings {
		if !strings.Contains(f.Text, "checkNewVersion") && !strings.Contains(f.Text, "maxHeaderBytes") && !strings.Contains(f.Text, "maxConcurrentStreams") {
			t.Errorf("not so: %s", f)
		}
	}
}
