// Package redistest runs a real redis-server for tests.
package redistest

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// Server is a redis-server on a free loopback port, without persistence.
type Server struct {
	Addr string

	t       testing.TB
	port    string
	dir     string
	process *exec.Cmd
	command []string // arguments beside port and folder
}

// Start runs a server until the test ends; without the binary the test is
// skipped.
func Start(t testing.TB) *Server {
	t.Helper()
	return start(t)
}

// StartCluster runs a Redis Cluster of one node, which refuses what spans
// slots as a large one does.
func StartCluster(t testing.TB) *Server {
	t.Helper()
	s := start(t, "--cluster-enabled", "yes", "--cluster-announce-ip", "127.0.0.1")
	client := s.Client()
	defer client.Close()
	if err := client.ClusterAddSlotsRange(context.Background(), 0, 16383).Err(); err != nil {
		t.Fatal(err)
	}
	Eventually(t, 10*time.Second, "the cluster is up", func() bool {
		return strings.Contains(client.ClusterInfo(context.Background()).Val(), "cluster_state:ok")
	})
	return s
}

func start(t testing.TB, flags ...string) *Server {
	t.Helper()
	s := newServer(t)
	s.command = append([]string{"--save", "", "--appendonly", "no"}, flags...)
	s.Restart()
	return s
}

// newServer reserves a port.
func newServer(t testing.TB) *Server {
	t.Helper()
	if _, err := exec.LookPath("redis-server"); err != nil {
		t.Skip("redis-server is not installed (Debian package redis-server)")
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{Addr: listener.Addr().String(), t: t, dir: t.TempDir()}
	_, s.port, _ = net.SplitHostPort(s.Addr)
	listener.Close()
	t.Cleanup(s.Kill)
	return s
}

// Restart runs the server on the same port again, empty.
func (s *Server) Restart() {
	s.t.Helper()
	arguments := append(slices.Clone(s.command),
		"--port", s.port, "--bind", "127.0.0.1", "--dir", s.dir, "--loglevel", "warning")
	s.process = exec.Command("redis-server", arguments...)
	s.process.Stderr = os.Stderr
	if err := s.process.Start(); err != nil {
		s.t.Fatal(err)
	}
	client := s.Client()
	defer client.Close()
	Eventually(s.t, 10*time.Second, "redis-server answers", func() bool {
		return client.Ping(context.Background()).Err() == nil
	})
}

// Kill ends the server as a crash would.
func (s *Server) Kill() {
	if s.process != nil {
		_ = s.process.Process.Kill()
		_ = s.process.Wait()
		s.process = nil
	}
}

// Client talks to the server behind authsvc's back.
func (s *Server) Client() *redis.Client {
	return redis.NewClient(&redis.Options{Addr: s.Addr, DisableIdentity: true})
}

// Eventually polls until the condition holds.
func Eventually(t testing.TB, within time.Duration, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(within); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %s", within, what)
		}
	}
}

// StartSentinel runs a master, its replica and a Sentinel that watches both
// under name, ready to fail over within seconds.
func StartSentinel(t testing.TB, name string) (master, replica *Server, sentinel string) {
	t.Helper()
	master = start(t)
	replica = start(t, "--replicaof", "127.0.0.1", master.port)
	config := filepath.Join(t.TempDir(), "sentinel.conf")
	content := fmt.Sprintf("sentinel monitor %[1]s 127.0.0.1 %[2]s 1\nsentinel down-after-milliseconds %[1]s 500\n"+
		"sentinel failover-timeout %[1]s 3000\nsentinel resolve-hostnames no\n", name, master.port)
	if err := os.WriteFile(config, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	watcher := newServer(t)
	watcher.command = []string{config, "--sentinel"}
	watcher.Restart()
	client := redis.NewSentinelClient(&redis.Options{Addr: watcher.Addr, DisableIdentity: true})
	defer client.Close()
	Eventually(t, 30*time.Second, "the Sentinel knows the replica", func() bool {
		replicas, err := client.Replicas(context.Background(), name).Result()
		return err == nil && len(replicas) == 1 && replicas[0]["master-link-status"] == "ok"
	})
	return master, replica, watcher.Addr
}
