package faults

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/rpc"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/test/compiled"
)

// asGateway in the environment makes the test binary a gateway.
const asGateway = "SLUICE_FAULTS_GATEWAY"

// IsGateway tells whether this process was started by StartGateway.
func IsGateway() bool { return os.Getenv(asGateway) != "" }

// ServeGateway is the main function of a gateway process. It obeys the calls
// that come through the inherited files 3 (in) and 4 (out), until they end.
func ServeGateway() {
	server := rpc.NewServer()
	if err := server.RegisterName("Gateway", &gateway{}); err != nil {
		panic(err)
	}
	server.ServeConn(pipe{os.NewFile(3, "commands"), os.NewFile(4, "answers")})
}

type pipe struct {
	io.ReadCloser
	io.WriteCloser
}

func (p pipe) Close() error { return errors.Join(p.ReadCloser.Close(), p.WriteCloser.Close()) }

// Setup is what a gateway needs to know. Every limit has one long window that
// began just now (LongWindow), so that none ends during a test (design: window-edges).
type Setup struct {
	Form       string // of the plugin: compiled (the default) or interpreted
	Addresses  []string
	MasterName string
	Cluster    bool
	Password   string
	Auth       string        // the auth service that routeKnown asks
	Timeout    time.Duration // 0: the plugin's own
	Prefix     string
	Window     time.Duration
	Limits     map[string]int64 // by route; the limit has the route's name
	Rename     string           // and this behind it
	MaxKeys    int
}

// Forms of the plugin.
const (
	asCompiled    = "compiled"
	asInterpreted = "interpreted"
)

// interpret makes a middleware of the interpreted plugin (interpreted.go).
var interpret func(ctx context.Context, config map[string]any, next http.Handler, name string) (http.Handler, error)

// config is the plugin's configuration for one route, as a file's. The shipped
// manifests set minInstances: 3 for three gateways (design: fallback-share), and so does this.
func (s *Setup) config(route string) map[string]any {
	redis := map[string]any{
		"addresses": s.Addresses, "masterName": s.MasterName, "cluster": strconv.FormatBool(s.Cluster), "password": s.Password, "keyPrefix": s.Prefix,
	}
	if s.Timeout > 0 {
		redis["timeout"] = s.Timeout.String()
	}
	c := map[string]any{
		"redis":        redis,
		"minInstances": strconv.Itoa(gateways),
		"limits": map[string]any{
			"name": route + s.Rename, "key": "header:" + keyHeader, "limit": strconv.FormatInt(s.Limits[route], 10), "window": s.Window.String(),
		},
	}
	if route == routeKnown {
		c["auth"] = map[string]any{"addresses": []string{s.Auth}}
		c["limits"].(map[string]any)["key"] = "user"
	}
	if s.MaxKeys > 0 {
		c["maxKeys"] = strconv.Itoa(s.MaxKeys)
	}
	return c
}

// handler makes the middleware of one route.
func (s *Setup) handler(ctx context.Context, route string) (http.Handler, error) {
	ok := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) })
	if s.Form == asInterpreted {
		return interpret(ctx, s.config(route), ok, route)
	}
	return compiled.New(ctx, s.config(route), ok, route)
}

// keyHeader carries the key that a limit counts.
const keyHeader = "X-Key"

// LongWindow is a window of about span of which less than a hundredth has
// passed at the given time: any whole number of milliseconds is a window, and
// all are aligned to the epoch.
func LongWindow(now time.Time, span time.Duration) time.Duration {
	windows := now.UnixMilli() / span.Milliseconds()
	return time.Duration(now.UnixMilli()/windows) * time.Millisecond
}

// gateway is the process's side; its exported methods are what it can be asked.
type gateway struct {
	mu     sync.Mutex // protects routes and load
	routes map[string]http.Handler
	load   *load
	cancel context.CancelFunc
}

// Nothing is an empty question or answer.
type Nothing struct{}

// Open builds the middlewares, as Traefik does at a configuration.
func (g *gateway) Open(s Setup, _ *Nothing) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	earlier := g.cancel
	ctx, cancel := context.WithCancel(context.Background())
	g.cancel = cancel
	g.routes = map[string]http.Handler{}
	for route := range s.Limits {
		handler, err := s.handler(ctx, route)
		if err != nil {
			return err
		}
		g.routes[route] = handler
	}
	if earlier != nil {
		earlier()
	}
	return nil
}

// Listen serves the routes over HTTP, each at its name, and answers where.
func (g *gateway) Listen(_ Nothing, address *string) error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	*address = listener.Addr().String()
	go http.Serve(listener, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		g.mu.Lock()
		handler := g.routes[strings.TrimPrefix(r.URL.Path, "/")]
		g.mu.Unlock()
		handler.ServeHTTP(w, r)
	}))
	return nil
}

// Usage is what the process uses.
type Usage struct {
	Heap       uint64 // bytes in use, after a collection
	Allocated  uint64 // bytes ever
	Goroutines int
	Files      int // open descriptors
}

// Use answers what the process uses now.
func (g *gateway) Use(_ Nothing, u *Usage) error {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	files, err := os.ReadDir("/proc/self/fd")
	*u = Usage{Heap: m.HeapAlloc, Allocated: m.TotalAlloc, Goroutines: runtime.NumGoroutine(), Files: len(files)}
	return err
}

// Clock answers what the process believes the time is.
func (g *gateway) Clock(_ Nothing, now *time.Time) error {
	*now = time.Now()
	return nil
}

// Gateway is the test's side of a gateway process.
type Gateway struct {
	t       testing.TB
	process *exec.Cmd
	client  *rpc.Client
	shift   time.Duration // by which its clock is off
	address string        // where it serves HTTP, once it does
	log     bytes.Buffer  // what it wrote at levels above info; complete once it has ended
}

// clockShift in the environment is by how many seconds a binary built for it
// (clock_test.go) sees its wall clock off.
const clockShift = "SLUICE_FAULTS_CLOCK_SHIFT"

// StartGateway starts a process whose clock is off; the test ends it.
func StartGateway(t testing.TB, shift time.Duration) *Gateway {
	t.Helper()
	commandsOut, commandsIn, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	answersOut, answersIn, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	g := &Gateway{shift: shift, t: t, process: exec.Command(os.Args[0])}
	g.process.Env = append(os.Environ(), asGateway+"=1", clockShift+"="+strconv.Itoa(int(shift.Seconds())))
	g.process.ExtraFiles = []*os.File{commandsOut, answersIn}
	g.process.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	g.process.Stderr = &g.log
	if err := g.process.Start(); err != nil {
		t.Fatal(err)
	}
	commandsOut.Close()
	answersIn.Close()
	g.client = rpc.NewClient(pipe{answersOut, commandsIn})
	t.Cleanup(g.Stop)
	return g
}

// Stop ends the process as a crash does.
func (g *Gateway) Stop() {
	if g.process == nil {
		return
	}
	g.client.Close()
	_ = g.process.Process.Kill()
	_ = g.process.Wait()
	g.process = nil
	// Goroutines of the plugin recover, so that a panic is a line only.
	for _, bad := range []string{"panic", "DATA RACE"} {
		if at := strings.Index(g.log.String(), bad); at >= 0 {
			g.t.Errorf("a gateway's log: %.4000s", g.log.String()[at:])
		}
	}
}

// ask calls a method of the process; one that does not answer in time is dead,
// and dead is a failure.
func (g *Gateway) ask(method string, args, reply any) {
	g.t.Helper()
	if err := g.try(method, args, reply); err != nil {
		g.t.Fatal(err)
	}
}

func (g *Gateway) try(method string, args, reply any) error {
	call := g.client.Go("Gateway."+method, args, reply, make(chan *rpc.Call, 1))
	select {
	case <-call.Done:
		if call.Error != nil {
			return fmt.Errorf("gateway: %s: %w", method, call.Error)
		}
		return nil
	case <-time.After(10 * time.Minute):
		return fmt.Errorf("gateway: %s: no answer", method)
	}
}

// Open builds the middlewares.
func (g *Gateway) Open(s Setup) {
	g.t.Helper()
	g.ask("Open", s, &Nothing{})
}

// Use tells what the process uses now.
func (g *Gateway) Use() Usage {
	g.t.Helper()
	var u Usage
	g.ask("Use", Nothing{}, &u)
	return u
}
