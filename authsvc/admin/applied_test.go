package admin

import (
	"testing"

	"github.com/sluice-gateway/sluice/authsvc/store"
	"github.com/sluice-gateway/sluice/plugin/window"
)

// The limit of a user, as the gateways find it (plugin/limits.go, permitted).
func TestAppliedLimit(t *testing.T) {
	l := store.Limit{
		Name: "l", Key: "user", WindowMS: 60_000, Limit: 10, Cost: 1, TierHeader: "X-User-Plan", LimitHeader: "X-User-Limit",
		Tiers: map[string]int64{"pro": 100, "big deal": 500, "max": 1000}, Ranked: []string{"max", "pro", "big deal"},
	}
	for headers, want := range map[[2]string]int64{
		{"", ""}: 10, {"free", ""}: 10, {"pro", ""}: 100, {"Pro", ""}: 10, {"pro offline_access", ""}: 100, {"pro max", ""}: 1000,
		{"pro,max", ""}: 1000, {"big deal", ""}: 500, {"prof", ""}: 10, {"pro", "7"}: 7, {"pro", "0"}: 0, {"pro", "1000000.0"}: 1_000_000,
		{"pro", "1e3"}: 1000, {"pro", "-1"}: 100, {"pro", "1.5"}: 100, {"pro", "0x10"}: 100, {"", "x"}: 10,
	} {
		given := map[string]string{"x-user-plan": headers[0], "X-User-Limit": headers[1]}
		if got, because := applied(l, given, true); got.Limit != want || because == "" {
			t.Errorf("%q: %d because %s, want %d", headers, got.Limit, because, want)
		}
	}
	if got, _ := applied(l, map[string]string{"X-User-Limit": "unlimited"}, true); got.Limit != window.MaxLimit {
		t.Errorf("unlimited: %d", got.Limit)
	}
}
