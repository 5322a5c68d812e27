package public

import (
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/sluice-gateway/sluice/authsvc/identity"
	"github.com/sluice-gateway/sluice/authsvc/listener"
	"github.com/sluice-gateway/sluice/authsvc/refusal"
)

// auth is GET /auth: who is the bearer?
func (h *handler) auth(c echo.Context) error {
	// A cache in front must not answer one credential with another's identity,
	// whatever the answer is.
	c.Response().Header().Set("Vary", "Authorization")
	scope, err := demanded(c.Request())
	if err != nil {
		return err
	}
	compact, err := credential(c.Request().Header)
	if err != nil {
		return err
	}
	now := time.Now()
	who, certain, err := h.judge.Authenticate(c.Request().Context(), compact, now)
	if err != nil {
		return err
	}
	listener.Note(c, func(*refusal.Refusal) []slog.Attr { return []slog.Attr{slog.String("issuer", who.Issuer.Name)} })
	for _, word := range strings.Fields(scope) {
		if !slices.Contains(who.Scopes, word) {
			return refusal.InsufficientScope(scope)
		}
	}
	h.judge.Answer(c.Response().Header(), who, certain, now)
	return c.NoContent(http.StatusOK)
}

// credential is the one bearer token of a request. Two Authorization headers
// are an attempt to have the gateway and authsvc look at different ones. More
// than one blank is refused because the gateway's cache is keyed by the whole
// credential: one token should have one spelling.
func credential(h http.Header) (string, error) {
	values := h.Values("Authorization")
	switch {
	case len(values) == 0:
		return "", refusal.NoCredential
	case len(values) > 1:
		return "", refusal.InvalidRequest("There is more than one Authorization header.", nil)
	}
	scheme, compact, found := strings.Cut(values[0], " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return "", refusal.NoCredential
	}
	if !found || compact == "" || !identity.Compact(compact) {
		return "", refusal.InvalidToken("The credential is not a bearer token.", nil)
	}
	return compact, nil
}

// demanded reads ?scope=a+b. A gateway asks for the same scope every time, so
// a malformed one is its configuration's mistake.
func demanded(r *http.Request) (string, error) {
	scope := r.URL.Query().Get("scope")
	for i := range len(scope) {
		// scope-token of RFC 6749 section 3.3, and blanks between them
		if c := scope[i]; c < 0x20 || c > 0x7e || c == '"' || c == '\\' {
			return "", refusal.InvalidRequest("The demanded scope holds a character that no scope can hold.", nil)
		}
	}
	return strings.Join(strings.Fields(scope), " "), nil
}
