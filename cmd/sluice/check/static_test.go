package check

import (
	"os"
	"strings"
	"testing"
)

const shippedStatic = "../../../traefik/traefik.yml"

func TestShippedStaticFileIsClosed(t *testing.T) {
	found, err := Static(shippedStatic)
	if err != nil || len(found) > 0 {
		t.Fatalf("%q, %v", found, err)
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
		{"api", map[string]any{"insecure": true}, "api.insecure"},
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
		tree, err := parse(".yml", content) // anew: anchors share their branches
		if err != nil {
			t.Fatal(err)
		}
		set(t, tree, strings.Split(edit.path, "."), edit.value)
		found := Openings(tree)
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
	if !limited(60) || !limited("1m") || limited("0s") || limited(nil) || limited("soon") {
		t.Error("limited misreads a timeout")
	}
	if got := list("a, b,c"); len(got) != 3 {
		t.Errorf("list = %q", got)
	}
}
