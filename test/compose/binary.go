package compose

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/sluice-gateway/sluice/traefik/build"
)

const composeVersion = "2.40.3"

// findCompose returns the command that is Docker Compose 2: the plugin of the
// docker command where there is one, else one built in the folder of its own
// module, whose go.mod and go.sum say of what. That takes a minute or two the
// first time.
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
		download := exec.CommandContext(ctx, "go", "mod", "download", "-json", "github.com/docker/compose/v2@v"+composeVersion)
		download.Dir = cache // in which no go.mod says otherwise
		out, err := run(download)
		var module struct{ Dir, Error string }
		if err := errors.Join(err, json.Unmarshal([]byte(out), &module)); err != nil {
			return nil, "", fmt.Errorf("%w: %s", err, module.Error)
		}
		build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-mod=readonly",
			"-ldflags", "-s -w -X github.com/docker/compose/v2/internal.Version=v"+composeVersion, "-o", binary+".new", "./cmd")
		build.Dir = module.Dir
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
