package forms_test

import (
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/test/forms"
	"github.com/sluice-gateway/sluice/test/harness"
)

// said collects what the process writes to its standard error, which is where
// the plugin's lines go: Traefik leaves that stream to its plugins. The
// interpreter takes the stream over when it is made, so it is replaced once,
// before any test.
var said *os.File

func TestMain(m *testing.M) {
	folder, err := os.MkdirTemp("", "sluice-forms-")
	if err != nil {
		panic(err)
	}
	if said, err = os.Create(filepath.Join(folder, "stderr")); err != nil {
		panic(err)
	}
	os.Stderr = said
	code := m.Run()
	os.RemoveAll(folder)
	os.Exit(code)
}

// logged is what has been said since the test, or a part of it, began.
type logged struct {
	t    *testing.T
	from int64
}

func logging(t *testing.T) logged {
	t.Helper()
	if os.Stderr != said { // go test -json changes it after TestMain
		os.Stderr = said
	}
	at, err := said.Seek(0, io.SeekEnd)
	if err != nil {
		t.Fatal(err)
	}
	return logged{t, at}
}

// text is all of it.
func (l logged) text() string {
	l.t.Helper()
	text, err := io.ReadAll(io.NewSectionReader(said, l.from, 1<<30))
	if err != nil {
		l.t.Fatal(err)
	}
	return string(text)
}

// lines are those that hold all texts.
func (l logged) lines(texts ...string) []string {
	l.t.Helper()
	return slices.DeleteFunc(slices.Collect(strings.Lines(l.text())), func(line string) bool {
		return slices.ContainsFunc(texts, func(text string) bool { return !strings.Contains(line, text) })
	})
}

// matching are the lines that an expression fits.
func (l logged) matching(expression string) []string {
	l.t.Helper()
	fits := regexp.MustCompile(expression)
	return slices.DeleteFunc(slices.Collect(strings.Lines(l.text())), func(line string) bool {
		return !fits.MatchString(strings.TrimSuffix(line, "\n"))
	})
}

// TestCatalogLoadsThePlugin does what the catalog does before it lists a plugin:
// a fresh interpreter, the manifest's testData, ten seconds, and nobody to talk
// to.
func TestCatalogLoadsThePlugin(t *testing.T) {
	if harness.Race {
		t.Skip("Yaegi itself does not pass the race detector")
	}
	start := time.Now()
	loaded, err := forms.Load(t.TempDir(), io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	said := logging(t)
	if _, err := loaded.New(t.Context(), loaded.Manifest.TestData, harness.NewUpstream(), "catalog"); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(start); took > 10*time.Second {
		t.Errorf("loading took %v", took)
	}
	if lines := said.lines("misconfigured"); len(lines) > 0 {
		t.Errorf("testData is refused: %s", lines)
	}
}

// TestMistakesCloseTheRoute is design: closed-on-mistake: every mistake is in one message, with
// its path, and the route answers 503 instead of vanishing.
func TestMistakesCloseTheRoute(t *testing.T) {
	const limit = "limits: [{name: l, key: ip, limit: 1, window: 1h}]\n"
	tests := []struct {
		name, config string
		want         []string
	}{
		{"unknown keys at every level", `
redis: {addresses: ["127.0.0.1:1"], adresses: x, tls: {enabeld: "true"}}
auth: {addresses: ["http://127.0.0.1:1"], required: "true", tls: {cert_file: x}}
ipStrategy: {dept: "1"}
exempt: {ip: x}
limits: [{name: l, key: ip, limit: 1, window: 1h, costs: 5}]
trustedproxies: [10.0.0.0/8]
rateLimit: 5
`, []string{"redis.adresses", "redis.tls.enabeld", "auth.required", "auth.tls.cert_file", "ipStrategy.dept", "exempt.ip", "limits[0].costs", "rateLimit"}},
		{"wrong values, all of them", `
redis: {addresses: [nowhere], timeout: 25, db: first}
userHeader: "X User"
ipStrategy: {depth: "-1", ipv6Subnet: "129"}
trustedProxies: [10.0.0.0/33]
minInstances: 0
onRedisFailure: open
dryRun: maybe
maxKeys: many
limits:
- {name: Über, key: ip, limit: 0, window: 60}
- {name: l, key: nobody, limit: ten, window: 500ms, onMissingKey: allow, countStatus: [600], refundStatus: [x5x]}
- {name: l, key: ip, limit: 10, window: 1h, cost: 11}
- {name: m, key: ip}
`, []string{"redis.addresses", "redis.timeout", "redis.db", "userHeader", "ipStrategy.depth", "ipStrategy.ipv6Subnet", "trustedProxies", "minInstances", "onRedisFailure", "dryRun", "maxKeys",
			"limits[0].name", "limits[0].limit", "limits[0].window", "limits[1].key", "limits[1].limit", "limits[1].window", "limits[1].onMissingKey", "limits[1].countStatus", "limits[1].refundStatus",
			"limits[2].name", "limits[2].cost", "limits[3].limit", "limits[3].window"}},
		{"answers that nobody gives, or gives too early", `
redis: {addresses: ["127.0.0.1:1"]}
auth: {addresses: ["http://127.0.0.1:1"]}
limits:
- {name: a, key: ip, limit: 1, window: 1h, countStatus: [401], countFrom: door}
- {name: b, key: ip, limit: 1, window: 1h, countFrom: gate}
- {name: c, key: user, limit: 1, window: 1h, countStatus: [401], countFrom: gate}`, []string{"limits[0].countFrom", "limits[1].countFrom", "limits[2].countFrom"}},
		{"the gate's answers where it judges nobody", `{redis: {addresses: ["127.0.0.1:1"]}, limits: [{name: l, key: ip, limit: 10, window: 1h, countStatus: [401], countFrom: gate}]}`, []string{"limits[0].countFrom"}},
		{"a cost of zero is no cost", `{redis: {addresses: ["127.0.0.1:1"]}, limits: [{name: l, key: ip, limit: 1, window: 1h, cost: 0}]}`, []string{"limits[0].cost"}},
		{"a tier whose limit is below the cost", `{redis: {addresses: ["127.0.0.1:1"]}, auth: {addresses: ["http://127.0.0.1:1"]}, limits: [{name: l, key: user, limit: 10, window: 1h, cost: 5, tierHeader: X-User-Plan, tiers: {mini: 4}}]}`, []string{"limits[0].cost"}},
		{"beyond exact arithmetic (design: integers)", `{redis: {addresses: ["127.0.0.1:1"]}, limits: [{name: l, key: ip, limit: 1000000000001, window: 720h}]}`, []string{"limits[0].limit"}},
		{"no address, such as an unset variable leaves it (design: environment)", "redis: {addresses: ''}\nauth: {addresses: ''}\n" + limit, []string{"redis.addresses", "auth.addresses"}},
		{"empty sections, which the file provider hands over as empty strings", "redis: {}\nauth: {}\n" + limit, []string{"redis.addresses", "auth.addresses"}},
		{"sections written as lists", `
redis: [{addresses: ["127.0.0.1:1"]}, {addresses: ["127.0.0.1:2"]}]
ipStrategy: [{depth: "1"}, {depth: "2"}]
trustedProxies: [10.0.0.0/8]
limits: [{name: l, key: ip, limit: 1, window: 1h}]
`, []string{"redis", "ipStrategy"}},
		{"a tier from a header nobody vouches for", `{redis: {addresses: ["127.0.0.1:1"]}, limits: [{name: l, key: user, limit: 10, window: 1h, tierHeader: X-User-Plan, tiers: {pro: 20}}]}`, []string{"limits[0].tierHeader"}},
		{"a limit from a header nobody vouches for", `{redis: {addresses: ["127.0.0.1:1"]}, limits: [{name: l, key: user, limit: 10, window: 1h, limitHeader: X-User-Limit}]}`, []string{"limits[0].limitHeader"}},
		{"a depth where nobody's X-Forwarded-For counts", "redis: {addresses: ['127.0.0.1:1']}\nipStrategy: {depth: 1}\n" + limit, []string{"ipStrategy.depth"}},
		{"networks to pass over where nobody's X-Forwarded-For counts", "redis: {addresses: ['127.0.0.1:1']}\ntrustedProxies: ['']\nipStrategy: {excludedIPs: [10.0.0.0/8]}\n" + limit, []string{"ipStrategy.excludedIPs"}},
		{"two ways to find the client's address", "redis: {addresses: ['127.0.0.1:1']}\ntrustedProxies: [10.0.0.0/8]\nipStrategy: {depth: 1, excludedIPs: [10.0.0.0/8]}\n" + limit, []string{"ipStrategy.excludedIPs"}},
		{"keys that no request has", `
redis: {addresses: ["127.0.0.1:1"]}
limits:
- {name: a, key: "header:X-User-ID", limit: 1, window: 1h}
- {name: b, key: "header:x-user-plan", limit: 1, window: 1h}
- {name: c, key: "header:X-Token-ID", limit: 1, window: 1h}
- {name: d, key: "header:X-Request-ID", limit: 1, window: 1h}
- {name: e, key: "header:Transfer-Encoding", limit: 1, window: 1h}
- {name: f, key: "header:Trailer", limit: 1, window: 1h}
- {name: g, key: "header:Connection", limit: 1, window: 1h}
`, []string{"limits[0].key", "limits[1].key", "limits[2].key", "limits[3].key", "limits[4].key", "limits[5].key", "limits[6].key"}},
		{"headers that auth cannot set", `
redis: {addresses: ["127.0.0.1:1"]}
userHeader: Host
auth: {addresses: ["http://127.0.0.1:1"], responseHeaders: [Host]}
`, []string{"userHeader", "auth.responseHeaders"}},
		{"a tier that stands twice, and one without a limit", `
redis: {addresses: ["127.0.0.1:1"]}
auth: {addresses: ["http://127.0.0.1:1"]}
limits: [{name: l, key: user, limit: 10, window: 1h, tierHeader: X-User-Plan, tiers: [{pro: 20}, {pro: 30}, {team: ''}]}]
`, []string{"limits[0].tiers.pro", "limits[0].tiers.team"}},
		{"userHeader that the auth service does not set (design: stripped-headers)", `{redis: {addresses: ["127.0.0.1:1"]}, userHeader: X-Account, auth: {addresses: ["http://127.0.0.1:1"]}}`, []string{"auth.responseHeaders"}},
	}
	both(t, func(t *testing.T, b *bed) {
		for _, tt := range tests {
			t.Run(tt.name, func(t *testing.T) {
				b.up.Forget()
				var gate http.Handler
				said := logging(t)
				for range 2 { // routers, of one configuration
					gate = b.form.New(t, forms.FromFile(t, tt.config), b.up)
				}
				text := said.text()
				var lines []string // other tests' gates may still speak
				for line := range strings.Lines(text) {
					if _, mistake, ok := strings.Cut(line, " ERR sluice: the middleware "+t.Name()+" is misconfigured and answers 503: "); ok {
						lines = append(lines, mistake)
					}
				}
				for _, path := range tt.want {
					found := 0
					for _, line := range lines {
						if strings.HasPrefix(line, path+":") {
							found++
						}
					}
					if found != 1 {
						t.Errorf("%s is named %d times in\n%s", path, found, text)
					}
				}
				if got := len(lines); got != len(tt.want) {
					t.Errorf("%d complaints for %d mistakes:\n%s", got, len(tt.want), text)
				}
				for range 2 {
					w := ask(gate, as("ann"))
					if w.Code != 503 || w.Header().Get("Retry-After") == "" {
						t.Errorf("%d %v", w.Code, w.Header())
					}
					readProblem(t, w)
				}
				if n := len(b.up.Seen()); n > 0 {
					t.Errorf("%d requests passed", n)
				}
			})
		}
	})
}

// TestLeavingKeysOut is design: defaults: the least that can be written has every
// documented default, seen by what it does, and none of them opens anything.
func TestLeavingKeysOut(t *testing.T) {
	both(t, func(t *testing.T, b *bed) {
		minimal := func(name, limits string) http.Handler {
			gate := b.form.New(t, forms.FromFile(t, b.fill(`
redis: {addresses: ["`+b.redis.Addr+`"]}
auth: {addresses: ["AUTH"]}
limits: [{name: `+name+`, `+limits+`}]`)), b.up)
			b.redis.AwaitGateways("sluice", 1) // keyPrefix: sluice
			return gate
		}
		b.redis.RoomIn(hour, time.Minute)

		t.Run("auth", func(t *testing.T) {
			gate := minimal("auth", "key: user, limit: 100, window: 1h")
			// optional: false
			if got := statuses(gate, 1); got != "401" {
				t.Errorf("no token: %s", got)
			}
			// responseHeaders, userHeader, keepAuthorization: false, trustUserHeader: false
			ask(gate, as("ann.pro"), with("X-User-ID", "root"))
			saw := b.up.Last(t).Header
			for name, want := range map[string]string{"X-User-Id": "ann", "X-User-Plan": "pro", "X-User-Scopes": "read write", "Authorization": "", "X-Token-Id": ""} {
				if got := saw.Get(name); got != want {
					t.Errorf("%s: %q, want %q", name, got, want)
				}
			}
		})
		t.Run("limits", func(t *testing.T) {
			// cost: 1, countStatus: [] and refundStatus: [] (every answer counts),
			// dryRun: false, exempt: nobody
			gate := minimal("cost", "key: user, limit: 3, window: 1h")
			if got := statuses(gate, 1, as("c"), path("/status/500")) + " " + statuses(gate, 1, as("c"), path("/status/401")) + " " + statuses(gate, 2, as("c")); got != "500 401 200 429" {
				t.Errorf("a limit of 3: %s", got)
			}
			// legacyHeaders: false
			if got := ask(gate, as("d")).Header().Get("X-RateLimit-Limit"); got != "" {
				t.Errorf("X-RateLimit-Limit: %s", got)
			}
			// onMissingKey: ip
			gate = minimal("missing", "key: 'header:X-Api-Key', limit: 1, window: 1h")
			if got := statuses(gate, 2, as("e")) + " " + statuses(gate, 1, as("e"), from("203.0.113.9:1")); got != "200 429 200" {
				t.Errorf("without the key's header: %s", got)
			}
		})
		t.Run("addresses", func(t *testing.T) {
			// ipStrategy.depth: 0, ipv6Subnet: 64, trustedProxies: nobody
			gate := minimal("address", "key: ip, limit: 1, window: 1h")
			if got := statuses(gate, 1, as("f"), with("X-Forwarded-For", "192.0.2.1")) + " " + statuses(gate, 1, as("f"), with("X-Forwarded-For", "192.0.2.2")); got != "200 429" {
				t.Errorf("X-Forwarded-For chose the key: %s", got)
			}
			if got := statuses(gate, 1, as("f"), from("[2001:db8::1]:1")) + " " + statuses(gate, 1, as("f"), from("[2001:db8::2]:1")) + " " + statuses(gate, 1, as("f"), from("[2001:db8:0:1::1]:1")); got != "200 429 200" {
				t.Errorf("IPv6: %s", got)
			}
			const sent = "6f1ed002-ab5d-4dc1-9e6e-a5b1e6b1c2d3"
			if got := ask(gate, with("X-Request-ID", sent)).Header().Get("X-Request-ID"); got == sent {
				t.Error("anybody's X-Request-ID is kept")
			}
		})
		t.Run("redis.timeout 100ms, onRedisFailure local, minInstances 1", func(t *testing.T) {
			gate := minimal("away", "key: user, limit: 3, window: 1h")
			b.redis.Freeze()
			defer b.redis.Thaw()
			start := time.Now()
			if got := statuses(gate, 5, as("g")); got != "200 200 200 429 429" {
				t.Errorf("with Redis frozen: %s", got)
			}
			// Three timeouts at most (design: three-timeouts), and room for a busy machine.
			if took := time.Since(start); took > time.Second {
				t.Errorf("five requests took %v", took)
			}
		})
		t.Run("auth.timeout 1s", func(t *testing.T) {
			gate := minimal("slow", "key: user, limit: 100, window: 1h")
			hold := make(chan struct{})
			b.auth.judgeBy(func(http.ResponseWriter, *http.Request) { <-hold })
			defer b.auth.judgeBy(nil)
			defer close(hold)
			start := time.Now()
			if got := statuses(gate, 1, as("slow")); got != "503" {
				t.Errorf("an auth service that does not answer: %s", got)
			}
			if took := time.Since(start); took < 900*time.Millisecond || took > 4*time.Second {
				t.Errorf("refused after %v", took)
			}
		})
	})
}

// TestEmptySections: a section without a key in it means its defaults, though
// the file provider makes an empty string of it.
func TestEmptySections(t *testing.T) {
	both(t, func(t *testing.T, b *bed) {
		b.redis.RoomIn(hour, time.Minute)
		gate := b.gate(`
redis: {addresses: ["` + b.redis.Addr + `"], keyPrefix: ` + b.prefix + `, tls: {}}
auth: {addresses: ["AUTH"], tls: {}}
ipStrategy: {}
exempt: {}
limits: [{name: l, key: user, limit: 2, window: 1h, tiers: {}, countStatus: []}]`)
		if got := statuses(gate, 3, as("ann")); got != "200 200 429" {
			t.Errorf("a limit of 2: %s", got)
		}
		if got := statuses(gate, 1); got != "401" {
			t.Errorf("no token: %s", got)
		}
	})
}

// TestShapes: what the file provider and the providers that read labels make of
// one configuration, and what weak typing makes of a CRD, is one configuration.
func TestShapes(t *testing.T) {
	both(t, func(t *testing.T, b *bed) {
		address := b.redis.Addr
		shapes := map[string]map[string]any{
			"file": forms.FromFile(t, b.fill(`
redis: {addresses: ["`+address+`"], keyPrefix: PREFIX, db: 0, cluster: false, timeout: 250ms}
auth: {addresses: ["AUTH"], optional: true, responseHeaders: [X-User-ID, X-User-Plan], cacheSize: 10}
trustedProxies: [10.0.0.0/8, 203.0.113.0/24]
ipStrategy: {depth: 1, excludedIPs: [], ipv6Subnet: 64}
exempt: {ips: [], users: [boss]}
limits:
- {name: shape, key: user, limit: 2, window: 1h, tierHeader: X-User-Plan, tiers: {pro: 4, Enterprise: 5}, countStatus: [200, 4xx], refundStatus: []}
legacyHeaders: true
dryRun: false`)),
			"file, one scalar for a list": forms.FromFile(t, b.fill(`
redis: {addresses: "`+address+`", keyPrefix: PREFIX, timeout: 250ms}
auth: {addresses: "AUTH", optional: "true", responseHeaders: "X-User-ID, X-User-Plan"}
trustedProxies: "10.0.0.0/8,203.0.113.0/24"
ipStrategy: {depth: "1"}
exempt: {users: "boss"}
limits:
- {name: shape, key: user, limit: "2", window: 1h, tierHeader: X-User-Plan, tiers: {pro: "4"}, countStatus: "200,4xx"}
legacyHeaders: "true"`)),
			"labels": forms.FromLabels(t, map[string]string{
				"redis.addresses": address, "redis.keyPrefix": "PREFIX", "redis.timeout": "250ms",
				"auth.addresses": b.auth.URL + "/auth", "auth.optional": "true", "auth.responseHeaders": "X-User-ID,X-User-Plan",
				"trustedProxies": "10.0.0.0/8, 203.0.113.0/24", "ipStrategy.depth": "1", "exempt.users": "boss",
				"limits[0].name": "shape", "limits[0].key": "user", "limits[0].limit": "2", "limits[0].window": "1h",
				"limits[0].tierHeader": "X-User-Plan", "limits[0].tiers.pro": "4", "limits[0].countStatus": "200,4xx", "legacyHeaders": "true",
			}),
			"CRD": {
				"redis":          map[string]any{"addresses": []any{address}, "keyPrefix": "PREFIX", "timeout": "250ms", "db": float64(0), "cluster": false},
				"auth":           map[string]any{"addresses": []any{b.auth.URL + "/auth"}, "optional": true, "responseHeaders": []any{"X-User-ID", "X-User-Plan"}},
				"trustedProxies": []any{"10.0.0.0/8", "203.0.113.0/24"},
				"ipStrategy":     map[string]any{"depth": float64(1), "excludedIPs": []any{}},
				"exempt":         map[string]any{"users": []any{"boss"}},
				"limits": []any{map[string]any{"name": "shape", "key": "user", "limit": float64(2), "window": "1h", "tierHeader": "X-User-Plan",
					"tiers": map[string]any{"pro": float64(4)}, "countStatus": []any{float64(200), "4xx"}}},
				"legacyHeaders": true,
			},
		}
		b.redis.RoomIn(hour, time.Minute)
		for name, shape := range shapes {
			t.Run(name, func(t *testing.T) {
				prefix := fmt.Sprintf("shape%d", beds.Add(1))
				redis := maps.Clone(shape["redis"].(map[string]any))
				redis["keyPrefix"] = prefix
				shape := maps.Clone(shape)
				shape["redis"] = redis
				gate := b.form.New(t, shape, b.up)
				b.redis.AwaitGateways(prefix, 1)
				for _, step := range []struct {
					request []func(*http.Request)
					want    string
				}{
					{[]func(*http.Request){as("ann")}, "200 200 429 429 429"},
					{[]func(*http.Request){as("bob.pro")}, "200 200 200 200 429"},
					{[]func(*http.Request){as("boss")}, "200 200 200 200 200"},
					{[]func(*http.Request){as("eve"), path("/status/503")}, "503 503 503 503 503"},
					{[]func(*http.Request){with("X-Forwarded-For", "192.0.2.1")}, "200 200 429 429 429"},
					{[]func(*http.Request){with("X-Forwarded-For", "192.0.2.2")}, "200 200 429 429 429"},
				} {
					if got := statuses(gate, 5, step.request...); got != step.want {
						t.Errorf("%s, want %s", got, step.want)
					}
				}
				if got := ask(gate, as("zoe")).Header().Get("X-RateLimit-Limit"); got != "2" {
					t.Errorf("X-RateLimit-Limit: %q", got)
				}
			})
		}
	})
}
