package e2e

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/sluice-gateway/sluice"
	"github.com/sluice-gateway/sluice/cmd/sluice/stack"
	"github.com/sluice-gateway/sluice/test/harness"
)

// TestWhichFormRuns proves it by sabotage: the plugin's source on disk is given
// another version, which only an interpreter reads. Everything else is equal.
func TestWhichFormRuns(t *testing.T) {
	const onDisk = "0.0.0-on-disk"
	versions := map[string]string{}
	for _, form := range forms {
		t.Run(form, func(t *testing.T) {
			redis := harness.StartRedis(t)
			folder, _ := traefikFolder(t, "")
			source := filepath.Join(folder, "plugins-local", "src", filepath.FromSlash(sluice.Module))
			if !changeVersion(t, filepath.Join(source, "plugin"), onDisk) {
				t.Fatal("the plugin's source declares no version")
			}
			write(t, filepath.Join(folder, "dynamic.yml"), fmt.Sprintf(`
http:
  routers: {all: {rule: "PathPrefix(§/§)", middlewares: [gate], service: noop@internal}}
  middlewares: {gate: {plugin: {sluice: {redis: {addresses: [%q]}, limits: [{name: l, key: ip, limit: 10, window: 1h}]}}}}
`, redis.Addr))

			harness.StartTraefik(t, folder, append(os.Environ(), "SLUICE_PLUGIN="+form)...)
			redis.AwaitGateways(prefix, 1)
			versions[form] = redis.Gateways(prefix)[0].Version
		})
	}
	if versions[stack.Interpreted] != onDisk {
		t.Errorf("interpreted: version %q, want that of the source on disk", versions[stack.Interpreted])
	}
	if versions[stack.Compiled] == onDisk || versions[stack.Compiled] == "" {
		t.Errorf("compiled: version %q", versions[stack.Compiled])
	}
}

// traefikFolder holds the plugin and a static file with one entry point, which
// reads dynamic.yml and what more providers are named.
func traefikFolder(t *testing.T, providers string) (folder, address string) {
	t.Helper()
	folder, address = t.TempDir(), harness.FreeAddress(t)
	if err := sluice.WritePlugin(filepath.Join(folder, "plugins-local", "src", filepath.FromSlash(sluice.Module))); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(folder, "traefik.yml"), fmt.Sprintf(`
global: {checkNewVersion: false, sendAnonymousUsage: false}
entryPoints: {web: {address: %q}}
providers: {file: {filename: %q}%s}
experimental: {abortOnPluginFailure: true, localPlugins: {sluice: {moduleName: %s}}}
`, address, filepath.Join(folder, "dynamic.yml"), providers, sluice.Module))
	return folder, address
}

var versionLine = regexp.MustCompile(`(?m)^const Version = "[^"]*"$`)

func changeVersion(t *testing.T, folder, version string) (found bool) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(folder, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		content, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if versionLine.Match(content) {
			found = true
			write(t, name, string(versionLine.ReplaceAll(content, fmt.Appendf(nil, "const Version = %q", version))))
		}
	}
	return found
}

func write(t *testing.T, name, content string) {
	t.Helper()
	if err := os.WriteFile(name, bytes.ReplaceAll([]byte(content), []byte("§"), []byte("`")), 0o600); err != nil {
		t.Fatal(err)
	}
}
