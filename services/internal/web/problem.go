package web

import (
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"strconv"
	"time"

	"github.com/labstack/echo/v4"
)

// Problem is a refusal as the client reads it (RFC 9457). Cause is for the log
// alone: what went wrong inside is the operator's business.
type Problem struct {
	Status     int           `json:"-"`
	Detail     string        `json:"-"`
	Fields     []FieldError  `json:"-"`
	RetryAfter time.Duration `json:"-"` // 0: no Retry-After
	Cause      error         `json:"-"`
}

// FieldError names one field of the request and what it should have been.
type FieldError struct {
	Field  string `json:"field"` // path in the body, such as items[1].quantity
	Detail string `json:"detail"`
}

// Refuse makes a Problem that has nothing to say but its detail.
func Refuse(status int, detail string) *Problem { return &Problem{Status: status, Detail: detail} }

// Unavailable is the answer when something that this service needs is away.
func Unavailable(detail string, cause error) *Problem {
	return &Problem{Status: http.StatusServiceUnavailable, Detail: detail, RetryAfter: time.Second, Cause: cause}
}

func (p *Problem) Error() string {
	if p.Cause != nil {
		return p.Detail + ": " + p.Cause.Error()
	}
	return p.Detail
}

func (p *Problem) Unwrap() error { return p.Cause }

// writeError is the one place where a refusal becomes bytes. Errors that are no
// Problem are Echo's own (404, 405) or ours to fix; the client learns nothing
// of the latter but that they happened.
func writeError(err error, c echo.Context) {
	if c.Response().Committed {
		return
	}
	problem := asProblem(err)
	header := c.Response().Header()
	header.Set(echo.HeaderContentType, "application/problem+json")
	header.Set(echo.HeaderCacheControl, "no-store")
	if problem.Status == http.StatusUnauthorized {
		header.Set(echo.HeaderWWWAuthenticate, `Bearer realm="sluice"`) // a 401 must carry one: RFC 9110 section 11.6.1
	}
	if problem.RetryAfter > 0 {
		seconds := (problem.RetryAfter + time.Second - 1) / time.Second
		header.Set(echo.HeaderRetryAfter, strconv.FormatInt(int64(seconds), 10))
	}
	body, err := json.Marshal(struct {
		Type      string       `json:"type"`
		Title     string       `json:"title"`
		Status    int          `json:"status"`
		Detail    string       `json:"detail,omitempty"`
		Errors    []FieldError `json:"errors,omitempty"`
		RequestID string       `json:"request_id,omitempty"`
	}{"about:blank", http.StatusText(problem.Status), problem.Status, problem.Detail, problem.Fields, requestID(c)})
	if err != nil { // strings and integers always marshal
		slog.Error("problem not written", "error", err)
		return
	}
	c.Response().WriteHeader(problem.Status)
	_, _ = c.Response().Write(body) // the client may be gone, which is its own affair
}

func asProblem(err error) *Problem {
	var problem *Problem
	if errors.As(err, &problem) {
		return problem
	}
	var known *echo.HTTPError
	if errors.As(err, &known) && known.Code >= 400 && known.Code < 500 {
		return &Problem{Status: known.Code, Cause: err}
	}
	return &Problem{Status: http.StatusInternalServerError, Cause: err}
}
