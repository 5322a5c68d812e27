package compose

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/sluice-gateway/sluice/test/harness"
	"github.com/sluice-gateway/sluice/traefik/build"
)

// clockShift in the environment is by how many seconds shiftedTraefik sees its
// wall clock off.
const clockShift = "SLUICE_CLOCK_SHIFT"

// clockFile, with the container's host name behind it, holds that number in the
// volume that the gateways read their secrets from: one of them can be told so
// while compose.yaml stays as it is.
const clockFile = "clock-"

// shiftedScript begins the stand-in's script in place of Traefik's program.
const shiftedScript = `if [ -r "/run/secrets/` + clockFile + `$HOSTNAME" ]; then
  ` + clockShift + `=$(cat "/run/secrets/` + clockFile + `$HOSTNAME") SLUICE_PLUGIN=interpreted exec /usr/local/lib/traefik-shifted "$@"
fi
`

// shiftedTraefik is the Traefik of the stand-in, built once more with a clock
// that can be off. Every package depends on the clock, so the first time takes
// minutes again.
func shiftedTraefik(ctx context.Context, log io.Writer) (string, error) {
	cache, err := cacheDir()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, "clock")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	overlay, err := harness.ShiftedClock(dir, clockShift)
	if err != nil {
		return "", err
	}
	// A go command that builds by the overlay.
	goCommand := filepath.Join(dir, "go")
	script := fmt.Sprintf("#!/bin/sh\ntest \"$1\" = build || exec go \"$@\"\nshift\nexec go build -overlay '%s' \"$@\"\n", overlay)
	if err := os.WriteFile(goCommand, []byte(script), 0o755); err != nil {
		return "", err
	}
	return build.Build(ctx, build.Options{Cache: filepath.Join(dir, "traefik"), Go: goCommand, Progress: log})
}

// CanSetClock says whether SetClock can do anything: the gateways' program has
// to be a stand-in made with Options.Clocks.
func (p *Project) CanSetClock() bool {
	return p.shifted != "" && slices.Contains(p.StandIns, p.shellImage)
}

// SetClock lets a gateway's wall clock be off from its next start on; 0 sets it
// right again.
func (p *Project) SetClock(ctx context.Context, c Container, off time.Duration) error {
	if !p.CanSetClock() {
		return errors.New("this project's Traefik has no clock that can be set")
	}
	name := clockFile + c.Inspected.Config.Hostname
	script, content := "cat >/volume/"+name, strconv.Itoa(int(off.Seconds()))
	if off == 0 {
		script, content = "rm -f /volume/"+name, ""
	}
	_, err := p.InVolume(ctx, "gateway-secrets", "umask 022; "+script, []byte(content))
	return err
}
