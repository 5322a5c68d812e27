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

// identify finds out who sends a request with such credentials, or why it must not
// pass; kept is the decision that is remembered.
func identify(g *gate, r *http.Request, credentials []string, kept *decision, s *seat) (visitor, *refusal) {
	switch {
	case len(credentials) > 1:
		// Where forwardAuth comes next it would hand on both, and what its service
		// says to that, 400, is no failure that a limit counts.
		return visitor{}, twoCredentials
	case g.auth == nil:
		return vouchedUser(g, r.Header)
	case len(credentials) == 0 && g.auth.Optional:
		return visitor{}, nil
	case len(credentials) == 0:
		return visitor{}, noCredential
	}
	d := g.decisions
	if kept != nil {
		d.hits.Add(1)
	} else {
		d.misses.Add(1)
		q := &question{decisions: d, r: r, credential: credentials[0]}
		if s == nil {
			takeBench(q, nil)
		} else {
			if s.questions == nil {
				s.questions = make(chan *question)
				go judgeFor(s.questions)
			}
			q.done = make(chan bool, 1)
			s.questions <- q
			<-q.done
		}
		kept = q.call.decision
		if q.call.away {
			d.errors.Add(1)
			kept = d.stale(q.key)
		}
		if kept == nil {
			return visitor{}, q.call.no
		}
	}
	return visitor{user: kept.user, limited: kept.limited, decision: kept}, nil
}

// vouchedUser is the user that forwardAuth has just written (classic wiring).
// Without trustUserHeader nobody vouches for the header, which is gone already.
func vouchedUser(g *gate, h http.Header) (visitor, *refusal) {
	switch values := h[g.userHeader]; {
	case !g.trustUserHeader || len(values) == 0 || len(values) == 1 && values[0] == "":
		return visitor{}, nil
	case len(values) > 1:
		return visitor{}, unavailable("The authentication service named more than one user.", 0)
	default:
		return visitor{user: values[0], limited: limit.Key(limit.UserKey, values[0])}, nil
	}
}
