package e2e

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/sluice-gateway/sluice/test/compose"
	"github.com/sluice-gateway/sluice/test/harness"
)

// crowd are users that keep asking by connections of their own, as browsers do;
// the balancer has placed each with one gateway.
type crowd struct {
	stop chan struct{}
	wait sync.WaitGroup

	mu   sync.Mutex // protects what follows
	seen outcome
}

// outcome is what a crowd met.
type outcome struct {
	sent, good int
	lost       int // without an answer
	wrong      map[int]int
	such       string // one that was lost or wrong
	last       time.Time
	wait       time.Duration // the longest for a good answer
}

const crowdSize = 12

// crowd starts asking for an echo, each user below a gateway's share of the
// limits, which is what holds while that gateway is without Redis.
func (c *composed) crowd() *crowd {
	c.t.Helper()
	b := &crowd{stop: make(chan struct{}), seen: outcome{wrong: map[int]int{}}}
	for i := range crowdSize {
		user := fmt.Sprintf("crowd-%d", i)
		token := c.token(user, "claims", map[string]any{"plan": "pro"})
		b.wait.Go(func() {
			client := &http.Client{Timeout: 3 * time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
			defer client.CloseIdleConnections()
			// Not all at once: requests under way from one address hold permits of
			// bad-token, of which a gateway without Redis has ten.
			time.Sleep(time.Duration(i) * 250 * time.Millisecond / crowdSize)
			pace := time.NewTicker(250 * time.Millisecond)
			defer pace.Stop()
			for {
				select {
				case <-b.stop:
					return
				case <-pace.C:
				}
				b.ask(client, c.ready.HTTPS+"/echo", token, user)
			}
		})
	}
	harness.Eventually(c.t, 10*time.Second, "the crowd is served", func() error {
		if seen := b.so(); seen.good < 3*crowdSize {
			return fmt.Errorf("%+v", seen)
		}
		return nil
	})
	return b
}

func (b *crowd) ask(client *http.Client, url, token, user string) {
	request, err := http.NewRequest("GET", url, nil)
	if err != nil {
		panic(err)
	}
	request.Header.Set("Authorization", "Bearer "+token)
	sent := time.Now()
	response, err := client.Do(request)
	var saw harness.Seen
	var body []byte
	status := 0
	if err == nil {
		status = response.StatusCode
		body, err = io.ReadAll(response.Body)
		response.Body.Close()
		if err == nil && status == 200 {
			err = json.Unmarshal(body, &saw)
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.seen.sent++
	switch {
	case err != nil:
		b.seen.lost++
	case status == 200 && saw.Header.Get("X-User-ID") == user:
		b.seen.good++
		b.seen.wait = max(b.seen.wait, time.Since(sent))
		return
	default:
		b.seen.wrong[status]++
		err = fmt.Errorf("%d for %q, who is %s: %s, RateLimit %q", status, saw.Header.Get("X-User-ID"), user, body, response.Header.Get("RateLimit"))
	}
	b.seen.last, b.seen.such = time.Now(), err.Error()
}

func (b *crowd) so() outcome {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.seen
}

// end stops the crowd and tells what it met.
func (b *crowd) end() outcome {
	close(b.stop)
	b.wait.Wait()
	return b.so()
}

// failures takes one part away at a time, under traffic.
func (c *composed) failures() {
	p := c.project
	for _, failure := range []struct {
		name, service string
		number        int // 0: all
		take, back    func(context.Context, compose.Container) error
		lost          int // at most
	}{
		// A gateway that ends at once, or hangs, takes its open connections with
		// it, and those that the balancer opens to it before it knows. One that is
		// told to end loses nothing.
		{"a gateway killed", "gateway", 1, p.Kill, p.Start, 2 * crowdSize},
		{"a gateway stopped", "gateway", 2, p.Stop, p.Start, 0},
		{"a gateway paused", "gateway", 3, p.Pause, p.Unpause, 2 * crowdSize},
		{"a gateway cut off the balancer", "gateway", 1, cut(p, "front"), join(p, "front"), 2 * crowdSize},
		{"a gateway cut off Redis", "gateway", 2, cut(p, "data"), join(p, "data"), 0},
		{"one authsvc killed", "authsvc", 1, p.Kill, p.Start, 0},
		{"every authsvc killed", "authsvc", 0, p.Kill, p.Start, 0},
		{"Redis paused", "redis", 1, p.Pause, p.Unpause, 0},
		{"Redis cut off", "redis", 1, cut(p, "data"), join(p, "data"), 0},
	} {
		c.t.Run(failure.name, func(t *testing.T) {
			c := &composed{c.site.on(t), c.whole, c.ctx, c.project, c.record}
			var parts []compose.Container
			for _, container := range c.containers(failure.service) {
				if failure.number == 0 || container.Number == failure.number {
					parts = append(parts, container)
				}
			}
			crowd := c.crowd()
			taken := time.Now()
			for _, part := range parts {
				if err := failure.take(c.ctx, part); err != nil {
					t.Fatal(err)
				}
			}
			away := time.After(5 * time.Second)
			<-away
			for _, part := range parts {
				if err := failure.back(c.ctx, part); err != nil {
					t.Fatal(err)
				}
			}
			c.recovered(t)
			seen := crowd.end()
			for status, n := range seen.wrong {
				t.Errorf("%d answers %d, such as %s", n, status, seen.such)
			}
			if seen.lost > failure.lost {
				t.Errorf("%d of %d requests had no answer, at most %d may; such as %s", seen.lost, seen.sent, failure.lost, seen.such)
			}
			lasted := "none"
			if seen.lost > 0 {
				lasted = fmt.Sprintf("%d, the last %v after", seen.lost, seen.last.Sub(taken).Round(10*time.Millisecond))
			}
			c.note("%d requests: no wrong answer, lost: %s; the longest good answer took %v", seen.sent, lasted, seen.wait.Round(time.Millisecond))
		})
		c.locate()
	}
}

func cut(p *compose.Project, network string) func(context.Context, compose.Container) error {
	return func(ctx context.Context, c compose.Container) error { return p.Cut(ctx, c, network) }
}

func join(p *compose.Project, network string) func(context.Context, compose.Container) error {
	return func(ctx context.Context, c compose.Container) error { return p.Join(ctx, c, network) }
}

// recovered waits until all is as before: every container healthy, and every
// gateway seen by Redis.
func (c *composed) recovered(t *testing.T) {
	t.Helper()
	harness.Eventually(t, 60*time.Second, "everything is healthy again", func() error {
		all, err := c.project.Containers(c.ctx)
		for _, container := range all {
			if container.Service != "secrets" && (!container.Running || (container.Health != "" && container.Health != "healthy")) {
				err = errors.Join(err, fmt.Errorf("%s: running %v, %s", container.Name, container.Running, container.Health))
			}
		}
		if err != nil {
			time.Sleep(200 * time.Millisecond) // asking Docker is not cheap
		}
		return err
	})
	c.site.t = t
	c.locate()
	c.redis.AwaitGateways(prefix, len(c.ready.Gateways))
}

// secrets changes, under traffic and without a restart, the certificate, the
// operator's token and a gateway's password of Redis (design: rolling-upgrade), as
// docs/deployment.md describes it.
func (c *composed) secrets() {
	t := c.t
	crowd := c.crowd()

	serial, certificate, key := newCertificate(t)
	c.put("certificates", "cert.pem", certificate)
	c.put("certificates", "key.pem", key)
	routes, err := os.ReadFile(c.dynamic)
	if err != nil {
		t.Fatal(err)
	}
	c.rewrite(string(routes))
	for _, gateway := range c.ready.Gateways {
		harness.Eventually(t, 20*time.Second, "the new certificate is shown", func() error {
			connection, err := tls.Dial("tcp", strings.TrimPrefix(gateway.HTTPS, "https://"), &tls.Config{InsecureSkipVerify: true})
			if err != nil {
				return err
			}
			defer connection.Close()
			if shown := connection.ConnectionState().PeerCertificates[0].SerialNumber; shown.Cmp(serial) != 0 {
				return fmt.Errorf("still the one with serial %v", shown)
			}
			return nil
		})
	}

	const token = "another operator's token of the test"
	old := c.ready.AdminToken
	c.put("authsvc-secrets", "admin-token", []byte(token+"\n"))
	for _, authsvc := range c.containers("authsvc") {
		harness.Eventually(t, 20*time.Second, "the new admin token holds", func() error {
			for given, want := range map[string]int{token: 200, old: 401} {
				if got := c.get("http://"+authsvc.Address["identity"]+":9001/v1/gateways", bearer(given)); got.status != want {
					return fmt.Errorf("%d, want %d", got.status, want)
				}
			}
			return nil
		})
	}

	// Redis learns the new password beside the old, then the gateways, then the
	// old one is forgotten and whoever came with it is sent away.
	const password = "another password of the test"
	before := c.secret("gateway", "redis-gateway")
	admin := c.redis.Client
	if err := admin.Do(c.ctx, "ACL", "SETUSER", "gateway", ">"+password).Err(); err != nil {
		t.Fatal(err)
	}
	c.put("redis-secrets", "redis-gateway", []byte(password+"\n")) // for its next start
	c.put("gateway-secrets", "redis-gateway", []byte(password+"\n"))
	if err := errors.Join(admin.Do(c.ctx, "ACL", "SETUSER", "gateway", "<"+before).Err(), admin.Do(c.ctx, "CLIENT", "KILL", "USER", "gateway").Err()); err != nil {
		t.Fatal(err)
	}
	c.redis.AwaitGateways(prefix, len(c.ready.Gateways))
	c.redis.Gateways(prefix) // each has reported twice by the new password
	c.locate()

	seen := crowd.end()
	if seen.lost > 0 || len(seen.wrong) > 0 {
		t.Errorf("%+v", seen)
	}
	c.note("certificate, admin token and the gateways' Redis password, under traffic: %d requests, none lost", seen.sent)
}

// put replaces a file of a volume in one step.
func (c *composed) put(volume, name string, content []byte) {
	c.t.Helper()
	script := fmt.Sprintf("umask 027; cat >/volume/%s.new; mv /volume/%s.new /volume/%s", name, name, name)
	if _, err := c.project.InVolume(c.ctx, volume, script, content); err != nil {
		c.t.Fatal(err)
	}
}

func newCertificate(t *testing.T) (serial *big.Int, certificate, key []byte) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	serial = big.NewInt(time.Now().UnixNano())
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{SerialNumber: serial, NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"localhost"}},
		&x509.Certificate{SerialNumber: serial}, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return serial, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})
}

// observability: the profile's Prometheus scrapes everything, and every query of
// the dashboard and every figure that an alert watches is there.
func (c *composed) observability() {
	t := c.t
	c.project.SetProfile("observability")
	if err := c.project.Up(c.ctx, "prometheus", "redis-exporter"); err != nil {
		t.Fatal(err)
	}
	prometheus := "http://" + net.JoinHostPort(c.container("prometheus", 1).Address["monitor"], "9090")
	crowd := c.crowd()
	defer crowd.end()
	limited, unknown := c.token("limited"), "Bearer "+"not.a.token"
	ask := func(query string) (found []struct{ Value [2]any }, err error) {
		got, err := c.try("GET", prometheus+"/api/v1/query?query="+url.QueryEscape(query), nil)
		if err != nil {
			return nil, err
		}
		var body struct {
			Status, Error string
			Data          struct{ Result []struct{ Value [2]any } }
		}
		if err := json.Unmarshal(got.body, &body); err != nil || body.Status != "success" {
			return nil, fmt.Errorf("%w: %s", err, got)
		}
		return body.Data.Result, nil
	}

	harness.Eventually(t, 60*time.Second, "every target is up", func() error {
		found, err := ask("up == 1")
		if err == nil && len(found) != 3+2+1 {
			err = fmt.Errorf("%d", len(found))
		}
		return err
	})
	queries := dashboardQueries(t)
	watched := alertFigures(t)
	missing := slices.Concat(queries, watched, []string{"redis_up == 1"})
	harness.Eventually(t, 2*time.Minute, "every query has an answer", func() error {
		c.flood(30, []string{c.ready.HTTPS + "/v1/products"}, bearer(limited)) // 429
		c.flood(2, []string{c.ready.HTTPS + "/v1/products"}, header("Authorization", unknown))
		var still []string
		for _, query := range missing {
			found, err := ask(query)
			if err != nil {
				t.Fatalf("%s: %v", query, err)
			}
			if len(found) == 0 || found[0].Value[1] == "NaN" {
				still = append(still, query)
			}
		}
		if missing = still; len(still) > 0 {
			time.Sleep(time.Second) // Prometheus asks every five
			return fmt.Errorf("%d are empty: %s", len(still), strings.Join(still, "\n"))
		}
		return nil
	})
	var rules struct {
		Data struct {
			Groups []struct {
				Rules []struct{ Name, Health, LastError, State string }
			}
		}
	}
	c.get(prometheus+"/api/v1/rules").into(t, &rules)
	alerts := 0
	for _, group := range rules.Data.Groups {
		for _, rule := range group.Rules {
			alerts++
			if rule.Health != "ok" && rule.Health != "unknown" || rule.State == "firing" {
				t.Errorf("alert %s: %+v", rule.Name, rule)
			}
		}
	}
	if alerts == 0 {
		t.Error("no alert was loaded")
	}
	c.note("3 gateways, 2 authsvc and the Redis exporter are scraped; %d queries of the dashboard and %d figures of %d alerts: none empty; Grafana itself was not run", len(queries), len(watched), alerts)
}

// dashboardQueries are those of every panel, with Grafana's interval filled in.
func dashboardQueries(t *testing.T) (queries []string) {
	t.Helper()
	files, err := filepath.Glob("../../deploy/grafana/dashboards/*.json")
	if err != nil || len(files) == 0 {
		t.Fatal(err, files)
	}
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var dashboard struct {
			Panels []struct{ Targets []struct{ Expr string } }
		}
		if err := json.Unmarshal(content, &dashboard); err != nil {
			t.Fatal(err)
		}
		for _, panel := range dashboard.Panels {
			for _, target := range panel.Targets {
				queries = append(queries, strings.ReplaceAll(target.Expr, "$__rate_interval", "30s"))
			}
		}
	}
	if len(queries) == 0 {
		t.Fatal("the dashboard asks nothing")
	}
	return queries
}

// threshold is the end of an alert's expression.
var threshold = regexp.MustCompile(` (>|<|==|>=|<=) [0-9.]+$`)

// alertFigures are what alerts compare: an alert on a figure that does not exist
// would never fire.
func alertFigures(t *testing.T) (figures []string) {
	t.Helper()
	content, err := os.ReadFile("../../deploy/prometheus/alerts.yml")
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Groups []struct{ Rules []struct{ Expr string } }
	}
	if err := yaml.Unmarshal(content, &file); err != nil {
		t.Fatal(err)
	}
	for _, group := range file.Groups {
		for _, rule := range group.Rules {
			figure := threshold.ReplaceAllString(rule.Expr, "")
			if figure == rule.Expr {
				t.Fatalf("%s: no threshold", rule.Expr)
			}
			figures = append(figures, figure)
		}
	}
	return figures
}

// scale: SLUICE_GATEWAYS alone changes how many gateways there are.
func (c *composed) scale() {
	for _, n := range []int{4, 3} {
		c.project.SetGateways(n)
		if err := c.project.Up(c.ctx, "lb"); err != nil {
			c.t.Fatal(err)
		}
		c.locate()
		if len(c.ready.Gateways) != n {
			c.t.Errorf("%d gateways run, want %d", len(c.ready.Gateways), n)
		}
		c.redis.AwaitGateways(prefix, n)
		c.awaitRoutes()
		if listed := c.live(); listed != n {
			c.t.Errorf("%d gateways are listed, want %d", listed, n)
		}
		exactLimit(c.site)
	}
	c.note("SLUICE_GATEWAYS=4 and back to 3: all are listed and hold one limit, to the request")
}

// compiled swaps the gateways' image.
func (c *composed) compiled() {
	t := c.t
	c.project.SetCompiled(true)
	begun := time.Now()
	if err := c.project.Up(c.ctx, "lb"); err != nil {
		t.Fatal(err)
	}
	took := time.Since(begun)
	c.locate()
	for _, gateway := range c.containers("gateway") {
		if logs, err := c.project.Logs(c.ctx, gateway); err != nil || !strings.Contains(logs, "compiled plugin") {
			t.Errorf("%s does not run the compiled plugin: %v", gateway.Name, err)
		}
	}
	c.redis.AwaitGateways(prefix, len(c.ready.Gateways))
	c.awaitRoutes()
	c.closed()
	whatServicesReceive(c.site)
	forgedIdentity(c.site)
	exactLimit(c.site)
	c.note("compose.compiled.yaml: gateways of the image that the Dockerfile builds, built and swapped in %v; headers, forged identity and exact limit again", took.Round(time.Second))
}

// record becomes test/compose/RESULTS.md.
type record struct {
	lines []string
}

func (r *record) note(part, format string, args ...any) {
	r.lines = append(r.lines, fmt.Sprintf("| %s | %s |", part, fmt.Sprintf(format, args...)))
}

func (r *record) write(ctx context.Context, project *compose.Project, took time.Duration) error {
	versions, err := project.Versions(ctx)
	if err != nil {
		return err
	}
	var text bytes.Buffer
	fmt.Fprintf(&text, `# compose.yaml on a Docker engine

Written by `+"`make compose`"+` (cd test && go test ./e2e -run '^TestCompose$' -docker -timeout 45m), in %v on %d cores.

The shipped compose.yaml, unchanged. Base images that the engine lacked were stand-ins under the official names, made from
the programs listed; an official image takes the place of its stand-in wherever the engine has it. Clients are this machine
on the bridge networks, and containers of their own where only a neighbour can see.

| | version |
|---|---|
`, took.Round(time.Second), runtime.NumCPU())
	for _, name := range slices.Sorted(maps.Keys(versions)) {
		fmt.Fprintf(&text, "| %s | %s |\n", name, versions[name])
	}
	fmt.Fprintf(&text, "\n| part | shown |\n|---|---|\n%s\n", strings.Join(r.lines, "\n"))
	return os.WriteFile("../compose/RESULTS.md", text.Bytes(), 0o644)
}
