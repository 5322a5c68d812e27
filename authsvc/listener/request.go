package listener

import (
	"log/slog"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"github.com/sluice-gateway/sluice/authsvc/refusal"
)

// What is told by echo's context.
const (
	refusedKey   = "refused"    // *refusal.Refusal
	requestIDKey = "request id" // string
	noteKey      = "note"       // func(*refusal.Refusal) []slog.Attr
)

// Note adds to the line that a request gets in the log. It is asked at the end,
// with what refused the request; nil: nothing did.
func Note(c echo.Context, attributes func(no *refusal.Refusal) []slog.Attr) {
	c.Set(noteKey, attributes)
}

// method keeps strangers' inventions out of logs and labels.
func method(name string) string {
	switch name {
	case "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS":
		return name
	}
	return "other"
}

// acceptRequestID keeps the gateway's id, if it is a canonical UUID: anything
// else could forge lines in the log.
func acceptRequestID(presented string) string {
	if id, err := uuid.Parse(presented); err == nil && id.String() == presented {
		return presented
	}
	return uuid.NewString()
}

// RequestID is the gateway's, or one that was made here.
func RequestID(c echo.Context) string {
	id, _ := c.Get(requestIDKey).(string)
	return id
}
