package redis

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// A server is a real redis-server on a loopback port.
type server struct {
	t       testing.TB
	port    int
	dir     string
	args    []string
	command *exec.Cmd
}

// startServer runs redis-server with further arguments and waits until it
// answers.
func startServer(t testing.TB, args ...string) *server {
	t.Helper()
	if _, err := exec.LookPath("redis-server"); err != nil {
		t.Skip("redis-server is not installed")
	}
	s := &server{t: t, port: freePort(t), dir: t.TempDir(), args: args}
	s.start()
	t.Cleanup(s.kill)
	return s
}

func (s *server) start() {
	s.t.Helper()
	args := append([]string{
		"--port", fmt.Sprint(s.port), "--bind", "127.0.0.1", "--save", "", "--dir", s.dir,
		"--logfile", filepath.Join(s.dir, "redis.log"), "--enable-debug-command", "yes",
	}, s.args...)
	s.command = exec.Command("redis-server", args...)
	if err := s.command.Start(); err != nil {
		s.t.Fatal(err)
	}
	eventually(s.t, 10*time.Second, "redis-server to listen", func() bool {
		conn, err := net.Dial("tcp", s.address())
		if err != nil {
			return false
		}
		conn.Close()
		return true
	})
}

// kill ends the server the hard way.
func (s *server) kill() {
	if s.command.ProcessState == nil {
		s.command.Process.Signal(syscall.SIGCONT)
		s.command.Process.Kill()
		s.command.Wait()
	}
}

func (s *server) signal(sig syscall.Signal) { s.command.Process.Signal(sig) }

func (s *server) address() string { return fmt.Sprintf("127.0.0.1:%d", s.port) }

// cli runs one command as the operator would.
func (s *server) cli(args ...string) string {
	s.t.Helper()
	out, err := exec.Command("redis-cli", append([]string{"-p", fmt.Sprint(s.port)}, args...)...).CombinedOutput()
	if err != nil {
		s.t.Fatalf("redis-cli %v: %v: %s", args, err, out)
	}
	return strings.TrimSpace(string(out))
}

// freePort finds a port that is free now, below the ephemeral ones and with
// room for a Cluster's bus port 10000 above it.
func freePort(t testing.TB) int {
	t.Helper()
	for try := 0; try < 200; try++ {
		port := 12000 + int(nextPort.Add(1)+int64(os.Getpid())*37)%9000
		if free(port) && free(port+10000) {
			return port
		}
	}
	t.Fatal("no free port")
	return 0
}

var nextPort atomic.Int64

func free(port int) bool {
	l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return false
	}
	l.Close()
	return true
}

// eventually polls until the condition holds.
func eventually(t testing.TB, within time.Duration, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(within); ; time.Sleep(time.Millisecond) {
		if holds() {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("waited %v in vain for %s", within, what)
		}
	}
}

// open makes a client that logs to the test and is closed with it.
func open(t testing.TB, config Config) *Client {
	t.Helper()
	var over atomic.Bool
	config.Log = func(level, message string) {
		if !over.Load() {
			t.Logf("%s: %s", level, message)
		}
	}
	c := New(config)
	t.Cleanup(func() { over.Store(true); c.Close() })
	return c
}

// healthy waits until the client is.
func healthy(t testing.TB, c *Client) {
	t.Helper()
	eventually(t, 15*time.Second, "a healthy client", c.Healthy)
}

// do sends one call and waits for its end.
func do(t testing.TB, c *Client, call *Call) *Call {
	t.Helper()
	to := make(chan interface{}, 2)
	call.To = to
	if !Send(c, call) {
		return call
	}
	for {
		select {
		case message := <-to:
			if message == interface{}(call) {
				return call
			}
		case <-time.After(10 * time.Second):
			t.Fatal("a call did not end")
		}
	}
}
