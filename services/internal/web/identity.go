package web

import (
	"net/http"

	"github.com/labstack/echo/v4"
)

// UserHeader carries the id that the gateway has validated. It is the only
// identity these services know; a bearer token never reaches them.
const UserHeader = "X-User-ID"

// Protect refuses requests without an identity. The gateway lets none through;
// this holds should a route ever be wired without it.
func Protect(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		// Two values mean that somebody besides the gateway had a say.
		if values := c.Request().Header.Values(UserHeader); len(values) != 1 || values[0] == "" {
			return Refuse(http.StatusUnauthorized, "the gateway has named no user for this request")
		}
		return next(c)
	}
}

// UserID is the caller of a protected route.
func UserID(c echo.Context) string { return c.Request().Header.Get(UserHeader) }
