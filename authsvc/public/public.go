// Package public is the listener that gateways ask: /auth, the public keys, and
// health.
//
// A request to /auth bears exactly one Authorization header with one bearer token
// (credential). Package identity judges it. It must hold every scope that the
// caller demands by ?scope=, and the answer is the identity as headers (auth.go).
package public

import (
	"fmt"
	"net/http"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/sluice-gateway/sluice/authsvc/identity"
	"github.com/sluice-gateway/sluice/authsvc/keys"
	"github.com/sluice-gateway/sluice/authsvc/listener"
)

type handler struct {
	judge        *identity.Judge
	keys         *keys.Dir
	publishAhead time.Duration
}

// Handler answers with what judge says and with the keys of a folder, which
// others know publishAhead before they sign.
func Handler(l *listener.Listener, health *listener.Health, judge *identity.Judge, dir *keys.Dir, publishAhead time.Duration) http.Handler {
	h := &handler{judge: judge, keys: dir, publishAhead: publishAhead}
	e := l.Router()
	e.GET("/auth", h.auth)
	e.HEAD("/auth", h.auth)
	e.GET("/.well-known/jwks.json", h.jwks)
	health.Routes(e)
	return e
}

func (h *handler) jwks(c echo.Context) error {
	set, err := h.keys.JWKS()
	if err != nil {
		return err
	}
	// Shorter than publishAhead, so that a reader knows a key before it signs.
	maxAge := int(h.publishAhead.Seconds() / 2)
	c.Response().Header().Set("Cache-Control", fmt.Sprintf("public, max-age=%d", maxAge))
	return c.Blob(http.StatusOK, "application/jwk-set+json", set)
}
