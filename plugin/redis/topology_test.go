package redis

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// startSentinels runs three sentinels over a master.
func startSentinels(t *testing.T, master *server) []string {
	t.Helper()
	var addresses []string
	for i := 0; i < 3; i++ {
		port, dir := freePort(t), t.TempDir()
		file := filepath.Join(dir, "sentinel.conf")
		config := fmt.Sprintf("port %d\nbind 127.0.0.1\ndir %s\nlogfile %s/log\nrequirepass watch\nsentinel monitor mine 127.0.0.1 %d 2\n"+
			"sentinel down-after-milliseconds mine 500\nsentinel failover-timeout mine 3000\n", port, dir, dir, master.port)
		if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
			t.Fatal(err)
		}
		command := exec.Command("redis-server", file, "--sentinel")
		if err := command.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { command.Process.Kill(); command.Wait() })
		addresses = append(addresses, fmt.Sprintf("127.0.0.1:%d", port))
	}
	return addresses
}

func TestSentinelFailover(t *testing.T) {
	if testing.Short() {
		t.Skip("starts five servers")
	}
	t.Parallel()
	master := startServer(t, "--repl-diskless-sync-delay", "0")
	replica := startServer(t, "--replicaof", "127.0.0.1", fmt.Sprint(master.port))
	eventually(t, 20*time.Second, "the replica to follow", func() bool {
		return strings.Contains(replica.cli("INFO", "replication"), "master_link_status:up")
	})
	sentinels := startSentinels(t, master)
	// The first address is nobody's: a sentinel that is down delays nothing.
	c := open(t, Config{
		Addresses: append([]string{fmt.Sprintf("127.0.0.1:%d", freePort(t))}, sentinels...), MasterName: "mine",
		SentinelPassword: "watch", Timeout: 100 * time.Millisecond,
	})
	healthy(t, c)
	mustAdd(t, c, "n")
	l, stop := listen(c, "events")
	defer stop()
	l.hears(t, func() { master.cli("PUBLISH", "events", "x") })
	for _, address := range sentinels { // a failover needs sentinels that know each other and the replica
		port := address[strings.LastIndexByte(address, ':')+1:]
		eventually(t, 20*time.Second, "the sentinels to meet", func() bool {
			out, _ := exec.Command("redis-cli", "-p", port, "-a", "watch", "--no-auth-warning", "SENTINEL", "master", "mine").Output()
			fields := strings.Fields(string(out))
			return value(fields, "num-other-sentinels") == "2" && value(fields, "num-slaves") == "1"
		})
	}
	master.kill()
	eventually(t, 30*time.Second, "a master that answers", func() bool {
		_, err := add(t, c, "n")
		return err == nil
	})
	healthy(t, c)
	if got := replica.cli("GET", "n"); got != "2" {
		t.Errorf("the new master holds %s, want 2", got)
	}
	l.hears(t, func() { replica.cli("PUBLISH", "events", "x") })
	if l.losses.Load() < 1 {
		t.Error("the subscription was never told of the loss")
	}
}

func value(fields []string, name string) string {
	for i := 0; i+1 < len(fields); i++ {
		if fields[i] == name {
			return fields[i+1]
		}
	}
	return ""
}

// A failover that leaves the old master running: only the sentinels, and its
// own READONLY, tell that it is not the one any more.
func TestSentinelNamesAnother(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for the sentinels' period")
	}
	t.Parallel()
	first, second := startFake(t, always(":1\r\n")), startFake(t, always(":2\r\n"))
	var named atomic.Value
	named.Store(first.address())
	sentinel := func() *fake {
		return startFake(t, func(_ *session, words []string) string {
			host, port, _ := strings.Cut(named.Load().(string), ":")
			return string(appendCommand(nil, host, port))
		})
	}
	stale := startFake(t, func(*session, []string) string {
		host, port, _ := strings.Cut(first.address(), ":")
		return string(appendCommand(nil, host, port))
	})
	c := open(t, Config{Addresses: []string{stale.address(), sentinel().address(), sentinel().address()},
		MasterName: "mine", Timeout: time.Second})
	healthy(t, c)
	ask := func() int64 {
		n, _ := strconv.ParseInt(do(t, c, &Call{Name: "X"}).Line, 10, 64)
		return n
	}
	if got := ask(); got != 1 {
		t.Fatalf("server %d answered", got)
	}
	named.Store(second.address())
	eventually(t, 10*time.Second, "the second server to be asked", func() bool { return ask() == 2 })
	for end := time.Now().Add(sentinelPeriod + time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if got := ask(); got == 1 {
			t.Fatal("one stale sentinel turned the client back")
		}
	}
}

// startCluster runs a Cluster of three masters.
func startCluster(t *testing.T) []*server {
	t.Helper()
	var servers []*server
	create := []string{"--cluster", "create"}
	for i := 0; i < 3; i++ {
		// The bus is not 10000 above its port, as by default: somebody may listen there.
		bus := fmt.Sprint(freePort(t))
		s := startServer(t, "--cluster-enabled", "yes", "--cluster-node-timeout", "2000", "--cluster-port", bus)
		servers = append(servers, s)
		create = append(create, s.address()+"@"+bus)
	}
	if out, err := exec.Command("redis-cli", append(create, "--cluster-yes")...).CombinedOutput(); err != nil {
		t.Fatalf("redis-cli --cluster create: %v: %s", err, out)
	}
	for _, s := range servers {
		s := s
		eventually(t, 30*time.Second, "the Cluster to form", func() bool {
			return strings.Contains(s.cli("CLUSTER", "INFO"), "cluster_state:ok")
		})
	}
	return servers
}

func TestCluster(t *testing.T) {
	if testing.Short() {
		t.Skip("starts three servers")
	}
	t.Parallel()
	servers := startCluster(t)
	c := open(t, Config{Addresses: []string{servers[1].address()}, Cluster: true, Timeout: time.Second})
	healthy(t, c)
	if n := len(c.routes.Load().(*routes).nodes); n != 3 {
		t.Fatalf("%d nodes", n)
	}

	// Keys of every slot range, in one Send.
	w := watch(t)
	calls := make([]*Call, 300)
	for i := range calls {
		calls[i] = w.call(fmt.Sprintf("sluice:lim:1:x:60000:{u%d}", i))
	}
	send(c, calls...)
	w.settled()
	if w.good.Load() != 300 {
		t.Fatalf("%v", w)
	}

	l, stop := listen(c, "events")
	defer stop()
	l.hears(t, func() { servers[2].cli("PUBLISH", "events", "x") })

	migrate(t, c, servers)
	failMaster(t, c, servers)
}

// migrate moves one slot while calls go on: ASK, then MOVED, and every call
// counts once.
func migrate(t *testing.T, c *Client, servers []*server) {
	const key = "sluice:{moving}"
	slot := fmt.Sprint(slotOf(key))
	view := c.routes.Load().(*routes)
	var from, to *server
	for _, s := range servers {
		if s.address() == view.nodes[view.owner(key)].address {
			from = s
		} else {
			to = s
		}
	}
	id := func(s *server) string { return s.cli("CLUSTER", "MYID") }
	w := watch(t)
	var wait sync.WaitGroup
	var over atomic.Bool
	wait.Add(1)
	go func() {
		defer wait.Done()
		for !over.Load() {
			send(c, w.call(key), w.call("sluice:{moving}2"))
			time.Sleep(time.Millisecond)
		}
	}()
	begun := func() {
		seen := w.good.Load()
		eventually(t, 5*time.Second, "calls at this stage", func() bool { return w.good.Load() > seen+20 })
	}
	begun()
	to.cli("CLUSTER", "SETSLOT", slot, "IMPORTING", id(from))
	from.cli("CLUSTER", "SETSLOT", slot, "MIGRATING", id(to))
	begun()
	from.cli("MIGRATE", "127.0.0.1", fmt.Sprint(to.port), key, "0", "5000")
	to.cli("SCRIPT", "FLUSH") // ASK, NOSCRIPT and ASK again
	begun()
	from.cli("MIGRATE", "127.0.0.1", fmt.Sprint(to.port), "sluice:{moving}2", "0", "5000")
	begun()
	to.cli("CLUSTER", "SETSLOT", slot, "NODE", id(to))
	from.cli("CLUSTER", "SETSLOT", slot, "NODE", id(to))
	begun()
	over.Store(true)
	wait.Wait()
	w.settled()
	if w.good.Load() != w.sent.Load() {
		t.Errorf("%v", w)
	}
	var sum int
	for _, k := range []string{key, "sluice:{moving}2"} {
		var n int
		fmt.Sscan(to.cli("GET", k), &n)
		sum += n
	}
	if int64(sum) != w.good.Load() {
		t.Errorf("%d executions for %d calls", sum, w.good.Load())
	}
	eventually(t, 5*time.Second, "the slot map to follow", func() bool {
		view := c.routes.Load().(*routes)
		return view.nodes[view.owner(key)].address == to.address()
	})
}

// failMaster loses one of three: its keys are away, the others' are not, and
// when it is back so are they.
func failMaster(t *testing.T, c *Client, servers []*server) {
	for _, s := range servers {
		s.cli("CONFIG", "SET", "cluster-require-full-coverage", "no")
	}
	gone := servers[0]
	lost, kept := "", ""
	for i := 0; lost == "" || kept == ""; i++ {
		key := fmt.Sprintf("k%d", i)
		view := c.routes.Load().(*routes)
		if view.nodes[view.owner(key)].address == gone.address() {
			lost = key
		} else {
			kept = key
		}
	}
	gone.kill()
	eventually(t, 5*time.Second, "the loss to be noticed", func() bool { return !c.Healthy() })
	for i := 0; i < 100; i++ {
		if _, err := add(t, c, kept); err != nil {
			t.Fatalf("a key of a living master: %v", err)
		}
		if _, err := add(t, c, lost); !NotExecuted(err) {
			t.Fatalf("a key of the dead master: %v", err)
		}
	}
	gone.start()
	healthy(t, c)
	mustAdd(t, c, lost)
}

// Two servers that send a call to each other for ever.
func TestRedirectsAreBounded(t *testing.T) {
	for _, word := range []string{"MOVED", "ASK", "TRYAGAIN"} {
		word := word
		t.Run(word, func(t *testing.T) {
			t.Parallel()
			a, b := startFake(t, well), startFake(t, well)
			slots := func(f, other *fake) func(s *session, words []string) string {
				host, port, _ := strings.Cut(f.address(), ":")
				_, second, _ := strings.Cut(other.address(), ":")
				return func(_ *session, words []string) string {
					switch words[0] {
					case "CLUSTER": // the first host is told, the second is "where you asked"
						return fmt.Sprintf("*2\r\n*3\r\n:0\r\n:8191\r\n*2\r\n$%d\r\n%s\r\n:%s\r\n*3\r\n:8192\r\n:16383\r\n*2\r\n$-1\r\n:%s\r\n",
							len(host), host, port, second)
					case "ASKING":
						return "+OK\r\n"
					}
					if word == "TRYAGAIN" {
						return "-TRYAGAIN Multiple keys request during rehashing of slot\r\n"
					}
					return fmt.Sprintf("-%s 0 :%s\r\n", word, second)
				}
			}
			a.behave(slots(a, b))
			b.behave(slots(b, a))
			c := open(t, Config{Addresses: []string{a.address()}, Cluster: true, Timeout: time.Second})
			healthy(t, c)
			before := a.commands.Load() + b.commands.Load()
			o := do(t, c, &Call{Key: "{1}", Name: "X"})
			if Kind(o.Err) != strings.ToLower(word) || !NotExecuted(o.Err) {
				t.Errorf("got %v", o.Err)
			}
			if n := a.commands.Load() + b.commands.Load() - before; n > 2*(1+maxHops)+2 { // ASKING and CLUSTER SLOTS among them
				t.Errorf("%d commands", n)
			}
		})
	}
}

func TestReadSlotsRefuses(t *testing.T) {
	for _, raw := range []string{
		"*0\r\n", ":1\r\n", "*1\r\n:1\r\n", "*1\r\n*2\r\n:0\r\n:1\r\n", "*1\r\n*3\r\n:0\r\n:1\r\n*0\r\n",
		"*1\r\n*3\r\n:-1\r\n:1\r\n*2\r\n+h\r\n:1\r\n", "*1\r\n*3\r\n:0\r\n:16384\r\n*2\r\n+h\r\n:1\r\n",
		"*1\r\n*3\r\n:2\r\n:1\r\n*2\r\n+h\r\n:1\r\n", "*1\r\n*3\r\n:0\r\n:1\r\n*2\r\n+h\r\n+1\r\n",
	} {
		reply, err := parse(raw)
		if err != nil {
			t.Fatal(err)
		}
		if ranges, err := readSlots(reply, "127.0.0.1:1"); err == nil {
			t.Errorf("%q: %v", raw, ranges)
		}
	}
}

func TestMovedTo(t *testing.T) {
	for text, want := range map[string]string{
		"MOVED 1 10.0.0.1:6379":  "10.0.0.1:6379",
		"MOVED 1 :6379":          "10.0.0.9:6379",
		"MOVED 1 ?:6379":         "10.0.0.9:6379",
		"ASK 1 ::1:6379":         "[::1]:6379",
		"ASK 1 redis.local:6379": "redis.local:6379",
		"MOVED":                  "",
	} {
		if got := movedTo(text, "10.0.0.9:1"); got != want {
			t.Errorf("%s: %q", text, got)
		}
	}
}
