// Package refusal is every answer of authsvc other than yes, on both listeners.
// Whatever refuses a request returns an error, and Of makes of it what the client
// is told: a problem (RFC 9457) with the codes of OAuth (RFC 6749, RFC 6750).
// What the operator is told stays in Cause, and goes to the log.
package refusal

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/sluice-gateway/sluice/authsvc/identity"
	"github.com/sluice-gateway/sluice/authsvc/keys"
	"github.com/sluice-gateway/sluice/authsvc/store"
	"github.com/sluice-gateway/sluice/authsvc/token"
)

// Refusal is an answer other than yes. The client gets code and detail, the
// log gets cause; nothing else writes 4xx and 5xx.
type Refusal struct {
	Status     int
	Code       string // RFC 6750 or RFC 6749 error; empty: none
	Detail     string // for the client
	Scope      string // what was asked for, with insufficient_scope
	Challenge  bool   // send WWW-Authenticate
	RetryAfter int    // seconds; 0: none
	Cause      error  // for the operator
}

// Error is for the log: it holds the cause.
func (r *Refusal) Error() string {
	if r.Cause != nil {
		return r.Detail + ": " + r.Cause.Error()
	}
	return r.Detail
}

// Unwrap implements errors.Unwrap.
func (r *Refusal) Unwrap() error { return r.Cause }

// Problem is RFC 9457, with the members of RFC 6749 section 5.2 beside it.
type Problem struct {
	Type        string `json:"type"`
	Title       string `json:"title"`
	Status      int    `json:"status"`
	Detail      string `json:"detail,omitempty"`
	Error       string `json:"error,omitempty"`
	Description string `json:"error_description,omitempty"`
	RequestID   string `json:"request_id,omitempty"`
}

// Write sends the answer.
func (r *Refusal) Write(w http.ResponseWriter, requestID string) {
	h := w.Header()
	h.Set("Content-Type", "application/problem+json")
	h.Set("Cache-Control", "no-store")
	if r.Challenge {
		h.Set("WWW-Authenticate", r.authenticate())
	}
	if r.RetryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(r.RetryAfter))
	}
	body := Problem{
		Type: "about:blank", Title: http.StatusText(r.Status), Status: r.Status, Detail: r.Detail,
		Error: r.Code, RequestID: requestID,
	}
	if r.Code != "" {
		body.Description = r.Detail
	}
	w.WriteHeader(r.Status)
	_ = json.NewEncoder(w).Encode(body) // the client may be gone
}

// authenticate is the challenge of RFC 6750 section 3. A request without a
// credential gets no error code: it has done nothing wrong yet.
func (r *Refusal) authenticate() string {
	var b strings.Builder
	b.WriteString(`Bearer realm="sluice"`)
	if r.Code != "" {
		fmt.Fprintf(&b, `, error=%q, error_description=%q`, r.Code, r.Detail)
	}
	if r.Scope != "" {
		fmt.Fprintf(&b, `, scope=%q`, r.Scope)
	}
	return b.String()
}

// NoCredential asks for one.
var NoCredential = &Refusal{Status: http.StatusUnauthorized, Challenge: true, Detail: "A bearer token is required."}

// InvalidToken is 401 with a challenge.
func InvalidToken(detail string, cause error) *Refusal {
	return &Refusal{Status: http.StatusUnauthorized, Code: "invalid_token", Challenge: true, Detail: detail, Cause: cause}
}

// InsufficientScope is 403; scope is what was asked for.
func InsufficientScope(scope string) *Refusal {
	return &Refusal{
		Status: http.StatusForbidden, Code: "insufficient_scope", Challenge: true,
		Detail: "The token lacks a scope that this needs.", Scope: scope,
	}
}

// InvalidRequest is 400.
func InvalidRequest(detail string, cause error) *Refusal {
	return &Refusal{Status: http.StatusBadRequest, Code: "invalid_request", Detail: detail, Cause: cause}
}

// InvalidGrant is what a bad refresh token is answered with.
func InvalidGrant(cause error) *Refusal {
	return &Refusal{
		Status: http.StatusBadRequest, Code: "invalid_grant",
		Detail: "The refresh token is not valid, or no longer.", Cause: cause,
	}
}

// CannotDecide is 503, for now.
func CannotDecide(cause error) *Refusal {
	return &Refusal{
		Status: http.StatusServiceUnavailable, RetryAfter: 1,
		Detail: "This cannot be decided at the moment; try again.", Cause: cause,
	}
}

// Of turns the errors of verification and storage into refusals.
func Of(err error) *Refusal {
	var no *Refusal
	switch {
	case errors.As(err, &no):
		return no
	case errors.Is(err, keys.ErrNoDir), errors.Is(err, keys.ErrReadOnly):
		return &Refusal{Status: http.StatusConflict, Detail: err.Error() + "."}
	case errors.Is(err, store.ErrAway), errors.Is(err, identity.ErrKeysPending):
		return CannotDecide(err)
	case errors.Is(err, token.ErrExpired):
		return InvalidToken("The token has expired.", err)
	case errors.Is(err, token.ErrTooLarge):
		return InvalidToken("The token is larger than is accepted.", err)
	case errors.Is(err, token.ErrMalformed):
		return InvalidToken("The token is malformed.", err)
	case errors.Is(err, token.ErrAlgorithm), errors.Is(err, token.ErrNoKey),
		errors.Is(err, token.ErrSignature), errors.Is(err, token.ErrClaims), errors.Is(err, identity.ErrRevoked):
		return InvalidToken("The token is not valid.", err)
	}
	return &Refusal{Status: http.StatusInternalServerError, Detail: "Something went wrong here.", Cause: err}
}
