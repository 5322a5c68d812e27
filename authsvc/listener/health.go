package listener

import (
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/sluice-gateway/sluice/authsvc/identity"
	"github.com/sluice-gateway/sluice/authsvc/keys"
	"github.com/sluice-gateway/sluice/authsvc/refusal"
	"github.com/sluice-gateway/sluice/authsvc/store"
)

// Health says what this authsvc can do at the moment.
type Health struct {
	Keys  *keys.Dir
	Judge *identity.Judge
	Store *store.Store
	Deny  bool      // onRedisFailure: deny
	Since time.Time // the service has run since
}

// Routes are those of health checks, which both listeners answer.
func (h *Health) Routes(e *echo.Echo) {
	e.GET("/healthz", func(c echo.Context) error { return c.String(http.StatusOK, "ok\n") })
	e.GET("/readyz", h.ready)
}

// keysGrace is for how long after the start an issuer without keys makes the
// service not ready. A replica that has just come gets no requests that others
// could judge, and a rollout waits for it; but an issuer that stays away must
// not take the users of all the others with it.
const keysGrace = time.Minute

// ready says whether requests can be decided. With onRedisFailure verify they
// can be without Redis, so a balancer must not take all replicas out then.
func (h *Health) ready(c echo.Context) error {
	if _, err := h.Keys.Signer(time.Now()); err != nil && !h.Keys.None() {
		return refusal.CannotDecide(err)
	}
	if h.Deny && h.Store.Away() {
		return refusal.CannotDecide(store.ErrAway)
	}
	if pending := h.Judge.Pending(); pending != nil {
		detail := fmt.Sprintf("The keys of issuer %s have never been fetched; its tokens are answered 503, and the log says why.", strings.Join(pending, ", "))
		if time.Since(h.Since) < keysGrace {
			no := refusal.CannotDecide(identity.ErrKeysPending)
			no.Detail = detail
			return no
		}
		return c.String(http.StatusOK, "ready, but not for all. "+detail+"\n")
	}
	if h.Store.Unable() != nil {
		return c.String(http.StatusOK, "ready to judge tokens; none can be issued or revoked, see /readyz/issuing of the admin listener\n")
	}
	return c.String(http.StatusOK, "ready\n")
}

// ReadyToIssue says whether tokens can be issued, refreshed and revoked, which
// needs Redis whatever onRedisFailure says, and what keeps them from it.
func (h *Health) ReadyToIssue(c echo.Context) error {
	if err := h.Store.Unable(); err != nil {
		return &refusal.Refusal{
			Status: http.StatusServiceUnavailable, RetryAfter: 1, Cause: err,
			Detail: "No token can be issued or revoked: " + err.Error() + ".",
		}
	}
	if _, err := h.Keys.Signer(time.Now()); err != nil && !h.Keys.None() {
		return refusal.CannotDecide(err)
	}
	return c.String(http.StatusOK, "ready\n")
}
