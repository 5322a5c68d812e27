package forms_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/test/forms"
	"github.com/sluice-gateway/sluice/test/harness"
)

// TestStatusesDecideWhatCounts: countStatus and refundStatus (design: give-back, design: unsettled-permits).
func TestStatusesDecideWhatCounts(t *testing.T) {
	tests := []struct {
		name, rule string
		answers    []int  // of the service, as long as the gate lets requests pass
		want       string // what the client sees
	}{
		{"failures count", "countStatus: [401, 403]", []int{200, 401, 200, 403, 200, 200}, "200 401 200 403 429 429"},
		{"a class counts", "countStatus: [4xx]", []int{200, 404, 500, 422, 200}, "200 404 500 422 429"},
		{"errors are given back", "refundStatus: ['5xx']", []int{500, 503, 200, 502, 404, 200}, "500 503 200 502 404 429"},
		{"both", "countStatus: [2xx, 5xx], refundStatus: [503]", []int{503, 404, 500, 503, 200, 200}, "503 404 500 503 200 429"},
	}
	both(t, func(t *testing.T, b *bed) {
		b.redis.RoomIn(hour, time.Minute)
		for i, tt := range tests {
			t.Run(tt.name, func(t *testing.T) {
				b := b.on(t)
				gate := b.gate(fmt.Sprintf("redis: REDIS\nlimits: [{name: case-%d, key: ip, limit: 2, window: 1h, %s}]", i, tt.rule))
				var got []string
				want := strings.Fields(tt.want)
				for n, answer := range tt.answers {
					// On a machine so busy that a lease ends between two requests, a
					// permit that does not count is on its way to Redis for a moment.
					harness.Eventually(t, 5*time.Second, fmt.Sprintf("request %d: after %s the gate denies no more", n, strings.Join(got, " ")), func() error {
						code := fmt.Sprint(ask(gate, path(fmt.Sprintf("/status/%d", answer))).Code)
						if code == "429" && want[n] != code {
							return errors.New(code)
						}
						got = append(got, code)
						return nil
					})
				}
				if strings.Join(got, " ") != tt.want {
					t.Errorf("%s, want %s", strings.Join(got, " "), tt.want)
				}
			})
		}
	})
}

// TestParallelGuessesCannotSlipPast: the permit is taken before the answer is
// known, and while answers are awaited the client is told to come back at once.
func TestParallelGuessesCannotSlipPast(t *testing.T) {
	both(t, func(t *testing.T, b *bed) {
		b.redis.RoomIn(hour, 30*time.Second)
		leave := make(chan struct{})
		entered := make(chan struct{}, 100)
		slow := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			entered <- struct{}{}
			<-leave
			w.WriteHeader(http.StatusOK) // which does not count
		})
		gate := b.gateTo(`{redis: REDIS, limits: [{name: guess, key: ip, limit: 3, window: 1h, countStatus: [401]}]}`, slow)
		codes := make(chan int, 3)
		for range 3 {
			go func() { codes <- ask(gate).Code }()
		}
		for range 3 {
			<-entered
		}
		w := ask(gate)
		if w.Code != 429 || w.Header().Get("Retry-After") != "1" {
			t.Errorf("a fourth guess beside three: %d, Retry-After %q", w.Code, w.Header().Get("Retry-After"))
		}
		close(leave)
		for range 3 {
			if code := <-codes; code != 200 {
				t.Errorf("a guess got %d", code)
			}
		}
		// None of them counted.
		harness.Eventually(t, 5*time.Second, "the permits are back", func() error {
			if code := ask(gate).Code; code != 200 {
				return fmt.Errorf("%d", code)
			}
			return nil
		})
	})
}

// TestRedisAway: what each onRedisFailure does, and that Redis's return is
// noticed without anything being restarted.
func TestRedisAway(t *testing.T) {
	tests := []struct{ policy, want string }{
		{"local", "200 200 200 429 429"},
		{"allow", "200 200 200 200 200"},
		{"deny", "503 503 503 503 503"},
	}
	both(t, func(t *testing.T, b *bed) {
		b.redis.RoomIn(hour, time.Minute)
		gates := map[string]http.Handler{}
		for _, tt := range tests {
			gates[tt.policy] = b.gate(fmt.Sprintf("redis: REDIS\nonRedisFailure: %s\nlimits: [{name: %s, key: ip, limit: 3, window: 1h}]", tt.policy, tt.policy))
		}
		b.redis.Kill()
		for _, tt := range tests {
			if got := statuses(gates[tt.policy], 5); got != tt.want {
				t.Errorf("%s: %s, want %s", tt.policy, got, tt.want)
			}
			if tt.policy == "deny" {
				w := ask(gates["deny"])
				if p := readProblem(t, w); p.RetryAfter != 1 || w.Header().Get("Retry-After") != "1" {
					t.Errorf("deny: %+v", p)
				}
			}
		}
		b.redis.Start()
		harness.Eventually(t, 10*time.Second, "Redis is used again", func() error {
			if code := ask(gates["deny"], from("198.51.100.1:1")).Code; code != 200 {
				return fmt.Errorf("%d", code)
			}
			return nil
		})
		// What was admitted meanwhile was reported to the empty Redis (I5).
		harness.Eventually(t, 10*time.Second, "the outage is reported", func() error {
			for _, key := range b.keys() {
				if key == "1:local:3600000:{i203.0.113.7}" {
					return nil
				}
			}
			return fmt.Errorf("keys %q", b.keys())
		})
		if got := statuses(gates["local"], 2); got != "429 429" {
			t.Errorf("local, after the return: %s", got)
		}
	})
}

// TestOutageIsNoFreeReset: the local share starts from the usage last known, and
// minInstances divides it (design: fallback-share).
func TestOutageIsNoFreeReset(t *testing.T) {
	both(t, func(t *testing.T, b *bed) {
		b.redis.RoomIn(hour, time.Minute)
		seeded := b.gate("redis: REDIS\nlimits: [{name: seeded, key: ip, limit: 10, window: 1h}]")
		shared := b.gate("redis: REDIS\nminInstances: 5\nlimits: [{name: shared, key: ip, limit: 10, window: 1h}]")
		if got := statuses(seeded, 8); strings.Contains(got, "429") {
			t.Fatal(got)
		}
		b.redis.Kill()
		if got := statuses(seeded, 4); got != "200 200 429 429" {
			t.Errorf("after eight of ten: %s", got)
		}
		if got := strings.Count(statuses(shared, 10), "200"); got != 2 {
			t.Errorf("one of five instances admitted %d of ten, want 2", got)
		}
	})
}

// TestAuthServiceAway is design: away: known tokens are served, new ones are
// told to come back.
func TestAuthServiceAway(t *testing.T) {
	waiting(t, func(t *testing.T, b *bed) {
		events := b.redis.StartEvents(t, b.prefix)
		// Old at once, and stale while the service is away.
		b.auth.judgeBy(func(w http.ResponseWriter, r *http.Request) {
			judgeToken(w, r)
			w.Header().Set("Cache-Control", "private, max-age=1, stale-if-error=300")
		})
		gate := b.gate(`{redis: REDIS, auth: {addresses: ["AUTH"]}}`)
		b.listening(gate, events)
		if got := statuses(gate, 1, as("ann")); got != "200" {
			t.Fatal(got)
		}
		b.auth.Close()
		start := time.Now()
		harness.Eventually(t, 10*time.Second, "the decision is stale", func() error {
			if code := ask(gate, as("ann")).Code; code != 200 {
				t.Fatalf("a known token got %d after %v", code, time.Since(start))
			}
			if time.Since(start) < 1500*time.Millisecond {
				return fmt.Errorf("still fresh")
			}
			return nil
		})
		w := ask(gate, as("bob"))
		if w.Code != 503 || w.Header().Get("Retry-After") == "" {
			t.Errorf("a new token: %d, Retry-After %q", w.Code, w.Header().Get("Retry-After"))
		}
		readProblem(t, w)
	})
}

// TestRefusalEndsADecision: what the auth service has refused since is not
// served when it is away, though an older answer of its allowed that.
func TestRefusalEndsADecision(t *testing.T) {
	refused := map[string]http.HandlerFunc{
		"401":      judgeNobody,
		"403":      func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) },
		"no-store": func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("X-User-ID", "ann") },
	}
	waiting(t, func(t *testing.T, b *bed) {
		for name, judge := range refused {
			t.Run(name, func(t *testing.T) {
				b := *b
				b.t, b.auth = t, startFakeAuth(t)
				b.auth.judgeBy(func(w http.ResponseWriter, r *http.Request) {
					judgeToken(w, r)
					w.Header().Set("Cache-Control", "private, max-age=1, stale-if-error=300")
				})
				gate := b.gate(`{redis: REDIS, auth: {addresses: ["AUTH"]}}`)
				if got := statuses(gate, 1, as("ann")); got != "200" {
					t.Fatal(got)
				}
				b.auth.judgeBy(judge)
				before := len(b.auth.calls())
				harness.Eventually(t, 10*time.Second, "the auth service is asked again", func() error {
					statuses(gate, 1, as("ann"))
					if len(b.auth.calls()) == before {
						return errors.New("the decision is still fresh")
					}
					return nil
				})
				b.auth.Close()
				if got := statuses(gate, 2, as("ann")); got != "503 503" {
					t.Errorf("without the auth service: %s", got)
				}
			})
		}
	})
}

// TestNextAuthAddress: one address away, by refusing or by saying nothing, is no
// reason to refuse anybody.
func TestNextAuthAddress(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0") // accepts, and never answers
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	waiting(t, func(t *testing.T, b *bed) {
		for name, first := range map[string]string{"refuses": harness.FreeAddress(t), "says nothing": silent.Addr().String()} {
			t.Run(name, func(t *testing.T) {
				b := b.on(t)
				gate := b.gate(fmt.Sprintf("redis: REDIS\nauth: {addresses: [\"http://%s/auth\", \"AUTH\"], timeout: 3s}", first))
				for i := range 4 {
					if got := statuses(gate, 1, as(fmt.Sprintf("%s-%d", b.form, i))); got != "200" {
						t.Errorf("request %d: %s", i, got)
					}
				}
			})
		}
	})
}

// TestEqualConfigurationSharesItsCounts is design: reload: a reload, which is nothing
// but New called again, loses no count and adds no instance.
func TestEqualConfigurationSharesItsCounts(t *testing.T) {
	both(t, func(t *testing.T, b *bed) {
		b.redis.RoomIn(hour, 30*time.Second)
		const config = "redis: REDIS\nlimits: [{name: l, key: ip, limit: 4, window: 1h}]"
		var got []string
		for range 6 {
			got = append(got, statuses(b.gate(config), 1))
		}
		if strings.Join(got, " ") != "200 200 200 200 429 429" {
			t.Errorf("over six handlers: %s", got)
		}
		// A changed limit keeps the counts of its name and window (I8).
		if got := statuses(b.gate(strings.Replace(config, "limit: 4", "limit: 5", 1)), 2); got != "200 429" {
			t.Errorf("with one more: %s", got)
		}
		b.redis.AwaitGateways(b.prefix, 1)
	})
}

// TestExempt: those whom no limit binds.
func TestExempt(t *testing.T) {
	both(t, func(t *testing.T, b *bed) {
		b.redis.RoomIn(hour, 30*time.Second)
		gate := b.gate(`
redis: REDIS
auth: {addresses: ["AUTH"]}
exempt: {ips: [198.51.100.0/24, "2001:db8::/32"], users: [boss]}
limits:
- {name: per-user, key: user, limit: 1, window: 1h}`)
		for _, step := range []struct {
			request []func(*http.Request)
			want    string
		}{
			{[]func(*http.Request){as("ann")}, "200 429 429"},
			{[]func(*http.Request){as("boss")}, "200 200 200"},
			{[]func(*http.Request){as("bob"), from("198.51.100.9:1")}, "200 200 200"},
			{[]func(*http.Request){as("eve"), from("[2001:db8::1]:1")}, "200 200 200"},
			{[]func(*http.Request){from("198.51.100.9:1")}, "401 401 401"}, // exempt from limits, from nothing else
		} {
			if got := statuses(gate, 3, step.request...); got != step.want {
				t.Errorf("%s, want %s", got, step.want)
			}
		}
	})
}

// TestManyBackendsComeBack drops the connections of many backends at the same
// moment, again and again. Interpreted, goroutines that meet in one select
// statement could take each other's channels (TestSelectIsNotSafe); one that did
// would wait for a stranger's connection and never mend its own.
func TestManyBackendsComeBack(t *testing.T) {
	const backends, rounds = 16, 30
	both(t, func(t *testing.T, b *bed) {
		prefixes := make([]string, backends)
		for i := range prefixes {
			prefixes[i] = fmt.Sprintf("%s-%d", b.prefix, i)
			b.form.New(t, forms.FromFile(t, fmt.Sprintf("redis: {addresses: [%q], keyPrefix: %s}\nlimits: [{name: l, key: ip, limit: 1, window: 1h}]", b.redis.Addr, prefixes[i])), b.up)
		}
		for round := range rounds {
			for _, prefix := range prefixes {
				b.redis.AwaitGateways(prefix, 1)
			}
			if round == rounds-1 {
				return
			}
			for _, kind := range []string{"NORMAL", "PUBSUB"} {
				if err := b.redis.Client.Do(context.Background(), "CLIENT", "KILL", "TYPE", kind, "SKIPME", "YES").Err(); err != nil {
					t.Fatal(err)
				}
			}
			b.redis.Flush() // whoever stays away is missed
		}
	})
}
