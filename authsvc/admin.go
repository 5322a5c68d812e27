package authsvc

import (
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/sluice-gateway/sluice/authsvc/identity"
	"github.com/sluice-gateway/sluice/authsvc/keys"
	"github.com/sluice-gateway/sluice/authsvc/refusal"
	"github.com/sluice-gateway/sluice/authsvc/token"
)

// maxBody bounds every request body of the admin interface.
const maxBody = 64 << 10

// adminRoutes is the inner interface. Two secrets open it (RULES 29): the
// admin token everything, the issuer token only what a login service needs, so
// that a break-in there cannot reset limits or revoke the rest of the world.
func (s *Service) adminRoutes() http.Handler {
	e := s.newEcho()
	s.healthRoutes(e)
	e.GET("/readyz/issuing", s.readyToIssue)
	e.GET("/metrics", echo.WrapHandler(s.metrics.handler()))

	e.Use(beginAction)
	login := e.Group("/v1/tokens", s.guard(s.admin, s.issuing))
	login.POST("", s.postTokens)
	login.POST("/refresh", s.postRefresh)
	login.POST("/revoke", s.postRevoke)

	admin := e.Group("/v1", s.guard(s.admin))
	admin.POST("/tokens/introspect", s.postIntrospect)
	admin.POST("/tokens/explain", s.postExplain)
	admin.POST("/users/:id/revoke", s.postUserRevoke)
	admin.GET("/limits/:name/:key", s.getLimit)
	admin.DELETE("/limits/:name/:key", s.deleteLimit)
	admin.GET("/gateways", s.getGateways)
	admin.POST("/keys/rotate", s.postKeysRotate)
	return e
}

// guard lets a request pass that bears one of the secrets.
func (s *Service) guard(accepted ...*keys.Secret) echo.MiddlewareFunc {
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
					c.Set(issuingKey, secret == s.issuing)
					s.actor(c, secret)
					c.Request().Body = http.MaxBytesReader(c.Response(), c.Request().Body, maxBody)
					return next(c)
				}
			}
			if strings.EqualFold(scheme, "Bearer") && s.issuing.Matches(presented) {
				s.actor(c, s.issuing)
				return &refusal.Refusal{Status: http.StatusForbidden, Code: "insufficient_scope", Challenge: true, Detail: "This needs the admin token."}
			}
			return refusal.InvalidToken("The admin token is not valid.", nil)
		}
	}
}

// userRevoked answers POST /v1/users/:id/revoke.
type userRevoked struct {
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
func (s *Service) postUserRevoke(c echo.Context) error {
	user, err := pathParam(c, "id")
	if err != nil {
		return err
	}
	s.target(c, "user "+s.loggable(user))
	if credentialForm.MatchString(user) {
		return refusal.InvalidRequest("The user's id looks like a token; one token is revoked by POST /v1/tokens/revoke (authsvc token revoke).", nil)
	}
	if err := token.CheckHeaderText(user); err != nil || user == "" || len(user) > identity.MaxUser {
		return refusal.InvalidRequest("The user's id is not one.", err)
	}
	prefixes := s.judge.Prefixes()
	if s.judge.Owner(user) == nil {
		detail := fmt.Sprintf("No issuer has users of this name; prefixes: %s.", strings.Join(prefixes, ", "))
		if len(s.judge.Issuers()) == 0 {
			detail = "No issuer is configured and own.keyDir is empty: no token of anybody's is accepted."
		}
		return &refusal.Refusal{Status: http.StatusNotFound, Detail: detail}
	}
	before, err := s.store.RevokeUser(c.Request().Context(), user)
	if err != nil {
		return err
	}
	s.metrics.revoked.WithLabelValues("user").Inc()
	answer := userRevoked{UserID: user, Before: before}
	if _, answer.Known, err = s.store.User(c.Request().Context(), user); err != nil {
		return err
	}
	if !answer.Known {
		answer.Prefixes = prefixes
		for _, prefix := range prefixes {
			if _, known, err := s.store.User(c.Request().Context(), prefix+user); known && err == nil {
				answer.DidYouMean = append(answer.DidYouMean, prefix+user)
			}
		}
		outcome(c, "nothing is known of this user; void all the same")
	}
	return c.JSON(http.StatusOK, answer)
}

// postKeysRotate is POST /v1/keys/rotate.
func (s *Service) postKeysRotate(c echo.Context) error {
	s.target(c, "keys")
	if err := s.keyDir.Rotate(time.Now()); err != nil {
		return err
	}
	type schedule struct {
		ID        string    `json:"kid"`
		Algorithm string    `json:"alg"`
		Activates time.Time `json:"activates"`
		Retires   time.Time `json:"retires,omitzero"`
	}
	var keys []schedule
	for _, key := range s.keyDir.Living() {
		keys = append(keys, schedule{key.KeyID, key.Algorithm, key.Activates, key.Retires})
	}
	return c.JSON(http.StatusOK, map[string]any{"keys": keys})
}
