package plugin

import "net/http"

// identify finds out which user sends the request ("" is anonymous), or why it
// must not pass. What the service is told of the user is on the request when
// it returns.
func (g *gate) identify(r *http.Request) (user string, no *refusal) {
	if g.auth == nil {
		return g.vouchedUser(r.Header)
	}
	credentials := r.Header["Authorization"]
	if !g.auth.keepAuthorization {
		delete(r.Header, "Authorization")
	}
	switch {
	case len(credentials) > 1:
		return "", twoCredentials()
	case len(credentials) == 0 && g.auth.optional:
		return "", nil
	case len(credentials) == 0:
		return "", noCredential()
	}
	d, no := g.decisions.judge(r, credentials[0])
	if no != nil {
		return "", no
	}
	for name, values := range d.headers {
		r.Header[name] = values
	}
	return d.user, nil
}

// vouchedUser is the user that forwardAuth has just written (classic wiring).
// Without trustUserHeader nobody vouches for the header, which is gone already.
func (g *gate) vouchedUser(h http.Header) (user string, no *refusal) {
	switch values := h[g.userHeader]; {
	case !g.trustUserHeader || len(values) == 0:
		return "", nil
	case len(values) > 1:
		return "", unavailable("The authentication service named more than one user.", 0)
	default:
		return values[0], nil
	}
}
