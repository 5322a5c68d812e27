package stack

import (
	"reflect"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/sluice-gateway/sluice"
	"github.com/sluice-gateway/sluice/cmd/sluice/check"
)

func tree(t *testing.T, content []byte) map[string]any {
	t.Helper()
	var out map[string]any
	if err := yaml.Unmarshal(content, &out); err != nil {
		t.Fatal(err)
	}
	return out
}

func shippedFile(t *testing.T, name string) []byte {
	t.Helper()
	content, err := sluice.TraefikFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

var everywhere = map[string]string{
	web: "127.0.0.1:1", webSecure: "127.0.0.1:2", balancedWeb: "127.0.0.1:3", balancedWebSecure: "127.0.0.1:4", ping: "127.0.0.1:5",
}

// TestStaticDiffersWhereRule5Says undoes the replacements and demands that the
// shipped file is left.
func TestStaticDiffersWhereRule5Says(t *testing.T) {
	shipped := shippedFile(t, "traefik.yml")
	for name, balancer := range map[string][]string{"alone": nil, "behind a balancer": {"127.0.0.1/32"}} {
		t.Run(name, func(t *testing.T) {
			derived, err := placement{addresses: everywhere, balancer: balancer, dynamic: "/somewhere/fast.yml"}.apply(shipped)
			if err != nil {
				t.Fatal(err)
			}
			got, want := tree(t, derived), tree(t, shipped)
			if open, weak := check.Openings(got); len(open)+len(weak) > 0 {
				t.Errorf("openings %q %q", open, weak)
			}
			gotPoints, wantPoints := got["entryPoints"].(map[string]any), want["entryPoints"].(map[string]any)
			for name, point := range gotPoints {
				got, want := point.(map[string]any), wantPoints[name].(map[string]any)
				if got["address"] != everywhere[name] {
					t.Errorf("%s listens on %v", name, got["address"])
				}
				proxied := name == balancedWeb || name == balancedWebSecure
				trusted, _ := got["proxyProtocol"].(map[string]any)
				if believes := trusted != nil; believes != (proxied && balancer != nil) {
					t.Errorf("%s believes PROXY lines: %t", name, believes)
				}
				if trusted != nil && !reflect.DeepEqual(trusted, map[string]any{"trustedIPs": []any{"127.0.0.1/32"}}) {
					t.Errorf("%s believes %v", name, trusted)
				}
				got["address"] = want["address"]
				delete(got, "proxyProtocol")
				delete(want, "proxyProtocol")
			}
			file := got["providers"].(map[string]any)["file"].(map[string]any)
			if file["filename"] != "/somewhere/fast.yml" {
				t.Errorf("dynamic file %v", file["filename"])
			}
			file["filename"] = want["providers"].(map[string]any)["file"].(map[string]any)["filename"]
			if !reflect.DeepEqual(got, want) {
				t.Errorf("more differs:\n%v\n%v", got, want)
			}
		})
	}
}

func TestBalancerStatic(t *testing.T) {
	derived, err := placement{dynamic: "/d.yml", addresses: map[string]string{web: "a:1", webSecure: "a:2", ping: "a:3"}}.
		apply(shippedFile(t, "balancer.yml"))
	if err != nil {
		t.Fatal(err)
	}
	points := tree(t, derived)["entryPoints"].(map[string]any)
	if len(points) != 3 || points[webSecure].(map[string]any)["address"] != "a:2" {
		t.Errorf("entry points %v", points)
	}
}

// TestFastProxyIsAChoice: asked for, it is added to the shipped file, and nothing
// else is.
func TestFastProxyIsAChoice(t *testing.T) {
	shipped := shippedFile(t, "traefik.yml")
	without, err := placement{addresses: everywhere}.apply(shipped)
	if err != nil {
		t.Fatal(err)
	}
	with, err := placement{addresses: everywhere, fastProxy: true}.apply(shipped)
	if err != nil {
		t.Fatal(err)
	}
	got, want := tree(t, with), tree(t, without)
	experimental := got["experimental"].(map[string]any)
	if chosen, there := experimental["fastProxy"].(map[string]any); !there || len(chosen) > 0 {
		t.Errorf("fastProxy is %v", experimental["fastProxy"])
	}
	if delete(experimental, "fastProxy"); !reflect.DeepEqual(got, want) {
		t.Errorf("more differs:\n%v\n%v", got, want)
	}
}

// TestStaticFailsRatherThanListenElsewhere: an entry point without an address
// of ours would open the containers' port.
func TestStaticFailsRatherThanListenElsewhere(t *testing.T) {
	tests := []struct{ name, content, want string }{
		{"one more", "entryPoints: {web: {address: ':80'}, admin: {address: ':81'}}\nproviders: {file: {}}", "2 entry points, 1 addresses"},
		{"another name", "entryPoints: {admin: {address: ':81'}}\nproviders: {file: {}}", `no address for the entry point "admin"`},
		{"no provider", "entryPoints: {web: {address: ':80'}}", "no file provider"},
		{"no YAML", "entryPoints: [", "static configuration"},
	}
	for _, test := range tests {
		_, err := placement{addresses: map[string]string{web: "a:1"}}.apply([]byte(test.content))
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: error %v", test.name, err)
		}
	}
}
