package forms_test

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/test/forms"
	"github.com/sluice-gateway/sluice/test/harness"
)

// TestMissingKeys: what each onMissingKey does with a request that has no key.
func TestMissingKeys(t *testing.T) {
	tests := []struct{ name, rule, want string }{
		{"no header: by address", "key: 'header:X-Api-Key'", "200 429 429"},
		{"no header: denied", "key: 'header:X-Api-Key', onMissingKey: deny", "400 400 400"},
		{"no header: let through", "key: 'header:X-Api-Key', onMissingKey: skip", "200 200 200"},
		{"nobody: by address", "key: user", "200 429 429"},
		{"nobody: denied", "key: user, onMissingKey: deny", "401 401 401"},
		{"nobody: let through", "key: user, onMissingKey: skip", "200 200 200"},
		{"denied in a dry run", "key: user, onMissingKey: deny}]\ndryRun: true #", "200 200 200"},
	}
	both(t, func(t *testing.T, b *bed) {
		b.redis.RoomIn(hour, time.Minute)
		for i, tt := range tests {
			t.Run(tt.name, func(t *testing.T) {
				b := *b
				b.t = t
				gate := b.gate(fmt.Sprintf("redis: REDIS\nauth: {addresses: [\"AUTH\"], optional: true}\nlimits: [{name: case-%d, limit: 1, window: 1h, %s}]", i, tt.rule))
				if got := statuses(gate, 3); got != tt.want {
					t.Errorf("%s, want %s", got, tt.want)
				}
				w := ask(gate)
				if limited := w.Header().Get("RateLimit") != ""; limited != strings.Contains(tt.want, "429") {
					t.Errorf("%d with RateLimit %q", w.Code, w.Header().Get("RateLimit"))
				}
				switch w.Code {
				case http.StatusBadRequest:
					if p := readProblem(t, w); !strings.Contains(p.Detail, "X-Api-Key") {
						t.Errorf("the client is told %q", p.Detail)
					}
				case http.StatusUnauthorized:
					if got := w.Header().Get("WWW-Authenticate"); got != `Bearer realm="sluice"` {
						t.Errorf("WWW-Authenticate: %s", got)
					}
				}
				// Who has a key is limited by it.
				if got := statuses(gate, 2, as(fmt.Sprint("ann", i)), with("X-Api-Key", fmt.Sprint("k", i))); !strings.Contains(tt.name, "dry") && got != "200 429" {
					t.Errorf("with the key: %s", got)
				}
			})
		}
	})
}

// TestLimitHeader: the auth service names a user's limit itself. It goes before
// the tier's; what is no number counts as absent; and a cost above it can never
// pass, so no time to wait is named (RULES 3).
func TestLimitHeader(t *testing.T) {
	const plain, pro, window = 2, 3, 3600
	// The largest limit whose arithmetic is exact (RULES 36).
	most := (int64(1)<<51 - 1) / (window * 1e6)
	tests := []struct {
		said  string // X-User-Limit; "-" is none at all
		plan  string
		quota int64
		want  string
	}{
		{"-", "", plain, "200 200 429 429 429"},
		{"4", "", 4, "200 200 200 200 429"},
		{"4", "pro", 4, "200 200 200 200 429"},
		{"1", "pro", 1, "200 429 429 429 429"},
		{"-", "pro", pro, "200 200 200 429 429"},
		{"", "pro", pro, "200 200 200 429 429"},
		{"ten", "", plain, "200 200 429 429 429"},
		{"-5", "", plain, "200 200 429 429 429"},
		{"1.5", "pro", pro, "200 200 200 429 429"},
		{"99999999999999999999", "", plain, "200 200 429 429 429"},
		{"4000000000", "", most, "200 200 200 200 200"},
		{"0", "", 0, "429 429 429 429 429"},
	}
	both(t, func(t *testing.T, b *bed) {
		b.auth.judgeBy(func(w http.ResponseWriter, r *http.Request) {
			judgeToken(w, r)
			var n int
			if _, err := fmt.Sscanf(w.Header().Get("X-User-ID"), "case%d", &n); err == nil && tests[n].said != "-" {
				w.Header().Set("X-User-Limit", tests[n].said)
			}
		})
		gate := b.gate(`
redis: REDIS
auth: {addresses: ["AUTH"], responseHeaders: [X-User-ID, X-User-Plan, X-User-Limit]}
limits: [{name: own, key: user, limit: 2, window: 1h, tierHeader: X-User-Plan, tiers: {pro: 3}, limitHeader: X-User-Limit}]`)
		b.redis.RoomIn(hour, time.Minute)
		for i, tt := range tests {
			user := strings.TrimSuffix(fmt.Sprintf("case%d.%s", i, tt.plan), ".")
			if got := statuses(gate, 5, as(user)); got != tt.want {
				t.Errorf("limit %q, plan %q: %s, want %s", tt.said, tt.plan, got, tt.want)
			}
			w := ask(gate, as(user))
			if got, want := w.Header().Get("RateLimit-Policy"), fmt.Sprintf(`"own";q=%d;w=3600`, tt.quota); got != want {
				t.Errorf("limit %q, plan %q: RateLimit-Policy %s, want %s", tt.said, tt.plan, got, want)
			}
			if got := w.Header().Get("Retry-After"); (got == "") != (tt.quota == 0 || w.Code == 200) {
				t.Errorf("limit %q: %d with Retry-After %q", tt.said, w.Code, got)
			}
		}
		// A request that costs more than its user's limit.
		costly := b.gate(`
redis: REDIS
auth: {addresses: ["AUTH"], responseHeaders: [X-User-ID, X-User-Limit]}
limits: [{name: costly, key: user, limit: 8, window: 1h, cost: 2, limitHeader: X-User-Limit}]`)
		if got := statuses(costly, 2, as("case3")); got != "429 429" { // whose limit is 1
			t.Errorf("cost 2 under a limit of 1: %s", got)
		}
		if w := ask(costly, as("case3")); w.Header().Get("Retry-After") != "" || readProblem(t, w).RetryAfter != 0 {
			t.Errorf("told to retry what can never pass: %v", w.Header())
		}
		if got := statuses(costly, 3, as("case1")); got != "200 200 429" { // 4
			t.Errorf("cost 2 under a limit of 4: %s", got)
		}
		if got := statuses(costly, 5, as("ann")); got != "200 200 200 200 429" {
			t.Errorf("cost 2 under a limit of 8: %s", got)
		}
	})
}

// TestStatusSettlesAtOnce: a permit counts from the moment at which its answer's
// status is known, however long the rest of the answer takes.
func TestStatusSettlesAtOnce(t *testing.T) {
	both(t, func(t *testing.T, b *bed) {
		b.redis.RoomIn(hour, time.Minute)
		leave, begun := make(chan struct{}), make(chan struct{}, 1)
		endless := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusOK)
			begun <- struct{}{}
			<-leave
		})
		gate := b.form.New(t, forms.FromFile(t, b.fill(`{redis: REDIS, limits: [{name: long, key: ip, limit: 1, window: 1h, refundStatus: ["5xx"]}]}`)), endless)
		b.connected()
		ended := make(chan int)
		go func() { ended <- ask(gate).Code }()
		<-begun
		w := ask(gate)
		if after := w.Header().Get("Retry-After"); w.Code != 429 || after == "1" || after == "" {
			t.Errorf("beside an answer under way: %d, Retry-After %q; its permit may come back no more", w.Code, after)
		}
		close(leave)
		if code := <-ended; code != 200 {
			t.Errorf("the long answer: %d", code)
		}
		if got := statuses(gate, 1); got != "429" {
			t.Errorf("after it: %s", got)
		}
	})
}

// TestTrustUserHeader is the classic wiring: forwardAuth before this middleware
// has written who it is. Without the key nobody has.
func TestTrustUserHeader(t *testing.T) {
	const rule = "limits: [{name: NAME, key: user, limit: 1, window: 1h"
	both(t, func(t *testing.T, b *bed) {
		b.redis.RoomIn(hour, time.Minute)
		trusting := b.gate("redis: REDIS\ntrustUserHeader: true\n" + strings.Replace(rule, "NAME", "trusting", 1) + ", tierHeader: X-User-Plan, tiers: {pro: 3}}]")
		for _, step := range []struct {
			request []func(*http.Request)
			want    string
		}{
			{[]func(*http.Request){with("X-User-ID", "ann")}, "200 429 429 429"},
			{[]func(*http.Request){with("X-User-ID", "bob"), with("X-User-Plan", "pro")}, "200 200 200 429"},
			{[]func(*http.Request){with("X-User-ID", "ann", "bob")}, "503 503 503 503"},
			{nil, "200 429 429 429"}, // anonymous: by address
		} {
			if got := statuses(trusting, 4, step.request...); got != step.want {
				t.Errorf("trusting: %s, want %s", got, step.want)
			}
		}
		wary := b.gate("redis: REDIS\n" + strings.Replace(rule, "NAME", "wary", 1) + "}]")
		if got := statuses(wary, 1, with("X-User-ID", "ann")) + " " + statuses(wary, 1, with("X-User-ID", "bob")); got != "200 429" {
			t.Errorf("without trustUserHeader the header chose the key: %s", got)
		}
	})
}

// TestPasswordFile: the password comes from a file, and a changed one needs no
// restart.
func TestPasswordFile(t *testing.T) {
	both(t, func(t *testing.T, b *bed) {
		ctx := context.Background()
		user := "gate-" + b.prefix
		secret := filepath.Join(t.TempDir(), "password")
		write := func(password string) {
			if err := os.WriteFile(secret, []byte(password+"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		set := func(rules ...any) {
			if err := b.redis.Client.Do(ctx, append([]any{"ACL", "SETUSER", user}, rules...)...).Err(); err != nil {
				t.Fatal(err)
			}
		}
		set("on", ">first", "~*", "&*", "+@all")
		write("first")
		b.redis.RoomIn(hour, time.Minute)
		gate := b.form.New(t, forms.FromFile(t, fmt.Sprintf("redis: {addresses: [%q], keyPrefix: %s, username: %s, passwordFile: %q, timeout: 2s}\nonRedisFailure: deny\nlimits: [{name: l, key: ip, limit: 2, window: 1h}]",
			b.redis.Addr, b.prefix, user, secret)), b.up)
		b.connected()
		if got := statuses(gate, 1); got != "200" {
			t.Fatal(got)
		}
		set("resetpass", ">second")
		if err := b.redis.Client.Do(ctx, "CLIENT", "KILL", "USER", user).Err(); err != nil {
			t.Fatal(err)
		}
		harness.Eventually(t, 5*time.Second, "the old password is refused", func() error {
			if code := ask(gate).Code; code != 503 {
				return fmt.Errorf("%d", code)
			}
			return nil
		})
		write("second")
		harness.Eventually(t, 10*time.Second, "the new password is read", func() error {
			if code := ask(gate).Code; code == 503 {
				return fmt.Errorf("%d", code)
			}
			return nil
		})
		if got := statuses(gate, 1); got != "429" {
			t.Errorf("a third request of two: %s", got)
		}
		// A file that is not there is a mistake like any other.
		text := stderr(t, func() {
			b.form.New(t, forms.FromFile(t, fmt.Sprintf("redis: {addresses: [%q], passwordFile: %q}\nlimits: [{name: l, key: ip, limit: 2, window: 1h}]", b.redis.Addr, secret+".gone")), b.up)
		})
		if !strings.Contains(text, "redis.passwordFile:") {
			t.Errorf("of a missing file is said: %s", text)
		}
	})
}

// TestMaxKeys: the table stays as small as maxKeys says, a flood of keys passes
// through it, and what was used up before stays used up.
func TestMaxKeys(t *testing.T) {
	both(t, func(t *testing.T, b *bed) {
		b.redis.RoomIn(hour, time.Minute)
		gate := b.gate("redis: REDIS\nmaxKeys: 20\nlimits: [{name: l, key: 'header:X-Api-Key', limit: 2, window: 1h}]")
		if got := statuses(gate, 3, with("X-Api-Key", "victim")); got != "200 200 429" {
			t.Fatal(got)
		}
		for i := range 500 {
			if code := ask(gate, with("X-Api-Key", fmt.Sprint("flood", i))).Code; code != 200 {
				t.Fatalf("key %d of the flood: %d", i, code)
			}
		}
		if got := statuses(gate, 2, with("X-Api-Key", "victim")); got != "429 429" {
			t.Errorf("after the flood: %s", got)
		}
		if keys := b.redis.Gateways(b.prefix)[0].Counters.Keys; keys > 20 {
			t.Errorf("%d keys are tracked", keys)
		}
	})
}

// TestHeartbeatCounts: each counter tells what happened, and an outage, of which
// no heartbeat can tell while it lasts, loses none of it.
func TestHeartbeatCounts(t *testing.T) {
	both(t, func(t *testing.T, b *bed) {
		events := b.redis.StartEvents(t, b.prefix)
		b.redis.RoomIn(hour, time.Minute)
		gate := b.gate(`
redis: REDIS
auth: {addresses: ["AUTH"]}
limits:
- {name: few, key: user, limit: 3, window: 1h, tierHeader: X-User-Plan, tiers: {pro: 8}}
- {name: bad, key: ip, limit: 2, window: 1h, countStatus: [401]}`)
		b.listening(gate, events)
		statuses(gate, 5, as("ann"))     // 3 pass, 2 are denied by few
		statuses(gate, 4, as("bob.pro")) // 4 pass
		statuses(gate, 4, with("Authorization", "Bearer bad"), from("198.51.100.1:1"))
		before := b.redis.Gateways(b.prefix)[0].Counters
		if want := map[string]int64{"few": 2, "bad": 2}; !maps.Equal(before.Denied, want) {
			t.Errorf("denied %v, want %v", before.Denied, want)
		}
		if before.Degraded != 0 || before.BreakerOpen != 0 || len(before.RedisErrors) > 0 {
			t.Errorf("nothing failed, yet %+v", before)
		}
		if before.RedisCalls == 0 || before.RedisCalls > 1000 || before.Keys < 4 || before.Keys > 6 { // listening has asked too
			t.Errorf("%d Redis calls, %d keys; want some, and about 4", before.RedisCalls, before.Keys)
		}
		// Each of the good tokens was judged once, the bad one each time.
		if before.DecisionMisses < 2+2 || before.DecisionHits < 7 {
			t.Errorf("%d decisions from memory, %d not", before.DecisionHits, before.DecisionMisses)
		}
		b.redis.Kill()
		statuses(gate, 1, as("eve"))
		statuses(gate, 12, as("bob.pro")) // of whose 8 are 4 left
		b.redis.Start()
		var after harness.Gateway
		harness.Eventually(t, 20*time.Second, "the outage is told", func() error {
			after = b.redis.Gateways(b.prefix)[0]
			if after.Counters.Degraded < 12 {
				return fmt.Errorf("%d decisions without Redis", after.Counters.Degraded)
			}
			return nil
		})
		c := after.Counters
		if c.Allowed != before.Allowed+1+4 || c.Denied["few"] != before.Denied["few"]+8 || c.Denied["bad"] != 2 {
			t.Errorf("allowed %d, then %d; denied %v, then %v; want 5 and 8 more", before.Allowed, c.Allowed, before.Denied, c.Denied)
		}
		if c.RedisCalls < before.RedisCalls || c.DecisionHits <= before.DecisionHits || c.DecisionMisses < before.DecisionMisses || c.BreakerOpened == 0 || c.BreakerOpen != 0 {
			t.Errorf("%+v became %+v", before, c)
		}
		lost := c.RedisErrors["eof"] + c.RedisErrors["reset"]
		for kind := range c.RedisErrors {
			if !slices.Contains([]string{"eof", "reset", "refused", "away"}, kind) {
				t.Errorf("an error of the kind %s", kind)
			}
		}
		if lost < 2 { // the limits' connection and that of the events
			t.Errorf("%v, want two connections lost", c.RedisErrors)
		}
	})
}
