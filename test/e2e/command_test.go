package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/cmd/sluice/stack"
	"github.com/sluice-gateway/sluice/test/harness"
)

// TestUp runs the command as a user does: the ready file, the tour, Ctrl-C, which
// is no error, and nothing left behind.
func TestUp(t *testing.T) {
	redis := harness.StartRedis(t)
	up := harness.StartUp(t, t.TempDir(), func(flags []string) *exec.Cmd {
		command := exec.Command("make", "up", "ARGS="+strings.Join(flags, " "))
		command.Dir = "../.."
		return command
	}, "--redis="+redis.Addr, "--gateways=2")
	if info, err := os.Stat(up.ReadyFile); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the ready file holds tokens: %v, %v", info.Mode(), err)
	}
	content, err := os.ReadFile(up.ReadyFile)
	if err != nil {
		t.Fatal(err)
	}
	var members map[string]any
	if err := json.Unmarshal(content, &members); err != nil {
		t.Fatalf("%v in %s", err, content)
	}
	ready := up.Ready
	wanted := []string{"admin", "adminToken", "authsvc", "gateways", "http", "https", "issuerToken", "plugin", "redis", "wiring"}
	if got := slices.Sorted(maps.Keys(members)); !slices.Equal(got, wanted) {
		t.Errorf("members %q, want %q", got, wanted)
	}
	if ready.Plugin != stack.Compiled || ready.Wiring != stack.Fast || ready.Redis != redis.Addr || len(ready.Gateways) != 2 {
		t.Errorf("%+v", ready)
	}
	s := &site{t: t, ready: ready, redis: redis, client: harness.NewClient()}
	defer s.client.CloseIdleConnections()
	if who := s.register("ready@example.org"); s.get("/v1/users/"+who.User.ID, bearer(who.AccessToken)).Status != 200 {
		t.Error("the gateway that is ready does not serve")
	}

	harness.Eventually(t, 5*time.Second, "the tour", func() error {
		if said := up.Said(); !strings.Contains(said, "curl") || !strings.Contains(said, ready.HTTP) || !strings.Contains(said, "Ctrl-C ends everything.") {
			return errors.New(said)
		}
		return nil
	})
	_ = up.Stop() // make itself dies of the signal
	if said := up.Said(); !strings.Contains(said, "Stopping.") || strings.Contains(said, "***") {
		t.Errorf("after Ctrl-C: %s", said)
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
