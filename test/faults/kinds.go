package faults

import (
	"context"
	"net"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// Kind is one way for Redis, or the way to it, to fail.
type Kind struct {
	Name string
	How  string // how it is made, in a word or two, for the table
	Over over

	begin func(b *bed) // the fault acts when it returns
	end   func(b *bed) // nil: the proxies' behaviour ends, nothing else to do

	Hostile  bool // replies ask for memory
	Forgets  bool // Redis loses counts that no gateway knows in full
	Serves   bool // Redis goes on granting meanwhile
	Doubtful bool // calls fail in ways that prove nothing about their execution
	Cuts     bool // connections are cut, and so are calls under way: those are doubtful too
	Partial  bool // some calls are answered, so that a breaker takes heart again
	Speaks   bool // something arrives all the time, so that a request may wait for longestWait

	Clocks []time.Duration // how far off each gateway's is, where the binary heeds it (clock_test.go)
}

// grants tells whether Redis goes on granting all the time.
func (k *Kind) grants() bool { return k.Serves && k.Over != overSentinel }

// doubtful tells whether calls may end in ways that prove nothing about their
// execution.
func (k *Kind) doubtful(state State) bool { return k.Doubtful || k.Cuts && state == Under }

// clock is how far off a gateway's is.
func (k *Kind) clock(gateway int) time.Duration {
	if gateway < len(k.Clocks) {
		return k.Clocks[gateway]
	}
	return 0
}

type over int

const (
	overOne over = iota
	overSentinel
	overCluster
	straight // one server, no proxy
)

// Kinds are all faults of the campaign.
var Kinds = []Kind{
	{Name: "refused", How: "listener closed, connections reset", begin: func(b *bed) { b.doors(DoorClosed); b.cut(true) }, end: opened, Cuts: true},
	{Name: "SYN black hole", How: "backlog full; established connections silent", begin: func(b *bed) { b.begin(silence()); b.doors(DoorGone) }, end: opened},
	{Name: "handshake silence", How: "connections cut; new ones silent", begin: func(b *bed) { b.begin(silence()); b.cut(false) }, Cuts: true},
	{Name: "established silence", How: "nothing forwarded, delivered afterwards", begin: func(b *bed) { b.begin(silence()) }},
	{Name: "stopped server", How: "SIGSTOP", begin: func(b *bed) { b.stop() }, end: func(b *bed) { b.resume() }},
	{Name: "slow", How: "each reply four timeouts late", begin: func(b *bed) { b.begin(slow(4 * b.timeout)) }, Doubtful: true, Partial: true},
	{Name: "half reply", How: "script replies stop half way", begin: func(b *bed) { b.begin(halfReply()) }, Doubtful: true, Partial: true},
	{Name: "FIN before reply", How: "executed, then FIN", begin: func(b *bed) { b.begin(scripts(finish)) }, Doubtful: true},
	{Name: "RST mid-reply", How: "executed, half the reply, then RST", begin: func(b *bed) { b.begin(scripts(resetHalfWay)) }, Doubtful: true},
	{Name: "RST before execution", How: "script read, not forwarded, RST", begin: func(b *bed) { b.begin(&Behaviour{Swallowed: isScript}) }, Doubtful: true},
	{Name: "LOADING", How: "answered by the proxy", begin: refusing("LOADING Redis is loading the dataset in memory", all)},
	{Name: "MASTERDOWN", How: "replica of nobody, stale reads off", begin: func(b *bed) {
		b.do("CONFIG", "SET", "replica-serve-stale-data", "no")
		b.do("REPLICAOF", "127.0.0.1", "1")
	}, end: func(b *bed) { b.do("REPLICAOF", "NO", "ONE"); b.do("CONFIG", "SET", "replica-serve-stale-data", "yes") }},
	{Name: "CLUSTERDOWN", How: "answered by the proxy", begin: refusing("CLUSTERDOWN The cluster is down", keyed)},
	{Name: "READONLY", How: "REPLICAOF", begin: func(b *bed) { b.do("REPLICAOF", "127.0.0.1", "1") }, end: func(b *bed) { b.do("REPLICAOF", "NO", "ONE") }},
	{Name: "OOM", How: "maxmemory 1, noeviction", begin: func(b *bed) { b.do("CONFIG", "SET", "maxmemory", "1") }, end: func(b *bed) { b.do("CONFIG", "SET", "maxmemory", "0") }, Doubtful: true},
	{Name: "BUSY", How: "an endless script", begin: busy, end: func(b *bed) { b.do("SCRIPT", "KILL") }},
	{Name: "NOAUTH", How: "answered by the proxy", begin: refusing("NOAUTH Authentication required.", all)},
	{Name: "WRONGPASS", How: "requirepass changed, connections killed", begin: func(b *bed) {
		b.do("CONFIG", "SET", "requirepass", "other")
		b.do("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
		b.do("CLIENT", "KILL", "TYPE", "pubsub", "SKIPME", "yes")
	}, end: func(b *bed) { b.do("CONFIG", "SET", "requirepass", "") }, Cuts: true},
	{Name: "NOPERM", How: "ACL without scripts", begin: func(b *bed) { b.do("ACL", "SETUSER", "default", "-@scripting") }, end: func(b *bed) { b.do("ACL", "SETUSER", "default", "+@all") }},
	{Name: "NOSCRIPT", How: "answered by the proxy, to EVAL too", begin: refusing("NOSCRIPT No matching script. Please use EVAL.", isScript)},
	{Name: "MOVED", How: "answered by the proxy, to nowhere", begin: refusing("MOVED 1234 127.0.0.1:1", keyed)},
	{Name: "ASK", How: "answered by the proxy, to nowhere", begin: refusing("ASK 1234 127.0.0.1:1", keyed)},
	{Name: "TRYAGAIN", How: "answered by the proxy", begin: refusing("TRYAGAIN Multiple keys request during rehashing of slot", keyed)},
	{Name: "max clients", How: "maxclients 1, connections killed", begin: func(b *bed) {
		b.do("CONFIG", "SET", "maxclients", "1")
		b.do("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
		b.do("CLIENT", "KILL", "TYPE", "pubsub", "SKIPME", "yes")
	}, end: func(b *bed) { b.do("CONFIG", "SET", "maxclients", "10000") }, Cuts: true},
	{Name: "garbage", How: "executed, reply falsified", begin: falsify("SSH-2.0-OpenSSH_9.2\r\n"), Hostile: true, Doubtful: true},
	{Name: "$1000000000", How: "executed, reply falsified", begin: falsify("$1000000000\r\n"), Hostile: true, Doubtful: true},
	{Name: "*100000000", How: "executed, reply falsified", begin: falsify("*100000000\r\n"), Hostile: true, Doubtful: true},
	{Name: "wrong type of reply", How: "executed, reply falsified", begin: falsify(wrongType), Hostile: true, Doubtful: true},
	{Name: "endless pushes", How: "executed, pushes without end instead of the reply", begin: func(b *bed) { b.begin(pour(">2\r\n$4\r\nnews\r\n$5\r\nhello\r\n")) }, Doubtful: true, Speaks: true},
	{Name: "endless nonsense", How: "executed, +OK without end instead of the reply", begin: func(b *bed) { b.begin(pour("+OK\r\n")) }, Doubtful: true, Speaks: true},
	{Name: "wrong type of value", How: "the hot key holds a list", begin: func(b *bed) {
		b.do("EVAL", "redis.call('DEL', KEYS[1]) return redis.call('RPUSH', KEYS[1], 'x')", 1, b.redisKey(routeHot, hotKey))
	}, end: func(b *bed) { b.do("DEL", b.redisKey(routeHot, hotKey)) }, Doubtful: true},
	{Name: "TIME steps back", How: "scripts see Redis's clock 10 min early", begin: func(b *bed) { b.begin(&Behaviour{Command: stepBack}) }, Serves: true},
	{Name: "restart empty", How: "kill -9, started anew after the fault's time", begin: func(b *bed) { b.server.Kill() }, end: func(b *bed) { b.server.Restart() }, Forgets: true},
	{Name: "FLUSHALL", How: "once", begin: func(b *bed) { b.do("FLUSHALL") }, end: nothing, Forgets: true, Serves: true},
	{Name: "SCRIPT FLUSH", How: "every 20 ms", begin: func(b *bed) { b.repeat(20*time.Millisecond, "SCRIPT", "FLUSH") }, Serves: true},
	{Name: "eviction", How: "maxmemory 1, allkeys-random, for a moment", begin: evict, end: nothing, Forgets: true, Serves: true},
	{Name: "CLIENT PAUSE", How: "ALL, for the fault's time", begin: func(b *bed) { b.do("CLIENT", "PAUSE", b.lasts.Milliseconds(), "ALL") }, end: func(b *bed) { b.do("PING") }},
	{Name: "CLIENT PAUSE WRITE", How: "reads are answered, scripts are not", begin: func(b *bed) { b.do("CLIENT", "PAUSE", 60000, "WRITE") }, end: func(b *bed) { b.do("CLIENT", "UNPAUSE") }, Doubtful: true, Partial: true},
	{Name: "Sentinel failover", How: "master killed, replica promoted", Over: overSentinel, Forgets: true, Serves: true},
	{Name: "Cluster resharding", How: "1,200 slots moved under way", Over: overCluster, Serves: true},
}

func nothing(*bed) {}

func opened(b *bed) { b.doors(DoorOpen) }

// start begins the fault.
func (k *Kind) start(b *bed) {
	if b.topology != nil {
		b.topology.disturb()
		return
	}
	k.begin(b)
}

// stop ends it.
func (k *Kind) stop(b *bed) {
	b.end()
	if k.end != nil {
		k.end(b)
	}
}

// silence forwards nothing until the end.
func silence() *Behaviour { return &Behaviour{Held: all} }

// all, keyed and isScript say which commands a fault concerns. Keyed are those
// that a Cluster routes.
func all([]string) bool { return true }

func keyed(words []string) bool {
	switch strings.ToUpper(words[0]) {
	case "SET", "SETRANGE":
		return true
	}
	return isScript(words)
}

// refusing answers such commands with an error, in Redis's stead.
func refusing(message string, which func(words []string) bool) func(*bed) {
	return func(b *bed) {
		b.begin(&Behaviour{Command: func(words []string, _ string) ([]string, string) {
			if which(words) {
				return nil, "-" + message + "\r\n"
			}
			return words, ""
		}})
	}
}

// slow delivers every reply later, by latency: those of one moment come
// together.
func slow(by time.Duration) *Behaviour {
	b := &Behaviour{}
	b.Late = by
	return b
}

// scripts has a fault act on the replies of scripts alone.
func scripts(act func(to *net.TCPConn, reply []byte) bool) *Behaviour {
	return &Behaviour{Reply: func(to *net.TCPConn, words []string, reply []byte) bool {
		if isScript(words) {
			return act(to, reply)
		}
		_, err := to.Write(reply)
		return err == nil
	}}
}

// halfReply delivers the other half at the end.
func halfReply() *Behaviour {
	b := &Behaviour{}
	b.Reply = scripts(func(to *net.TCPConn, reply []byte) bool {
		_, _ = to.Write(reply[:len(reply)/2])
		<-b.done
		_, _ = to.Write(reply[len(reply)/2:])
		return false
	}).Reply
	return b
}

// pour says something a hundred thousand times a second instead of the reply,
// until the gateway hangs up or the fault ends. Faster would take the machine
// from the gateway as well.
func pour(what string) *Behaviour {
	b := &Behaviour{}
	flood := []byte(strings.Repeat(what, 100))
	b.Reply = scripts(func(to *net.TCPConn, _ []byte) bool {
		pace := time.NewTicker(time.Millisecond)
		defer pace.Stop()
		for {
			select {
			case <-b.done:
				to.Close()
				return false
			case <-pace.C:
			}
			if _, err := to.Write(flood); err != nil {
				return false
			}
		}
	}).Reply
	return b
}

func finish(to *net.TCPConn, _ []byte) bool {
	_ = to.CloseWrite()
	return false
}

func resetHalfWay(to *net.TCPConn, reply []byte) bool {
	_, _ = to.Write(reply[:len(reply)/2])
	_ = to.SetLinger(0)
	to.Close()
	return false
}

// falsify lets scripts run and puts something else in their reply's place.
func falsify(instead string) func(*bed) {
	return func(b *bed) {
		b.begin(scripts(func(to *net.TCPConn, _ []byte) bool {
			_, err := to.Write([]byte(instead))
			return err == nil && instead == wrongType
		}))
	}
}

// wrongType is well said, but not what a script answers.
const wrongType = ":5\r\n"

// stepBack runs every script under a clock that is ten minutes early, which is
// before the running window began.
func stepBack(words []string, source string) ([]string, string) {
	const reads = "local time = redis.call('TIME')"
	if !strings.Contains(source, reads) {
		return words, ""
	}
	early := strings.Replace(source, reads, reads+"; time[1] = string.format('%.0f', tonumber(time[1]) - 600)", 1)
	return append([]string{"EVAL", early}, words[2:]...), ""
}

// busy leaves the server to a script that never ends.
func busy(b *bed) {
	b.do("CONFIG", "SET", "busy-reply-threshold", "20")
	endless := redis.NewClient(&redis.Options{Addr: b.server.Addr, MaxRetries: -1, ReadTimeout: time.Minute})
	b.t.Cleanup(func() { endless.Close() })
	started := make(chan struct{})
	go func() {
		conn := endless.Conn()
		defer conn.Close()
		conn.Ping(context.Background())
		close(started)
		conn.Eval(context.Background(), "while true do end", nil) // ends with an error, killed
	}()
	<-started
}

// evict makes Redis evict every key it can.
func evict(b *bed) {
	b.do("CONFIG", "SET", "maxmemory-policy", "allkeys-random")
	b.do("CONFIG", "SET", "maxmemory", "1")
	b.do("CONFIG", "SET", "maxmemory", "0")
}
