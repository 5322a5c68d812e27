package e2e

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sluice-gateway/sluice/cmd/sluice/stack"
	"github.com/sluice-gateway/sluice/test/compose"
	"github.com/sluice-gateway/sluice/test/harness"
)

var onDocker = flag.Bool("docker", false, "bring compose.yaml up on the Docker engine of this machine")

// composed is the stack of compose.yaml on a Docker engine, and the site that
// the other tests of this package know.
type composed struct {
	*site
	whole   *testing.T // the test that all parts belong to
	ctx     context.Context
	project *compose.Project
	record  *record
}

// TestCompose brings the shipped compose.yaml up, runs what the processes'
// tests run against its front door and its gateways, and then what only
// containers can show. It writes COMPOSE.md.
func TestCompose(t *testing.T) {
	if !*onDocker {
		t.Skip("only with -docker: takes about ten minutes")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 40*time.Minute)
	defer cancel()
	begun := time.Now()
	c := bringUp(ctx, t, compose.Options{})
	c.record.note("start", "up and healthy %v after the first command, images and stand-ins included", time.Since(begun).Round(time.Second))
	parts := []struct {
		name string
		test func(*composed)
	}{
		// As shipped.
		{"containers are closed", (*composed).closed},
		{"only the balancer is reachable", (*composed).reachable},
		{"HTTPS", (*composed).https},
		{"tour", func(c *composed) { tour(c.site); c.note("register, log in, read, order, 429 with its headers") }},
		{"client address", (*composed).clientAddress},
		{"gateways are listed", (*composed).listed},
		{"the gateways' secrets", (*composed).secretsApart},
		// With the tests' own routes beside the shipped ones.
		{"routes edited while running", (*composed).extend},
		{"headers", func(c *composed) { whatServicesReceive(c.site); c.note("what a service receives, to the header") }},
		{"forged identity", func(c *composed) {
			forgedIdentity(c.site)
			c.note("X-User-ID and four more in every spelling: none arrives, on public and protected routes")
		}},
		{"refused tokens", func(c *composed) { refusedTokens(c.site); c.note("none, another scheme, two, expired") }},
		{"tampered tokens", func(c *composed) {
			tamperedTokens(c.site)
			c.note("nine ways, before and after the gateway knows the token")
		}},
		{"logout", func(c *composed) { logout(c.site); c.note("access and refresh token void at every gateway") }},
		{"streams", func(c *composed) { streams(c.site); c.note("server-sent events one by one, WebSocket") }},
		{"front door", func(c *composed) { frontDoor(c.site); c.note("the client's address through PROXY protocol v2") }},
		{"exact limit", func(c *composed) {
			exactLimit(c.site)
			c.note("of %d requests over three gateways exactly %d pass", 2*exactAllowed, exactAllowed)
		}},
		{"reload", func(c *composed) {
			reload(c.site)
			c.note("three new route files under traffic: no count reset, no request lost")
		}},
		{"Redis killed", func(c *composed) {
			outage(c.site)
			c.note("under traffic: no 5xx, the outage is no free reset, what was admitted counts after it")
		}},
		{"secrets changed while running", (*composed).secrets},
		{"observability", (*composed).observability},
		{"another number of gateways", (*composed).scale},
		{"plugin compiled in", (*composed).compiled},
	}
	ran := 0
	for _, part := range parts {
		ok := t.Run(part.name, func(t *testing.T) {
			ran++
			there := *c
			there.site = c.on(t)
			part.test(&there)
			c.ready, c.echo = there.ready, there.echo // for the parts that follow
		})
		if !ok {
			c.record.note(part.name, "FAILED")
		}
	}
	if ran < len(parts) { // -run has chosen some
		return
	}
	if err := c.record.write(ctx, c.project, time.Since(begun)); err != nil {
		t.Error(err)
	}
}

// bringUp starts the project; the test ends it.
func bringUp(ctx context.Context, t *testing.T, o compose.Options) *composed {
	t.Helper()
	if err := compose.Available(ctx); err != nil {
		t.Fatalf("%v; on processes the other tests of this package and those of package identity show what there is to show", err)
	}
	o.Log = harness.Log{T: t}
	project, err := compose.Open(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		bounded, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
		defer cancel()
		if err := project.Close(bounded); err != nil {
			t.Error(err)
		}
	})
	c := &composed{whole: t, ctx: ctx, project: project, record: &record{}}
	c.open(t)
	return c
}

// note writes down what a part has shown, once it has.
func (c *composed) note(format string, args ...any) {
	if !c.t.Failed() {
		_, part, _ := strings.Cut(c.t.Name(), "/")
		c.record.note(strings.ReplaceAll(part, "_", " "), format, args...)
	}
}

// open makes a site of the project. Its front door is the balancer's own
// address, so that we come in as a neighbour with an address of our own and not
// by way of a published port, where Docker may put its address in our place.
func (c *composed) open(t *testing.T) {
	c.site = &site{t: t, client: harness.NewClient(), dynamic: filepath.Join(c.project.Dir, "traefik", "fast.yml")}
	t.Cleanup(c.client.CloseIdleConnections)
	var err error
	if c.address, err = c.project.Host(c.ctx, "edge"); err != nil {
		t.Fatal(err)
	}
	password := c.secret("redis", "redis-default")
	client := redis.NewClient(&redis.Options{Addr: "redis:6379", Password: password, ContextTimeoutEnabled: true,
		Dialer: func(ctx context.Context, _, _ string) (net.Conn, error) { // it may come back at another address
			there, err := c.project.Container(ctx, "redis", 1)
			if err != nil {
				return nil, err
			}
			return (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "tcp", net.JoinHostPort(there.Address["data"], "6379"))
		}})
	c.redis = harness.UseRedis(t, client, redisContainer{c})
	c.locate()
	c.redis.AwaitGateways(prefix, len(c.ready.Gateways))
}

// locate looks up where the parts are now.
func (c *composed) locate() {
	c.t.Helper()
	balancer, authsvc := c.container("lb", 1), c.container("authsvc", 1)
	c.ready = stack.Ready{Plugin: stack.Interpreted, Wiring: stack.Fast, AdminToken: c.secret("authsvc", "admin-token"),
		AuthSvc: "http://" + authsvc.Address["identity"] + ":9000", Admin: "http://" + authsvc.Address["identity"] + ":9001"}
	// HTTP redirects, so the front door is HTTPS, with either version.
	c.ready.HTTPS = "https://" + net.JoinHostPort(balancer.Address["edge"], "443")
	c.ready.HTTP = c.ready.HTTPS
	c.fronts = []front{{c.ready.HTTPS, "HTTP/2.0"}}
	for _, gateway := range c.containers("gateway") {
		if gateway.Running {
			at := "https://" + net.JoinHostPort(gateway.Address["front"], "443")
			c.ready.Gateways = append(c.ready.Gateways, stack.Gateway{HTTP: at, HTTPS: at, PID: gateway.PID})
		}
	}
}

// redisContainer lets tests kill the Redis of the project.
type redisContainer struct{ c *composed }

func (r redisContainer) Kill()    { r.act(r.c.project.Kill) }
func (r redisContainer) Restart() { r.act(r.c.project.Start) }

func (r redisContainer) act(what func(context.Context, compose.Container) error) {
	r.c.whole.Helper()
	container, err := r.c.project.Container(r.c.ctx, "redis", 1)
	if err := errors.Join(err, what(r.c.ctx, container)); err != nil {
		r.c.whole.Fatal(err)
	}
}

func (c *composed) containers(services ...string) []compose.Container {
	c.t.Helper()
	all, err := c.project.Containers(c.ctx, services...)
	if err != nil || len(all) == 0 {
		c.t.Fatalf("containers of %q: %d, %v", services, len(all), err)
	}
	return all
}

func (c *composed) container(service string, number int) compose.Container {
	c.t.Helper()
	one, err := c.project.Container(c.ctx, service, number)
	if err != nil {
		c.t.Fatal(err)
	}
	return one
}

// secret is one that a service's first container holds.
func (c *composed) secret(service, name string) string {
	c.t.Helper()
	content, err := c.project.ReadFile(c.ctx, c.container(service, 1), "/run/secrets/"+name)
	if err != nil {
		c.t.Fatal(err)
	}
	return strings.TrimSpace(string(content))
}

// peer asks from a container of its own on a network.
func (c *composed) peer(network string, words ...string) string {
	c.t.Helper()
	out, err := c.project.Client(c.ctx, network, words...)
	if err != nil {
		c.t.Fatal(err)
	}
	return out
}

// answer is what the client's get and post print.
type answer struct {
	Status  int
	Header  http.Header
	Body    string
	Address string // of the client
}

func (c *composed) peerAsks(network string, words ...string) (got answer) {
	c.t.Helper()
	if err := json.Unmarshal([]byte(c.peer(network, words...)), &got); err != nil {
		c.t.Fatal(err)
	}
	return got
}

// closed is what every container may not do, as the engine and the kernel see
// it, and not only as compose.yaml asks for it.
func (c *composed) closed() {
	t := c.t
	checked, processes := 0, 0
	for _, container := range c.containers() {
		name, i := container.Name, container.Inspected
		user, _, _ := strings.Cut(i.Config.User, ":")
		if user == "" || user == "0" || user == "root" {
			t.Errorf("%s: runs as %q", name, i.Config.User)
		}
		if !i.HostConfig.ReadonlyRootfs || i.HostConfig.Privileged || !slices.Equal(i.HostConfig.CapDrop, []string{"ALL"}) || len(i.HostConfig.CapAdd) > 0 ||
			!slices.Contains(i.HostConfig.SecurityOpt, "no-new-privileges:true") || i.HostConfig.PidsLimit == nil || *i.HostConfig.PidsLimit <= 0 {
			t.Errorf("%s: %+v", name, i.HostConfig)
		}
		checked++
		for port, bindings := range i.HostConfig.PortBindings {
			if len(bindings) > 0 && (container.Service != "lb" || (port != "80/tcp" && port != "443/tcp")) {
				t.Errorf("%s: publishes %s", name, port)
			}
		}
		if !container.Running {
			if container.Service != "secrets" || i.State.ExitCode != 0 {
				t.Errorf("%s has ended with %d", name, i.State.ExitCode)
			}
			continue
		}
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", container.PID))
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{"CapEff:\t0000000000000000", "CapPrm:\t0000000000000000", "CapBnd:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"} {
			if !strings.Contains(string(status), want+"\n") {
				t.Errorf("%s: its process lacks %q", name, want)
			}
		}
		if strings.Contains(string(status), "Uid:\t0\t") {
			t.Errorf("%s: its process is root's", name)
		}
		processes++
	}
	c.note("%d containers, %d running processes: not root, read-only, no capability in any set, seccomp, no new privileges", checked, processes)
}

// reachable: from outside, that is from Docker's default network and from the
// network of the published ports, nothing answers but the balancer; and from
// the inner networks there is no way out.
func (c *composed) reachable() {
	t := c.t
	ports := []string{"80", "443", "2375", "3000", "6379", "8000", "8080", "8082", "8443", "9000", "9001", "9090", "9121"}
	open := map[string]bool{}
	tried := 0
	for _, network := range []string{"", "edge"} {
		var addresses []string
		of := map[string]compose.Container{}
		for _, container := range c.containers() {
			for _, address := range container.Address {
				if address == "" {
					continue
				}
				of[address] = container
				for _, port := range ports {
					addresses = append(addresses, net.JoinHostPort(address, port))
				}
			}
		}
		for line := range strings.Lines(c.peer(network, append([]string{"dial"}, addresses...)...)) {
			var address, state string
			if _, err := fmt.Sscan(line, &address, &state); err != nil {
				t.Fatal(err)
			}
			host, port, err := net.SplitHostPort(address)
			if err != nil {
				t.Fatal(err)
			}
			tried++
			if state == "open" {
				open[of[host].Service+":"+port] = true
				if network == "" || of[host].Service != "lb" {
					t.Errorf("from %q: %s of %s is %s", network, address, of[host].Name, state)
				}
			}
		}
	}
	if !open["lb:80"] || !open["lb:443"] {
		t.Errorf("the balancer cannot be reached: %v", open)
	}
	for address := range open {
		if address != "lb:80" && address != "lb:443" {
			t.Errorf("%s is open to the network of the published ports", address)
		}
	}
	networks, err := c.project.Networks(c.ctx)
	if err != nil {
		t.Fatal(err)
	}
	outside, end, err := compose.Outside(c.ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer end()
	inner := 0
	for network, internal := range networks {
		_, state, _ := strings.Cut(c.peer(network, "dial", outside), " ")
		if want := map[bool]string{true: "silent", false: "open"}[internal]; state != want || internal == (network == "edge") {
			t.Errorf("from network %s, internal %v, the outside is %s, want %s", network, internal, state, want)
		}
		if internal {
			inner++
		}
	}
	c.note("%d addresses tried from Docker's default network and from edge: open are 80 and 443 of the balancer; %d inner networks have no way out", tried, inner)
}

// https: HTTP redirects to the published port, old TLS is refused, and the
// certificate is the one of the volume.
func (c *composed) https() {
	t := c.t
	got := c.get(c.project.HTTP + "/v1/products?page=2")
	if want := c.project.HTTPS + "/v1/products?page=2"; got.Status != 301 || got.Header.Get("Location") != want {
		t.Errorf("HTTP: %s", got)
	}
	if got := c.get(c.project.HTTPS + "/v1/products"); got.Status != 401 || got.Proto != "HTTP/2.0" {
		t.Errorf("the published port: %s %s", got.Proto, got)
	}
	if _, err := tls.Dial("tcp", strings.TrimPrefix(c.project.HTTPS, "https://"), &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS11}); err == nil {
		t.Error("TLS 1.1 is spoken")
	}
	logs, err := c.project.Logs(c.ctx, c.container("secrets", 1))
	if err != nil || !strings.Contains(logs, "certificate") {
		t.Errorf("no warning of the certificate that no client trusts: %q, %v", logs, err)
	}
	for _, gateway := range c.containers("gateway") {
		if logs, err := c.project.Logs(c.ctx, gateway); err != nil || strings.Contains(logs, "compiled plugin") || !strings.Contains(logs, "Plugins loaded") {
			t.Errorf("%s does not interpret the plugin: %v", gateway.Name, err)
		}
	}
	c.note("HTTP is redirected to the published port, TLS 1.1 refused, HTTP/2 spoken")
}

// clientAddress: whoever comes through the balancer is counted by his own
// address, and nobody else's PROXY line is believed.
func (c *composed) clientAddress() {
	t := c.t
	shown := func(address string) (used int) {
		t.Helper()
		got := c.send("GET", c.ready.Admin+"/v1/limits/login/ip:"+address, nil, bearer(c.ready.AdminToken))
		var limit struct{ Used int }
		if got.Into(t, &limit); got.Status != 200 {
			t.Fatalf("%s", got)
		}
		return limit.Used
	}
	before := shown(c.address)
	got := c.peerAsks("edge", "post", c.ready.HTTPS+"/v1/users/login", `{"email":"nobody@example.org","password":"wrong horse"}`, "X-Forwarded-For: 203.0.113.9")
	if got.Status != 401 || got.Address == c.address {
		t.Fatalf("%+v", got)
	}
	if used := shown(got.Address); used < 1 {
		t.Errorf("the client at %s has used %d", got.Address, used)
	}
	for _, other := range []string{"203.0.113.9", "10.83.7.2"} {
		if used := shown(other); used != 0 {
			t.Errorf("%s has used %d", other, used)
		}
	}
	if used := shown(c.address); used != before {
		t.Errorf("another client's login was counted as ours: %d, then %d", before, used)
	}
	// A neighbour of the gateways that is not the balancer.
	gateway := c.container("gateway", 1).Address["front"]
	connection, err := net.DialTimeout("tcp", net.JoinHostPort(gateway, "8443"), 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer connection.Close()
	if _, err := fmt.Fprint(connection, "PROXY TCP4 203.0.113.9 10.83.7.2 40000 8443\r\n"); err != nil {
		t.Fatal(err)
	}
	// Traefik reads such a line and goes on with the true address.
	secure := tls.Client(connection, &tls.Config{InsecureSkipVerify: true})
	_ = secure.SetDeadline(time.Now().Add(10 * time.Second))
	const body = `{"email":"nobody@example.org","password":"wrong horse"}`
	fmt.Fprintf(secure, "POST /v1/users/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	response, err := http.ReadResponse(bufio.NewReader(secure), nil)
	if err != nil || response.StatusCode != 401 {
		t.Errorf("%v, %v", response, err)
	}
	own, _, err := net.SplitHostPort(connection.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	if lie, truth := shown("203.0.113.9"), shown(own); lie != 0 || truth < 1 {
		t.Errorf("a PROXY line from a neighbour: his own address has used %d, that of the line %d", truth, lie)
	}
	c.note("counted by the address of the client's container; X-Forwarded-For and a neighbour's PROXY line choose nothing")
}

// listed: the operator sees every gateway, with its limits.
func (c *composed) listed() {
	if n := c.live(); n != 3 {
		c.t.Errorf("%d gateways are listed", n)
	}
	c.note("GET /v1/gateways shows three")
}

// live is how many gateways authsvc lists.
func (c *composed) live() int {
	c.t.Helper()
	got := c.send("GET", c.ready.Admin+"/v1/gateways", nil, bearer(c.ready.AdminToken))
	var list struct {
		Gateways []struct {
			Instance string
			Stale    bool
			Limits   []struct{ Name string }
		}
	}
	got.Into(c.t, &list)
	live := 0
	for _, gateway := range list.Gateways {
		if gateway.Stale {
			continue
		}
		live++
		if gateway.Instance == "" || len(gateway.Limits) < 7 {
			c.t.Errorf("a gateway with %d limits: %s", len(gateway.Limits), got)
		}
	}
	return live
}

// secretsApart: what its volume does not hold, a gateway cannot read, and what it
// holds opens Redis as nobody else.
func (c *composed) secretsApart() {
	if _, err := c.project.ReadFile(c.ctx, c.container("gateway", 1), "/run/secrets/redis-authsvc"); err == nil {
		c.t.Error("a gateway holds authsvc's password")
	}
	address := net.JoinHostPort(c.container("redis", 1).Address["data"], "6379")
	for user, password := range map[string]string{"": "", "default": "", "gateway": "", "authsvc": c.secret("gateway", "redis-gateway")} {
		client := redis.NewClient(&redis.Options{Addr: address, Username: user, Password: password, MaxRetries: -1, DisableIdentity: true})
		if err := client.Ping(c.ctx).Err(); err == nil {
			c.t.Errorf("user %q is let in with %d characters", user, len(password))
		}
		client.Close()
	}
	c.note("a gateway holds its own password alone; nobody is let in without one")
}

// extend adds the tests' own routes to the file that the gateways watch, and an
// upstream in this process on the services' network.
func (c *composed) extend() {
	t := c.t
	address, err := c.project.Host(c.ctx, "upstream")
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", net.JoinHostPort(address, "0"))
	if err != nil {
		t.Fatal(err)
	}
	echo := harness.NewUpstream()
	server := &httptest.Server{Listener: listener, Config: &http.Server{Handler: echo}}
	server.Start()
	c.whole.Cleanup(server.Close)
	c.echo = echo
	shipped, err := os.ReadFile(c.dynamic)
	if err != nil {
		t.Fatal(err)
	}
	c.rewrite(extend(t, string(shipped), stack.Fast, server.URL))
	c.awaitRoutes()
	c.note("served by every gateway without a restart")
}
