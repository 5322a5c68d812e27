package authsvc

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/labstack/echo/v4"

	"github.com/sluice-gateway/sluice/authsvc/store"
	"github.com/sluice-gateway/sluice/authsvc/token"
)

// refusal is an answer other than yes. The client gets code and detail, the
// log gets cause; nothing else writes 4xx and 5xx.
type refusal struct {
	status     int
	code       string // RFC 6750 or RFC 6749 error; empty: none
	detail     string // for the client
	scope      string // what was asked for, with insufficient_scope
	challenge  bool   // send WWW-Authenticate
	retryAfter int    // seconds; 0: none
	cause      error  // for the operator
}

func (r *refusal) Error() string {
	if r.cause != nil {
		return r.detail + ": " + r.cause.Error()
	}
	return r.detail
}

func (r *refusal) Unwrap() error { return r.cause }

// problem is RFC 9457, with the members of RFC 6749 section 5.2 beside it.
type problem struct {
	Type        string `json:"type"`
	Title       string `json:"title"`
	Status      int    `json:"status"`
	Detail      string `json:"detail,omitempty"`
	Error       string `json:"error,omitempty"`
	Description string `json:"error_description,omitempty"`
	RequestID   string `json:"request_id,omitempty"`
}

func (r *refusal) write(w http.ResponseWriter, requestID string) {
	h := w.Header()
	h.Set("Content-Type", "application/problem+json")
	h.Set("Cache-Control", "no-store")
	if r.challenge {
		h.Set("WWW-Authenticate", r.authenticate())
	}
	if r.retryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(r.retryAfter))
	}
	body := problem{
		Type: "about:blank", Title: http.StatusText(r.status), Status: r.status, Detail: r.detail,
		Error: r.code, RequestID: requestID,
	}
	if r.code != "" {
		body.Description = r.detail
	}
	w.WriteHeader(r.status)
	_ = json.NewEncoder(w).Encode(body) // the client may be gone
}

// authenticate is the challenge of RFC 6750 section 3. A request without a
// credential gets no error code: it has done nothing wrong yet.
func (r *refusal) authenticate() string {
	var b strings.Builder
	b.WriteString(`Bearer realm="sluice"`)
	if r.code != "" {
		fmt.Fprintf(&b, `, error=%q, error_description=%q`, r.code, r.detail)
	}
	if r.scope != "" {
		fmt.Fprintf(&b, `, scope=%q`, r.scope)
	}
	return b.String()
}

var noCredential = &refusal{status: http.StatusUnauthorized, challenge: true, detail: "A bearer token is required."}

func invalidToken(detail string, cause error) *refusal {
	return &refusal{status: http.StatusUnauthorized, code: "invalid_token", challenge: true, detail: detail, cause: cause}
}

func insufficientScope(scope string) *refusal {
	return &refusal{
		status: http.StatusForbidden, code: "insufficient_scope", challenge: true,
		detail: "The token lacks a scope that this needs.", scope: scope,
	}
}

func invalidRequest(detail string, cause error) *refusal {
	return &refusal{status: http.StatusBadRequest, code: "invalid_request", detail: detail, cause: cause}
}

func invalidGrant(cause error) *refusal {
	return &refusal{
		status: http.StatusBadRequest, code: "invalid_grant",
		detail: "The refresh token is not valid, or no longer.", cause: cause,
	}
}

func cannotDecide(cause error) *refusal {
	return &refusal{
		status: http.StatusServiceUnavailable, retryAfter: 1,
		detail: "This cannot be decided at the moment; try again.", cause: cause,
	}
}

// refuse turns the errors of verification and storage into refusals.
func refuse(err error) *refusal {
	var no *refusal
	switch {
	case errors.As(err, &no):
		return no
	case errors.Is(err, store.ErrAway), errors.Is(err, errKeysPending):
		return cannotDecide(err)
	case errors.Is(err, token.ErrExpired):
		return invalidToken("The token has expired.", err)
	case errors.Is(err, token.ErrTooLarge):
		return invalidToken("The token is larger than is accepted.", err)
	case errors.Is(err, token.ErrMalformed):
		return invalidToken("The token is malformed.", err)
	case errors.Is(err, token.ErrAlgorithm), errors.Is(err, token.ErrNoKey),
		errors.Is(err, token.ErrSignature), errors.Is(err, token.ErrClaims), errors.Is(err, errRevoked):
		return invalidToken("The token is not valid.", err)
	}
	return &refusal{status: http.StatusInternalServerError, detail: "Something went wrong here.", cause: err}
}

// refuseEcho is Echo's error handler: its own errors (404, 405, 413) become
// problems as well.
func refuseEcho(err error, c echo.Context) {
	var fromEcho *echo.HTTPError
	no := refuse(err)
	if errors.As(err, &fromEcho) {
		no = &refusal{status: fromEcho.Code, detail: http.StatusText(fromEcho.Code), cause: err}
	}
	c.Set(refusedKey, no)
	if !c.Response().Committed {
		no.write(c.Response(), requestID(c))
	}
}
