package redistest

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// StartCluster runs a Redis Cluster of one node, which refuses what spans
// slots as a large one does.
func StartCluster(t testing.TB) *Server {
	t.Helper()
	s := Start(t, "--cluster-enabled", "yes", "--cluster-announce-ip", "127.0.0.1")
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

// StartSentinel runs a master, its replica and a Sentinel that watches both
// under name, ready to fail over within seconds.
func StartSentinel(t testing.TB, name string) (master, replica *Server, sentinel string) {
	t.Helper()
	master = Start(t)
	replica = Start(t, "--replicaof", "127.0.0.1", master.port)
	config := filepath.Join(t.TempDir(), "sentinel.conf")
	content := fmt.Sprintf("sentinel monitor %[1]s 127.0.0.1 %[2]s 1\nsentinel down-after-milliseconds %[1]s 500\n"+
		"sentinel failover-timeout %[1]s 3000\nsentinel resolve-hostnames no\n", name, master.port)
	if err := os.WriteFile(config, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	watcher := newServer(t, config, "--sentinel")
	watcher.Restart()
	client := redis.NewSentinelClient(&redis.Options{Addr: watcher.Addr, DisableIdentity: true})
	defer client.Close()
	Eventually(t, 30*time.Second, "the Sentinel knows the replica", func() bool {
		replicas, err := client.Replicas(context.Background(), name).Result()
		return err == nil && len(replicas) == 1 && replicas[0]["master-link-status"] == "ok"
	})
	return master, replica, watcher.Addr
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
