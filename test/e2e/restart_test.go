package e2e

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/cmd/sluice/stack"
	"github.com/sluice-gateway/sluice/test/harness"
)

// TestGatewayRestarted restarts one of two gateways again and again while users
// come by way of the balancer: a gateway that was told to end takes no new
// connection, and one that has just begun takes none before its routes are
// there (design: restarts). No request is lost, and none is told 404.
func TestGatewayRestarted(t *testing.T) {
	t.Parallel()
	s := open(t, stack.Interpreted, stack.Fast, 2)
	gateway := s.lone()
	var tokens []string
	for i := range 12 {
		tokens = append(tokens, s.token(fmt.Sprintf("restart-%d", i), "claims", map[string]any{"plan": "pro"}))
	}
	kept, fresh := *s, *s
	fresh.client = &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	var all []*traffic
	for i, s := range []site{kept, fresh} {
		all = append(all, s.backgroundAt([]string{s.ready.HTTP, s.ready.HTTPS}, "/echo", tokens[6*i:6*i+6], 100*time.Millisecond, 200))
	}
	const restarts = 8
	for range restarts {
		gateway.restart(t)
	}
	for _, busy := range all {
		busy.end(t)
		if busy.count[200] < 50*restarts {
			t.Errorf("too little traffic to tell: %v", busy.count)
		}
		t.Logf("%d restarts, answers %v", restarts, busy.count)
	}
}

// restarted is a gateway whose process this test has taken over.
type restarted struct {
	command []string
	folder  string
	env     []string
	ready   string // the URL that tells whether its routes are there
	routes  string // a URL of a route of its own
	metrics string
	running *exec.Cmd // nil: the one that the stack has started
	pid     int
}

// lone is the first gateway, as its own process describes it.
func (s *site) lone() *restarted {
	s.t.Helper()
	of := func(name string) string { return fmt.Sprintf("/proc/%d/%s", s.ready.Gateways[0].PID, name) }
	words := func(name string) []string {
		content, err := os.ReadFile(of(name))
		if err != nil {
			s.t.Fatal(err)
		}
		return strings.Split(strings.TrimSuffix(string(content), "\x00"), "\x00")
	}
	folder, err := os.Readlink(of("cwd"))
	if err != nil {
		s.t.Fatal(err)
	}
	static, err := os.ReadFile(filepath.Join(folder, "traefik.yml"))
	if err != nil {
		s.t.Fatal(err)
	}
	ping := regexp.MustCompile(`(?m)^    ping:\n        address: (\S+)$`).FindSubmatch(static)
	if ping == nil {
		s.t.Fatalf("no address of the entry point ping in\n%s", static)
	}
	inner := "http://" + string(ping[1])
	r := &restarted{command: words("cmdline"), folder: folder, env: words("environ"), pid: s.ready.Gateways[0].PID,
		ready: inner + "/readyz", metrics: inner + "/metrics", routes: s.ready.Gateways[0].HTTP + "/v1/products"}
	s.t.Cleanup(func() {
		if r.running != nil {
			_ = r.running.Process.Kill() // its end is no part of any test
			_ = r.running.Wait()
		}
	})
	return r
}

// restart ends the process as an upgrade does, begins it anew, and returns once
// the balancer sends it requests.
func (r *restarted) restart(t *testing.T) {
	t.Helper()
	if err := syscall.Kill(r.pid, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if r.running != nil {
		if err := r.running.Wait(); err != nil {
			t.Fatalf("it ended with %v", err)
		}
	} else {
		harness.Eventually(t, 20*time.Second, "the gateway has ended", func() error {
			if err := syscall.Kill(r.pid, 0); !errors.Is(err, syscall.ESRCH) {
				return fmt.Errorf("pid %d: %v", r.pid, err)
			}
			return nil
		})
	}
	var log bytes.Buffer
	r.running = exec.Command(r.command[0], r.command[1:]...)
	r.running.Dir, r.running.Env = r.folder, r.env
	r.running.Stdout, r.running.Stderr = &log, &log
	r.running.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := r.running.Start(); err != nil {
		t.Fatal(err)
	}
	r.pid = r.running.Process.Pid
	client := harness.NewClient()
	defer client.CloseIdleConnections()
	asked := &site{t: t, client: client}
	harness.Eventually(t, 30*time.Second, "the gateway is ready", func() error {
		got, err := asked.try("GET", r.ready, nil)
		if err == nil && got.Status != 200 {
			err = fmt.Errorf("%d", got.Status)
		}
		return err
	})
	if got := asked.send("GET", r.routes, nil); got.Status != 401 {
		t.Errorf("it is ready and answers %s", got)
	}
	served := regexp.MustCompile(`(?m)^traefik_entrypoint_requests_total\{.*entrypoint="balancedweb(secure)?"`)
	harness.Eventually(t, 20*time.Second, "the balancer sends it requests", func() error {
		got, err := asked.try("GET", r.metrics, nil)
		if err == nil && !served.Match(got.Body) {
			err = errors.New("none yet")
		}
		return err
	})
}
