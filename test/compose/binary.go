package compose

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/sluice-gateway/sluice/traefik/build"
)

// composeVersion is what ./compose/go.mod requires.
const composeVersion = "2.40.3"

// findCompose returns the command that is Docker Compose 2: the plugin of the
// docker command where there is one, else one built from Go modules, which
// takes a minute or two the first time.
func findCompose(ctx context.Context, log io.Writer) (command []string, version string, err error) {
	if version, err := docker(ctx, "compose", "version", "--short"); err == nil {
		return []string{"docker", "compose"}, strings.TrimPrefix(version, "v"), nil
	}
	cache, err := cacheDir()
	if err != nil {
		return nil, "", err
	}
	binary := filepath.Join(cache, "docker-compose-"+composeVersion)
	if _, err := os.Stat(binary); err != nil {
		fmt.Fprintf(log, "building Docker Compose %s\n", composeVersion)
		root, err := Root()
		if err != nil {
			return nil, "", err
		}
		build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-mod=readonly",
			"-ldflags", "-s -w -X github.com/docker/compose/v2/internal.Version=v"+composeVersion,
			"-o", binary+".new", "github.com/docker/compose/v2/cmd")
		build.Dir = filepath.Join(root, "test", "compose", "compose")
		build.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=", "CGO_ENABLED=0")
		if _, err := run(build); err != nil {
			return nil, "", err
		}
		if err := os.Rename(binary+".new", binary); err != nil {
			return nil, "", err
		}
	}
	version, err = run(exec.CommandContext(ctx, binary, "version", "--short"))
	return []string{binary}, strings.TrimPrefix(version, "v"), err
}

// cacheDir is a folder of ours in the cache that holds Traefik.
func cacheDir() (string, error) {
	dir, err := build.CacheDir()
	if err != nil {
		return "", err
	}
	dir = filepath.Join(dir, "compose")
	return dir, os.MkdirAll(dir, 0o755)
}
