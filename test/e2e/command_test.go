package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/cmd/sluice/stack"
	"github.com/sluice-gateway/sluice/test/harness"
)

// TestUp runs the command as a user does: the ready file, the tour, Ctrl-C, and
// nothing left behind.
func TestUp(t *testing.T) {
	folder := t.TempDir()
	command := filepath.Join(folder, "sluice")
	build := exec.Command("go", "build", "-o", command, "./cmd/sluice")
	build.Dir = "../.."
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	redis := harness.StartRedis(t)
	readyFile := filepath.Join(folder, "ready.json")
	var stdout, stderr bytes.Buffer
	up := exec.Command(command, "up", "--listen=127.0.0.1:0", "--listenTLS=127.0.0.1:0", "--redis="+redis.Addr, "--gateways=2",
		"--dataDir="+filepath.Join(folder, "data"), "--readyFile="+readyFile)
	up.Stdout, up.Stderr = &stdout, &stderr
	up.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := up.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- up.Wait() }()
	stop := func() error {
		_ = up.Process.Signal(os.Interrupt) // it may have ended by itself
		select {
		case err := <-ended:
			ended <- err
			return err
		case <-time.After(30 * time.Second):
			_ = up.Process.Kill()
			return errors.New("still running half a minute after the interrupt")
		}
	}
	t.Cleanup(func() { _ = stop() })

	harness.Eventually(t, 15*time.Minute, "the ready file", func() error { // Traefik may have to be built
		select {
		case err := <-ended:
			ended <- err
			t.Fatalf("it ended: %v\n%s", err, stderr.String())
		default:
		}
		_, err := os.Stat(readyFile)
		return err
	})
	if info, err := os.Stat(readyFile); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the ready file holds tokens: %v, %v", info.Mode(), err)
	}
	content, err := os.ReadFile(readyFile)
	if err != nil {
		t.Fatal(err)
	}
	var members map[string]any
	var ready stack.Ready
	if err := errors.Join(json.Unmarshal(content, &members), json.Unmarshal(content, &ready)); err != nil {
		t.Fatalf("%v in %s", err, content)
	}
	wanted := []string{"admin", "adminToken", "authsvc", "gateways", "http", "https", "issuerToken", "plugin", "redis", "wiring"}
	if got := slices.Sorted(maps.Keys(members)); !slices.Equal(got, wanted) {
		t.Errorf("members %q, want %q", got, wanted)
	}
	if ready.Plugin != stack.Compiled || ready.Wiring != stack.Fast || ready.Redis != redis.Addr || len(ready.Gateways) != 2 {
		t.Errorf("%+v", ready)
	}
	s := &site{t: t, ready: ready, redis: redis, client: &http.Client{Timeout: 10 * time.Second}}
	defer s.client.CloseIdleConnections()
	if who := s.register("ready@example.org"); s.get("/v1/users/"+who.User.ID, bearer(who.AccessToken)).status != 200 {
		t.Error("the gateway that is ready does not serve")
	}

	if err := stop(); err != nil {
		t.Errorf("after the interrupt: %v\n%s", err, stderr.String())
	}
	if tour := stdout.String(); !strings.Contains(tour, "curl") || !strings.Contains(tour, ready.HTTP) {
		t.Errorf("the tour: %s", tour)
	}
	for _, gateway := range ready.Gateways {
		harness.Eventually(t, 5*time.Second, "the gateways are gone", func() error {
			if err := syscall.Kill(gateway.PID, 0); !errors.Is(err, syscall.ESRCH) {
				return fmt.Errorf("pid %d: %v", gateway.PID, err)
			}
			return nil
		})
	}
}

// TestMakeUpEndsQuietly presses Ctrl-C, which a terminal sends to make and to
// all that it started: that is no error.
func TestMakeUpEndsQuietly(t *testing.T) {
	folder := t.TempDir()
	printed, err := os.Create(filepath.Join(folder, "printed"))
	if err != nil {
		t.Fatal(err)
	}
	defer printed.Close()
	up := exec.Command("make", "up", "ARGS=--listen=127.0.0.1:0 --listenTLS=127.0.0.1:0 --dataDir="+filepath.Join(folder, "data"))
	up.Dir = "../.."
	up.Stdout, up.Stderr = printed, printed
	up.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := up.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { _ = up.Wait(); close(ended) }() // make itself dies of the signal
	t.Cleanup(func() {
		_ = syscall.Kill(-up.Process.Pid, syscall.SIGKILL) // what is left, if anything
		<-ended
	})
	said := func() string {
		content, err := os.ReadFile(printed.Name())
		if err != nil {
			t.Fatal(err)
		}
		return string(content)
	}
	harness.Eventually(t, 15*time.Minute, "the tour", func() error { // Traefik may have to be built
		select {
		case <-ended:
			t.Fatalf("it ended: %s", said())
		default:
		}
		if !strings.Contains(said(), "Ctrl-C ends everything.") {
			return errors.New(said())
		}
		return nil
	})
	if err := syscall.Kill(-up.Process.Pid, syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	harness.Eventually(t, 30*time.Second, "its end", func() error {
		select {
		case <-ended:
			return nil
		default:
			return errors.New(said())
		}
	})
	if out := said(); !strings.Contains(out, "Stopping.") || strings.Contains(out, "***") {
		t.Errorf("after Ctrl-C: %s", out)
	}
}
