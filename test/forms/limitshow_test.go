package forms_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"testing"

	"github.com/sluice-gateway/sluice/authsvc/config"
	"github.com/sluice-gateway/sluice/test/harness"
)

// TestLimitShowAsksWhatGatewaysApply: the limit that authsvc shows of a user is
// the one that a gateway has just applied to him, whatever his token says.
func TestLimitShowAsksWhatGatewaysApply(t *testing.T) {
	waiting(t, func(t *testing.T, b *bed) {
		options := config.New()
		options.Redis.Addresses, options.Redis.KeyPrefix = []string{b.redis.Addr}, b.prefix
		options.Claims["limit"] = "X-User-Limit"
		service := harness.OpenAuthsvc(t, options)
		admin := func(method, path string, body, into any) {
			t.Helper()
			got := harness.Admin(t, service, method, path, body)
			if got.Into(t, into); got.Status != http.StatusOK {
				t.Fatalf("%s %s: %s", method, path, got)
			}
		}
		gate := b.gate(`
redis: REDIS
auth: {addresses: ["http://` + service.PublicAddr().String() + `/auth"], responseHeaders: [X-User-ID, X-User-Plan, X-User-Limit]}
limits: [{name: per-plan, key: user, limit: 5, window: 1h, tierHeader: X-User-Plan, tiers: [{pro: 20}, {max: 10}], limitHeader: X-User-Limit}]`)
		b.redis.Gateways(b.prefix) // the heartbeats tell of the limit
		for i, tt := range []struct {
			claims string
			limit  int64
		}{
			{`{}`, 5},
			{`{"plan":"free"}`, 5},
			{`{"plan":"pro"}`, 20},
			{`{"plan":["basic","max"]}`, 10},
			{`{"plan":["max","offline_access","pro"]}`, 20},
			{`{"plan":"max","limit":7}`, 7},
			{`{"limit":"1e3"}`, 1000},
			{`{"plan":"max","limit":-1}`, 10},
		} {
			user := fmt.Sprintf("user-%d", i)
			var issued struct {
				Token string `json:"access_token"`
			}
			admin("POST", "/v1/tokens", map[string]any{"user_id": user, "claims": json.RawMessage(tt.claims)}, &issued)
			w := ask(gate, with("Authorization", "Bearer "+issued.Token))
			if got, want := w.Header().Get("RateLimit-Policy"), fmt.Sprintf(`"per-plan";q=%d;w=3600`, tt.limit); w.Code != http.StatusOK || got != want {
				t.Errorf("%s: %d, RateLimit-Policy %s, want %s", tt.claims, w.Code, got, want)
			}
			var shown struct {
				Limit, Used int64
				Because     string
			}
			admin("GET", "/v1/limits/per-plan/user:"+user, nil, &shown)
			if shown.Limit != tt.limit || shown.Because == "" || shown.Used == 0 {
				t.Errorf("%s: shown %+v, applied %d", tt.claims, shown, tt.limit)
			}
			var explained struct {
				Limits []struct{ Limit int64 }
			}
			admin("POST", "/v1/tokens/explain", map[string]any{"token": issued.Token}, &explained)
			if len(explained.Limits) != 1 || explained.Limits[0].Limit != tt.limit {
				t.Errorf("%s: explained %+v, applied %d", tt.claims, explained, tt.limit)
			}
		}

		// A quota of a month, whose products are far above what 64 bits hold.
		monthly := b.gate(`
redis: REDIS
limits: [{name: month, key: ip, limit: 1000000000, window: 720h}]`)
		if w := ask(monthly); w.Code != http.StatusOK {
			t.Errorf("a billion a month: %d", w.Code)
		}
		var month struct {
			Limit, Used, Remaining, Window int64
			RetryAfter                     int64 `json:"retry_after"`
		}
		b.redis.Gateways(b.prefix)
		admin("GET", "/v1/limits/month/ip:203.0.113.7", nil, &month)
		if month.Limit != 1e9 || month.Window != 2592000 || month.Used < 1 || month.Used > 1000 || month.Remaining != 1e9-month.Used || month.RetryAfter != 0 {
			t.Errorf("a billion a month: shown %+v", month)
		}
	})
}
