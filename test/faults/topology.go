package faults

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sluice-gateway/sluice/internal/redistest"
	"github.com/sluice-gateway/sluice/test/harness"
)

// sentinels is a master, a replica and three sentinels over them.
type sentinels struct {
	t       testing.TB
	master  *redistest.Server
	replica *redistest.Server
	client  redis.UniversalClient // of whoever is the master
}

const masterName = "mine"

func (b *bed) overSentinel() {
	s := &sentinels{t: b.t}
	s.master = redistest.Start(b.t, "--repl-diskless-sync-delay", "0")
	host, port, err := net.SplitHostPort(s.master.Addr)
	if err != nil {
		b.t.Fatal(err)
	}
	s.replica = redistest.Start(b.t, "--replicaof", host, port)
	harness.Eventually(b.t, 20*time.Second, "the replica follows", func() error {
		if info := s.replica.Do("INFO", "replication"); !strings.Contains(info, "master_link_status:up") {
			return fmt.Errorf("%s", info)
		}
		return nil
	})
	var ports []string
	for range 3 {
		ports = append(ports, s.watch(host, port))
	}
	for _, p := range ports { // a failover needs sentinels that know each other and the replica
		harness.Eventually(b.t, 20*time.Second, "the sentinels meet", func() error {
			out, _ := exec.Command("redis-cli", "-p", p, "SENTINEL", "master", masterName).Output()
			fields := strings.Fields(string(out))
			if after(fields, "num-other-sentinels") != "2" || after(fields, "num-slaves") != "1" {
				return fmt.Errorf("others %q, replicas %q", after(fields, "num-other-sentinels"), after(fields, "num-slaves"))
			}
			return nil
		})
		b.setup.Addresses = append(b.setup.Addresses, "127.0.0.1:"+p)
	}
	b.setup.MasterName = masterName
	s.client = redis.NewFailoverClient(&redis.FailoverOptions{
		MasterName: masterName, SentinelAddrs: b.setup.Addresses, ContextTimeoutEnabled: true, DialTimeout: time.Second,
	})
	b.t.Cleanup(func() { s.client.Close() })
	b.counters = func() map[string]counter { return readCounters(b.t, s.client) }
	b.topology = s
}

// watch starts a sentinel and returns its port.
func (s *sentinels) watch(host, port string) string {
	own, dir := redistest.FreePort(s.t), s.t.TempDir()
	file := filepath.Join(dir, "sentinel.conf")
	config := fmt.Sprintf("port %s\nbind 127.0.0.1\ndir %s\nlogfile %s\nsentinel monitor %s %s %s 2\n"+
		"sentinel down-after-milliseconds %s 500\nsentinel failover-timeout %s 3000\n",
		own, dir, filepath.Join(dir, "log"), masterName, host, port, masterName, masterName)
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		s.t.Fatal(err)
	}
	process := exec.Command("redis-server", file, "--sentinel")
	process.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := process.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		_ = process.Process.Kill()
		_ = process.Wait()
	})
	return own
}

// after is the field that follows the named one.
func after(fields []string, name string) string {
	for i := 0; i+1 < len(fields); i++ {
		if fields[i] == name {
			return fields[i+1]
		}
	}
	return ""
}

func (s *sentinels) reader() redis.UniversalClient { return s.client }

func (s *sentinels) disturb() { s.master.Kill() }

// settle waits for the replica's promotion.
func (s *sentinels) settle() {
	harness.Eventually(s.t, 60*time.Second, "the replica is promoted", func() error {
		if role := s.replica.Do("ROLE"); !strings.HasPrefix(role, "master") {
			return fmt.Errorf("%s", strings.Fields(role)[0])
		}
		return nil
	})
}

// cluster is three masters.
type cluster struct {
	t       testing.TB
	servers []*redistest.Server
	client  *redis.ClusterClient
	moving  chan error
}

func (b *bed) overCluster() {
	c := &cluster{t: b.t}
	create := []string{"--cluster", "create"}
	for range 3 {
		// Not 10000 above its port, as by default: that may be no port at all.
		bus := redistest.FreePort(b.t)
		s := redistest.Start(b.t, "--cluster-enabled", "yes", "--cluster-node-timeout", "2000", "--cluster-port", bus)
		c.servers = append(c.servers, s)
		create = append(create, s.Addr+"@"+bus)
	}
	if out, err := exec.Command("redis-cli", append(create, "--cluster-yes")...).CombinedOutput(); err != nil {
		b.t.Fatalf("redis-cli --cluster create: %v: %s", err, out)
	}
	for _, s := range c.servers {
		b.setup.Addresses = append(b.setup.Addresses, s.Addr)
		harness.Eventually(b.t, 30*time.Second, "the Cluster forms", func() error {
			if info := s.Do("CLUSTER", "INFO"); !strings.Contains(info, "cluster_state:ok") {
				return fmt.Errorf("%s", info)
			}
			return nil
		})
	}
	b.setup.Cluster = true
	c.client = redis.NewClusterClient(&redis.ClusterOptions{Addrs: b.setup.Addresses, ContextTimeoutEnabled: true, DialTimeout: time.Second})
	b.t.Cleanup(func() { c.client.Close() })
	b.counters = func() map[string]counter {
		all := map[string]counter{}
		var mu sync.Mutex
		err := c.client.ForEachMaster(context.Background(), func(_ context.Context, master *redis.Client) error {
			part := readCounters(b.t, master)
			mu.Lock()
			defer mu.Unlock()
			for key, value := range part {
				all[key] = value
			}
			return nil
		})
		if err != nil {
			b.t.Error(err)
		}
		return all
	}
	b.topology = c
}

func (c *cluster) reader() redis.UniversalClient { return c.client }

// disturb moves slots from each master to the next, round and round, as
// redis-cli does it: ASK, then MOVED, with keys in them.
func (c *cluster) disturb() {
	c.moving = make(chan error, 1)
	go func() {
		for i, from := range c.servers {
			to := c.servers[(i+1)%len(c.servers)]
			out, err := exec.Command("redis-cli", "--cluster", "reshard", from.Addr,
				"--cluster-from", from.Do("CLUSTER", "MYID"), "--cluster-to", to.Do("CLUSTER", "MYID"),
				"--cluster-slots", "400", "--cluster-yes").CombinedOutput()
			if err != nil {
				c.moving <- fmt.Errorf("redis-cli --cluster reshard: %w: %s", err, out)
				return
			}
		}
		c.moving <- nil
	}()
}

func (c *cluster) settle() {
	select {
	case err := <-c.moving:
		if err != nil {
			c.t.Error(err)
		}
	case <-time.After(2 * time.Minute):
		c.t.Error("resharding does not end")
	}
}
