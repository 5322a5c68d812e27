package web

import (
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"time"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"
)

// logRequests writes one line a request. It names the route, not the path, and
// no user: ids of users and of what they own do not belong into logs (design: operator-tokens).
func logRequests(log *slog.Logger) echo.MiddlewareFunc {
	return func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) error {
			start := time.Now()
			err := next(c)
			if err != nil {
				c.Error(err)
			}
			level := slog.LevelInfo
			attributes := []slog.Attr{
				slog.String("request_id", requestID(c)),
				slog.String("method", c.Request().Method),
				slog.String("route", c.Path()),
				slog.Int("status", c.Response().Status),
				slog.Duration("duration", time.Since(start)),
			}
			if err != nil && c.Response().Status >= http.StatusInternalServerError {
				level = slog.LevelError
				attributes = append(attributes, slog.Any("error", err))
			}
			log.LogAttrs(c.Request().Context(), level, "request", attributes...)
			return nil
		}
	}
}

// recoverPanics turns a panic of a handler into an error that is logged with
// the request's id. http.ErrAbortHandler is net/http's own way to drop a
// connection and stays a panic.
func recoverPanics(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) (err error) {
		defer func() {
			switch cause := recover(); cause {
			case nil:
			case http.ErrAbortHandler:
				panic(cause)
			default:
				err = fmt.Errorf("panic: %v\n%s", cause, debug.Stack())
			}
		}()
		return next(c)
	}
}

// requestID is the gateway's id of the request. Anything that is no UUID did
// not come from the gateway and is not repeated.
func requestID(c echo.Context) string {
	id := c.Request().Header.Get(echo.HeaderXRequestID)
	if uuid.Validate(id) != nil {
		return ""
	}
	return id
}
