package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sluice-gateway/sluice"
	"github.com/sluice-gateway/sluice/internal/freeport"
	"github.com/sluice-gateway/sluice/traefik/build"
)

// bed is everything that runs: Traefiks (one binary; the plugin is compiled in,
// and interpreted by one of them), authsvc, two Redis servers, nginx and the
// upstream, each a process of its own, so that the operating system accounts
// for each.
type bed struct {
	dir      string
	crowd    *crowd
	redis    *server // of every chain and of authsvc
	doomed   *server // of the chains that lose theirs
	auth     string  // URL
	upstream string  // URL
	pids     map[string]int
	ports    map[string]string // chain -> address
	metrics  map[string]string // Traefik -> URL of its inner entry point
	traefiks []traefik
	chains   []chain
	commands []*exec.Cmd
}

// traefik is one gateway.
type traefik struct {
	name      string // what its chains call it
	form      string // of the plugin: compiled or interpreted
	fastProxy bool   // experimental.fastProxy
	env       []string
}

// compared are the gateways whose chains are compared.
var compared = []traefik{{name: compiled, form: compiled}, {name: interpreted, form: interpreted}, {name: fastProxy, form: compiled, fastProxy: true}}

type server struct {
	address string
	client  *redis.Client
	process *exec.Cmd
}

// openBed starts all of it, with the chains of list, and waits until every part
// answers.
func openBed(ctx context.Context, seed uint64, traefiks []traefik, list func(*bed) []chain, progress io.Writer) (_ *bed, err error) {
	b := &bed{pids: map[string]int{}, ports: map[string]string{}, metrics: map[string]string{}, traefiks: traefiks}
	defer func() {
		if err != nil {
			b.close()
		}
	}()
	if b.dir, err = os.MkdirTemp("", "sluice-bench-"); err != nil {
		return nil, err
	}
	if b.crowd, err = newCrowd(seed); err != nil {
		return nil, err
	}
	binary, err := build.Build(ctx, build.Options{Progress: progress})
	if err != nil {
		return nil, err
	}
	for _, s := range []**server{&b.redis, &b.doomed} {
		if *s, err = b.startRedis(ctx); err != nil {
			return nil, err
		}
	}
	b.pids["redis"] = b.redis.process.Process.Pid
	if err := b.startUpstream(); err != nil {
		return nil, err
	}
	if err := b.startAuth(ctx); err != nil {
		return nil, err
	}
	b.chains = list(b)
	for _, c := range b.chains {
		if b.ports[c.name], err = freeport.Address(); err != nil {
			return nil, err
		}
	}
	for _, t := range b.traefiks {
		if err := b.startTraefik(ctx, binary, t); err != nil {
			return nil, err
		}
	}
	if err := b.startNginx(ctx); err != nil {
		return nil, err
	}
	return b, nil
}

// close ends every process and removes the folder.
func (b *bed) close() {
	for i := len(b.commands) - 1; i >= 0; i-- {
		command := b.commands[i]
		_ = syscall.Kill(-command.Process.Pid, syscall.SIGTERM) // it may have ended
	}
	for _, command := range b.commands {
		late := time.AfterFunc(5*time.Second, func() { _ = syscall.Kill(-command.Process.Pid, syscall.SIGKILL) })
		_ = command.Wait() // ended by the signal
		late.Stop()
	}
	os.RemoveAll(b.dir)
}

// start runs a program in a group of its own; what it says goes to a log in the
// bed's folder.
func (b *bed) start(name, program string, args, env []string) (*exec.Cmd, error) {
	command := exec.Command(program, args...)
	command.Dir = b.dir
	command.Env = append(os.Environ(), env...)
	log, err := os.Create(filepath.Join(b.dir, name+".log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	command.Stdout, command.Stderr = log, log
	return command, b.run(name, command)
}

// run starts a command from a thread that stays: the kernel ties "kill the
// child when its parent dies" to the thread that forked it.
func (b *bed) run(name string, command *exec.Cmd) error {
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		started <- command.Start()
		select {} // never gives the thread back; this program is short-lived
	}()
	if err := <-started; err != nil {
		return fmt.Errorf("start %s: %w", name, err)
	}
	b.commands = append(b.commands, command)
	return nil
}

// await asks until the answer is nil.
func (b *bed) await(ctx context.Context, what string, ask func() error) error {
	deadline := time.Now().Add(30 * time.Second)
	for {
		err := ask()
		if err == nil {
			return nil
		}
		if time.Now().After(deadline) || ctx.Err() != nil {
			log, _ := os.ReadFile(filepath.Join(b.dir, what+".log"))
			return fmt.Errorf("%s does not answer: %w\n%s", what, err, log[max(0, len(log)-2000):])
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func answers(url string) func() error {
	return func() error {
		response, err := http.Get(url)
		if err != nil {
			return err
		}
		response.Body.Close()
		if response.StatusCode != http.StatusOK {
			return errors.New(response.Status)
		}
		return nil
	}
}

func (b *bed) startRedis(ctx context.Context) (*server, error) {
	address, err := freeport.Address()
	if err != nil {
		return nil, err
	}
	_, port, _ := net.SplitHostPort(address)
	name := "redis-" + port
	command, err := b.start(name, "redis-server", []string{"--bind", "127.0.0.1", "--port", port, "--save", "", "--appendonly", "no", "--dir", b.dir}, nil)
	if err != nil {
		return nil, err
	}
	s := &server{address: address, client: redis.NewClient(&redis.Options{Addr: address}), process: command}
	return s, b.await(ctx, name, func() error { return s.client.Ping(ctx).Err() })
}

// startUpstream runs this very program as the upstream.
func (b *bed) startUpstream() error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	command := exec.Command(self)
	command.Env = append(os.Environ(), upstreamMark+"=1")
	out, err := command.StdoutPipe()
	if err != nil {
		return err
	}
	if err := b.run("upstream", command); err != nil {
		return err
	}
	address, err := bufio.NewReader(out).ReadString('\n')
	b.upstream = "http://" + strings.TrimSpace(address)
	b.pids["upstream"] = command.Process.Pid
	return err
}

// startAuth builds authsvc and runs it, with the crowd's key as that of a
// foreign issuer: the bench signs its tokens itself, by the ten thousand.
func (b *bed) startAuth(ctx context.Context) error {
	root, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", sluice.Module).Output()
	if err != nil {
		return fmt.Errorf("find the source of authsvc: %w", err)
	}
	binary := filepath.Join(b.dir, "authsvc")
	compile := exec.CommandContext(ctx, "go", "build", "-o", binary, "./cmd/authsvc")
	compile.Dir = strings.TrimSpace(string(root))
	if complaints, err := compile.CombinedOutput(); err != nil {
		return fmt.Errorf("build authsvc: %w\n%s", err, complaints)
	}
	public, err := b.crowd.publicKey()
	if err != nil {
		return err
	}
	listen, err := freeport.Address()
	if err != nil {
		return err
	}
	admin, err := freeport.Address()
	if err != nil {
		return err
	}
	config, err := json.Marshal(map[string]any{
		"listen": listen, "adminListen": admin,
		"redis":   map[string]any{"addresses": []string{b.redis.address}},
		"own":     map[string]any{"keyDir": filepath.Join(b.dir, "keys"), "userPrefix": "own:"},
		"issuers": []map[string]any{{"name": issuer, "issuer": issuer, "audiences": []string{"sluice"}, "algorithms": []string{"ES256"}, "pemFile": filepath.Join(b.dir, "issuer.pem")}},
		"log":     map[string]any{"level": "warn"},
	})
	if err != nil {
		return err
	}
	if err := errors.Join(
		os.WriteFile(filepath.Join(b.dir, "issuer.pem"), public, 0o600),
		os.WriteFile(filepath.Join(b.dir, "authsvc.yml"), config, 0o600),
		os.Mkdir(filepath.Join(b.dir, "keys"), 0o700),
	); err != nil {
		return err
	}
	command, err := b.start("authsvc", binary, []string{"--configFile=authsvc.yml"}, nil)
	if err != nil {
		return err
	}
	b.auth, b.pids["authsvc"] = "http://"+listen, command.Process.Pid
	return b.await(ctx, "authsvc", answers(b.auth+"/readyz"))
}

// noop is the plugin that does nothing.
const noop = `package noop

import (
	"context"
	"net/http"
)

type Config struct{ Unused string }

func CreateConfig() *Config { return &Config{} }

func New(ctx context.Context, next http.Handler, config *Config, name string) (http.Handler, error) {
	return &handler{next: next}, nil
}

type handler struct{ next http.Handler }

func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) { h.next.ServeHTTP(w, r) }
`

const noopManifest = `displayName: noop
type: middleware
import: example.com/noop
summary: does nothing
testData: {unused: "1"}
`

// startTraefik runs Traefik with one entry point for each of its chains, each
// with one router: what a chain costs does not depend on how many there are.
func (b *bed) startTraefik(ctx context.Context, binary string, t traefik) error {
	dir := filepath.Join(b.dir, t.name)
	local := filepath.Join(dir, "plugins-local", "src")
	if err := sluice.WritePlugin(filepath.Join(local, sluice.Module)); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Join(local, "example.com", "noop"), 0o700); err != nil {
		return err
	}
	inner, err := freeport.Address()
	if err != nil {
		return err
	}
	points := map[string]any{"traefik": map[string]any{"address": inner}}
	routers, middlewares := map[string]any{}, map[string]any{}
	for _, c := range b.chains {
		if c.gateway != t.name {
			continue
		}
		point := map[string]any{"address": b.ports[c.name]}
		if c.proxied {
			point["forwardedHeaders"] = map[string]any{"trustedIPs": []string{"127.0.0.0/8"}}
		}
		points[c.name] = point
		names := []string{}
		for i, m := range c.middlewares {
			name := fmt.Sprintf("%s-%d", c.name, i)
			middlewares[name] = m
			names = append(names, name)
		}
		router := map[string]any{"entryPoints": []string{c.name}, "rule": "PathPrefix(`/`)", "service": "upstream"}
		if len(names) > 0 {
			router["middlewares"] = names
		}
		routers[c.name] = router
	}
	dynamic := map[string]any{
		"routers": routers,
		"services": map[string]any{"upstream": map[string]any{"loadBalancer": map[string]any{
			"serversTransport": "upstream", "servers": []map[string]any{{"url": b.upstream}},
		}}},
		"serversTransports": map[string]any{"upstream": map[string]any{"maxIdleConnsPerHost": 256}},
	}
	if len(middlewares) > 0 {
		dynamic["middlewares"] = middlewares
	}
	experimental := map[string]any{"abortOnPluginFailure": true, "localPlugins": map[string]any{
		"sluice": map[string]any{"moduleName": sluice.Module},
		"noop":   map[string]any{"moduleName": "example.com/noop"},
	}}
	if t.fastProxy {
		experimental["fastProxy"] = map[string]any{}
	}
	static := map[string]any{
		"global":      map[string]any{"checkNewVersion": false, "sendAnonymousUsage": false},
		"entryPoints": points,
		"ping":        map[string]any{},
		"api":         map[string]any{"insecure": true, "debug": true}, // profiles
		// For the count of allocations; none of these labels, so no middleware
		// that would cost every request.
		"metrics":      map[string]any{"prometheus": map[string]any{"addEntryPointsLabels": false, "addRoutersLabels": false, "addServicesLabels": false}},
		"providers":    map[string]any{"file": map[string]any{"filename": filepath.Join(dir, "dynamic.yml")}},
		"experimental": experimental,
		"log":          map[string]any{"level": "INFO", "noColor": true},
	}
	staticJSON, err := json.Marshal(static) // JSON is YAML
	if err != nil {
		return err
	}
	dynamicJSON, err := json.Marshal(map[string]any{"http": dynamic})
	if err != nil {
		return err
	}
	if err := errors.Join(
		os.WriteFile(filepath.Join(local, "example.com", "noop", "noop.go"), []byte(noop), 0o600),
		os.WriteFile(filepath.Join(local, "example.com", "noop", ".traefik.yml"), []byte(noopManifest), 0o600),
		os.WriteFile(filepath.Join(dir, "traefik.yml"), staticJSON, 0o600),
		os.WriteFile(filepath.Join(dir, "dynamic.yml"), dynamicJSON, 0o600),
	); err != nil {
		return err
	}
	name := "traefik-" + t.name
	command, err := b.start(name, "/bin/sh", []string{"-c", `cd "$0" && exec "$1" --configFile=traefik.yml`, dir, binary}, append(t.env, "SLUICE_PLUGIN="+t.form))
	if err != nil {
		return err
	}
	b.pids[t.name], b.metrics[t.name] = command.Process.Pid, "http://"+inner
	if err := b.await(ctx, name, answers("http://"+inner+"/ping")); err != nil {
		return err
	}
	for _, c := range b.chains {
		if c.gateway == t.name {
			if err := b.await(ctx, name, func() error { return b.serves(ctx, c) }); err != nil {
				return fmt.Errorf("%s: %w", c.name, err)
			}
		}
	}
	return b.provenForm(t)
}

// serves tells whether a chain's route is there.
func (b *bed) serves(ctx context.Context, c chain) error {
	response, err := b.ask(ctx, c, line{person: b.crowd.hot[0], key: "first"})
	if err != nil {
		return err
	}
	response.Body.Close()
	if response.StatusCode != http.StatusOK && response.StatusCode != http.StatusTooManyRequests {
		return errors.New(response.Status)
	}
	return nil
}

// provenForm reads from the log which form of the plugin runs: only the
// compiled one writes that line.
func (b *bed) provenForm(t traefik) error {
	ours := false
	for _, c := range b.chains {
		ours = ours || c.ours && c.gateway == t.name
	}
	log, err := os.ReadFile(filepath.Join(b.dir, "traefik-"+t.name+".log"))
	if err != nil {
		return err
	}
	if runs := strings.Contains(string(log), "sluice: compiled plugin"); ours && runs != (t.form == compiled) {
		return fmt.Errorf("the plugin of %s does not run %s", t.name, t.form)
	}
	return nil
}

// url is where a chain listens.
func (b *bed) url(c chain) string { return "http://" + b.ports[c.name] }

// path is what is asked of a chain: the upstream counts by its first part.
func (c chain) path() string { return "/" + c.name + "/products?limit=2" }

// ask sends one request through a chain.
func (b *bed) ask(ctx context.Context, c chain, l line) (*http.Response, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, b.url(c)+c.path(), nil)
	if err != nil {
		return nil, err
	}
	request.Header = headersOf(l)
	return client.Do(request)
}

var client = &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: connections}}

// counters is what the upstream has seen of each chain.
func (b *bed) counters() (map[string]seen, error) {
	response, err := client.Get(b.upstream + "/counters")
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	all := map[string]seen{}
	return all, json.NewDecoder(response.Body).Decode(&all)
}

// gatewayPIDs are the processes of a chain's gateway.
func (b *bed) gatewayPIDs(c chain) []int {
	pid := b.pids[c.gateway]
	if c.gateway == nginx {
		return append(childrenOf(pid), pid)
	}
	return []int{pid}
}
