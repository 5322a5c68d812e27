package authsvc

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"

	"github.com/sluice-gateway/sluice/authsvc/config"
	"github.com/sluice-gateway/sluice/authsvc/operator"
	"github.com/sluice-gateway/sluice/authsvc/session"
	"github.com/sluice-gateway/sluice/internal/redistest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// replica is a running authsvc with a client for both of its listeners.
type replica struct {
	*Service
	t      testing.TB
	public string
	inner  string
	client *http.Client
	log    *lockedBuffer
}

// testConfig suits a test: free ports, a key folder of its own.
func testConfig(t testing.TB, redis string) *config.Config {
	c := config.New()
	c.Listen, c.AdminListen = "127.0.0.1:0", "127.0.0.1:0"
	c.Redis.Addresses = []string{redis}
	// A loaded test machine must not look like an outage.
	c.Redis.Timeout = 2 * time.Second
	c.Own.KeyDir = t.TempDir()
	return c
}

func open(t testing.TB, c *config.Config) *replica {
	t.Helper()
	log := new(lockedBuffer)
	s := &Service{Config: c, Log: slog.New(slog.NewJSONHandler(log, nil))}
	if err := s.Open(context.Background()); err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{MaxIdleConnsPerHost: 64}
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return &replica{
		Service: s, t: t, log: log,
		public: "http://" + s.PublicAddr().String(), inner: "http://" + s.AdminAddr().String(),
		client: &http.Client{Transport: transport},
	}
}

func start(t testing.TB) (*replica, *redistest.Server) {
	t.Helper()
	redis := redistest.Start(t)
	r := open(t, testConfig(t, redis.Addr))
	r.awaitStream()
	return r, redis
}

func (r *replica) logged() string { return r.log.String() }

func (r *replica) awaitStream() {
	r.t.Helper()
	redistest.Eventually(r.t, 10*time.Second, "events arrive", r.store.StreamAlive)
}

// answer is a response, read.
type answer struct {
	status int
	header http.Header
	body   string
}

func (a answer) json(t testing.TB, into any) {
	t.Helper()
	if err := json.Unmarshal([]byte(a.body), into); err != nil {
		t.Fatalf("%s: %v", a.body, err)
	}
}

func (r *replica) do(request *http.Request) answer {
	r.t.Helper()
	response, err := r.client.Do(request)
	if err != nil {
		r.t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return answer{response.StatusCode, response.Header, string(body)}
}

// auth asks for a token's identity.
func (r *replica) ask(compact string) answer { return r.askFor(compact, "") }

func (r *replica) askFor(compact, scope string) answer {
	r.t.Helper()
	request, err := http.NewRequest(http.MethodGet, r.public+"/auth?scope="+url.QueryEscape(scope), nil)
	if err != nil {
		r.t.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer "+compact)
	return r.do(request)
}

// call uses the admin interface with the admin token.
func (r *replica) call(method, path, body string) answer {
	r.t.Helper()
	return r.callAs(r.AdminToken(), method, path, body)
}

func (r *replica) callAs(secret, method, path, body string) answer {
	r.t.Helper()
	request, err := http.NewRequest(method, r.inner+path, strings.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer "+secret)
	request.Header.Set("Content-Type", "application/json")
	return r.do(request)
}

func (r *replica) login(user string) session.Pair {
	r.t.Helper()
	return r.loginWith(fmt.Sprintf(`{"user_id":%q}`, user))
}

func (r *replica) loginWith(body string) (p session.Pair) {
	r.t.Helper()
	a := r.call("POST", "/v1/tokens", body)
	if a.status != http.StatusOK {
		r.t.Fatalf("issue: %d %s", a.status, a.body)
	}
	a.json(r.t, &p)
	return p
}

func (r *replica) refreshWith(refresh string) (session.Pair, answer) {
	r.t.Helper()
	a := r.call("POST", "/v1/tokens/refresh", fmt.Sprintf(`{"refresh_token":%q}`, refresh))
	var p session.Pair
	if a.status == http.StatusOK {
		a.json(r.t, &p)
	}
	return p, a
}

func (r *replica) revoke(presented string) answer {
	r.t.Helper()
	return r.call("POST", "/v1/tokens/revoke", fmt.Sprintf(`{"token":%q}`, presented))
}

func (r *replica) wantStatus(compact string, want int) answer {
	r.t.Helper()
	a := r.ask(compact)
	if a.status != want {
		r.t.Fatalf("/auth: %d %s, want %d", a.status, a.body, want)
	}
	return a
}

// beat writes a gateway's heartbeat as the plugin does.
func beat(t testing.TB, client *redis.Client, instance string) {
	t.Helper()
	ctx := context.Background()
	// Far ahead, so that it lives as long as the test.
	alive := float64(time.Now().Add(time.Hour).UnixMilli())
	err := client.ZAdd(ctx, "sluice:gw:live", redis.Z{Member: instance, Score: alive}).Err()
	if err == nil {
		err = client.Set(ctx, "sluice:gw:"+instance, beatJSON(instance), 0).Err()
	}
	if err != nil {
		t.Fatal(err)
	}
}

func beatJSON(instance string) string {
	return fmt.Sprintf(`{"instance":%q,"version":"1.2","started":1,"counters":{"allowed":7,"denied":{"per-user":3},"degraded":1,`+
		`"redis_calls":5,"redis_errors":{"timeout":2},"breaker_open":0,"breaker_opened":11,"decision_hits":4,"decision_misses":6,"auth_errors":8,"events_lost":9,"keys":10},`+
		`"limits":[{"name":"per-user","key":"user","window_ms":60000,"limit":100,"cost":1,"tiers":{"pro":1000},"tier_header":"X-User-Plan","ranked":["pro"],"ipv6_subnet":64}]}`, instance)
}

// authsvcCommand runs the command and returns what it printed.
func authsvcCommand(t *testing.T, environ []string, stdin string, args ...string) (status int, out, errs string) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	p := &operator.Program{
		Environ: environ, In: strings.NewReader(stdin), Out: &stdout, Err: &stderr, Serve: Serve,
	}
	status = p.Main(context.Background(), args)
	return status, stdout.String(), stderr.String()
}
