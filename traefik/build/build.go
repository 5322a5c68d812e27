// Package build compiles the real Traefik with Sluice's plugin compiled in: it
// is to Traefik what xcaddy is to Caddy.
//
// `go install` refuses Traefik, whose go.mod replaces modules, so Build is the
// main module instead. In order, it
//
//  1. names the binary after a hash of the plugin's source and of this recipe,
//     and returns at once if that name lies beside the running program, where a
//     release has it, or in the cache;
//  2. takes the cache's lock, so that parallel builds wait for the first;
//  3. lays out a module: recipe/traefik.mod and .sum, package ext that registers
//     the plugin with Traefik's interpreter, the plugin's source under a go.mod
//     without requirements, and a copy of lego without its DNS providers;
//  4. counts the packages, and runs `go build` on Traefik's own unchanged
//     cmd/traefik;
//  5. asks the result for its version, if this machine can run it, and moves it
//     to its name.
//
// Other plugins that Options.With names are looked at before step 2 and compiled
// by themselves before step 4, so that what is no plugin is told in seconds
// (with.go).
//
// Which form of the plugin a gateway runs can be told from outside: when its
// first middleware is made, the compiled one, and nothing else, writes "sluice:
// compiled plugin, source <hash>" to standard error. With SLUICE_PLUGIN=
// interpreted in the environment the same binary interprets, and is silent.
//
// The pages of Traefik's dashboard are no part of its Go module: npm makes them.
// Options.WebUI brings them; else the dashboard is a page that says so.
//
// All of it is embedded, so an installed command builds without a source tree.
// The first build compiles some 1,700 packages, which takes minutes; the Go
// build cache makes the next one, after a change of the plugin, take seconds.
package build

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// Version is the Traefik that is built, and the oldest stock one accepted:
// those before it carry the header-aliasing holes that design: closed-entry-points speaks of.
const Version = "3.7.13"

// codename is what Traefik's releases of this minor version call themselves.
const codename = "langres"

// target is what is built.
const target = "github.com/traefik/traefik/v3/cmd/traefik"

// The cache holds on to so many binaries, of some 140 MB each, and to those
// that were asked for within this time.
const (
	keep   = 3
	unused = time.Hour
)

// ErrNoGo is what Build says on a machine without Go.
var ErrNoGo = errors.New("building Traefik needs Go 1.26 or newer on PATH")

// Options says where and how to build. The zero value is ready to use.
type Options struct {
	Cache    string    // folder for module and binaries; empty: CacheDir
	Progress io.Writer // one line at the start and one every few seconds; nil: silence
	Go       string    // the go command; empty: the one on PATH
	WebUI    string    // folder with the dashboard's pages, webui/static of a release's source; empty: none
	With     []string  // other plugins to compile in, MODULE@VERSION
	Platform string    // for which it is built, such as linux/arm64; empty: this machine's
	WorkDir  string    // folder that Traefik will run in: it gets the plugins' manifests; empty: none
}

// host is the platform of this machine.
const host = runtime.GOOS + "/" + runtime.GOARCH

// elsewhere is what to do about a cache that cannot be.
const elsewhere = "name a folder that can be written in the variable SLUICE_CACHE"

// CacheDir is $SLUICE_CACHE, or "sluice" in the user's cache directory.
func CacheDir() (string, error) {
	if dir := os.Getenv("SLUICE_CACHE"); dir != "" {
		return filepath.Abs(dir)
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("no folder for the build cache: %w; %s", err, elsewhere)
	}
	return filepath.Join(dir, "sluice"), nil
}

// Build returns the path of a Traefik that carries this plugin, building it
// unless the cache already holds it.
func Build(ctx context.Context, options Options) (string, error) {
	if options.Progress == nil {
		options.Progress = io.Discard
	}
	if options.Cache == "" {
		dir, err := CacheDir()
		if err != nil {
			return "", err
		}
		options.Cache = dir
	}
	options.Platform = cmp.Or(options.Platform, host)
	if system, architecture, _ := strings.Cut(options.Platform, "/"); system == "" || architecture == "" || strings.Contains(architecture, "/") {
		return "", fmt.Errorf("--platform=%s: write OS/ARCHITECTURE, such as linux/arm64", options.Platform)
	}
	pages, err := readPages(options.WebUI)
	if err != nil {
		return "", err
	}
	plugins, err := findPlugins(ctx, options)
	if err != nil {
		return "", err
	}
	binary, err := find(ctx, options, pages, plugins)
	if err == nil && options.WorkDir != "" {
		err = writeManifests(options.WorkDir, plugins)
	}
	if err != nil {
		return "", err
	}
	return binary, nil
}

// find returns the path of the binary, once it is there.
func find(ctx context.Context, options Options, pages map[string][]byte, plugins []otherPlugin) (string, error) {
	name := "traefik-" + Version + "-" + hashOf(pages, plugins)[:16]
	if options.Platform == host {
		if path, err := os.Executable(); err == nil {
			if path, err = filepath.EvalSymlinks(path); err == nil && isExecutable(filepath.Join(filepath.Dir(path), name)) {
				return filepath.Join(filepath.Dir(path), name), nil
			}
		}
	} else {
		name += "-" + strings.ReplaceAll(options.Platform, "/", "-")
	}
	binary := filepath.Join(options.Cache, name)
	if isExecutable(binary) {
		touch(binary)
		return binary, nil
	}
	if err := os.MkdirAll(options.Cache, 0o755); err != nil {
		return "", fmt.Errorf("create the build cache: %w; %s", err, elsewhere)
	}
	unlock, err := lock(ctx, filepath.Join(options.Cache, "build.lock"), options.Progress)
	if err != nil {
		return "", err
	}
	defer unlock()
	if isExecutable(binary) { // built by whoever held the lock
		return binary, nil
	}
	goCommand, err := findGo(options.Go)
	if err != nil {
		return "", err
	}
	module := filepath.Join(options.Cache, "module")
	if err := layOut(ctx, goCommand, module, pages, plugins); err != nil {
		return "", err
	}
	job := compilation{goCommand: goCommand, module: module, binary: binary, platform: options.Platform,
		dashboard: len(pages) > 0, plugins: len(plugins) > 0, progress: options.Progress}
	if err := job.run(ctx); err != nil {
		return "", err
	}
	return binary, prune(options.Cache, keep, unused)
}

// Module lays out in dir, which it replaces, the module that Build compiles: for
// tests that hold ours to Traefik's own packages.
func Module(ctx context.Context, options Options, dir string) error {
	goCommand, err := findGo(options.Go)
	if err != nil {
		return err
	}
	return layOut(ctx, goCommand, dir, nil, nil)
}

// compilation is one run of the compiler over a module that is laid out.
type compilation struct {
	goCommand, module, binary, platform string
	dashboard, plugins                  bool
	progress                            io.Writer
}

// command prepares the go command in the module, for the platform. With other
// plugins the module's requirements are completed by what those require.
func (c compilation) command(ctx context.Context, verb string, args ...string) *exec.Cmd {
	mod := "-mod=readonly"
	if c.plugins {
		mod = "-mod=mod"
	}
	system, architecture, _ := strings.Cut(c.platform, "/")
	cmd := command(ctx, c.goCommand, c.module, append([]string{verb, mod}, args...)...)
	cmd.Env = append(cmd.Env, "GOOS="+system, "GOARCH="+architecture)
	return cmd
}

// run builds under a temporary name, so that the final one only ever belongs to
// a binary that has told its version, or that another machine has to ask.
func (c compilation) run(ctx context.Context) error {
	temporary := c.binary + ".new"
	defer os.Remove(temporary)
	begun := time.Now()
	if c.plugins {
		if out, err := c.command(ctx, "build", withPackage).CombinedOutput(); err != nil {
			return cmp.Or(ctx.Err(), fmt.Errorf("compile the other plugins: %w\n%s", err, bytes.TrimSpace(out)))
		}
	}
	fmt.Fprintf(c.progress, "Building Traefik %s with the plugin compiled in; the first time takes minutes.\n", Version)
	if !c.dashboard {
		fmt.Fprintln(c.progress, "Its dashboard is left out: Traefik's Go module lacks the pages (`sluice traefik build --webui=FOLDER` builds them in).")
	}

	meter := newMeter(c.progress, begun)
	list := c.command(ctx, "list", "-deps", target) // downloads the modules, too
	list.Stderr = meter
	packages, err := list.Output()
	if err == nil {
		meter.expect(bytes.Count(packages, []byte("\n")))
		build := c.command(ctx, "build", "-v", "-trimpath", "-buildvcs=false",
			"-ldflags", linkerFlags(c.dashboard, begun), "-o", temporary, target)
		build.Stderr = meter
		err = build.Run()
	}
	meter.stop()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		return fmt.Errorf("build Traefik: %w\n%s", err, meter.complaints())
	}
	if c.platform == host {
		version, err := VersionOf(ctx, temporary)
		if err != nil {
			return err
		}
		if version != Version {
			return fmt.Errorf("the Traefik just built calls itself %q instead of %s", version, Version)
		}
	}
	if err := os.Rename(temporary, c.binary); err != nil {
		return fmt.Errorf("install the Traefik just built: %w", err)
	}
	fmt.Fprintf(c.progress, "Built %s in %s.\n", c.binary, time.Since(begun).Round(time.Second))
	return nil
}

// linkerFlags tell the binary what `traefik version` prints, and package ext
// what it carries.
func linkerFlags(dashboard bool, now time.Time) string {
	const traefik, ext = "github.com/traefik/traefik/v3/pkg/version", "github.com/traefik/traefik/dynamic/ext"
	flags := "-s -w"
	for _, set := range []string{
		traefik + ".Version=" + Version,
		traefik + ".Codename=" + codename,
		traefik + ".BuildDate=" + now.UTC().Format(time.RFC3339),
		ext + ".source=" + Source(),
		ext + ".dashboard=" + strconv.FormatBool(dashboard),
	} {
		flags += " -X " + set
	}
	return flags
}

// VersionOf asks a Traefik binary which version it is, such as "3.7.13".
func VersionOf(ctx context.Context, binary string) (string, error) {
	out, err := exec.CommandContext(ctx, binary, "version").Output()
	if err != nil {
		return "", fmt.Errorf("%s version: %w", binary, err)
	}
	for line := range strings.Lines(string(out)) {
		if rest, ok := strings.CutPrefix(line, "Version:"); ok {
			return strings.TrimSpace(rest), nil
		}
	}
	return "", fmt.Errorf("%s version: no version in the output; is this a Traefik?", binary)
}

// command prepares the go command such that the user's workspace, build flags
// and C compiler do not change what is built; proxy and checksum settings stay.
func command(ctx context.Context, goCommand, dir string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, goCommand, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=", "CGO_ENABLED=0")
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) } // lets go end its compilers
	cmd.WaitDelay = 10 * time.Second
	return cmd
}

func findGo(named string) (string, error) {
	if named == "" {
		named = "go"
	}
	path, err := exec.LookPath(named)
	if errors.Is(err, exec.ErrNotFound) {
		return "", ErrNoGo
	}
	return path, err
}

func isExecutable(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
}
