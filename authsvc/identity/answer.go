package identity

import (
	"fmt"
	"net/http"
	"time"

	"github.com/sluice-gateway/sluice/authsvc/config"
)

// Answer writes who the bearer is and how long that may be believed (design: stale-if-error):
// stale-if-error counts from the end of freshness (RFC 5861), so both together
// must not outlive the token. What is not certain is fresh for a second at most:
// the gateway, whose own stream of events may be whole, would otherwise keep for
// cache.maxAge what this replica could not know.
func (v *Verifier) Answer(h http.Header, who *Identity, certain bool, now time.Time) {
	h[config.HeaderUserID] = []string{who.User}
	h[config.HeaderTokenID] = []string{who.TokenID}
	if who.Session != "" {
		h[config.HeaderSessionID] = []string{who.Session}
	}
	for _, header := range who.Headers {
		h.Set(header[0], header[1])
	}
	cache := v.config.Cache
	if !certain {
		cache.MaxAge = min(cache.MaxAge, uncertainAge)
	}
	h.Set("Cache-Control", cacheControl(who.Expires.Sub(now), cache))
}

// uncertainAge is how long an answer is fresh that may have missed a revocation.
const uncertainAge = time.Second

func cacheControl(left time.Duration, c config.Cache) string {
	life := int64(left / time.Second)
	maxAge := min(int64(c.MaxAge/time.Second), life)
	if maxAge < 1 {
		return "no-store"
	}
	stale := min(int64(c.StaleIfError/time.Second), life-maxAge)
	return fmt.Sprintf("private, max-age=%d, stale-if-error=%d", maxAge, stale)
}
