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
	"maps"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/sluice-gateway/sluice/test/compose"
	"github.com/sluice-gateway/sluice/test/harness"
)

// crowd are users that keep asking by connections of their own, as browsers do;
// the balancer has placed each with one gateway.
type crowd []*traffic

func (c *composed) crowd() (all crowd) {
	c.t.Helper()
	for i := range 12 {
		there := *c.site
		there.client = harness.NewClient()
		c.t.Cleanup(there.client.CloseIdleConnections)
		token := c.token(fmt.Sprintf("crowd-%d", i), "claims", map[string]any{"plan": "pro"})
		all = append(all, there.backgroundAt([]string{c.ready.HTTPS}, "/echo", []string{token}, 250*time.Millisecond, 200))
	}
	return all
}

// end stops the crowd, none of whom may have been refused, and tells how often it
// has asked.
func (all crowd) end(t *testing.T) (asked int) {
	t.Helper()
	for _, user := range all {
		user.end(t)
		asked += user.count[200]
	}
	return asked
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
	c.awaitCertificate(serial)

	const token = "another operator's token of the test"
	old := c.ready.AdminToken
	c.put("authsvc-secrets", "admin-token", []byte(token+"\n"))
	for _, authsvc := range c.containers("authsvc") {
		harness.Eventually(t, 20*time.Second, "the new admin token holds", func() error {
			for given, want := range map[string]int{token: 200, old: 401} {
				if got := c.get("http://"+authsvc.Address["identity"]+":9001/v1/gateways", bearer(given)); got.Status != want {
					return fmt.Errorf("%d, want %d", got.Status, want)
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

	c.note("certificate, admin token and the gateways' Redis password, under traffic: %d requests, none lost", crowd.end(t))
}

// awaitCertificate waits until every gateway shows the one with this serial.
func (c *composed) awaitCertificate(serial *big.Int) {
	c.t.Helper()
	for _, gateway := range c.ready.Gateways {
		harness.Eventually(c.t, 20*time.Second, "the new certificate is shown", func() error {
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
	defer crowd.end(t)
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
		if err := json.Unmarshal(got.Body, &body); err != nil || body.Status != "success" {
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
	c.get(prometheus+"/api/v1/rules").Into(t, &rules)
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

// record becomes COMPOSE.md.
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
	return os.WriteFile("COMPOSE.md", text.Bytes(), 0o644)
}
