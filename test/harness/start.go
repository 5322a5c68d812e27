package harness

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/authsvc"
	"github.com/sluice-gateway/sluice/authsvc/config"
	"github.com/sluice-gateway/sluice/cmd/sluice/stack"
	"github.com/sluice-gateway/sluice/traefik/build"
)

// building bounds a start that may have to build Traefik first.
const building = 15 * time.Minute

// Log hands what is written to the test.
type Log struct{ T testing.TB }

func (l Log) Write(p []byte) (int, error) {
	l.T.Log(strings.TrimRight(string(p), "\n"))
	return len(p), nil
}

// OpenStack starts a stack on ports and in a folder of its own; the test ends it.
func OpenStack(t testing.TB, o stack.Options) *stack.Stack {
	t.Helper()
	o.Listen, o.ListenTLS, o.DataDir = "127.0.0.1:0", "127.0.0.1:0", t.TempDir()
	if o.Log == nil {
		o.Log = Log{t}
	}
	ctx, cancel := context.WithTimeout(context.Background(), building)
	defer cancel()
	s, err := stack.Open(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// OpenAuthsvc starts authsvc on ports and with keys of its own; the test ends it.
func OpenAuthsvc(t testing.TB, c *config.Config) *authsvc.Service {
	t.Helper()
	c.Listen, c.AdminListen, c.Own.KeyDir = "127.0.0.1:0", "127.0.0.1:0", t.TempDir()
	s := &authsvc.Service{Config: c, Log: slog.New(slog.DiscardHandler)}
	if err := s.Open(context.Background()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// StartTraefik starts the real one in a folder that holds its traefik.yml; the
// test ends it. Without an environment it has this process's.
func StartTraefik(t testing.TB, folder string, env ...string) (ended <-chan error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), building)
	defer cancel()
	binary, err := build.Build(ctx, build.Options{Progress: Log{t}})
	if err != nil {
		t.Fatal(err)
	}
	said, err := os.Create(filepath.Join(folder, "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer said.Close()
	traefik := exec.Command(binary, "--configFile=traefik.yml")
	traefik.Dir, traefik.Env, traefik.Stdout, traefik.Stderr = folder, env, said, said
	return run(t, traefik, said.Name())
}

// run starts a command in a process group of its own, which the test ends, and
// tells its last words where the test fails.
func run(t testing.TB, command *exec.Cmd, said string) <-chan error {
	t.Helper()
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- command.Wait(); close(ended) }()
	t.Cleanup(func() {
		_ = syscall.Kill(-command.Process.Pid, syscall.SIGKILL) // it may have ended
		<-ended
		if t.Failed() {
			words, _ := os.ReadFile(said)
			t.Logf("the last words of %s: %s", command.Path, words[max(0, len(words)-2000):])
		}
	})
	return ended
}

// Up is `sluice up` as a user runs it.
type Up struct {
	Ready     stack.Ready
	ReadyFile string
	Stop      func() error // by Ctrl-C, which a terminal sends to all that it has started
	log       string
}

// Said is what it has printed so far.
func (u *Up) Said() string {
	said, _ := os.ReadFile(u.log) // it is there since the start
	return string(said)
}

// StartUp runs a command that takes the flags of `sluice up`, with its ready file
// and its data in a folder, until it is ready; the test ends it.
func StartUp(t testing.TB, folder string, command func(flags []string) *exec.Cmd, flags ...string) *Up {
	t.Helper()
	u := &Up{ReadyFile: filepath.Join(folder, "ready.json"), log: filepath.Join(folder, "log")}
	up := command(append([]string{"--listen=127.0.0.1:0", "--listenTLS=127.0.0.1:0", "--dataDir=" + filepath.Join(folder, "data"), "--readyFile=" + u.ReadyFile}, flags...))
	said, err := os.Create(u.log)
	if err != nil {
		t.Fatal(err)
	}
	defer said.Close()
	up.Stdout, up.Stderr = said, said
	ended := run(t, up, u.log)
	u.Stop = sync.OnceValue(func() error {
		_ = syscall.Kill(-up.Process.Pid, syscall.SIGINT) // it may have ended by itself
		select {
		case err := <-ended:
			return err
		case <-time.After(30 * time.Second):
			return errors.New("still running half a minute after the interrupt")
		}
	})
	t.Cleanup(func() { _ = u.Stop() })
	Eventually(t, building, "the ready file", func() error {
		select {
		case err := <-ended:
			t.Fatalf("it ended: %v", err)
		default:
		}
		_, err := os.Stat(u.ReadyFile)
		return err
	})
	content, err := os.ReadFile(u.ReadyFile)
	if err := errors.Join(err, json.Unmarshal(content, &u.Ready)); err != nil {
		t.Fatalf("%v in %s", err, content)
	}
	return u
}
