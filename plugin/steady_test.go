package plugin

import (
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/internal/redistest"
)

// serveSteady and the pipeline give equal answers and hand on equal requests,
// whatever the request: one gate with it and one without see the same sequence.
func TestSteadyIsThePipeline(t *testing.T) {
	redis := redistest.Start(t)
	auth := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Vary", "Authorization")
		user, plan, _ := strings.Cut(strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "), ".")
		if user == "bad" {
			h.Set("WWW-Authenticate", "Bearer")
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		h.Set("X-User-ID", user)
		if plan != "" {
			h.Set("X-User-Plan", plan)
		}
		h.Set("Cache-Control", "private, max-age=60")
	}))
	defer auth.Close()

	for name, yaml := range map[string]string{
		"users":            `{auth: {addresses: [AUTH]}, limits: [{name: a, key: user, limit: 12, window: 744h}]}`,
		"several":          `{auth: {addresses: [AUTH], keepAuthorization: true}, limits: [{name: a, key: user, limit: 12, window: 744h, cost: 2}, {name: b, key: user, limit: 9, window: 700h}]}`,
		"tiers":            `{auth: {addresses: [AUTH]}, limits: [{name: a, key: user, limit: 5, window: 744h, tierHeader: X-User-Plan, tiers: {pro: 30}}]}`,
		"addresses":        `{limits: [{name: a, key: ip, limit: 12, window: 744h}]}`,
		"both":             `{auth: {addresses: [AUTH]}, limits: [{name: b, key: user, limit: 7, window: 744h}, {name: a, key: ip, limit: 32, window: 744h}]}`,
		"both, by address": `{auth: {addresses: [AUTH]}, limits: [{name: a, key: ip, limit: 5, window: 744h}, {name: b, key: user, limit: 32, window: 744h}]}`,
		"never steady":     `{auth: {addresses: [AUTH]}, limits: [{name: a, key: global, limit: 12, window: 744h}, {name: b, key: user, limit: 7, window: 744h}]}`,
		"as shipped":       `{auth: {addresses: [AUTH]}, limits: [{name: bad-token, key: ip, limit: 5, window: 744h, countStatus: [401]}, {name: a, key: user, limit: 12, window: 744h, tierHeader: X-User-Plan, tiers: {pro: 30}}, {name: b, key: user, limit: 20, window: 740h}]}`,
		"optional":         `{auth: {addresses: [AUTH], optional: true}, limits: [{name: a, key: user, limit: 5, window: 744h}]}`,
		"what answers say": `{auth: {addresses: [AUTH]}, limits: [{name: a, key: user, limit: 5, window: 744h, refundStatus: ["5xx"]}]}`,
	} {
		t.Run(name, func(t *testing.T) {
			open := func(prefix string) (*gate, *http.Header) {
				passed := new(http.Header)
				config := decode(t, []byte(strings.ReplaceAll(yaml, "AUTH", auth.URL)))
				config.Redis = []Redis{{Addresses: []string{redis.Addr}, KeyPrefix: prefix}}
				handler, err := New(t.Context(), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { *passed = r.Header.Clone() }), config, prefix)
				if err != nil {
					t.Fatal(err)
				}
				g := handler.(*gate)
				for deadline := time.Now().Add(5 * time.Second); !g.backend.client.Healthy(); time.Sleep(time.Millisecond) {
					if time.Now().After(deadline) {
						t.Fatal("Redis does not answer")
					}
				}
				return g, passed
			}
			prefix := strings.ReplaceAll(name, " ", "-")
			with, passedWith := open(prefix + "-with")
			without, passedWithout := open(prefix + "-without")
			without.steady = false
			if want := name != "never steady"; with.steady != want {
				t.Fatalf("steady is %v", with.steady)
			}
			for n := 0; n < 60; n++ {
				credential := []string{"Bearer ann", "Bearer ann", "Bearer bob.pro", "Bearer bad", "", "twice"}[n%6]
				remote := []string{"203.0.113.9:1", "203.0.113.9:2", "[2001:db8::1]:3"}[n%3]
				send := func(g *gate, passed *http.Header) string {
					*passed = nil
					w := httptest.NewRecorder()
					r := httptest.NewRequest("GET", "/", nil)
					r.RemoteAddr = remote
					r.Header.Set("X-User-ID", "forged")
					r.Header.Set("Connection", "X-User-ID, close")
					switch credential {
					case "":
					case "twice":
						r.Header["Authorization"] = []string{"Bearer ann", "Bearer ann"}
					default:
						r.Header.Set("Authorization", credential)
					}
					g.ServeHTTP(w, r)
					body := instants.ReplaceAllString(strings.ReplaceAll(w.Body.String(), w.Header().Get("X-Request-Id"), "id"), "t=")
					if w.Code == http.StatusTooManyRequests {
						w.Header().Del("RateLimit") // of the limits that did not deny it tells what leases happened to hold
					}
					return fmt.Sprint(w.Code, describe(w.Header()), " ", body, " -> ", describe(*passed))
				}
				if a, b := send(with, passedWith), send(without, passedWithout); a != b {
					t.Fatalf("request %d (%q from %s):\nsteady   %s\npipeline %s", n, credential, remote, a, b)
				}
			}
		})
	}
}

var instants = regexp.MustCompile(`\bt=\d+|^\d+$|"retry_after":\d+`)

// describe is a header without what differs from request to request.
func describe(h http.Header) string {
	text := ""
	for _, name := range slices.Sorted(maps.Keys(h)) {
		switch value := strings.Join(h[name], "|"); name {
		case "X-Request-Id", "Content-Length":
			text += fmt.Sprintf(" %s: %d", name, len(value))
		case "Ratelimit", "Retry-After": // seconds pass
			text += fmt.Sprintf(" %s: %s", name, instants.ReplaceAllString(value, "t="))
		default:
			text += fmt.Sprintf(" %s: %s", name, value)
		}
	}
	return text
}
