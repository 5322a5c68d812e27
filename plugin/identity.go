package plugin

import (
	"net/http"

	"github.com/sluice-gateway/sluice/plugin/limit"
)

// visitor is the user that a request comes from; all are zero for an anonymous
// one.
type visitor struct {
	user     string
	limited  string    // as a limit's key
	decision *decision // nil where forwardAuth said who it is
}

// identify finds out who sends the request, or why it must not pass. What the
// service is told of the user is on the request when it returns.
func (g *gate) identify(r *http.Request) (visitor, *refusal) {
	if g.auth == nil {
		// Where forwardAuth comes next it would hand on both, and what its service
		// says to that, 400, is no failure that a limit counts.
		if len(r.Header["Authorization"]) > 1 {
			return visitor{}, twoCredentials()
		}
		return g.vouchedUser(r.Header)
	}
	credentials := r.Header["Authorization"]
	if !g.auth.keepAuthorization {
		delete(r.Header, "Authorization")
	}
	switch {
	case len(credentials) > 1:
		return visitor{}, twoCredentials()
	case len(credentials) == 0 && g.auth.optional:
		return visitor{}, nil
	case len(credentials) == 0:
		return visitor{}, noCredential()
	}
	d, no := g.decisions.judge(r, credentials[0])
	if no != nil {
		return visitor{}, no
	}
	for name, values := range d.headers {
		r.Header[name] = values
	}
	return visitor{user: d.user, limited: d.limited, decision: d}, nil
}

// mustJudge tells whether the gate has to find out about the request's credential.
func (g *gate) mustJudge(r *http.Request) bool {
	credentials := r.Header["Authorization"]
	switch len(credentials) {
	case 0:
		return !g.auth.optional
	case 1:
		return remembered(g.decisions, credentials[0], clock()) == nil
	}
	return true
}

// vouchedUser is the user that forwardAuth has just written (classic wiring).
// Without trustUserHeader nobody vouches for the header, which is gone already.
func (g *gate) vouchedUser(h http.Header) (visitor, *refusal) {
	switch values := h[g.userHeader]; {
	case !g.trustUserHeader || len(values) == 0 || len(values) == 1 && values[0] == "":
		return visitor{}, nil
	case len(values) > 1:
		return visitor{}, unavailable("The authentication service named more than one user.", 0)
	default:
		return visitor{user: values[0], limited: limit.Key(limit.UserKey, values[0])}, nil
	}
}
