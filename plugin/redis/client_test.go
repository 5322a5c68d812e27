package redis

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	mathrand "math/rand"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

var increment = NewScript("return redis.call('INCRBY', KEYS[1], ARGV[1])")

// add runs increment once and returns the sum.
func add(t testing.TB, c *Client, key string) (int64, error) {
	t.Helper()
	o := do(t, c, &Call{Key: key, Script: increment, Args: []string{"1"}})
	if o.Err != nil {
		return 0, o.Err
	}
	return strconv.ParseInt(o.Line, 10, 64)
}

// mustAdd tries until a call is answered well.
func mustAdd(t testing.TB, c *Client, key string) {
	t.Helper()
	eventually(t, 15*time.Second, "a call to succeed", func() bool {
		_, err := add(t, c, key)
		return err == nil
	})
}

func TestScriptIsLoadedWhenUnknown(t *testing.T) {
	s := startServer(t)
	c := open(t, Config{Addresses: []string{s.address()}, Timeout: time.Second})
	healthy(t, c)
	for i := int64(1); i <= 4; i++ {
		if i == 3 {
			s.cli("SCRIPT", "FLUSH")
		}
		if n, err := add(t, c, "n"); err != nil || n != i {
			t.Fatalf("call %d: %d, %v", i, n, err)
		}
	}
	if c.Stats().Errors["noscript"] != 0 {
		t.Errorf("a script that was loaded is no error: %v", c.Stats())
	}
}

// A thousand calls from many goroutines, each answered with its own reply.
func TestRepliesMeetTheirCalls(t *testing.T) {
	s := startServer(t)
	c := open(t, Config{Addresses: []string{s.address()}, Timeout: time.Second})
	healthy(t, c)
	echo := NewScript("return {ok = ARGV[1]}")
	to := inbox(t)
	var wait sync.WaitGroup
	for g := 0; g < 10; g++ {
		calls := make([]*Call, 100)
		for i := range calls {
			want := fmt.Sprintf("%d of %d %s", i, g, strings.Repeat("x", i*20))
			wait.Add(1)
			call := &Call{Script: echo, Args: []string{want}, To: to}
			call.Tag = &fate{ended: func() {
				defer wait.Done()
				if call.Err != nil || call.Line != want {
					t.Errorf("got %.20q, want %.20q, %v", call.Line, want, call.Err)
				}
			}}
			calls[i] = call
		}
		go func() {
			send(c, calls...)
		}()
	}
	wait.Wait()
	if n := c.Stats().Calls; n != 1000 {
		t.Errorf("%d calls counted", n)
	}
}

func TestHandshakeWithRedis(t *testing.T) {
	s := startServer(t)
	s.cli("ACL", "SETUSER", "gate", "on", ">old", "~sluice:*", "+@scripting", "+incrby", "+select")
	password := atomic.Value{}
	password.Store("old")
	c := open(t, Config{
		Addresses: []string{s.address()}, Username: "gate", DB: 5, ClientName: "sluice-1", Timeout: time.Second,
		Password: func() (string, error) { return password.Load().(string), nil },
	})
	healthy(t, c) // PING is forbidden to this user, and that is an answer
	if n, err := add(t, c, "sluice:n"); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	if got := s.cli("-n", "5", "GET", "sluice:n"); got != "1" {
		t.Errorf("database 5 holds %q", got)
	}
	if got := s.cli("CLIENT", "LIST"); !strings.Contains(got, " name=sluice-1 ") {
		t.Errorf("no connection has the name:\n%s", got)
	}
	if _, err := add(t, c, "other:n"); Kind(err) != "noperm" || !NotExecuted(err) {
		t.Errorf("got %v", err)
	}
	// The secret is replaced and sessions are cut: no restart is needed.
	s.cli("ACL", "SETUSER", "gate", "resetpass", ">new")
	s.cli("CLIENT", "KILL", "USER", "gate")
	eventually(t, 5*time.Second, "the old password to be refused", func() bool { return c.Stats().Errors["wrongpass"] > 0 })
	password.Store("new")
	healthy(t, c)
	password.Store("")
}

func TestUnreadablePassword(t *testing.T) {
	s := startServer(t)
	secret := errors.New("no such file")
	var readable atomic.Bool
	c := open(t, Config{Addresses: []string{s.address()}, Password: func() (string, error) {
		if !readable.Load() {
			return "", secret
		}
		return "", nil
	}})
	eventually(t, 5*time.Second, "the error to be counted", func() bool { return c.Stats().Errors["other"] > 0 })
	readable.Store(true)
	healthy(t, c)
}

// certificates writes a CA and a server certificate for 127.0.0.1.
func certificates(t *testing.T) (dir string, pool *x509.CertPool) {
	t.Helper()
	dir = t.TempDir()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{
		"cert.pem": {Type: "CERTIFICATE", Bytes: der}, "key.pem": {Type: "PRIVATE KEY", Bytes: private},
	} {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool = x509.NewCertPool()
	pool.AddCert(cert)
	return dir, pool
}

func TestTLS(t *testing.T) {
	dir, pool := certificates(t)
	secure := freePort(t)
	s := startServer(t, "--tls-port", fmt.Sprint(secure), "--tls-auth-clients", "no",
		"--tls-cert-file", dir+"/cert.pem", "--tls-key-file", dir+"/key.pem", "--tls-ca-cert-file", dir+"/cert.pem")
	address := fmt.Sprintf("127.0.0.1:%d", secure)
	c := open(t, Config{Addresses: []string{address}, TLS: &tls.Config{RootCAs: pool}, Timeout: 100 * time.Millisecond})
	healthy(t, c)
	if n, err := add(t, c, "n"); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	var got atomic.Int64
	defer c.Subscribe("events", func(string) { got.Add(1) }, func() {})()
	eventually(t, 5*time.Second, "a message", func() bool { s.cli("PUBLISH", "events", "x"); return got.Load() > 0 })

	// A stall of several timeouts does not break the encrypted stream.
	w := watch(t)
	s.signal(syscall.SIGSTOP)
	send(c, w.call("n"))
	eventually(t, time.Second, "the timeout", func() bool { return w.late.Load() == 1 })
	s.signal(syscall.SIGCONT)
	w.settled()
	if w.good.Load() != 1 || c.Stats().Reconnects != 0 {
		t.Errorf("%v, %v", w, c.Stats())
	}

	strange := open(t, Config{Addresses: []string{address}, TLS: &tls.Config{}})
	plain := open(t, Config{Addresses: []string{s.address()}, TLS: &tls.Config{RootCAs: pool}, DialTimeout: 200 * time.Millisecond})
	eventually(t, 5*time.Second, "both to be refused", func() bool {
		return strange.Stats().Errors["tls"] > 0 && plain.Stats().Errors["tls"] > 0
	})
}

// killed -9 and started again, empty.
func TestRestart(t *testing.T) {
	s := startServer(t)
	c := open(t, Config{Addresses: []string{s.address()}, Timeout: time.Second})
	var ready atomic.Int64
	c.OnReady(func() { ready.Add(1) })
	healthy(t, c)
	if _, err := add(t, c, "n"); err != nil {
		t.Fatal(err)
	}
	s.kill()
	eventually(t, time.Second, "the loss to be noticed", func() bool { return !c.Healthy() })
	began := time.Now()
	if _, err := add(t, c, "n"); !errors.Is(err, ErrAway) || !NotExecuted(err) || time.Since(began) > slack {
		t.Errorf("%v after %v", err, time.Since(began))
	}
	s.start()
	healthy(t, c)
	if n, err := add(t, c, "n"); n != 1 || err != nil {
		t.Error(n, err)
	}
	eventually(t, time.Second, "OnReady to be told twice", func() bool { return ready.Load() == 2 })
	if got := c.Stats(); got.Reconnects != 1 || got.BreakerOpened != 1 || got.BreakerOpen {
		t.Errorf("%+v", got)
	}
	c.OnReady(func() { ready.Add(1) })
	eventually(t, time.Second, "a late OnReady to be told at once", func() bool { return ready.Load() == 3 })
}

// CLIENT PAUSE: one call pays, what it executed late still arrives, nothing is
// executed twice, and the connection survives.
func TestClientPause(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	c := open(t, Config{Addresses: []string{s.address()}, Timeout: 50 * time.Millisecond})
	healthy(t, c)
	mustAdd(t, c, "warm")
	s.cli("CLIENT", "PAUSE", "500")
	w := watch(t)
	for i := 0; i < 20; i++ {
		send(c, w.call("n"))
	}
	eventually(t, time.Second, "the breaker to open", func() bool { return !c.Healthy() })
	for i := 0; i < 20; i++ {
		send(c, w.call("n"))
	}
	w.settled()
	if waited := time.Duration(w.slowest.Load()); waited > 50*time.Millisecond+slack {
		t.Errorf("somebody waited %v", waited)
	}
	if n := w.good.Load(); n == 0 || s.cli("GET", "n") != fmt.Sprint(n) {
		t.Errorf("%v, executed %s", w, s.cli("GET", "n"))
	}
	healthy(t, c)
	if c.Stats().Reconnects != 0 {
		t.Errorf("%v", c.Stats())
	}
}

// The faults that a real Redis shows, and that the client returns by itself
// when they have passed.
func TestRedisSaysNo(t *testing.T) {
	for _, c := range []struct {
		kind       string
		start, end func(s *server)
	}{
		{"oom",
			func(s *server) { s.cli("CONFIG", "SET", "maxmemory", "1") },
			func(s *server) { s.cli("CONFIG", "SET", "maxmemory", "0") }},
		{"readonly",
			func(s *server) { s.cli("CONFIG", "SET", "masterauth", ""); s.cli("REPLICAOF", "127.0.0.1", "1") },
			func(s *server) { s.cli("REPLICAOF", "NO", "ONE") }},
		{"noreplicas",
			func(s *server) { s.cli("CONFIG", "SET", "min-replicas-to-write", "1") },
			func(s *server) { s.cli("CONFIG", "SET", "min-replicas-to-write", "0") }},
		{"busy",
			func(s *server) {
				s.cli("CONFIG", "SET", "busy-reply-threshold", "1")
				conn, err := net.Dial("tcp", s.address())
				if err != nil {
					s.t.Fatal(err)
				}
				s.t.Cleanup(func() { conn.Close() })
				conn.Write([]byte("EVAL 'while true do end' 0\r\n"))
				eventually(s.t, 2*time.Second, "a busy Redis", func() bool { return strings.HasPrefix(s.cli("PING"), "BUSY") })
			},
			func(s *server) { s.cli("SCRIPT", "KILL") }},
	} {
		c := c
		t.Run(c.kind, func(t *testing.T) {
			t.Parallel()
			s := startServer(t)
			client := open(t, Config{Addresses: []string{s.address()}, Timeout: time.Second})
			healthy(t, client)
			mustAdd(t, client, "n")
			c.start(s)
			w := watch(t)
			eventually(t, 3*time.Second, "the breaker to open", func() bool {
				send(client, w.call("n"))
				time.Sleep(5 * time.Millisecond)
				return !client.Healthy() && w.kind(c.kind) > 0
			})
			w.settled()
			if w.good.Load() > 0 {
				t.Errorf("%v", w)
			}
			c.end(s)
			mustAdd(t, client, "n")
			healthy(t, client)
			if got := s.cli("GET", "n"); got != "2" {
				t.Errorf("executed %s times, want 2", got)
			}
		})
	}
}

func TestMaxClients(t *testing.T) {
	s := startServer(t)
	s.cli("CONFIG", "SET", "maxclients", "2")
	var hold []net.Conn
	for i := 0; i < 2; i++ {
		conn, err := net.Dial("tcp", s.address())
		if err != nil {
			t.Fatal(err)
		}
		hold = append(hold, conn)
	}
	c := open(t, Config{Addresses: []string{s.address()}})
	eventually(t, 5*time.Second, "a refusal", func() bool { return c.Stats().Errors["maxclients"] > 0 })
	for _, conn := range hold {
		conn.Close()
	}
	healthy(t, c)
}

// A proxy passes bytes on and, at random, cuts both sides after it has
// forwarded a request: the worst moment for whoever counts.
type proxy struct {
	listener net.Listener
	to       string
	cut      atomic.Bool
	random   *mathrand.Rand
	mu       sync.Mutex // protects random
}

func startProxy(t *testing.T, to string) *proxy {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{listener: l, to: to, random: mathrand.New(mathrand.NewSource(4))}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			from, err := l.Accept()
			if err != nil {
				return
			}
			go p.carry(from)
		}
	}()
	return p
}

func (p *proxy) carry(from net.Conn) {
	defer from.Close()
	to, err := net.Dial("tcp", p.to)
	if err != nil {
		return
	}
	defer to.Close()
	go func() {
		io.Copy(from, to)
		from.Close()
		to.Close()
	}()
	buffer := make([]byte, 1<<16)
	for {
		n, err := from.Read(buffer)
		if err != nil {
			return
		}
		p.mu.Lock()
		lucky, part := p.random.Intn(30) > 0, p.random.Intn(n+1)
		p.mu.Unlock()
		if p.cut.Load() && !lucky {
			to.Write(buffer[:part]) // a part of it, often cutting a command in two
			return
		}
		if _, err := to.Write(buffer[:n]); err != nil {
			return
		}
	}
}

// However connections break, a call is executed once if its end says so, not at
// all if the error says so, and never twice.
func TestExecutionsPerCall(t *testing.T) {
	length := 4 * time.Second
	if testing.Short() {
		length = time.Second
	}
	s := startServer(t)
	p := startProxy(t, s.address())
	type ending struct{ good, notRun bool }
	var mu sync.Mutex
	ends := map[string]ending{}
	to := inbox(t)
	var clients sync.WaitGroup
	var reconnects atomic.Int64
	end := time.Now().Add(length)
	for i := 0; i < 4; i++ {
		i := i
		c := open(t, Config{Addresses: []string{p.listener.Addr().String()}, Timeout: 200 * time.Millisecond})
		healthy(t, c)
		clients.Add(1)
		go func() {
			defer clients.Done()
			var calls sync.WaitGroup
			for n := 0; time.Now().Before(end); n++ {
				if !c.Healthy() {
					time.Sleep(time.Millisecond)
					continue
				}
				group := make([]*Call, 1+n%7)
				for k := range group {
					key := fmt.Sprintf("n:%d:%d:%d", i, n, k)
					calls.Add(1)
					call := &Call{Key: key, Script: increment, Args: []string{"1"}, To: to}
					call.Tag = &fate{late: func() {}, ended: func() {
						mu.Lock()
						ends[key] = ending{call.Err == nil, call.Err != nil && NotExecuted(call.Err)}
						mu.Unlock()
						calls.Done()
					}}
					group[k] = call
				}
				send(c, group...)
				time.Sleep(500 * time.Microsecond)
			}
			calls.Wait()
			reconnects.Add(c.Stats().Reconnects)
		}()
	}
	p.cut.Store(true)
	for time.Now().Before(end) {
		s.cli("SCRIPT", "FLUSH")
		time.Sleep(50 * time.Millisecond)
	}
	clients.Wait()

	direct := open(t, Config{Addresses: []string{s.address()}, Timeout: 5 * time.Second})
	healthy(t, direct)
	get := NewScript("return {ok = redis.call('GET', KEYS[1]) or ''}")
	var good, notRun, unknown int
	for key, f := range ends {
		n := do(t, direct, &Call{Script: get, Key: key}).Line
		switch {
		case f.good:
			good++
			if n != "1" {
				t.Errorf("%s was answered and executed %q times", key, n)
			}
		case f.notRun:
			notRun++
			if n != "" {
				t.Errorf("%s did not run, by its error, and was executed %q times", key, n)
			}
		default:
			unknown++
			if n != "" && n != "1" {
				t.Errorf("%s was executed %q times", key, n)
			}
		}
	}
	t.Logf("%d good, %d not run, %d unknown, %d reconnects", good, notRun, unknown, reconnects.Load())
	if good < 100 || unknown < 3 || reconnects.Load() < 3 {
		t.Error("the test did not reach what it is for")
	}
}

// An idle connection that has gone dark is found before a request pays for it.
func TestIdleConnectionIsPinged(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	t.Parallel()
	s := startServer(t)
	c := open(t, Config{Addresses: []string{s.address()}, Timeout: 50 * time.Millisecond})
	healthy(t, c)
	s.signal(syscall.SIGSTOP)
	eventually(t, 4*time.Second, "the loss to be noticed", func() bool { return !c.Healthy() })
	w := watch(t)
	send(c, w.call("n"))
	if w.kind("away") != 1 {
		t.Errorf("%v", w)
	}
	s.signal(syscall.SIGCONT)
	healthy(t, c)
}

// A reload that changes the configuration opens a client and closes another,
// with calls under way: nothing may stay behind.
func TestOpenAndCloseLeavesNothing(t *testing.T) {
	s := startServer(t)
	w := watch(t)
	for i := 0; i < 100; i++ {
		c := New(Config{Addresses: []string{s.address()}, Timeout: time.Second})
		stop := c.Subscribe("events", func(string) {}, func() {})
		if i%3 > 0 {
			healthy(t, c)
			send(c, w.call("n"))
		}
		if i%2 > 0 {
			stop()
		}
		c.Close()
	}
	w.settled()
	eventually(t, 5*time.Second, "every connection to be closed", func() bool {
		return strings.Contains(s.cli("INFO", "clients"), "connected_clients:1\r\n") // redis-cli itself
	})
}

// The cost of one call on a connection that many share.
func BenchmarkCalls(b *testing.B) {
	s := startServer(b)
	c := open(b, Config{Addresses: []string{s.address()}, Timeout: time.Second})
	healthy(b, c)
	b.ReportAllocs()
	b.SetParallelism(64)
	b.RunParallel(func(pb *testing.PB) {
		to := make(chan interface{}, 1)
		for pb.Next() {
			call := &Call{Key: "n", Script: increment, Args: []string{"1"}, To: to}
			if Send(c, call) {
				<-to
			}
			if call.Err != nil {
				b.Error(call.Err)
			}
		}
	})
}
