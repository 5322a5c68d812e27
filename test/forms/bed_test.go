package forms_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/test/forms"
	"github.com/sluice-gateway/sluice/test/harness"
)

// both runs a test over both forms, each on a bed of its own: the same Redis,
// but keys of another prefix, and an authsvc and an upstream of the test's own.
func both(t *testing.T, test func(t *testing.T, b *bed)) {
	for _, form := range forms.All {
		t.Run(form.String(), func(t *testing.T) {
			if _, interpreted := form.(forms.Interpreted); interpreted && harness.Race {
				t.Skip("Yaegi itself does not pass the race detector")
			}
			test(t, newBed(t, form))
		})
	}
}

// waiting is both at the same time, for tests that wait, mostly, and look at no log:
// that is the process's.
func waiting(t *testing.T, test func(t *testing.T, b *bed)) {
	t.Run("at once", func(t *testing.T) { // which ends when both have
		both(t, func(t *testing.T, b *bed) {
			t.Parallel()
			test(t, b)
		})
	})
}

// bed is all that a gate needs around it.
type bed struct {
	t      *testing.T
	form   forms.Form
	redis  *harness.Redis
	prefix string
	auth   *fakeAuth
	up     *harness.Upstream
}

// on is the bed as a subtest sees it.
func (b *bed) on(t *testing.T) *bed {
	there := *b
	there.t = t
	return &there
}

var beds atomic.Int64

func newBed(t *testing.T, form forms.Form) *bed {
	return &bed{
		t: t, form: form,
		redis:  harness.StartRedis(t),
		prefix: fmt.Sprintf("bed%d", beds.Add(1)),
		auth:   startFakeAuth(t),
		up:     harness.NewUpstream(),
	}
}

// fill replaces what a configuration cannot know: REDIS is where the counters
// are, AUTH the auth service's address. The timeout is long, since a decision
// without Redis on a busy machine would spoil a count (design: late-replies); what the default
// does is seen in TestLeavingKeysOut.
func (b *bed) fill(config string) string {
	return strings.NewReplacer(
		"REDIS", fmt.Sprintf("{addresses: [%q], keyPrefix: %s, timeout: 2s}", b.redis.Addr, b.prefix),
		"AUTH", b.auth.URL+"/auth",
	).Replace(config)
}

// gate makes a gate in front of the upstream, from what the file provider would
// hand over, and waits until it is connected.
func (b *bed) gate(config string) http.Handler {
	b.t.Helper()
	return b.gateTo(config, b.up)
}

// gateTo is gate in front of another service.
func (b *bed) gateTo(config string, service http.Handler) http.Handler {
	b.t.Helper()
	handler := b.form.New(b.t, forms.FromFile(b.t, b.fill(config)), service)
	b.connected()
	return handler
}

func (b *bed) connected() {
	b.t.Helper()
	b.redis.AwaitGateways(b.prefix, 1)
}

// fakeAuth judges tokens by their spelling: `user-<id>[.<plan>]` is good, and
// anything else is 401. A test may put another judge in its place.
type fakeAuth struct {
	*httptest.Server

	mu    sync.Mutex // protects what follows
	judge http.HandlerFunc
	asked []http.Header
}

func startFakeAuth(t *testing.T) *fakeAuth {
	a := &fakeAuth{}
	a.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header["Authorization"] == nil { // a gateway that has just started looks whether anybody is there
			// On a connection that was used before, net/http asks again by itself if
			// it is hung up on.
			w.Header().Set("Connection", "close")
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		a.mu.Lock()
		a.asked = append(a.asked, r.Header.Clone())
		judge := a.judge
		a.mu.Unlock()
		if judge == nil {
			judge = judgeToken
		}
		judge(w, r)
	}))
	t.Cleanup(a.Close)
	return a
}

func (a *fakeAuth) judgeBy(judge http.HandlerFunc) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.judge = judge
}

// calls are the headers of the questions so far.
func (a *fakeAuth) calls() []http.Header {
	a.mu.Lock()
	defer a.mu.Unlock()
	return append([]http.Header(nil), a.asked...)
}

const badTokenBody = `{"type":"about:blank","title":"Unauthorized","status":401,"detail":"the token is bad"}`

func judgeToken(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Vary", "Authorization")
	user, good := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer user-")
	if !good {
		h.Set("WWW-Authenticate", `Bearer realm="sluice", error="invalid_token", error_description="the token is bad"`)
		h.Set("Content-Type", "application/problem+json")
		w.WriteHeader(http.StatusUnauthorized)
		fmt.Fprint(w, badTokenBody)
		return
	}
	id, plan, _ := strings.Cut(user, ".")
	sum := sha256.Sum256([]byte(user))
	h.Set("X-User-ID", id)
	if plan != "" {
		h.Set("X-User-Plan", plan)
	}
	h.Set("X-User-Scopes", "read write")
	h.Set("X-Token-ID", hex.EncodeToString(sum[:]))
	h.Set("X-Session-ID", "session-of-"+id)
	h.Set("Cache-Control", "private, max-age=60, stale-if-error=300")
}

// ask sends one request from 203.0.113.7 and returns the answer.
func ask(handler http.Handler, change ...func(*http.Request)) *httptest.ResponseRecorder {
	r := httptest.NewRequest("GET", "http://shop.example/v1/products?limit=2", nil)
	r.RemoteAddr = "203.0.113.7:4321"
	for _, c := range change {
		c(r)
	}
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, r)
	return w
}

// with sets a header; several values make several lines.
func with(name string, values ...string) func(*http.Request) {
	return func(r *http.Request) { r.Header[http.CanonicalHeaderKey(name)] = values }
}

func as(user string) func(*http.Request) { return with("Authorization", "Bearer user-"+user) }

func from(address string) func(*http.Request) {
	return func(r *http.Request) { r.RemoteAddr = address }
}

func path(p string) func(*http.Request) {
	return func(r *http.Request) { r.URL.Path, r.RequestURI = p, p }
}

// statuses asks n times and lists what came back, such as "200 200 429".
func statuses(handler http.Handler, n int, change ...func(*http.Request)) string {
	var all []string
	for range n {
		all = append(all, fmt.Sprint(ask(handler, change...).Code))
	}
	return strings.Join(all, " ")
}

// problem is a body of application/problem+json with nothing else in it.
type problem struct {
	Type       string `json:"type"`
	Title      string `json:"title"`
	Status     int    `json:"status"`
	Detail     string `json:"detail"`
	Limit      string `json:"limit"`
	RetryAfter int    `json:"retry_after"`
	RequestID  string `json:"request_id"`
}

func readProblem(t *testing.T, w *httptest.ResponseRecorder) problem {
	t.Helper()
	if got := w.Header().Get("Content-Type"); got != "application/problem+json" {
		t.Errorf("Content-Type: %q", got)
	}
	var p problem
	decoder := json.NewDecoder(w.Body)
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&p); err != nil {
		t.Fatalf("%v in %q", err, w.Body)
	}
	if p.Status != w.Code || p.Type != "about:blank" || p.Title != http.StatusText(w.Code) || p.Detail == "" {
		t.Errorf("problem %+v of a %d", p, w.Code)
	}
	if p.RequestID == "" || p.RequestID != w.Header().Get("X-Request-ID") {
		t.Errorf("request_id %q, X-Request-ID %q", p.RequestID, w.Header().Get("X-Request-ID"))
	}
	return p
}

// keys lists the counters that exist in Redis, without the prefix.
func (b *bed) keys() []string {
	b.t.Helper()
	found, err := b.redis.Client.Keys(context.Background(), b.prefix+":lim:*").Result()
	if err != nil {
		b.t.Fatal(err)
	}
	var keys []string
	for _, key := range found {
		if key = strings.TrimPrefix(key, b.prefix+":lim:"); !strings.HasPrefix(key, "1:_:") { // a gateway's own, by which it tries Redis
			keys = append(keys, key)
		}
	}
	return keys
}

const hour = time.Hour

// sum32 names values that are too long for a key.
func sum32(value string) string {
	sum := sha256.Sum256([]byte(value))
	return hex.EncodeToString(sum[:])[:32]
}
