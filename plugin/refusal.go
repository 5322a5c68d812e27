package plugin

import (
	"bytes"
	"encoding/json"
	"net/http"
	"strconv"
	"time"

	"github.com/sluice-gateway/sluice/plugin/config"
)

// refusal is an answer the plugin gives instead of the service. This file
// alone writes 400, 401, 403, 408, 429 and 503.
type refusal struct {
	status    int
	head      string        // of a body of ours, up to what differs from request to request
	wait      time.Duration // Retry-After is at least that; 0: none, waiting does not help
	challenge []string      // WWW-Authenticate

	body        []byte // the auth service's own answer, handed on as it came but for the next
	contentType string
	asked       string // the id of the request that it was asked for; others wait for the same answer
}

// problem is a body of ours, application/problem+json (RFC 9457). What differs from
// request to request comes last: "retry_after", in seconds, where there is such a
// header, and "request_id".
type problem struct {
	Type   string `json:"type"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail"`
	Limit  string `json:"limit,omitempty"`
}

// The refusals that are the same for everybody. Nobody changes one.
var (
	noCredential   = &refusal{status: http.StatusUnauthorized, head: problemHead(http.StatusUnauthorized, "This resource needs an access token.", ""), challenge: []string{bearerChallenge}}
	twoCredentials = refuse(http.StatusBadRequest, "The request carries more than one Authorization header.")
	// As HTTP/1.1 the request line would have a word too many (RFC 9112, section 3; RFC
	// 9113, section 8.3.1), and each service would find its target in another place.
	brokenTarget = refuse(http.StatusBadRequest, "The query holds white space.")
	tunnel       = refuse(http.StatusBadRequest, "The gateway opens no tunnels over HTTP/1.1.") // Traefik would answer 501
	// The client's body breaks the rules of its framing, or ends early; or it came too
	// slowly.
	unreadable = refuse(http.StatusBadRequest, "The request's body cannot be read.")
	late       = refuse(http.StatusRequestTimeout, "The request's body did not come in time.")
	uncounted  = unavailable("The rate limit cannot be checked at the moment.", 0)
)

// bearerChallenge names no error: the request carried no credential at all
// (RFC 6750, section 3.1).
const bearerChallenge = `Bearer realm="sluice"`

func missingKey(rule *config.LimitSettings) *refusal {
	if rule.Key == config.KeyUser {
		return noCredential
	}
	return refuse(http.StatusBadRequest, "The request lacks the header "+rule.KeyHeader+".")
}

// usedUp is of whom a limit denies; tooLarge of a request whose cost is above it.
func usedUp(rule *config.LimitSettings) *refusal {
	return &refusal{status: http.StatusTooManyRequests, head: problemHead(http.StatusTooManyRequests, "The limit "+strconv.Quote(rule.Name)+" is used up.", rule.Name), wait: time.Second}
}

func tooLarge(rule *config.LimitSettings) *refusal {
	return &refusal{status: http.StatusTooManyRequests, head: problemHead(http.StatusTooManyRequests, "A request of this cost exceeds the limit "+strconv.Quote(rule.Name)+".", rule.Name)}
}

func unavailable(detail string, wait time.Duration) *refusal {
	if wait < time.Second {
		wait = time.Second
	}
	return &refusal{status: http.StatusServiceUnavailable, head: problemHead(http.StatusServiceUnavailable, detail, ""), wait: wait}
}

func refuse(status int, detail string) *refusal {
	return &refusal{status: status, head: problemHead(status, detail, "")}
}

// problemHead is a body of ours up to what differs from request to request. Floods are
// refused, and to make it anew would take an interpreted refusal as long as all else.
func problemHead(status int, detail, limit string) string {
	body, _ := json.Marshal(problem{Type: "about:blank", Title: http.StatusText(status), Status: status, Detail: detail, Limit: limit}) // strings and a number always marshal
	return string(body[:len(body)-1]) + ","
}

// unread is how much of a body that nobody reads may stand in the way of a
// refusal. Go's server reads up to 256 KiB of it before it answers, so a client
// that sends slowly would not be told, and its connection held, until the read
// timeout. A small body has come with the head as a rule, and its connection is
// worth more than the wait.
const unread = 64 << 10

// closeUnread has the refusal of a long body answered at once (RFC 9112, section
// 9.6).
func closeUnread(h http.Header, r *http.Request) {
	if r.ProtoMajor == 1 && (r.ContentLength < 0 || r.ContentLength > unread) {
		h["Connection"] = []string{"close"}
	}
}

// Values that nobody changes: a header is set anew or added to, never edited.
var (
	problemType = []string{"application/problem+json"}
	notStored   = []string{"no-store"}
)

// handOn makes the body of an answer of the auth service, and says what it is.
func handOn(no *refusal, out http.Header, id string) []byte {
	if no.contentType != "" {
		out["Content-Type"] = []string{no.contentType}
	}
	if no.asked == "" || no.asked == id {
		return no.body
	}
	return bytes.ReplaceAll(no.body, []byte(no.asked), []byte(id))
}

// give writes the answer.
func give(w http.ResponseWriter, status int, body []byte) {
	w.WriteHeader(status)
	w.Write(body) // an error here means that the client is gone
}
