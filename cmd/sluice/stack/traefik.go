package stack

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/sluice-gateway/sluice/traefik/build"
)

// findTraefik names the binary: the stock one that was named, if it is recent
// enough, or ours, which may have to be built first.
func (s *Stack) findTraefik(ctx context.Context) error {
	if s.options.Traefik == "" {
		binary, err := build.Build(ctx, build.Options{Progress: s.options.Log})
		s.options.Traefik = binary
		if errors.Is(err, build.ErrNoGo) {
			err = fmt.Errorf("%w; install it, or name a stock Traefik with --traefik=FILE", err)
		}
		return err
	}
	path, err := filepath.Abs(s.options.Traefik)
	if err != nil {
		return err
	}
	version, err := build.VersionOf(ctx, path)
	if err != nil {
		return fmt.Errorf("--traefik=%s: %w", s.options.Traefik, err)
	}
	if olderThan(version, build.Version) {
		return fmt.Errorf("--traefik=%s is version %s: Sluice needs %s or newer, since older ones let aliases of identity headers through",
			s.options.Traefik, version, build.Version)
	}
	s.options.Traefik = path
	return nil
}

// olderThan compares dotted version numbers. What is no number, as in a
// development build, is taken as new.
func olderThan(version, least string) bool {
	got, want := strings.Split(strings.TrimPrefix(version, "v"), "."), strings.Split(least, ".")
	for i := range want {
		if i >= len(got) {
			return true
		}
		number, err := strconv.Atoi(got[i])
		if err != nil {
			return false
		}
		if floor, _ := strconv.Atoi(want[i]); number != floor {
			return number < floor
		}
	}
	return false
}

// startTraefik lays out a folder for one Traefik and runs it there.
func (s *Stack) startTraefik(name string, shipped []byte, at placement, env []string) (*process, error) {
	static, err := at.apply(shipped)
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(s.work, name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(dir, "traefik.yml"), static, 0o600); err != nil {
		return nil, err
	}
	return startProcess(name, s.options.Traefik, dir, env, func(line string) { s.say("%s: %s", name, line) })
}

// watch tells of processes that end unasked. The others carry on; without any,
// the stack has ended.
func (s *Stack) watch(group []*process) {
	for _, p := range group {
		s.watching.Go(func() {
			<-p.ended
			if s.closing.Load() {
				return
			}
			s.say("%s (pid %d) ended: %v", p.name, p.pid(), p.err)
			if !slices.ContainsFunc(group, (*process).running) {
				s.keep.Store(true)
				select {
				case s.ended <- fmt.Errorf("%s ended and none is left; its last words:\n%s", p.name, p.lastWords()):
				default: // someone else's end was told first
				}
			}
		})
	}
}

// stopAll asks every process of a group to end before it waits for any.
func stopAll(group []*process) error {
	for _, p := range group {
		p.terminate()
	}
	var errs []error
	for _, p := range group {
		errs = append(errs, p.stop())
	}
	return errors.Join(errs...)
}
