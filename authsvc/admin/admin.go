// Package admin is the inner listener: it issues tokens and takes them back,
// explains them, shows and resets limits, and has the metrics. It is never
// reachable from outside.
//
// A request to /v1 bears one of two secrets (guard). Who that makes the caller,
// what the request is aimed at and how it ended stands in the log (action.go).
// Tokens are issued and refreshed by package session, judged by package identity
// and taken back in the store (tokens.go); a token is explained with the limits
// that gateways would apply to its user (explain.go, applied.go). Limits and
// gateways are what the gateways' heartbeats say (limits.go).
package admin

import (
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/sluice-gateway/sluice/authsvc/config"
	"github.com/sluice-gateway/sluice/authsvc/identity"
	"github.com/sluice-gateway/sluice/authsvc/internal/task"
	"github.com/sluice-gateway/sluice/authsvc/keys"
	"github.com/sluice-gateway/sluice/authsvc/listener"
	"github.com/sluice-gateway/sluice/authsvc/refusal"
	"github.com/sluice-gateway/sluice/authsvc/session"
	"github.com/sluice-gateway/sluice/authsvc/store"
	"github.com/sluice-gateway/sluice/authsvc/token"
)

// maxBody bounds every request body of the admin interface.
const maxBody = 64 << 10

// Interface is all that the listener acts upon. Set the fields, then Handler.
type Interface struct {
	Config   *config.Config
	Keys     *keys.Dir
	Judge    *identity.Judge
	Sessions *session.Sessions
	Store    *store.Store
	Tasks    *task.Group // whose panics are counted

	// Admin opens everything, Issuing what a login service needs.
	Admin, Issuing *keys.Secret

	revoked *prometheus.CounterVec
}

// Handler is the inner interface. Two secrets open it (RULES 29): the
// admin token everything, the issuer token only what a login service needs, so
// that a break-in there cannot reset limits or revoke the rest of the world.
func (i *Interface) Handler(l *listener.Listener, health *listener.Health) http.Handler {
	e := l.Router()
	health.Routes(e)
	e.GET("/readyz/issuing", health.ReadyToIssue)
	e.GET("/metrics", i.metrics(l))

	e.Use(beginAction)
	login := e.Group("/v1/tokens", i.guard(i.Admin, i.Issuing))
	login.POST("", i.postTokens)
	login.POST("/refresh", i.postRefresh)
	login.POST("/revoke", i.postRevoke)

	admin := e.Group("/v1", i.guard(i.Admin))
	admin.POST("/tokens/introspect", i.postIntrospect)
	admin.POST("/tokens/explain", i.postExplain)
	admin.POST("/users/:id/revoke", i.postUserRevoke)
	admin.GET("/limits/:name/:key", i.getLimit)
	admin.DELETE("/limits/:name/:key", i.deleteLimit)
	admin.GET("/gateways", i.getGateways)
	admin.POST("/keys/rotate", i.postKeysRotate)
	return e
}

// guard lets a request pass that bears one of the secrets.
func (i *Interface) guard(accepted ...*keys.Secret) echo.MiddlewareFunc {
	return func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) error {
			values := c.Request().Header.Values("Authorization")
			if len(values) > 1 {
				return refusal.InvalidRequest("There is more than one Authorization header.", nil)
			}
			if len(values) == 0 {
				return refusal.NoCredential
			}
			scheme, presented, _ := strings.Cut(values[0], " ")
			for _, secret := range accepted {
				if strings.EqualFold(scheme, "Bearer") && secret.Matches(presented) {
					c.Set(issuingKey, secret == i.Issuing)
					i.actor(c, secret)
					c.Request().Body = http.MaxBytesReader(c.Response(), c.Request().Body, maxBody)
					return next(c)
				}
			}
			if strings.EqualFold(scheme, "Bearer") && i.Issuing.Matches(presented) {
				i.actor(c, i.Issuing)
				return &refusal.Refusal{Status: http.StatusForbidden, Code: "insufficient_scope", Challenge: true, Detail: "This needs the admin token."}
			}
			return refusal.InvalidToken("The admin token is not valid.", nil)
		}
	}
}

// UserRevoked answers POST /v1/users/:id/revoke.
type UserRevoked struct {
	UserID string `json:"user_id"`
	Before int64  `json:"before"` // unix ms; what was issued until then is void
	// Known is false where no living token of the user was issued or seen; then
	// DidYouMean are users of whom one was, and Prefixes what users' names begin
	// with.
	Known      bool     `json:"known"`
	DidYouMean []string `json:"did_you_mean,omitempty"`
	Prefixes   []string `json:"prefixes,omitempty"`
}

// postUserRevoke is POST /v1/users/:id/revoke; id is the user as services see
// it in X-User-ID. A name that belongs to an issuer is voided whether or not
// it is known: Redis may have forgotten the user.
func (i *Interface) postUserRevoke(c echo.Context) error {
	user, err := pathParam(c, "id")
	if err != nil {
		return err
	}
	i.target(c, "user "+i.loggable(user))
	if credentialForm.MatchString(user) {
		return refusal.InvalidRequest("The user's id looks like a token; one token is revoked by POST /v1/tokens/revoke (authsvc token revoke).", nil)
	}
	if err := token.CheckHeaderText(user); err != nil || user == "" || len(user) > identity.MaxUser {
		return refusal.InvalidRequest("The user's id is not one.", err)
	}
	prefixes := i.Judge.Prefixes()
	if i.Judge.Owner(user) == nil {
		detail := fmt.Sprintf("No issuer has users of this name; prefixes: %s.", strings.Join(prefixes, ", "))
		if len(i.Judge.Issuers()) == 0 {
			detail = "No issuer is configured and own.keyDir is empty: no token of anybody's is accepted."
		}
		return &refusal.Refusal{Status: http.StatusNotFound, Detail: detail}
	}
	before, err := i.Store.RevokeUser(c.Request().Context(), user)
	if err != nil {
		return err
	}
	i.revoked.WithLabelValues("user").Inc()
	answer := UserRevoked{UserID: user, Before: before}
	if _, answer.Known, err = i.Store.User(c.Request().Context(), user); err != nil {
		return err
	}
	if !answer.Known {
		answer.Prefixes = prefixes
		for _, prefix := range prefixes {
			if _, known, err := i.Store.User(c.Request().Context(), prefix+user); known && err == nil {
				answer.DidYouMean = append(answer.DidYouMean, prefix+user)
			}
		}
		outcome(c, "nothing is known of this user; void all the same")
	}
	return c.JSON(http.StatusOK, answer)
}

// postKeysRotate is POST /v1/keys/rotate.
func (i *Interface) postKeysRotate(c echo.Context) error {
	i.target(c, "keys")
	if err := i.Keys.Rotate(time.Now()); err != nil {
		return err
	}
	type schedule struct {
		ID        string    `json:"kid"`
		Algorithm string    `json:"alg"`
		Activates time.Time `json:"activates"`
		Retires   time.Time `json:"retires,omitzero"`
	}
	var keys []schedule
	for _, key := range i.Keys.Living() {
		keys = append(keys, schedule{key.KeyID, key.Algorithm, key.Activates, key.Retires})
	}
	return c.JSON(http.StatusOK, map[string]any{"keys": keys})
}
