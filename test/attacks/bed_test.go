package attacks

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice"
	"github.com/sluice-gateway/sluice/cmd/sluice/stack"
	"github.com/sluice-gateway/sluice/test/harness"
)

var full = flag.Bool("full", false, "try every case instead of a sample, and write RESULTS.md")

// prefix of Redis keys, as shipped.
const prefix = "sluice"

// The shipped routes exist twice: for echoHost they lead to the service that
// keeps what it is sent, for any other to the real ones.
const (
	echoHost = "echo.test"
	realHost = "localhost"
)

// bed is a stack under attack.
type bed struct {
	t      *testing.T
	stack  *stack.Stack
	ready  stack.Ready
	redis  *harness.Redis
	echo   *echo
	door   door
	wiring string

	fastProxy bool
	token     string    // ann's
	shared    string    // the dynamic configuration that the stack serves
	from      string    // local address of what fire sends; empty: any
	auth      *recorder // before authsvc, for the gateways of TestTheSuiteBites
}

// door is a gateway by its addresses.
type door struct{ http, https string }

func (d door) address(f front) string {
	if f.tls {
		return d.https
	}
	return d.http
}

// open starts a stack.
func open(t *testing.T, s setup) *bed {
	t.Helper()
	wiring := s.wiring
	b := &bed{t: t, wiring: wiring, fastProxy: s.fastProxy, redis: harness.StartRedis(t), echo: startEcho(t)}
	shipped, err := sluice.TraefikFile(wiring + ".yml")
	if err != nil {
		t.Fatal(err)
	}
	b.shared = extend(t, string(shipped), wiring, b.echo.url)
	dynamic := filepath.Join(t.TempDir(), "dynamic.yml")
	if err := os.WriteFile(dynamic, []byte(b.shared), 0o600); err != nil {
		t.Fatal(err)
	}
	b.stack = harness.OpenStack(t, stack.Options{
		Redis: b.redis.Addr, Wiring: wiring, Plugin: s.form, Gateways: s.gateways, Dynamic: dynamic, Log: testLog{harness.Log{T: t}}, FastProxy: s.fastProxy,
	})
	b.ready = b.stack.Ready()
	b.door = door{hostOf(t, b.ready.HTTP), hostOf(t, b.ready.HTTPS)}
	b.token = b.issue("ann", "claims", map[string]any{"plan": ann.plan, "scope": ann.scopes})
	b.redis.AwaitGateways(prefix, s.gateways)
	b.await(b.door)
	for _, gateway := range b.ready.Gateways {
		b.await(door{hostOf(t, gateway.HTTP), hostOf(t, gateway.HTTPS)})
	}
	return b
}

// await waits until a gateway serves the protected route.
func (b *bed) await(d door) {
	b.t.Helper()
	harness.Eventually(b.t, 30*time.Second, "the routes are served", func() error {
		for _, f := range []front{plain1, tls1} {
			c := &client{address: d.address(f), front: f}
			got, err := c.send(b.protected(caseField("await")))
			c.close()
			if err != nil || got.status != http.StatusOK {
				return fmt.Errorf("%s: %d %v %.200s", f.name, got.status, err, got.body)
			}
		}
		b.echo.take("await")
		return nil
	})
}

func (b *bed) on(t *testing.T) *bed {
	there := *b
	there.t = t
	return &there
}

func hostOf(t *testing.T, base string) string {
	t.Helper()
	at, err := url.Parse(base)
	if err != nil {
		t.Fatal(err)
	}
	return at.Host
}

// testLog hands on what a gateway logs, but for what these requests are to cause:
// broken bodies, and clients that hang up.
type testLog struct{ harness.Log }

func (l testLog) Write(p []byte) (int, error) {
	if bytes.Contains(p, []byte("oxy/buffer: error when reading")) || bytes.Contains(p, []byte("context canceled")) {
		return len(p), nil
	}
	return l.Log.Write(p)
}

// issue makes a token by the admin listener.
func (b *bed) issue(user string, more ...any) string {
	b.t.Helper()
	request := map[string]any{"user_id": user, "claims": map[string]any{}, "ttl": "1h"}
	for i := 0; i < len(more); i += 2 {
		request[more[i].(string)] = more[i+1]
	}
	var got struct {
		AccessToken string `json:"access_token"`
	}
	b.ask("POST", b.ready.Admin+"/v1/tokens", b.ready.AdminToken, request, &got)
	if got.AccessToken == "" {
		b.t.Fatalf("no token for %s", user)
	}
	return got.AccessToken
}

func (b *bed) ask(method, url, token string, request, into any) {
	b.t.Helper()
	var options []harness.Option
	if token != "" {
		options = append(options, harness.Bearer(token))
	}
	got, err := harness.Ask(http.DefaultClient, method, url, request, options...)
	if err != nil {
		b.t.Fatal(err)
	}
	got.Into(b.t, into)
}

func caseField(id string) field { return field{caseHeader, id} }

func bearer(token string) field { return field{"Authorization", "Bearer " + token} }

// protected is a request of ann's, public one of nobody's.
func (b *bed) protected(more ...field) message {
	return message{method: "GET", target: "/v1/products", host: echoHost, fields: append([]field{bearer(b.token)}, more...)}
}

func public(more ...field) message {
	return message{method: "POST", target: "/v1/users/login", host: echoHost, fields: more}
}

var (
	routerBlock = regexp.MustCompile(`(?m)^    (\w+):.*\n(?:      entryPoints: .*\n)?      rule: (.*)\n      priority: (\d+)\n      middlewares: (.*)\n      service: (\w+)\n`)
	anyLimit    = regexp.MustCompile(`limit: \d+`)
	redisAnchor = "\n          redis: &redis\n"
)

// extend takes the shipped file, doubles its routes for the echoing service and
// raises its limits out of the way: they have a suite of their own, and would
// end most of this one's classes after ten requests. What stands before the
// service stays as it is shipped.
func extend(t *testing.T, shipped, wiring, echo string) string {
	t.Helper()
	shipped = anyLimit.ReplaceAllString(shipped, "limit: 1000000")
	shipped = strings.ReplaceAll(shipped, "pro: 1000}", "pro: 1000000}")
	var twins strings.Builder
	for _, router := range routerBlock.FindAllStringSubmatch(shipped, -1) {
		name, rule, priority, chain := router[1], router[2], router[3], router[4]
		if name == "redirect" {
			continue
		}
		fmt.Fprintf(&twins, "    echo-%s:\n      rule: Host(`%s`) && (%s)\n      priority: 1%s\n      middlewares: %s\n      service: echo\n", name, echoHost, rule, priority, chain)
	}
	if n := strings.Count(twins.String(), "service: echo"); n != 7 {
		t.Fatalf("%s.yml has %d routes where seven are known", wiring, n)
	}
	routers, middlewares := bypassRoutes(wiring)
	for _, place := range []struct{ mark, text string }{
		{"\n  routers:\n", "\n  routers:\n" + twins.String() + routers},
		{redisAnchor, redisAnchor + "            timeout: 1s\n"},
		{"\n  services:\n", middlewares + "\n  services:\n    echo:\n      loadBalancer:\n        servers:\n          - url: " + echo + "\n"},
	} {
		if strings.Count(shipped, place.mark) != 1 {
			t.Fatalf("%s.yml has not one %q", wiring, place.mark)
		}
		shipped = strings.Replace(shipped, place.mark, place.text, 1)
	}
	return shipped
}

// probe is one generated case of a class.
type probe struct {
	name  string
	front front
	message
	judge func(answer, []seen) error
	fails bool // Traefik itself says 500 to this
}

var caseNumber atomic.Int64

// fire sends all probes to a door and returns how the class did. Each finding
// is one line.
func (b *bed) fire(d door, probes []probe) (o outcome) {
	const workers = 8
	var mu sync.Mutex
	var wait sync.WaitGroup
	jobs := make(chan probe)
	for range workers {
		wait.Go(func() {
			clients := map[front]*client{}
			defer func() {
				for _, c := range clients {
					c.close()
				}
			}()
			for p := range jobs {
				c := clients[p.front]
				if c == nil {
					c = &client{address: d.address(p.front), front: p.front, from: b.from}
					clients[p.front] = c
				}
				id := fmt.Sprintf("case-%d", caseNumber.Add(1))
				// A folded line joins the header before it, which is not to be ours.
				p.fields = append([]field{caseField(id), {"X-Filler", "a"}}, p.fields...)
				kept := c.connection != nil
				got, err := c.send(p.message)
				arrived := b.echo.take(id)
				// An earlier case may have ended the connection: a body that follows headers
				// which Go's HTTP/2 refused is answered by GOAWAY, and only this case reads
				// that. It was not tried then, so it is, on a connection of its own.
				if ended := c.connection == nil && got.status == 0; kept && ended && err == nil && len(arrived) == 0 {
					got, err = c.send(p.message)
					arrived = b.echo.take(id)
				}
				if err == nil {
					err = p.judge(got, arrived)
				}
				if err == nil {
					err = p.becoming(id, got, arrived)
				}
				if b.fastProxy && len(arrived) == 0 && (got.status == http.StatusBadGateway || got.status == 0) {
					err = nil // one of differences: the service had closed the connection after an earlier case
				}
				mu.Lock()
				o.tried++
				if len(arrived) > 0 {
					o.reached++
				}
				if err != nil {
					o.findings = append(o.findings, fmt.Sprintf("%s, %s %.80q, %s: %v (%d)", p.front.name, p.method, p.target, p.name, err, got.status))
				}
				mu.Unlock()
			}
		})
	}
	for _, p := range probes {
		jobs <- p
	}
	close(jobs)
	wait.Wait()
	if strays := b.echo.take(""); len(strays) > 0 {
		o.findings = append(o.findings, fmt.Sprintf("%d requests that nobody sent reached the service, such as %s %s", len(strays), strays[0].method, strays[0].target))
	}
	return o
}

// becoming judges the answer to a case, whatever the case is.
func (p probe) becoming(id string, got answer, arrived []seen) error {
	if name := got.header.Get(caseHeader); name != "" && name != id {
		return fmt.Errorf("the answer to %s arrived", name)
	}
	// What the gateway refuses is the client's fault, never its own. Go's server
	// says 501 to an unknown Transfer-Encoding and 505 to an unknown version.
	if !p.fails && got.status >= 500 && got.status != http.StatusNotImplemented && got.status != http.StatusHTTPVersionNotSupported && len(arrived) == 0 {
		return errors.New("the gateway failed")
	}
	for name, values := range got.header {
		switch folded(name) {
		case "x-user-id", "x-user-plan", "x-user-scopes", "x-token-id", "x-session-id", "authorization":
			return fmt.Errorf("the client is told %s: %q", name, values)
		}
		if line := strings.Join(values, " "); strings.Contains(line, lie) || strings.Contains(line, lieUUID) {
			return fmt.Errorf("the client gets back what it said: %s: %.60q", name, values)
		}
	}
	// One name for a request, on both sides of the gateway (design: request-id). Of a switch
	// of protocols Traefik's buffering hands on the service's headers alone.
	if len(arrived) == 1 && got.status != http.StatusSwitchingProtocols && !slices.Equal(got.header.Values("X-Request-Id"), arrived[0].header.Values("X-Request-Id")) && got.status != 0 {
		return fmt.Errorf("X-Request-ID: the client was told %q, the service %q", got.header.Values("X-Request-Id"), arrived[0].header.Values("X-Request-Id"))
	}
	var problem struct {
		RequestID string `json:"request_id"`
	}
	if got.header.Get("Content-Type") == "application/problem+json" && json.Unmarshal(got.body, &problem) == nil && problem.RequestID != got.header.Get("X-Request-Id") {
		return fmt.Errorf("X-Request-ID: %q in the header, %q in the refusal", got.header.Get("X-Request-Id"), problem.RequestID)
	}
	return nil
}

// usual are requests that nothing is wrong with, of every kind that the classes
// change something in. All have to arrive.
func usual(b *bed) (all []probe) {
	add := func(m message, user who) {
		m.host = echoHost
		for _, f := range fronts {
			all = append(all, probe{name: "as usual", front: f, message: m, judge: arrivesIntact(user)})
		}
	}
	hers := []field{bearer(b.token)}
	add(message{method: "GET", target: "/v1/products", fields: hers}, ann)
	add(message{method: "POST", target: "/v1/orders", fields: hers}, ann)
	add(message{method: "POST", target: "/v1/orders", fields: hers, body: "{}"}, ann)
	add(message{method: "POST", target: "/v1/orders", fields: hers, body: "{}", trailers: []field{{"X-Filler", "a"}}}, ann)
	add(message{method: "POST", target: "/v1/users/login"}, who{})
	add(message{method: "GET", target: "/limited/dry", fields: hers}, ann)
	if b.wiring == stack.Fast { // forwardAuth has no such thing
		add(message{method: "GET", target: "/limited/optional", fields: hers}, ann)
		add(message{method: "GET", target: "/limited/optional"}, who{})
	}
	return all
}

// sample keeps about n of all in the short form, the same ones each time.
func sample[T any](all []T, n int) []T {
	if *full || len(all) <= n {
		return all
	}
	out := make([]T, 0, n)
	for i := range n {
		out = append(out, all[i*len(all)/n])
	}
	return out
}
