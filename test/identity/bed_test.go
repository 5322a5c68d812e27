package identity

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/authsvc"
	"github.com/sluice-gateway/sluice/authsvc/config"
	"github.com/sluice-gateway/sluice/cmd/sluice/stack"
	"github.com/sluice-gateway/sluice/test/harness"
)

const (
	gateways = 3
	replicas = 3
	prefix   = "identity" // of Redis keys; the stack's own authsvc talks under another

	// redisTimeout is the budget of a reply from Redis, for gateways and
	// authsvc. The default, 25 ms and 50 ms, would make a busy machine look like
	// an outage.
	redisTimeout = 250 * time.Millisecond

	// slack is what a busy machine may add to any bound.
	slack = 2 * time.Second

	limit = 30 // of the route /counted, for each user
)

// bed is three gateways, three authsvc and a Redis, with lines between them.
type bed struct {
	t      *testing.T
	redis  *harness.Redis
	ready  stack.Ready
	client *http.Client
	window time.Duration // of limit

	keys     string             // folder that all replicas share
	services []*authsvc.Service // whose fronts and backs are the lines of the same index
	fronts   []*line            // from the gateways
	backs    []*line            // to Redis
	slow     *line              // from the gateways to the first replica, for /slow alone
	way      *line              // from the gateways to Redis
}

// newBed starts everything; the test ends it.
func newBed(t *testing.T) *bed {
	t.Helper()
	b := &bed{t: t, redis: harness.StartRedis(t), keys: t.TempDir(), window: longWindow(time.Now()), services: make([]*authsvc.Service, replicas)}
	nobody := harness.FreeAddress(t) // until a replica has opened
	b.way, b.slow = startLine(t, b.redis.Addr), startLine(t, nobody)
	for range replicas {
		b.fronts = append(b.fronts, startLine(t, nobody))
		b.backs = append(b.backs, startLine(t, b.redis.Addr))
	}
	b.replace(nil)
	t.Cleanup(b.closeReplicas)

	_, echo := harness.StartUpstream(t)
	dynamic := filepath.Join(t.TempDir(), "dynamic.yml")
	if err := os.WriteFile(dynamic, []byte(b.routes(echo)), 0o600); err != nil {
		t.Fatal(err)
	}
	// The first start may have to build Traefik.
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Minute)
	defer cancel()
	running, err := stack.Open(ctx, stack.Options{
		Listen: "127.0.0.1:0", ListenTLS: "127.0.0.1:0", Redis: b.redis.Addr, Gateways: gateways,
		Plugin: stack.Compiled, Dynamic: dynamic, DataDir: t.TempDir(), Log: testLog{t},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		b.client.CloseIdleConnections()
		if err := running.Close(); err != nil {
			t.Error(err)
		}
	})
	b.ready = running.Ready()
	b.client = &http.Client{
		Timeout:       20 * time.Second,
		Transport:     &http.Transport{MaxIdleConnsPerHost: 64},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	for i := range gateways {
		harness.Eventually(t, 30*time.Second, "the routes are served", func() error { return b.wants(i, "/echo", "", 401) })
	}
	b.redis.AwaitGateways(prefix, gateways)
	b.awaitStream()
	return b
}

// on is the bed as a subtest sees it.
func (b *bed) on(t *testing.T) *bed {
	there := *b
	there.t = t
	return &there
}

// longWindow is a window whose next edge is hours away: a count in it is a
// count of the test's own making.
func longWindow(now time.Time) time.Duration {
	window := 10 * time.Hour
	for now.UnixMicro()%window.Microseconds() > window.Microseconds()/2 {
		window += time.Minute
	}
	return window
}

// routes is the gateways' dynamic configuration.
func (b *bed) routes(echo string) string {
	var addresses []string
	for _, front := range b.fronts {
		addresses = append(addresses, "http://"+front.addr+"/auth")
	}
	return strings.NewReplacer(
		"§", "`", "REDIS", b.way.addr, "TIMEOUT", redisTimeout.String(), "PREFIX", prefix, "WINDOW", b.window.String(), "LIMIT", fmt.Sprint(limit),
		"REPLICAS", "'"+strings.Join(addresses, "', '")+"'", "SCOPED", "'"+strings.Join(addresses, "?scope=admin', '")+"?scope=admin'", "SLOW", "http://"+b.slow.addr+"/auth", "ECHO", echo,
	).Replace(`
http:
  routers:
    echo: {rule: 'PathPrefix(§/echo§)', middlewares: [echo], service: echo}
    counted: {rule: 'PathPrefix(§/counted§)', middlewares: [counted], service: echo}
    scoped: {rule: 'PathPrefix(§/scoped§)', middlewares: [scoped], service: echo}
    slow: {rule: 'PathPrefix(§/slow§)', middlewares: [slow], service: echo}
  middlewares:
    echo:
      plugin:
        sluice:
          redis: &redis {addresses: REDIS, timeout: TIMEOUT, keyPrefix: PREFIX}
          minInstances: 3
          auth: &auth {addresses: [REPLICAS], timeout: 3s}
          limits: [{name: plenty, key: user, limit: 1000000, window: 60s}]
    counted:
      plugin:
        sluice:
          redis: *redis
          minInstances: 3
          auth: *auth
          limits: [{name: counted, key: user, limit: LIMIT, window: WINDOW}]
    scoped:
      plugin:
        sluice:
          redis: *redis
          minInstances: 3
          auth: {addresses: [SCOPED], timeout: 3s}
          limits: [{name: plenty, key: user, limit: 1000000, window: 60s}]
    slow:
      plugin:
        sluice:
          redis: *redis
          minInstances: 3
          auth: {addresses: [SLOW], timeout: 15s}
          limits: [{name: plenty, key: user, limit: 1000000, window: 60s}]
  services:
    echo: {loadBalancer: {servers: [{url: ECHO}]}}
`)
}

// testLog hands what a stack says to the test.
type testLog struct{ t *testing.T }

func (l testLog) Write(p []byte) (int, error) {
	l.t.Log(strings.TrimRight(string(p), "\n"))
	return len(p), nil
}

// replace puts new replicas in the old ones' place. Tokens of before stay good:
// the keys lie in a folder.
func (b *bed) replace(change func(*config.Config)) {
	b.t.Helper()
	b.closeReplicas()
	for i := range replicas {
		c := config.New()
		c.Listen, c.AdminListen = "127.0.0.1:0", "127.0.0.1:0"
		c.Redis.Addresses, c.Redis.Timeout, c.Redis.KeyPrefix = []string{b.backs[i].addr}, redisTimeout, prefix
		c.Own.KeyDir = b.keys
		if change != nil {
			change(c)
		}
		service := &authsvc.Service{Config: c, Log: slog.New(slog.DiscardHandler)}
		if err := service.Open(context.Background()); err != nil {
			b.t.Fatal(err)
		}
		b.services[i] = service
		b.fronts[i].aim(service.PublicAddr().String())
	}
	b.slow.aim(b.services[0].PublicAddr().String())
}

// shortLived answers are asked for again after a second, and may be used for
// minutes while authsvc is away.
func shortLived(c *config.Config) { c.Cache.MaxAge = time.Second }

func (b *bed) closeReplicas() {
	for i, service := range b.services {
		if service == nil {
			continue
		}
		if err := service.Close(); err != nil {
			b.t.Error(err)
		}
		b.services[i] = nil
	}
}

// awaitStream waits until gateways and replicas hear events, and those of
// now: a token that is revoked is refused at once.
func (b *bed) awaitStream() {
	b.t.Helper()
	harness.Eventually(b.t, 20*time.Second, "gateways and replicas listen", func() error {
		channel := prefix + ":events"
		heard, err := b.redis.Client.PubSubNumSub(context.Background(), channel).Result()
		if err == nil && heard[channel] < gateways+replicas {
			err = fmt.Errorf("%d listen", heard[channel])
		}
		return err
	})
}

// reply is an answer, read to its end.
type reply struct {
	status int
	header http.Header
	body   []byte
	sent   time.Time
	took   time.Duration
}

func (r reply) String() string {
	return fmt.Sprintf("%d after %v, %v %.300s", r.status, r.took, r.header, r.body)
}

// user is whom the upstream was told.
func (r reply) user() string {
	var saw harness.Seen
	if json.Unmarshal(r.body, &saw) != nil {
		return ""
	}
	return saw.Header.Get("X-User-Id")
}

func (b *bed) send(method, url, credential string, body any) (reply, error) {
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
	if credential != "" {
		request.Header.Set("Authorization", "Bearer "+credential)
	}
	sent := time.Now()
	response, err := b.client.Do(request)
	if err != nil {
		return reply{sent: sent, took: time.Since(sent)}, err
	}
	defer response.Body.Close()
	read, err := io.ReadAll(response.Body)
	return reply{response.StatusCode, response.Header, read, sent, time.Since(sent)}, err
}

// get asks a gateway.
func (b *bed) get(gateway int, path, credential string) reply {
	b.t.Helper()
	got, err := b.send("GET", b.ready.Gateways[gateway].HTTP+path, credential, nil)
	if err != nil {
		b.t.Fatal(err)
	}
	return got
}

// wants is an error unless a gateway answers with the status.
func (b *bed) wants(gateway int, path, credential string, status int) error {
	got, err := b.send("GET", b.ready.Gateways[gateway].HTTP+path, credential, nil)
	if err == nil && got.status != status {
		err = fmt.Errorf("gateway %d: %s", gateway+1, got)
	}
	return err
}

// everywhere waits until every gateway answers with the status.
func (b *bed) everywhere(within time.Duration, path, credential string, status int) {
	b.t.Helper()
	deadline := time.Now().Add(within)
	for i := range gateways {
		harness.Eventually(b.t, time.Until(deadline), fmt.Sprintf("%s answers %d", path, status), func() error { return b.wants(i, path, credential, status) })
	}
}

// admin calls a replica's admin listener.
func (b *bed) admin(replica int, path string, body any) reply {
	b.t.Helper()
	service := b.services[replica]
	got, err := b.send("POST", "http://"+service.AdminAddr().String()+path, service.AdminToken(), body)
	if err != nil {
		b.t.Fatal(err)
	}
	return got
}

// issue makes a token at a replica that has Redis.
func (b *bed) issue(replica int, user string, ttl time.Duration) string {
	b.t.Helper()
	got := b.admin(replica, "/v1/tokens", map[string]any{"user_id": user, "ttl": ttl.String()})
	var issued struct {
		AccessToken string `json:"access_token"`
	}
	if err := json.Unmarshal(got.body, &issued); err != nil || got.status != 200 || issued.AccessToken == "" {
		b.t.Fatalf("no token: %s", got)
	}
	return issued.AccessToken
}

// known issues a token and shows it to every gateway.
func (b *bed) known(user string) string {
	b.t.Helper()
	compact := b.issue(0, user, time.Hour)
	for i := range gateways {
		if got := b.get(i, "/echo", compact); got.status != 200 || got.user() != user {
			b.t.Fatal(got)
		}
	}
	return compact
}

// revoke revokes a token at a replica.
func (b *bed) revoke(replica int, compact string) {
	b.t.Helper()
	if got := b.admin(replica, "/v1/tokens/revoke", map[string]any{"token": compact}); got.status != 200 {
		b.t.Fatalf("revoke: %s", got)
	}
}

// expiry reads a token's exp.
func expiry(t *testing.T, compact string) time.Time {
	t.Helper()
	payload, err := base64.RawURLEncoding.DecodeString(strings.Split(compact, ".")[1])
	var claims struct{ Exp float64 }
	if err == nil {
		err = json.Unmarshal(payload, &claims)
	}
	if err != nil {
		t.Fatal(err)
	}
	return time.UnixMilli(int64(claims.Exp * 1000))
}

// steady is requests that keep coming at every gateway, with one token, while a
// test does something.
type steady struct {
	stop chan struct{}
	wait sync.WaitGroup

	mu      sync.Mutex // protects what follows
	answers []sighting
}

// sighting is one answer of steady traffic.
type sighting struct {
	gateway int
	path    string
	reply   reply
	err     error
}

func (b *bed) steadily(pause time.Duration, path, credential string) *steady {
	s := &steady{stop: make(chan struct{})}
	for i := range gateways {
		url := b.ready.Gateways[i].HTTP + path
		s.wait.Go(func() {
			pace := time.NewTicker(pause)
			defer pace.Stop()
			for {
				select {
				case <-s.stop:
					return
				case <-pace.C:
				}
				got, err := b.send("GET", url, credential, nil)
				s.mu.Lock()
				s.answers = append(s.answers, sighting{i, path, got, err})
				s.mu.Unlock()
			}
		})
	}
	return s
}

// seen lists the answers so far.
func (s *steady) seen() []sighting {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]sighting(nil), s.answers...)
}

// end stops the traffic, which has to have been answered with 200 throughout,
// and returns how long the slowest answer took.
func (s *steady) end(t *testing.T, user string) (slowest time.Duration) {
	t.Helper()
	close(s.stop)
	s.wait.Wait()
	bad := 0
	for _, a := range s.answers {
		if a.err != nil || a.reply.status != 200 || a.reply.user() != user {
			if bad++; bad <= 3 {
				t.Errorf("gateway %d %s: %s %v", a.gateway+1, a.path, a.reply, a.err)
			}
		}
		slowest = max(slowest, a.reply.took)
	}
	if bad > 0 || len(s.answers) < 2*gateways {
		t.Errorf("of %d steady requests %d were not served", len(s.answers), bad)
	}
	return slowest
}

// outlast lets traffic run for so long: until the newest answers are that old.
func (s *steady) outlast(t *testing.T, d time.Duration) {
	t.Helper()
	begun := time.Now()
	harness.Eventually(t, d+20*time.Second, "steady requests are answered", func() error {
		last := map[int]time.Time{}
		for _, a := range s.seen() {
			last[a.gateway] = a.reply.sent
		}
		for i := range gateways {
			if last[i].Sub(begun) < d {
				return fmt.Errorf("gateway %d: the newest was sent %v after", i+1, last[i].Sub(begun))
			}
		}
		return nil
	})
}
