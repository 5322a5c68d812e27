package build

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"
)

// lock takes the cache's lock, which the kernel gives back even when its
// holder is killed, and returns what releases it.
func lock(ctx context.Context, name string, progress io.Writer) (unlock func(), err error) {
	file, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("lock the build cache: %w; %s", err, elsewhere)
	}
	retry := time.NewTicker(200 * time.Millisecond)
	defer retry.Stop()
	for waited := false; ; waited = true {
		err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { file.Close() }, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			file.Close()
			return nil, fmt.Errorf("lock the build cache: %w", err)
		}
		if !waited {
			fmt.Fprintln(progress, "Another process is building Traefik; waiting for it.")
		}
		select {
		case <-ctx.Done():
			file.Close()
			return nil, ctx.Err()
		case <-retry.C:
		}
	}
}

// prune removes the binaries, and leftovers of broken builds, that are neither
// among the newest nor were asked for lately: a stack that runs may start one
// more gateway.
func prune(cache string, keep int, unused time.Duration) error {
	paths, err := filepath.Glob(filepath.Join(cache, "traefik-*"))
	if err != nil {
		return err
	}
	type binary struct {
		path string
		used time.Time
	}
	var found []binary
	for _, path := range paths {
		if info, err := os.Stat(path); err == nil {
			found = append(found, binary{path, info.ModTime()})
		}
	}
	slices.SortFunc(found, func(a, b binary) int { return cmp.Compare(b.used.UnixNano(), a.used.UnixNano()) })
	for _, old := range found[min(keep, len(found)):] {
		if time.Since(old.used) < unused {
			continue
		}
		if err := os.Remove(old.path); err != nil {
			return fmt.Errorf("prune the build cache: %w", err)
		}
	}
	return nil
}

// touch notes that a binary was used, so that prune keeps it. A cache that
// cannot be written to still serves.
func touch(path string) {
	now := time.Now()
	_ = os.Chtimes(path, now, now)
}
