package admin

import (
	"net/http"
	"strings"

	"github.com/labstack/echo/v4"

	"github.com/sluice-gateway/sluice/authsvc/keys"
	"github.com/sluice-gateway/sluice/authsvc/listener"
	"github.com/sluice-gateway/sluice/authsvc/refusal"
)

// maxBody bounds every request body of the admin interface.
const maxBody = 64 << 10

// Handler is the inner interface. Two secrets open it (design: operator-tokens): the
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
