// Package e2e drives the whole gateway from outside: the real Traefik with the
// plugin compiled in or interpreted, a real Redis, authsvc and the services, as
// `sluice up` starts them.
package e2e

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice"
	"github.com/sluice-gateway/sluice/cmd/sluice/stack"
	"github.com/sluice-gateway/sluice/test/harness"
)

// site is a running gateway and what the tests need beside it.
type site struct {
	t       *testing.T
	stack   *stack.Stack
	ready   stack.Ready
	redis   *harness.Redis
	echo    *harness.Upstream
	dynamic string // the file that the gateways watch
	client  *http.Client
	address string  // of this process, as the front door sees it
	fronts  []front // where clients come in
}

// front is a base URL and what is spoken there.
type front struct{ base, proto string }

// forms are the two in which the plugin runs.
var forms = []string{stack.Compiled, stack.Interpreted}

const prefix = "sluice" // of Redis keys, as shipped

// open starts a stack on a Redis of its own, with the shipped routes and those
// of extra added, and ends it with the test.
func open(t *testing.T, form, wiring string, gateways int) *site {
	t.Helper()
	s := &site{t: t, redis: harness.StartRedis(t), dynamic: filepath.Join(t.TempDir(), "dynamic.yml"), address: "127.0.0.1"}
	echo, echoURL := harness.StartUpstream(t)
	s.echo = echo
	shipped, err := sluice.TraefikFile(wiring + ".yml")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(s.dynamic, []byte(extend(t, string(shipped), wiring, echoURL)), 0o600); err != nil {
		t.Fatal(err)
	}
	// The first start may have to build Traefik.
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Minute)
	defer cancel()
	s.stack, err = stack.Open(ctx, stack.Options{
		Listen: "127.0.0.1:0", ListenTLS: "127.0.0.1:0", Redis: s.redis.Addr, Gateways: gateways,
		Plugin: form, Wiring: wiring, Dynamic: s.dynamic, DataDir: t.TempDir(), Log: testLog{t},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.client.CloseIdleConnections()
		if err := s.stack.Close(); err != nil {
			t.Error(err)
		}
	})
	s.ready = s.stack.Ready()
	s.fronts = []front{{s.ready.HTTP, "HTTP/1.1"}, {s.ready.HTTPS, "HTTP/2.0"}}
	s.client = newClient()
	s.awaitRoutes()
	s.redis.AwaitGateways(prefix, gateways)
	return s
}

func newClient() *http.Client {
	return &http.Client{
		Timeout: 20 * time.Second,
		Transport: &http.Transport{MaxIdleConnsPerHost: 64, DisableCompression: true, ForceAttemptHTTP2: true,
			TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}, // the stack signs its certificate itself
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// awaitRoutes waits until every gateway serves the shipped routes and ours.
func (s *site) awaitRoutes() {
	s.t.Helper()
	for _, gateway := range s.ready.Gateways {
		harness.Eventually(s.t, 30*time.Second, "the routes are served", func() error {
			for path, want := range map[string]int{"/v1/products": 401, "/public": 200} {
				if got, err := s.try("GET", gateway.HTTP+path, nil); err != nil || got.status != want {
					return fmt.Errorf("%s answers %d, %v", path, got.status, err)
				}
			}
			return nil
		})
	}
}

// testLog hands what a stack says to the test.
type testLog struct{ t *testing.T }

func (l testLog) Write(p []byte) (int, error) {
	l.t.Log(strings.TrimRight(string(p), "\n"))
	return len(p), nil
}

// extra are the tests' own routes, beside the shipped ones and through the same
// chains, to an upstream that tells what it received.
const extra = `
    echo:
      rule: PathPrefix(§/echo§) || Path(§/events§) || Path(§/socket§)
      priority: 1000
      middlewares: [PROTECTED]
      service: echo
    echo-public:
      rule: PathPrefix(§/public§)
      priority: 1000
      middlewares: [PUBLIC]
      service: echo
    exact:
      rule: PathPrefix(§/exact§)
      priority: 1000
      middlewares: [IDENTITY exact]
      service: echo
    outage:
      rule: PathPrefix(§/outage§)
      priority: 1000
      middlewares: [IDENTITY outage]
      service: echo
    weblog:
      rule: PathPrefix(§/weblog§)
      priority: 1000
      middlewares: [weblog]
      service: echo
    weblog-counter:
      rule: PathPrefix(§/weblog-counter§)
      priority: 2000
      middlewares: [weblog-counter]
      service: echo
`

const extraMiddlewares = `
    open:
      plugin:
        sluice:
          redis: *redis
          limits:
            - {name: open, key: ip, limit: 1000000, window: 60s}
    exact:
      plugin:
        sluice:
          redis: *redis
          AUTH
          limits:
            - {name: exact, key: user, limit: 200, window: 10s}
    outage:
      plugin:
        sluice:
          redis: *redis
          minInstances: *instances
          AUTH
          limits:
            - {name: outage, key: user, limit: 50, window: 1h}
    weblog:
      plugin:
        sluice:
          redis: *redis
          limits:
            - {name: weblog, key: "header:X-Client", limit: 12, window: 10s, onMissingKey: deny}
    weblog-counter:
      plugin:
        sluice:
          redis: *redis
          limits:
            - {name: weblog-counter, key: "header:X-Client", limit: 12, window: 9s, onMissingKey: deny}
`

// publicChain is what the shipped routes put before a public service; the tests'
// own public route has another limit, since they ask more than ten times.
var publicChain = regexp.MustCompile(`(?m)^    register:\n(?:      .*\n)*?      middlewares: \[(.*)\]$`)

func extend(t *testing.T, shipped, wiring, echo string) string {
	t.Helper()
	protected, identity, auth := "cors, gate", "", `auth: {addresses: '{{ env "SLUICE_AUTHSVC" | splitList "," | join "/auth," }}/auth'}`
	if wiring == stack.Classic {
		protected, identity, auth = "cors, sluice-id, auth, gate", "auth,", "trustUserHeader: true"
	}
	public := publicChain.FindStringSubmatch(shipped)
	if public == nil {
		t.Fatalf("the shipped %s.yml has no router named register", wiring)
	}
	fill := strings.NewReplacer("§", "`", "PUBLIC", strings.Replace(public[1], "register", "open", 1), "PROTECTED", protected, "IDENTITY", identity, "AUTH", auth).Replace
	for _, place := range []struct{ mark, text string }{
		{"\n  routers:\n", "\n  routers:\n" + strings.TrimLeft(fill(extra), "\n")},
		// Counts prove nothing where a decision was made without Redis (design: late-replies),
		// and a machine that runs everything at once takes longer than 25 ms. The
		// default is tested in package forms.
		{"\n          redis: &redis\n", "\n          redis: &redis\n            timeout: 1s\n"},
		{"\n  services:\n", fill(extraMiddlewares) + "\n  services:\n    echo:\n      loadBalancer:\n        servers:\n          - url: " + echo + "\n"},
	} {
		if strings.Count(shipped, place.mark) != 1 {
			t.Fatalf("the shipped %s.yml has not one %q", wiring, place.mark)
		}
		shipped = strings.Replace(shipped, place.mark, place.text, 1)
	}
	return shipped
}

// rewrite replaces the file that the gateways watch in one step. Written in
// place it could be read half, and a gateway would serve that half.
func (s *site) rewrite(content string) {
	s.t.Helper()
	temporary := s.dynamic + ".new"
	if err := os.WriteFile(temporary, []byte(content), 0o644); err != nil {
		s.t.Fatal(err)
	}
	if err := os.Rename(temporary, s.dynamic); err != nil {
		s.t.Fatal(err)
	}
}

// reply is an answer, read to its end.
type reply struct {
	proto  string
	status int
	header http.Header
	body   []byte
}

func (r reply) String() string { return fmt.Sprintf("%d %v %.300s", r.status, r.header, r.body) }

// into decodes the body.
func (r reply) into(t *testing.T, value any) {
	t.Helper()
	if err := json.Unmarshal(r.body, value); err != nil {
		t.Fatalf("%v in %s", err, r)
	}
}

// option changes a request before it is sent.
type option func(*http.Request)

func bearer(token string) option {
	return func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+token) }
}

func header(name string, values ...string) option {
	return func(r *http.Request) { r.Header[http.CanonicalHeaderKey(name)] = values }
}

// try sends a request; a failure to get an answer is an error.
func (s *site) try(method, url string, body any, options ...option) (reply, error) {
	var content io.Reader
	if body != nil {
		encoded, err := json.Marshal(body)
		if err != nil {
			return reply{}, err
		}
		content = bytes.NewReader(encoded)
	}
	request, err := http.NewRequest(method, url, content)
	if err != nil {
		return reply{}, err
	}
	if body != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	for _, o := range options {
		o(request)
	}
	response, err := s.client.Do(request)
	if err != nil {
		return reply{}, err
	}
	defer response.Body.Close()
	read, err := io.ReadAll(response.Body)
	return reply{response.Proto, response.StatusCode, response.Header, read}, err
}

func (s *site) send(method, url string, body any, options ...option) reply {
	s.t.Helper()
	got, err := s.try(method, url, body, options...)
	if err != nil {
		s.t.Fatal(err)
	}
	return got
}

// get asks for a path of the front door, or for a whole URL.
func (s *site) get(path string, options ...option) reply {
	s.t.Helper()
	return s.send("GET", s.url(path), nil, options...)
}

func (s *site) post(path string, body any, options ...option) reply {
	s.t.Helper()
	return s.send("POST", s.url(path), body, options...)
}

func (s *site) url(path string) string {
	if strings.HasPrefix(path, "/") {
		return s.ready.HTTP + path
	}
	return path
}

// on is the site as a subtest sees it.
func (s *site) on(t *testing.T) *site {
	there := *s
	there.t = t
	return &there
}

// tokens are what authsvc and the user service issue.
type tokens struct {
	AccessToken  string `json:"access_token"`
	TokenType    string `json:"token_type"`
	ExpiresIn    int    `json:"expires_in"`
	RefreshToken string `json:"refresh_token"`
}

// token issues one by the admin listener, which no limit stands before.
func (s *site) token(user string, more ...any) string {
	s.t.Helper()
	request := map[string]any{"user_id": user, "claims": map[string]any{}, "ttl": "15m"}
	for i := 0; i < len(more); i += 2 {
		request[more[i].(string)] = more[i+1]
	}
	got := s.send("POST", s.ready.Admin+"/v1/tokens", request, bearer(s.ready.AdminToken))
	var issued tokens
	got.into(s.t, &issued)
	if got.status != 200 || issued.AccessToken == "" {
		s.t.Fatalf("no token: %s", got)
	}
	return issued.AccessToken
}

// flood sends the same request n times from a few connections and counts the
// answers by status; 0 counts requests without an answer. Each takes the next
// of the URLs.
func (s *site) flood(n int, urls []string, options ...option) map[int]int {
	const workers = 16
	var mu sync.Mutex
	count := map[int]int{}
	jobs := make(chan string, n)
	for i := range n {
		jobs <- urls[i%len(urls)]
	}
	close(jobs)
	var wait sync.WaitGroup
	for range workers {
		wait.Go(func() {
			for url := range jobs {
				got, err := s.try("GET", url, nil, options...)
				if err != nil {
					got.status = 0
				}
				mu.Lock()
				count[got.status]++
				mu.Unlock()
			}
		})
	}
	wait.Wait()
	return count
}

// traffic keeps requests coming while a test does something to the gateway.
type traffic struct {
	stop chan struct{}
	wait sync.WaitGroup

	mu    sync.Mutex // protects count and odd
	count map[int]int
	odd   []string
}

// background starts it: workers with a token each, whose answers may be 200 and
// nothing else, or 429 where the test says so.
func (s *site) background(path string, tokens []string, allowed ...int) *traffic {
	var bases []string
	for _, gateway := range s.ready.Gateways {
		bases = append(bases, gateway.HTTP)
	}
	return s.backgroundAt(bases, path, tokens, allowed...)
}

// backgroundAt is background by way of the given base URLs.
func (s *site) backgroundAt(bases []string, path string, tokens []string, allowed ...int) *traffic {
	b := &traffic{stop: make(chan struct{}), count: map[int]int{}}
	for i, token := range tokens {
		base := bases[i%len(bases)]
		b.wait.Go(func() {
			pace := time.NewTicker(10 * time.Millisecond)
			defer pace.Stop()
			for {
				select {
				case <-b.stop:
					return
				case <-pace.C:
				}
				got, err := s.try("GET", base+path, nil, bearer(token))
				b.note(got, err, allowed)
			}
		})
	}
	return b
}

func (b *traffic) note(got reply, err error, allowed []int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.count[got.status]++
	for _, status := range allowed {
		if err == nil && got.status == status {
			return
		}
	}
	if len(b.odd) < 5 {
		b.odd = append(b.odd, fmt.Sprintf("%s %v", got, err))
	}
}

// end stops it and complains of every answer that was not allowed.
func (b *traffic) end(t *testing.T) {
	t.Helper()
	close(b.stop)
	b.wait.Wait()
	if b.count[200] < 20 {
		t.Errorf("too little traffic to tell: %v", b.count)
	}
	if len(b.odd) > 0 {
		t.Errorf("answers under traffic: %v, such as %s", b.count, strings.Join(b.odd, "; "))
	}
}
