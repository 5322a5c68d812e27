package identity

import (
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/authsvc/config"
)

// design: stale-if-error: freshness and staleness together never outlive the token.
func TestCacheControl(t *testing.T) {
	c := config.Cache{MaxAge: time.Minute, StaleIfError: 5 * time.Minute}
	for _, test := range []struct {
		left time.Duration
		want string
	}{
		{time.Hour, "private, max-age=60, stale-if-error=300"},
		{60 * time.Second, "private, max-age=60, stale-if-error=0"},
		{90*time.Second + 900*time.Millisecond, "private, max-age=60, stale-if-error=30"},
		{1500 * time.Millisecond, "private, max-age=1, stale-if-error=0"},
		{999 * time.Millisecond, "no-store"},
		{0, "no-store"},
		{-3 * time.Second, "no-store"}, // within the leeway
	} {
		if got := cacheControl(test.left, c); got != test.want {
			t.Errorf("%s: %q, want %q", test.left, got, test.want)
		}
	}
}
