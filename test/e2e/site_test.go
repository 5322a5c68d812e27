// Package e2e drives the whole gateway from outside: the real Traefik with the
// plugin compiled in or interpreted, a real Redis, authsvc and the services, as
// `sluice up` starts them.
package e2e

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
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

var bearer, header = harness.Bearer, harness.Header

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
	s.ready = harness.OpenStack(t, stack.Options{Redis: s.redis.Addr, Gateways: gateways, Plugin: form, Wiring: wiring, Dynamic: s.dynamic}).Ready()
	s.fronts = []front{{s.ready.HTTP, "HTTP/1.1"}, {s.ready.HTTPS, "HTTP/2.0"}}
	s.client = harness.NewClient()
	t.Cleanup(s.client.CloseIdleConnections)
	s.awaitRoutes()
	s.redis.AwaitGateways(prefix, gateways)
	return s
}

// awaitRoutes waits until every gateway serves the shipped routes and ours.
func (s *site) awaitRoutes() {
	s.t.Helper()
	for _, gateway := range s.ready.Gateways {
		harness.Eventually(s.t, 30*time.Second, "the routes are served", func() error {
			for path, want := range map[string]int{"/v1/products": 401, "/public": 200} {
				if got, err := s.try("GET", gateway.HTTP+path, nil); err != nil || got.Status != want {
					return fmt.Errorf("%s answers %d, %v", path, got.Status, err)
				}
			}
			return nil
		})
	}
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
		// and a machine that runs everything at once takes longer than the default,
		// which is tested in package forms.
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

// try sends a request; a failure to get an answer is an error.
func (s *site) try(method, url string, body any, options ...harness.Option) (harness.Reply, error) {
	return harness.Ask(s.client, method, url, body, options...)
}

func (s *site) send(method, url string, body any, options ...harness.Option) harness.Reply {
	s.t.Helper()
	got, err := s.try(method, url, body, options...)
	if err != nil {
		s.t.Fatal(err)
	}
	return got
}

// get asks for a path of the front door, or for a whole URL.
func (s *site) get(path string, options ...harness.Option) harness.Reply {
	s.t.Helper()
	return s.send("GET", s.url(path), nil, options...)
}

func (s *site) post(path string, body any, options ...harness.Option) harness.Reply {
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
	got.Into(s.t, &issued)
	if got.Status != 200 || issued.AccessToken == "" {
		s.t.Fatalf("no token: %s", got)
	}
	return issued.AccessToken
}

// spend sends n requests to the gateways in turn and returns how many passed a
// limit; what is neither passed nor refused by it is an error.
func (s *site) spend(path, token string, n int) (passed int) {
	s.t.Helper()
	for i := range n {
		switch got := s.get(s.ready.Gateways[i%len(s.ready.Gateways)].HTTP+path, bearer(token)); got.Status {
		case 200:
			passed++
		case 429:
		default:
			s.t.Errorf("%s", got)
		}
	}
	return passed
}

// flood counts the answers of ask by status.
func (s *site) flood(n int, urls []string, options ...harness.Option) map[int]int {
	count := map[int]int{}
	for _, got := range s.ask(n, urls, options...) {
		count[got.Status]++
	}
	return count
}

// ask sends the same request n times from a few connections; a request without an
// answer has the status 0. Each takes the next of the URLs.
func (s *site) ask(n int, urls []string, options ...harness.Option) (all []harness.Reply) {
	const workers = 16
	var mu sync.Mutex
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
					got.Status = 0
				}
				mu.Lock()
				all = append(all, got)
				mu.Unlock()
			}
		})
	}
	wait.Wait()
	return all
}

// traffic is requests whose answers may be 200 and nothing else, or 429 where the
// test says so.
type traffic struct {
	*harness.Traffic
	allowed []int
	count   map[int]int // by status, once it has ended
}

// background starts it: workers with a token each.
func (s *site) background(path string, tokens []string, allowed ...int) *traffic {
	var bases []string
	for _, gateway := range s.ready.Gateways {
		bases = append(bases, gateway.HTTP)
	}
	return s.backgroundAt(bases, path, tokens, 10*time.Millisecond, allowed...)
}

// backgroundAt is background by way of the given base URLs, at another pace.
func (s *site) backgroundAt(bases []string, path string, tokens []string, pace time.Duration, allowed ...int) *traffic {
	var askers []harness.Asker
	for i, token := range tokens {
		askers = append(askers, harness.Asker{URL: bases[i%len(bases)] + path, Token: token})
	}
	return &traffic{harness.KeepAsking(s.t, s.client, pace, askers...), allowed, map[int]int{}}
}

// end stops it and complains of every answer that was not allowed.
func (b *traffic) end(t *testing.T) {
	t.Helper()
	var odd []string
	for _, seen := range b.End() {
		b.count[seen.Reply.Status]++
		if seen.Err != nil || !slices.Contains(b.allowed, seen.Reply.Status) {
			odd = append(odd, fmt.Sprintf("%s %v", seen.Reply, seen.Err))
		}
	}
	if b.count[200] < 20 {
		t.Errorf("too little traffic to tell: %v", b.count)
	}
	if len(odd) > 0 {
		t.Errorf("answers under traffic: %v, such as %s", b.count, strings.Join(odd[:min(len(odd), 5)], "; "))
	}
}
