package forms_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// TestRememberedDenial: what memory refuses is refused in the words of the engine, to
// the byte, but for the request's name.
func TestRememberedDenial(t *testing.T) {
	configs := []string{
		`limits: [{name: a, key: ip, limit: 2, window: 744h}]`,
		`limits: [{name: a, key: ip, limit: 70, window: 744h, cost: 35}]`,
		`limits: [{name: "a", key: ip, limit: 2, window: 744h}, {name: b, key: ip, limit: 2, window: 740h}], legacyHeaders: true`,
		`auth: {addresses: ["AUTH"]}, limits: [{name: a, key: user, limit: 1, window: 744h, tierHeader: X-User-Plan, tiers: {pro: 2}}]`,
		`auth: {addresses: ["AUTH"]}, limits: [{name: b, key: ip, limit: 2, window: 744h}, {name: a, key: user, limit: 9, window: 744h}]`,
	}
	both(t, func(t *testing.T, b *bed) {
		prefix := b.prefix
		for n, config := range configs {
			b.prefix = fmt.Sprint(prefix, "-", n)
			send := func(gate http.Handler) string {
				w, r := httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil)
				r.RemoteAddr = "203.0.113.9:1"
				r.Header.Set("Authorization", "Bearer user-ann.pro")
				gate.ServeHTTP(w, r)
				id := w.Header().Get("X-Request-Id")
				w.Header().Set("X-Request-Id", "id")
				if id == "" || !strings.Contains(w.Body.String(), id) && w.Code != http.StatusOK {
					t.Fatalf("%s: %d %s does not name %q", config, w.Code, w.Body, id)
				}
				return fmt.Sprint(w.Code, w.Header(), strings.ReplaceAll(w.Body.String(), id, "id"))
			}
			first := b.gate("{redis: REDIS, " + config + "}")
			for send(first)[:3] == "200" {
			}
			var asked, remembered string
			for again := range 5 { // a second may pass between the two
				gate := b.gate(fmt.Sprintf("{redis: REDIS, maxKeys: %d, %s}", 1000+again, config))
				asked, remembered = send(gate), send(gate)
				if asked == remembered {
					break
				}
			}
			if asked != remembered || asked[:3] != "429" {
				t.Errorf("%s:\nengine %s\nmemory %s", config, asked, remembered)
			}
		}
	})
}
