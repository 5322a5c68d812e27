// Package redistest runs a real redis-server for a test.
package redistest

import (
	"context"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/internal/freeport"
)

// Server is a redis-server process of the test's own on a loopback port; it
// keeps nothing on disk.
type Server struct {
	Addr string

	t       testing.TB
	port    string
	dir     string
	args    []string
	process *exec.Cmd
}

// Start runs redis-server with further arguments ("--maxmemory", "1mb") until
// the test ends. The test is skipped where it is not installed.
func Start(t testing.TB, args ...string) *Server {
	t.Helper()
	args = append([]string{"--save", "", "--appendonly", "no"}, args...)
	if slices.Contains(args, "--cluster-enabled") && !slices.Contains(args, "--cluster-port") {
		// By default a Cluster's bus is 10000 above its port, where somebody may listen.
		args = append(args, "--cluster-port", FreePort(t))
	}
	s := newServer(t, args...)
	s.Restart()
	return s
}

// newServer reserves a port.
func newServer(t testing.TB, args ...string) *Server {
	t.Helper()
	if _, err := exec.LookPath("redis-server"); err != nil {
		t.Skip("redis-server is not installed; on Debian: apt-get install redis-server")
	}
	port := FreePort(t)
	s := &Server{Addr: net.JoinHostPort("127.0.0.1", port), t: t, port: port, dir: t.TempDir(), args: args}
	t.Cleanup(s.Kill)
	return s
}

// Restart runs the process, again after Kill: empty, on the same port.
func (s *Server) Restart() {
	s.t.Helper()
	s.Kill()
	args := append([]string(nil), s.args...)
	s.process = exec.Command("redis-server", append(args, "--bind", "127.0.0.1", "--port", s.port, "--dir", s.dir, "--loglevel", "warning")...)
	s.process.Stderr = os.Stderr
	s.process.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := s.process.Start(); err != nil {
		s.t.Fatal(err)
	}
	client := s.Client()
	defer client.Close()
	Eventually(s.t, 10*time.Second, "redis-server answers", func() bool {
		return client.Ping(context.Background()).Err() == nil
	})
}

// Kill ends the process as kill -9 does; once is enough.
func (s *Server) Kill() {
	if s.process != nil {
		s.process.Process.Kill()
		s.process.Wait()
		s.process = nil
	}
}

// Signal sends the process a signal, such as SIGSTOP.
func (s *Server) Signal(signal syscall.Signal) {
	if err := s.process.Process.Signal(signal); err != nil {
		s.t.Fatal(err)
	}
}

// Do runs a command through redis-cli and returns what it prints.
func (s *Server) Do(words ...string) string {
	s.t.Helper()
	out, err := exec.Command("redis-cli", append([]string{"-e", "-p", s.port}, words...)...).CombinedOutput()
	if err != nil {
		s.t.Fatalf("redis-cli %v: %v: %s", words, err, out)
	}
	return strings.TrimSpace(string(out))
}

// FreePort is a loopback port that nothing listens on.
func FreePort(t testing.TB) string {
	t.Helper()
	address, err := freeport.Address()
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(address)
	return port
}
