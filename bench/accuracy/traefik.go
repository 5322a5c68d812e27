package accuracy

import (
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/gob"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/sluice-gateway/sluice/traefik/build"
)

//go:embed traefik/main.go
var driverSource string

// job is one traffic for Traefik's own rateLimit; Result is its outcome. Both
// have twins in traefik/main.go.
type job struct {
	Average, Burst int64
	Period         time.Duration
	Redis          string
	Gates          int
	Skew           time.Duration

	At   []time.Duration
	Key  []int
	Gate []int
}

type result struct {
	Error    string
	Admitted []bool
	At       []time.Duration
}

// newJob configures the token bucket to the same limit: as many tokens a
// window, and a bucket that holds as many.
func newJob(t traffic, q quota, redis string, gates int) job {
	j := job{Average: q.limit, Burst: q.limit, Period: q.window, Redis: redis, Gates: gates}
	for _, a := range t.arrivals {
		j.At, j.Key, j.Gate = append(j.At, a.at), append(j.Key, a.key), append(j.Gate, a.gate)
	}
	return j
}

// driver compiles traefik/main.go, with Traefik's packages as they come from
// its module, and keeps the binary beside Traefik's. The module it needs is the
// one that package build lays out; an overlay places the source in it, so that
// nothing is written there.
func driver(ctx context.Context, progress io.Writer) (string, error) {
	cache, err := build.CacheDir()
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256([]byte(build.Version + driverSource))
	binary := filepath.Join(cache, "accuracy-"+build.Version+"-"+hex.EncodeToString(sum[:8]))
	if _, err := os.Stat(binary); err == nil {
		return binary, nil
	}
	module := filepath.Join(cache, "module")
	if _, err := os.Stat(module); errors.Is(err, os.ErrNotExist) {
		if _, err := build.Build(ctx, build.Options{Progress: progress}); err != nil {
			return "", err
		}
	}
	dir, err := os.MkdirTemp("", "sluice-accuracy-")
	if err != nil {
		return "", fmt.Errorf("compile Traefik's limiter: %w", err)
	}
	defer os.RemoveAll(dir)
	source, overlay := filepath.Join(dir, "main.go"), filepath.Join(dir, "overlay.json")
	replace, err := json.Marshal(map[string]any{"Replace": map[string]string{filepath.Join(module, "accuracy", "main.go"): source}})
	if err != nil {
		return "", err
	}
	_, program, _ := strings.Cut(driverSource, "\n") // without its build constraint
	if err := errors.Join(os.WriteFile(source, []byte(program), 0o644), os.WriteFile(overlay, replace, 0o644)); err != nil {
		return "", fmt.Errorf("compile Traefik's limiter: %w", err)
	}
	fmt.Fprintln(progress, "Compiling Traefik's rateLimit middleware from its module.")
	temporary := binary + ".new"
	defer os.Remove(temporary)
	command := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-mod=readonly", "-ldflags", "-s -w", "-overlay", overlay, "-o", temporary, "./accuracy")
	command.Dir = module
	command.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=", "CGO_ENABLED=0")
	if complaints, err := command.CombinedOutput(); err != nil {
		return "", fmt.Errorf("compile Traefik's limiter: %w\n%s", err, complaints)
	}
	if err := os.Rename(temporary, binary); err != nil {
		return "", fmt.Errorf("compile Traefik's limiter: %w", err)
	}
	former, err := filepath.Glob(filepath.Join(cache, "accuracy-*"))
	for _, path := range former {
		if path != binary {
			os.Remove(path)
		}
	}
	return binary, err
}

// drive has Traefik's limiter do the jobs.
func drive(ctx context.Context, binary string, jobs []job) ([]result, error) {
	command := exec.CommandContext(ctx, binary)
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	command.Stderr = os.Stderr
	in, err := command.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := command.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := command.Start(); err != nil {
		return nil, fmt.Errorf("drive Traefik's limiter: %w", err)
	}
	sent := gob.NewEncoder(in).Encode(jobs)
	in.Close()
	results, decoder := make([]result, len(jobs)), gob.NewDecoder(out)
	for i := range results {
		if err = decoder.Decode(&results[i]); err != nil {
			break
		}
		if results[i].Error != "" {
			err = errors.New(results[i].Error)
			break
		}
	}
	if err != nil {
		command.Process.Kill()
	}
	if err := errors.Join(sent, err, command.Wait()); err != nil {
		return nil, fmt.Errorf("drive Traefik's limiter: %w", err)
	}
	return results, nil
}

func (r result) decisions() []decision {
	all := make([]decision, len(r.At))
	for i := range all {
		all[i] = decision{admitted: r.Admitted[i], at: r.At[i]}
	}
	return all
}
