package forms_test

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
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
				b := b.on(t)
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

// TestLimitsByWhatAuthSays: a limit whose key, tier or number comes from a header
// that the auth service sets is asked once that has spoken, whatever the header
// is called and whatever a client writes there.
func TestLimitsByWhatAuthSays(t *testing.T) {
	const auth = `
redis: REDIS
auth: {addresses: ["AUTH"], optional: true, responseHeaders: [X-User-ID, X-User-Plan, X-Tenant-ID, X-Tenant-Limit]}
`
	tests := []struct {
		name, rule string
		steps      []string // user, tenant's header of the client's own, statuses
	}{
		{"by tenant", `key: "header:X-Tenant-ID", limit: 2, window: 1h`, []string{
			"ann.acme", "", "200 200 429", "bob.acme", "bolt", "429 429 429", "eve.bolt", "acme", "200 200 429", "", "acme", "200 200 429"}},
		{"by tenant, or not at all", `key: "header:X-Tenant-ID", limit: 2, window: 1h, onMissingKey: deny`, []string{
			"ann.acme", "", "200 200 429", "eve.bolt", "", "200 200 429", "", "acme", "400 400 400", "cat", "acme", "400 400 400"}},
		{"by plan", `key: "header:x-user-plan", limit: 2, window: 1h`, []string{
			"ann.acme", "", "200 200 429", "eve.bolt", "", "200 200 429"}},
		{"by user", `key: "header:X-User-ID", limit: 2, window: 1h`, []string{
			"ann.acme", "", "200 200 429", "eve.acme", "", "200 200 429"}},
		{"by address, with tiers", `key: ip, limit: 1, window: 1h, tierHeader: X-User-Plan, tiers: {acme: 3}`, []string{
			"ann.acme", "", "200 200 200", "ann.acme", "", "429 429 429"}},
		{"by address, with a limit of one's own", `key: ip, limit: 1, window: 1h, limitHeader: X-Tenant-Limit`, []string{
			"ann.acme", "", "200 200 429"}},
		{"all together, with a limit of one's own", `key: global, limit: 1, window: 1h, limitHeader: X-Tenant-Limit`, []string{
			"ann.acme", "", "200 200 429"}},
		{"by a header of the client's, with tiers", `key: "header:X-Api-Key", limit: 1, window: 1h, onMissingKey: ip, tierHeader: X-User-Plan, tiers: {acme: 2}`, []string{
			"ann.acme", "", "200 200 429"}},
	}
	both(t, func(t *testing.T, b *bed) {
		b.auth.judgeBy(func(w http.ResponseWriter, r *http.Request) {
			judgeToken(w, r)
			if tenant := w.Header().Get("X-User-Plan"); tenant != "" {
				w.Header().Set("X-Tenant-ID", tenant)
				w.Header().Set("X-Tenant-Limit", "2")
			}
		})
		b.redis.RoomIn(hour, time.Minute)
		for i, tt := range tests {
			t.Run(tt.name, func(t *testing.T) {
				b := b.on(t)
				gate := b.gate(auth + fmt.Sprintf("limits: [{name: case-%d, %s}]", i, tt.rule))
				if got := statuses(gate, 5, with("Authorization", "Bearer bad")); got != "401 401 401 401 401" {
					t.Errorf("bad tokens: %s", got)
				}
				for n := 0; n < len(tt.steps); n += 3 {
					var request []func(*http.Request)
					if user := tt.steps[n]; user != "" {
						request = append(request, as(user))
					}
					if claimed := tt.steps[n+1]; claimed != "" {
						request = append(request, with("X-Tenant-ID", claimed))
					}
					if got := statuses(gate, 3, request...); got != tt.steps[n+2] {
						t.Errorf("%v: %s", tt.steps[n:n+3], got)
					}
				}
			})
		}
	})
}

// TestTiersOfRoles: who has several roles has the highest of their tiers, or the
// first that stands in a list of them; a name is matched as a whole.
func TestTiersOfRoles(t *testing.T) {
	tests := []struct {
		tiers string
		roles []string // header lines
		want  int
	}{
		{"{pro: 4, free: 3}", []string{"pro offline_access"}, 4},
		{"{pro: 4, free: 3}", []string{"offline_access free pro"}, 4},
		{"{pro: 4, free: 3}", []string{"free,pro"}, 4},
		{"{pro: 4, free: 3}", []string{"free", "pro"}, 4},
		{"{pro: 4, free: 3}", []string{"free,\tuma"}, 3},
		{"{pro: 4, free: 3}", []string{"professional offline_access"}, 2},
		{"{pro: 4, free: 3}", []string{"offline_access"}, 2},
		{"{pro: 4, pro plus: 5}", []string{"pro plus"}, 5},
		{"[{free: 3}, {pro: 4}]", []string{"offline_access pro free"}, 3},
		{"[{pro: 4}, {free: 3}]", []string{"offline_access free pro"}, 4},
		{"[{trial: 1}, {pro: 4, team: 6, free: 3}]", []string{"free pro"}, 4},
		{"[{trial: 1}, {pro: 4, team: 6, free: 3}]", []string{"pro trial team"}, 1},
	}
	waiting(t, func(t *testing.T, b *bed) {
		b.auth.judgeBy(func(w http.ResponseWriter, r *http.Request) {
			judgeToken(w, r)
			var n int
			if _, err := fmt.Sscanf(w.Header().Get("X-User-ID"), "case%d", &n); err == nil {
				w.Header()["X-User-Roles"] = tests[n].roles
			}
		})
		for i, tt := range tests {
			gate := b.gate(fmt.Sprintf(`
redis: REDIS
auth: {addresses: ["AUTH"], responseHeaders: [X-User-ID, X-User-Roles]}
limits: [{name: l%d, key: user, limit: 2, window: 1h, tierHeader: X-User-Roles, tiers: %s}]`, i, tt.tiers))
			for range 2 { // found out, then recalled
				if got, want := ask(gate, as(fmt.Sprint("case", i))).Header().Get("RateLimit-Policy"), fmt.Sprintf(`"l%d";q=%d;w=3600`, i, tt.want); got != want {
					t.Errorf("tiers %s of %q: %s, want %s", tt.tiers, tt.roles, got, want)
				}
			}
		}
		for _, l := range b.redis.Gateways(b.prefix)[0].Limits { // authsvc has to know the order too
			if l.Name == "l10" && !slices.Equal(l.Ranked, []string{"trial", "team", "pro", "free"}) {
				t.Errorf("the heartbeat names the tiers in the order %q", l.Ranked)
			}
		}
	})
}

// TestDryRun: every limit decides and counts by itself, whatever another one
// says, and none refuses. Who it is is no limit's business: that is still asked.
func TestDryRun(t *testing.T) {
	waiting(t, func(t *testing.T, b *bed) {
		b.redis.RoomIn(hour, time.Minute)
		gate := b.gate(`
redis: REDIS
auth: {addresses: ["AUTH"]}
dryRun: true
limits:
- {name: no-key, key: "header:X-Api-Key", limit: 1, window: 1h, onMissingKey: deny}
- {name: few, key: ip, limit: 2, window: 1h}
- {name: some, key: global, limit: 4, window: 1h}
- {name: user-few, key: user, limit: 1, window: 1h}
- {name: user-some, key: user, limit: 3, window: 1h}`)
		if got := statuses(gate, 6, as("ann")); got != "200 200 200 200 200 200" {
			t.Errorf("in a dry run: %s", got)
		}
		h := ask(gate, as("ann")).Header()
		if got := h.Get("RateLimit-Policy"); got != `"few";q=2;w=3600, "some";q=4;w=3600, "user-few";q=1;w=3600, "user-some";q=3;w=3600` || h.Get("Retry-After") != "" {
			t.Errorf("RateLimit-Policy: %s, Retry-After: %s", got, h.Get("Retry-After"))
		}
		for _, name := range []string{"few", "some", "user-few", "user-some"} {
			if got := h.Get("RateLimit"); !strings.Contains(got, `"`+name+`";r=0`) {
				t.Errorf("%s did not count: RateLimit: %s", name, got)
			}
		}
		want := map[string]int64{"no-key": 0, "few": 5, "some": 3, "user-few": 6, "user-some": 4}
		if got := b.redis.Gateways(b.prefix)[0].Counters.Denied; !maps.Equal(got, want) {
			t.Errorf("would have denied %v, want %v", got, want)
		}
		if got := statuses(gate, 1) + " " + statuses(gate, 1, with("Authorization", "Bearer bad")) + " " + statuses(gate, 1, with("Authorization", "Bearer user-a", "Bearer user-b")); got != "401 401 400" {
			t.Errorf("nobody, a bad token and two: %s", got)
		}
		// Redis away is no limit's answer either.
		away := b.gate(`{redis: REDIS, onRedisFailure: deny, dryRun: true, limits: [{name: away, key: ip, limit: 1, window: 1h}]}`)
		b.redis.Kill()
		if got := statuses(away, 2); got != "200 200" {
			t.Errorf("with Redis away: %s", got)
		}
	})
}

// TestExemptUsers: an entry of a list is one user, commas and all. A text is as
// many as commas make of it, since labels have no other way.
func TestExemptUsers(t *testing.T) {
	const bo, li = "cn=Bo Li,ou=people", "cn=Li Bo, ou=people"
	both(t, func(t *testing.T, b *bed) {
		b.redis.RoomIn(hour, time.Minute)
		rest := map[string]string{"auth.addresses": b.auth.URL + "/auth", "limits[0].key": "user", "limits[0].limit": "1", "limits[0].window": "1h"}
		labels := func(more ...string) map[string]any {
			all := maps.Clone(rest)
			for i := 0; i < len(more); i += 2 {
				all[more[i]] = more[i+1]
			}
			return forms.FromLabels(t, all)
		}
		file := func(users string) map[string]any {
			return forms.FromFile(t, b.fill(`{auth: {addresses: ["AUTH"]}, exempt: {users: `+users+`}, limits: [{key: user, limit: 1, window: 1h}]}`))
		}
		for i, tt := range []struct {
			name   string
			shape  map[string]any
			exempt []string
			bound  []string
		}{
			{"file, a list", file(`["` + bo + `", "` + li + `", boss]`), []string{bo, li, "boss"}, []string{"cn=Bo Li", "ou=people"}},
			{"file, a list of one", file(`["` + bo + `"]`), []string{bo}, []string{"cn=Bo Li", "ou=people"}},
			{"file, a text", file(`"boss, root"`), []string{"boss", "root"}, []string{"boss, root"}},
			{"file, blanks", file(`["", "  boss "]`), []string{"boss"}, []string{"ann"}},
			{"labels, a text", labels("exempt.users", "boss,root"), []string{"boss", "root"}, []string{"boss,root"}},
			{"labels, by index", labels("exempt.users[0]", bo, "exempt.users[1]", "boss"), []string{bo, "boss"}, []string{"cn=Bo Li", "ou=people"}},
		} {
			t.Run(tt.name, func(t *testing.T) {
				tt.shape["redis"] = map[string]any{"addresses": b.redis.Addr, "keyPrefix": b.prefix, "timeout": "2s"}
				tt.shape["limits"].([]any)[0].(map[string]any)["name"] = fmt.Sprint("exempt-", i)
				gate := b.form.New(t, tt.shape, b.up)
				b.connected()
				for _, user := range tt.exempt {
					if got := statuses(gate, 3, as(user)); got != "200 200 200" {
						t.Errorf("exempt %q: %s", user, got)
					}
				}
				for _, user := range tt.bound {
					if got := statuses(gate, 3, as(user)); got != "200 429 429" {
						t.Errorf("%q: %s", user, got)
					}
				}
			})
		}
	})
}

// TestLimitHeader: the auth service names a user's limit itself. It goes before
// the tier's; what is no number counts as absent; and a cost above it can never
// pass, so no time to wait is named (design: whole-requests).
func TestLimitHeader(t *testing.T) {
	const plain, pro, window = 2, 3, 3600
	// The largest limit there is.
	most := int64(1e12)
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
		{"-1", "pro", pro, "200 200 200 429 429"},
		{"1.5", "pro", pro, "200 200 200 429 429"},
		{"99999999999999999999", "", most, "200 200 200 200 200"},
		{"9e15", "", most, "200 200 200 200 200"},
		{"0", "", 0, "429 429 429 429 429"},
		// What is plainly meant.
		{"4.0", "", 4, "200 200 200 200 429"},
		{"4e0", "", 4, "200 200 200 200 429"},
		{"+4", "", 4, "200 200 200 200 429"},
		{" 4 ", "", 4, "200 200 200 200 429"},
		{"unlimited", "", most, "200 200 200 200 200"},
		{"Unlimited", "pro", most, "200 200 200 200 200"},
		{"0x4", "", plain, "200 200 429 429 429"},
		{"Inf", "", plain, "200 200 429 429 429"},
		{"NaN", "", plain, "200 200 429 429 429"},
		{"1_0", "", plain, "200 200 429 429 429"},
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

// TestOddLimitsAreSaid: a limit of the auth service's that cannot be kept is named
// in the log, and at most once a minute.
func TestOddLimitsAreSaid(t *testing.T) {
	both(t, func(t *testing.T, b *bed) {
		said := "-1"
		b.auth.judgeBy(func(w http.ResponseWriter, r *http.Request) {
			judgeToken(w, r)
			w.Header()["X-User-Limit"] = strings.Split(said, "|")
			w.Header().Set("Cache-Control", "no-store") // each request hears what is said now
		})
		for i, tt := range []struct{ said, want string }{
			{"4", ""},
			{"4.0", ""},
			{"unlimited", ""},
			{"0", ""},
			{"", ""},
			{"-1", `the limit odd-5 reads "-1" from X-User-Limit, which is neither a whole number of requests nor "unlimited": its limit of 2, or its tier's, holds instead`},
			{"ten", `the limit odd-6 reads "ten" from X-User-Limit, which is neither`},
			{"1.5", `reads "1.5" from X-User-Limit, which is neither`},
			{"4|5", `the limit odd-8 reads "4, 5" from X-User-Limit, which is neither`},
			{strings.Repeat("9", 70) + "x", `reads "` + strings.Repeat("9", 64) + `..." from`},
			{"99999999999999999999", `the limit odd-10 reads "99999999999999999999" from X-User-Limit, more than a limit can be: `},
		} {
			config := strings.Replace(`
redis: REDIS
auth: {addresses: ["AUTH"], responseHeaders: [X-User-ID, X-User-Limit]}
limits: [{name: NAME, key: user, limit: 2, window: 1h, limitHeader: X-User-Limit}]`, "NAME", fmt.Sprint("odd-", i), 1)
			gate, twin := b.gate(config), b.gate(config) // as two routers have it
			said = tt.said
			log := logging(t)
			for range 3 {
				ask(gate, as("ann"))
				ask(twin, as("bob"))
			}
			text := log.text()
			lines := strings.Count(text, "X-User-Limit")
			if tt.want == "" && lines != 0 || tt.want != "" && (lines != 1 || !strings.Contains(text, tt.want)) {
				t.Errorf("of %.100q is said %d times, want %q:\n%s", tt.said, lines, tt.want, text)
			}
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
		gate := b.gateTo(`{redis: REDIS, limits: [{name: long, key: ip, limit: 1, window: 1h, refundStatus: ["5xx"]}]}`, endless)
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
		said := logging(t)
		b.form.New(t, forms.FromFile(t, fmt.Sprintf("redis: {addresses: [%q], passwordFile: %q}\nlimits: [{name: l, key: ip, limit: 2, window: 1h}]", b.redis.Addr, secret+".gone")), b.up)
		if text := said.text(); !strings.Contains(text, "redis.passwordFile:") {
			t.Errorf("of a missing file is said: %s", text)
		}
	})
}

// TestOneRecordAUser: Traefik makes the middleware anew for each router, and what
// is kept of a user must not be kept as often. A process of its own tells, since
// in this one other tests' memory comes and goes.
func TestOneRecordAUser(t *testing.T) {
	const routers, users = 24, 300
	if os.Getenv(ownProcess) == "" {
		said, err := runAlone(t, "^TestOneRecordAUser$")()
		t.Log(said)
		if err != nil {
			t.Error(err)
		}
		return
	}
	both(t, func(t *testing.T, b *bed) {
		events := b.redis.StartEvents(t, b.prefix)
		b.redis.RoomIn(hour, time.Minute)
		gates := make([]http.Handler, routers)
		for i := range gates {
			gates[i] = b.gate(`
redis: REDIS
auth: {addresses: ["AUTH"]}
limits: [{name: l, key: user, limit: 1000, window: 1h, tierHeader: X-User-Plan, tiers: {pro: 2000}}, {name: m, key: ip, limit: 100000, window: 1h}]`)
		}
		b.listening(gates[0], events)
		known := func(gates []http.Handler, from, to int) (grown int64) {
			before := heap()
			for i := from; i < to; i++ {
				user := as(fmt.Sprint("user", i))
				for _, gate := range gates {
					for range 2 {
						if code := ask(gate, user).Code; code != 200 {
							t.Fatalf("user %d: %d", i, code)
						}
					}
				}
			}
			b.up.Forget()
			return heap() - before
		}
		known(gates, 0, users/4) // what is made once for all users
		for n := 1; ; n++ {      // other memory comes and goes too, by more than all of this
			first := known(gates[:1], n*users, (n+1)*users) / users
			rest := known(gates[1:], n*users, (n+1)*users) / users
			t.Logf("a user takes %d bytes on the first router, and %d more on %d others", first, rest, routers-1)
			if first >= 500 && rest <= first/2 {
				break
			}
			if n == 8 {
				t.Errorf("a user always takes more than half of the first router's bytes on %d others", routers-1)
				break
			}
		}
		runtime.KeepAlive(gates)
	})
}

// heap is what is in use once all garbage is gone.
func heap() int64 {
	for range 3 { // what sync.Pool and finalizers hold goes in turn
		runtime.GC()
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// TestMaxKeys: the table stays as small as maxKeys says, a flood of keys passes
// through it, and what was used up before stays used up.
func TestMaxKeys(t *testing.T) {
	waiting(t, func(t *testing.T, b *bed) {
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
	waiting(t, func(t *testing.T, b *bed) {
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
