package e2e

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"syscall"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice"
	"github.com/sluice-gateway/sluice/cmd/sluice/stack"
	"github.com/sluice-gateway/sluice/test/harness"
	"github.com/sluice-gateway/sluice/traefik/build"
)

// TestWhichFormRuns proves it by sabotage: the plugin's source on disk is given
// another version, which only an interpreter reads. Everything else is equal.
func TestWhichFormRuns(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Minute)
	defer cancel()
	binary, err := build.Build(ctx, build.Options{Progress: testLog{t}})
	if err != nil {
		t.Fatal(err)
	}
	const onDisk = "0.0.0-on-disk"
	versions := map[string]string{}
	for _, form := range forms {
		t.Run(form, func(t *testing.T) {
			redis := harness.StartRedis(t)
			folder := t.TempDir()
			source := filepath.Join(folder, "plugins-local", "src", filepath.FromSlash(sluice.Module))
			if err := sluice.WritePlugin(source); err != nil {
				t.Fatal(err)
			}
			if !changeVersion(t, filepath.Join(source, "plugin"), onDisk) {
				t.Fatal("the plugin's source declares no version")
			}
			address := harness.FreeAddress(t)
			write(t, filepath.Join(folder, "traefik.yml"), fmt.Sprintf(`
global: {checkNewVersion: false, sendAnonymousUsage: false}
entryPoints: {web: {address: %q}}
providers: {file: {filename: %q}}
experimental: {abortOnPluginFailure: true, localPlugins: {sluice: {moduleName: %s}}}
`, address, filepath.Join(folder, "dynamic.yml"), sluice.Module))
			write(t, filepath.Join(folder, "dynamic.yml"), fmt.Sprintf(`
http:
  routers: {all: {rule: "PathPrefix(§/§)", middlewares: [gate], service: noop@internal}}
  middlewares: {gate: {plugin: {sluice: {redis: {addresses: [%q]}, limits: [{name: l, key: ip, limit: 10, window: 1h}]}}}}
`, redis.Addr))

			traefik := exec.Command(binary)
			traefik.Dir = folder
			traefik.Env = append(os.Environ(), "SLUICE_PLUGIN="+form)
			var log bytes.Buffer
			traefik.Stdout, traefik.Stderr = &log, &log
			traefik.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
			if err := traefik.Start(); err != nil {
				t.Fatal(err)
			}
			defer func() {
				_ = traefik.Process.Kill()
				_ = traefik.Wait()
				if t.Failed() {
					t.Log(log.String())
				}
			}()
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
