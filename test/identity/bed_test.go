package identity

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
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
	// authsvc. The defaults, 100 ms and 50 ms, would make a busy machine look like
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
	b.ready = harness.OpenStack(t, stack.Options{Redis: b.redis.Addr, Gateways: gateways, Plugin: stack.Compiled, Dynamic: dynamic}).Ready()
	b.client = harness.NewClient()
	t.Cleanup(b.client.CloseIdleConnections)
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
		"REPLICAS", "'"+strings.Join(addresses, "', '")+"'", "SLOW", "http://"+b.slow.addr+"/auth", "ECHO", echo,
	).Replace(`
http:
  routers:
    echo: {rule: 'PathPrefix(§/echo§)', middlewares: [echo], service: echo}
    counted: {rule: 'PathPrefix(§/counted§)', middlewares: [counted], service: echo}
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

type reply = harness.Reply

// userOf is whom the upstream was told.
func userOf(r reply) string {
	var saw harness.Seen
	if json.Unmarshal(r.Body, &saw) != nil {
		return ""
	}
	return saw.Header.Get("X-User-Id")
}

func (b *bed) send(method, url, credential string, body any) (reply, error) {
	var options []harness.Option
	if credential != "" {
		options = append(options, harness.Bearer(credential))
	}
	return harness.Ask(b.client, method, url, body, options...)
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
	if err == nil && got.Status != status {
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
	return harness.Admin(b.t, b.services[replica], "POST", path, body)
}

// issue makes a token at a replica that has Redis.
func (b *bed) issue(replica int, user string, ttl time.Duration) string {
	b.t.Helper()
	got := b.admin(replica, "/v1/tokens", map[string]any{"user_id": user, "ttl": ttl.String()})
	var issued struct {
		AccessToken string `json:"access_token"`
	}
	if err := json.Unmarshal(got.Body, &issued); err != nil || got.Status != 200 || issued.AccessToken == "" {
		b.t.Fatalf("no token: %s", got)
	}
	return issued.AccessToken
}

// known issues a token and shows it to every gateway.
func (b *bed) known(user string) string {
	b.t.Helper()
	compact := b.issue(0, user, time.Hour)
	for i := range gateways {
		if got := b.get(i, "/echo", compact); got.Status != 200 || userOf(got) != user {
			b.t.Fatal(got)
		}
	}
	return compact
}

// revoke revokes a token at a replica.
func (b *bed) revoke(replica int, compact string) {
	b.t.Helper()
	if got := b.admin(replica, "/v1/tokens/revoke", map[string]any{"token": compact}); got.Status != 200 {
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
type steady struct{ *harness.Traffic }

func (b *bed) steadily(pause time.Duration, path, credential string) steady {
	var askers []harness.Asker
	for _, gateway := range b.ready.Gateways {
		askers = append(askers, harness.Asker{URL: gateway.HTTP + path, Token: credential})
	}
	return steady{harness.KeepAsking(b.t, b.client, pause, askers...)}
}

// end stops the traffic, which has to have been answered with 200 throughout,
// and returns how long the slowest answer took.
func (s steady) end(t *testing.T, user string) (slowest time.Duration) {
	t.Helper()
	bad, answers := 0, s.End()
	for _, a := range answers {
		if a.Err != nil || a.Reply.Status != 200 || userOf(a.Reply) != user {
			if bad++; bad <= 3 {
				t.Errorf("gateway %d: %s %v", a.Asker+1, a.Reply, a.Err)
			}
		}
		slowest = max(slowest, a.Reply.Took)
	}
	if bad > 0 || len(answers) < 2*gateways {
		t.Errorf("of %d steady requests %d were not served", len(answers), bad)
	}
	t.Logf("%d requests, the slowest %v", len(answers), slowest)
	return slowest
}

// outlast lets traffic run for so long: until the newest answers are that old.
func (s steady) outlast(t *testing.T, d time.Duration) {
	t.Helper()
	begun := time.Now()
	harness.Eventually(t, d+20*time.Second, "steady requests are answered", func() error {
		last := map[int]time.Time{}
		for _, a := range s.Seen() {
			last[a.Asker] = a.Reply.Sent
		}
		for i := range gateways {
			if last[i].Sub(begun) < d {
				return fmt.Errorf("gateway %d: the newest was sent %v after", i+1, last[i].Sub(begun))
			}
		}
		return nil
	})
}
