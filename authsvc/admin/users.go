package admin

import (
	"fmt"
	"net/http"
	"strings"

	"github.com/labstack/echo/v4"

	"github.com/sluice-gateway/sluice/authsvc/identity"
	"github.com/sluice-gateway/sluice/authsvc/refusal"
	"github.com/sluice-gateway/sluice/authsvc/token"
)

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
