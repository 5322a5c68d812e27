package stack

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/sluice-gateway/sluice"
	"github.com/sluice-gateway/sluice/cmd/sluice/check"
	"github.com/sluice-gateway/sluice/traefik/build"
)

// The entry points of traefik/traefik.yml and traefik/balancer.yml.
const (
	web               = "web"
	webSecure         = "websecure"
	balancedWeb       = "balancedweb"
	balancedWebSecure = "balancedwebsecure"
	ping              = "ping"
)

// compiledMark is what the compiled plugin, and nothing else, writes to a
// gateway's log when its first middleware is made (traefik/build).
const compiledMark = "sluice: compiled plugin, source "

// findTraefik names the binary: the stock one that was named, if it is recent
// enough, or ours, which may have to be built first.
func (s *Stack) findTraefik(ctx context.Context) error {
	if s.options.Traefik == "" {
		binary, err := build.Build(ctx, build.Options{Progress: s.options.Log})
		s.options.Traefik = binary
		return err
	}
	path, err := filepath.Abs(s.options.Traefik)
	if err != nil {
		return err
	}
	version, err := build.VersionOf(ctx, path)
	if err != nil {
		return fmt.Errorf("--traefik=%s: %w", s.options.Traefik, err)
	}
	if olderThan(version, build.Version) {
		return fmt.Errorf("--traefik=%s is version %s: Sluice needs %s or newer, since older ones let aliases of identity headers through",
			s.options.Traefik, version, build.Version)
	}
	s.options.Traefik = path
	return nil
}

// olderThan compares dotted version numbers. What is no number, as in a
// development build, is taken as new.
func olderThan(version, least string) bool {
	got, want := strings.Split(strings.TrimPrefix(version, "v"), "."), strings.Split(least, ".")
	for i := range want {
		if i >= len(got) {
			return true
		}
		number, err := strconv.Atoi(got[i])
		if err != nil {
			return false
		}
		if floor, _ := strconv.Atoi(want[i]); number != floor {
			return number < floor
		}
	}
	return false
}

// configure completes the children's environment, puts the dynamic
// configuration in place and refuses one with errors: Traefik would run on
// without the routes that they concern.
func (s *Stack) configure(context.Context) error {
	s.env = append(s.env, "SLUICE_MIN_INSTANCES="+strconv.Itoa(s.options.Gateways), "SLUICE_PLUGIN="+s.options.Plugin)
	if err := s.certify(); err != nil {
		return err
	}
	if s.options.RedirectHTTP {
		_, port, err := net.SplitHostPort(s.options.ListenTLS)
		if err != nil {
			return err
		}
		s.env = append(s.env, "SLUICE_REDIRECT_HTTP="+port)
	}
	if s.options.Dynamic == "" {
		content, err := sluice.TraefikFile(s.options.Wiring + ".yml")
		if err != nil {
			return err
		}
		s.options.Dynamic = filepath.Join(s.work, s.options.Wiring+".yml")
		if err := os.WriteFile(s.options.Dynamic, content, 0o600); err != nil {
			return err
		}
		s.shipped = true
	}
	report, err := check.Dynamic(s.options.Dynamic, s.getenv)
	if err != nil {
		return err
	}
	if len(report.Problems) > 0 {
		return fmt.Errorf("%s has errors:\n  %s", s.options.Dynamic, strings.Join(report.Problems, "\n  "))
	}
	s.ready.Wiring = s.options.Wiring
	return nil
}

// certify takes the certificate that SLUICE_TLS_CERT and SLUICE_TLS_KEY name,
// or makes one.
func (s *Stack) certify() error {
	certificate, key := os.Getenv("SLUICE_TLS_CERT"), os.Getenv("SLUICE_TLS_KEY")
	if certificate == "" {
		host, _, err := net.SplitHostPort(s.options.ListenTLS)
		if err != nil {
			return err
		}
		file, err := selfSigned(s.options.DataDir, []string{"localhost", "127.0.0.1", "::1", host})
		if err != nil {
			return err
		}
		certificate, key = file, file
	}
	for _, file := range []*string{&certificate, &key} {
		if err := readable(file); err != nil {
			return fmt.Errorf("SLUICE_TLS_CERT and SLUICE_TLS_KEY: %q: %w", *file, err)
		}
	}
	s.env = append(s.env, "SLUICE_TLS_CERT="+certificate, "SLUICE_TLS_KEY="+key)
	return nil
}

// getenv answers as a child's environment would.
func (s *Stack) getenv(name string) string {
	for _, entry := range slices.Backward(s.childEnv()) {
		if value, ok := strings.CutPrefix(entry, name+"="); ok {
			return value
		}
	}
	return ""
}

// childEnv is this process's environment with our own names replaced.
func (s *Stack) childEnv(more ...string) []string {
	env := slices.DeleteFunc(os.Environ(), func(entry string) bool { return strings.HasPrefix(entry, "SLUICE_") })
	return append(append(env, s.env...), more...)
}

// openGateways starts all gateways and waits until each answers.
func (s *Stack) openGateways(ctx context.Context) error {
	shipped, err := sluice.TraefikFile("traefik.yml")
	if err != nil {
		return err
	}
	before, err := s.presence.members(ctx)
	if err != nil {
		return err
	}
	var gateways []*process
	s.onClose(func() error { return stopAll(gateways) })
	for i := range s.options.Gateways {
		name := fmt.Sprintf("gateway-%d", i+1)
		ports, err := freePorts(5)
		if err != nil {
			return err
		}
		at := placement{dynamic: s.options.Dynamic, addresses: map[string]string{
			web: ports[0], webSecure: ports[1], balancedWeb: ports[2], balancedWebSecure: ports[3], ping: ports[4],
		}}
		if s.options.Gateways == 1 {
			at.addresses[web], at.addresses[webSecure] = s.options.Listen, s.options.ListenTLS
		} else {
			at.balancer = []string{"127.0.0.1/32"}
		}
		dir := filepath.Join(s.work, name)
		if err := sluice.WritePlugin(filepath.Join(dir, "plugins-local", "src", sluice.Module)); err != nil {
			return err
		}
		gateway, err := s.startTraefik(name, shipped, at, s.childEnv())
		if err != nil {
			return err
		}
		gateways = append(gateways, gateway)
		s.addresses = append(s.addresses, at.addresses)
		s.ready.Gateways = append(s.ready.Gateways, Gateway{
			HTTP: url("http", at.addresses[web]), HTTPS: url("https", at.addresses[webSecure]), PID: gateway.pid(),
		})
	}
	s.ready.HTTP, s.ready.HTTPS = s.ready.Gateways[0].HTTP, s.ready.Gateways[0].HTTPS
	for i, gateway := range gateways {
		if err := s.awaitGateway(ctx, gateway, s.addresses[i]); err != nil {
			return err
		}
	}
	s.watch(gateways)
	if !s.shipped {
		return nil
	}
	return await(ctx, "the gateways' heartbeats in Redis", nil, s.presence.joined(before, len(gateways)))
}

// awaitGateway waits until a gateway lives and serves, and makes sure that the
// form of the plugin that runs is the one asked for.
func (s *Stack) awaitGateway(ctx context.Context, gateway *process, addresses map[string]string) error {
	if err := await(ctx, gateway.name, gateway, answers(url("http", addresses[ping])+"/ping", http.StatusOK)); err != nil {
		return err
	}
	s.ready.Plugin = s.options.Plugin
	if !s.shipped {
		return nil // what a user's own routes answer is not ours to know
	}
	if err := await(ctx, gateway.name, gateway, s.servesShipped("http", addresses[web])); err != nil {
		return err
	}
	log, err := os.ReadFile(gateway.log)
	if err != nil {
		return err
	}
	if compiled := bytes.Contains(log, []byte(compiledMark)); compiled != (s.options.Plugin == Compiled) {
		return fmt.Errorf("the plugin should run %s and does not: see %s", s.options.Plugin, gateway.log)
	}
	return nil
}

// servesShipped asks whether the shipped routes are installed.
func (s *Stack) servesShipped(scheme, address string) func(context.Context) error {
	want := http.StatusOK
	if s.options.RedirectHTTP && scheme == "http" {
		want = http.StatusPermanentRedirect
	}
	return routes(url(scheme, address)+"/v1/products", want)
}

// openBalancer puts a balancer in front of several gateways.
func (s *Stack) openBalancer(ctx context.Context) error {
	if s.options.Gateways == 1 {
		return s.awaitFront(ctx, nil)
	}
	shipped, err := sluice.TraefikFile("balancer.yml")
	if err != nil {
		return err
	}
	dynamic, err := sluice.TraefikFile("balancer-dynamic.yml")
	if err != nil {
		return err
	}
	file := filepath.Join(s.work, "balancer-dynamic.yml")
	if err := os.WriteFile(file, dynamic, 0o600); err != nil {
		return err
	}
	pingAddress, err := freePort()
	if err != nil {
		return err
	}
	at := placement{dynamic: file, addresses: map[string]string{
		web: s.options.Listen, webSecure: s.options.ListenTLS, ping: pingAddress,
	}}
	balancer, err := s.startTraefik("balancer", shipped, at, s.childEnv(
		"SLUICE_GATEWAYS_HTTP="+s.list(balancedWeb),
		"SLUICE_GATEWAYS_HTTPS="+s.list(balancedWebSecure),
		"SLUICE_GATEWAYS_PING="+s.list(ping),
	))
	if err != nil {
		return err
	}
	s.onClose(func() error { return stopAll([]*process{balancer}) })
	s.ready.HTTP, s.ready.HTTPS = url("http", s.options.Listen), url("https", s.options.ListenTLS)
	if err := s.awaitFront(ctx, balancer); err != nil {
		return err
	}
	s.watch([]*process{balancer})
	return nil
}

// awaitFront waits until the front door serves over both schemes.
func (s *Stack) awaitFront(ctx context.Context, p *process) error {
	if !s.shipped {
		return nil
	}
	for scheme, address := range map[string]string{"http": s.options.Listen, "https": s.options.ListenTLS} {
		if err := await(ctx, "the front door at "+address, p, s.servesShipped(scheme, address)); err != nil {
			return err
		}
	}
	return nil
}

// list names one entry point of every gateway, as the balancer wants it.
func (s *Stack) list(point string) string {
	var all []string
	for _, addresses := range s.addresses {
		all = append(all, addresses[point])
	}
	return strings.Join(all, ",")
}

// startTraefik lays out a folder for one Traefik and runs it there.
func (s *Stack) startTraefik(name string, shipped []byte, at placement, env []string) (*process, error) {
	static, err := at.apply(shipped)
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(s.work, name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(dir, "traefik.yml"), static, 0o600); err != nil {
		return nil, err
	}
	return startProcess(name, s.options.Traefik, dir, env, func(line string) { s.say("%s: %s", name, line) })
}

// watch tells of processes that end unasked. The others carry on; without any,
// the stack has ended.
func (s *Stack) watch(group []*process) {
	for _, p := range group {
		s.watching.Go(func() {
			<-p.ended
			if s.closing.Load() {
				return
			}
			s.say("%s (pid %d) ended: %v", p.name, p.pid(), p.err)
			if !slices.ContainsFunc(group, (*process).running) {
				s.keep.Store(true)
				select {
				case s.ended <- fmt.Errorf("%s ended and none is left; its last words:\n%s", p.name, p.lastWords()):
				default: // someone else's end was told first
				}
			}
		})
	}
}

// stopAll asks every process of a group to end before it waits for any.
func stopAll(group []*process) error {
	for _, p := range group {
		p.terminate()
	}
	var errs []error
	for _, p := range group {
		errs = append(errs, p.stop())
	}
	return errors.Join(errs...)
}
