package admin

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"log/slog"
	"net"
	"net/http"
	"regexp"
	"strings"

	"github.com/labstack/echo/v4"

	"github.com/sluice-gateway/sluice/authsvc/keys"
	"github.com/sluice-gateway/sluice/authsvc/listener"
	"github.com/sluice-gateway/sluice/authsvc/refusal"
	"github.com/sluice-gateway/sluice/authsvc/token"
)

// What the handlers tell each other by echo's context.
const (
	actionKey  = "action"  // *action
	issuingKey = "issuing" // bool: the issuer token, not the admin token, opened the door
)

// action is what one request to the admin listener did, for its line in the
// log: who revoked this user, and did it work? Unlike the lines of /auth it
// names users, limits' keys, sessions and the ids of tokens; tokens and secrets
// it never does.
type action struct {
	actor   string // which secret opened the door: admin, issuer or nobody
	target  string // empty: it never came to that
	outcome string // beside what status and refusal say
}

// beginAction notes an action of every request that is not made every few
// seconds by machines.
func beginAction(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		switch c.Path() {
		case "/healthz", "/readyz", "/readyz/issuing", "/metrics":
		default:
			a := &action{actor: "nobody"}
			c.Set(actionKey, a)
			listener.Note(c, func(no *refusal.Refusal) []slog.Attr { return a.attributes(c, no) })
		}
		return next(c)
	}
}

func (i *Interface) actor(c echo.Context, presented *keys.Secret) {
	if a, ok := c.Get(actionKey).(*action); ok {
		a.actor = "admin"
		if presented == i.Issuing {
			a.actor = "issuer"
		}
	}
}

func (i *Interface) target(c echo.Context, what string) {
	if a, ok := c.Get(actionKey).(*action); ok {
		a.target = what
	}
}

func outcome(c echo.Context, text string) {
	if a, ok := c.Get(actionKey).(*action); ok {
		a.outcome = text
	}
}

func (a *action) attributes(c echo.Context, no *refusal.Refusal) []slog.Attr {
	result := "done"
	switch {
	case no != nil && no.Status >= http.StatusInternalServerError:
		result = "failed"
	case no != nil:
		result = "refused"
	}
	return []slog.Attr{
		slog.String("actor", a.actor), slog.String("from", remoteHost(c)),
		slog.String("target", a.target), slog.String("outcome", cmp.Or(a.outcome, result)),
	}
}

func remoteHost(c echo.Context) string {
	host, _, _ := net.SplitHostPort(c.Request().RemoteAddr)
	return host
}

// credentialForm is that of compact tokens and of refresh tokens.
var credentialForm = regexp.MustCompile(`^[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]*$`)

// loggable is what an operator named, unless he gave a credential in its place.
func (i *Interface) loggable(text string) string {
	if credentialForm.MatchString(text) || len(text) > token.MaxHeaderText || i.Admin.Matches(text) || i.Issuing.Matches(text) {
		return digest(text)
	}
	return text
}

// loggableKey is a limit's key; the header that a limit counts by may be one
// that carries a secret.
func (i *Interface) loggableKey(key string) string {
	if value, ok := strings.CutPrefix(key, "header:"); ok {
		return "header:" + digest(value)
	}
	if kind, value, found := strings.Cut(key, ":"); found {
		return kind + ":" + i.loggable(value)
	}
	return i.loggable(key)
}

func digest(text string) string {
	sum := sha256.Sum256([]byte(text))
	return "sha256:" + hex.EncodeToString(sum[:8])
}

// nameToken names what a credential stands for: its session, its id, or
// nothing but what was expected.
func (i *Interface) nameToken(presented, expected string) string {
	if session, ours := i.Sessions.Session(presented); ours {
		return "session " + session
	}
	if expected == "token" && credentialForm.MatchString(presented) {
		return "token " + token.ID(presented)
	}
	return expected
}
