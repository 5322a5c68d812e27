package plugin

import (
	"bytes"
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// refusal is an answer the plugin gives instead of the service. This file
// alone writes 400, 401, 403, 408, 429 and 503.
type refusal struct {
	status     int
	title      string
	detail     string
	limit      string        // of a 429: the limit's name
	head       string        // and the body, up to the seconds to wait, where it has been made ahead
	retryAfter time.Duration // of 429 and 503; rounded up to seconds, at least 1
	never      bool          // no Retry-After: waiting does not help
	challenge  []string      // WWW-Authenticate

	body        []byte // the auth service's own answer, handed on as it came but for the next
	contentType string
	asked       string // the id of the request that it was asked for; others wait for the same answer
}

// problem is the body, application/problem+json (RFC 9457).
type problem struct {
	Type       string `json:"type"`
	Title      string `json:"title"`
	Status     int    `json:"status"`
	Detail     string `json:"detail"`
	Limit      string `json:"limit,omitempty"`
	RetryAfter int64  `json:"retry_after,omitempty"`
	RequestID  string `json:"request_id"`
}

// bearerChallenge names no error: the request carried no credential at all
// (RFC 6750, section 3.1).
const bearerChallenge = `Bearer realm="sluice"`

func noCredential() *refusal {
	return &refusal{status: http.StatusUnauthorized, title: "Unauthorized", detail: "This resource needs an access token.", challenge: []string{bearerChallenge}}
}

func twoCredentials() *refusal {
	return &refusal{status: http.StatusBadRequest, title: "Bad Request", detail: "The request carries more than one Authorization header."}
}

// brokenTarget: as HTTP/1.1 the request line would have a word too many (RFC
// 9112, section 3; RFC 9113, section 8.3.1), and each service would find its
// target in another place.
func brokenTarget() *refusal {
	return &refusal{status: http.StatusBadRequest, title: "Bad Request", detail: "The query holds white space."}
}

// unreadable: the client's body breaks the rules of its framing, ends early, or
// came too slowly.
func unreadable(late bool) *refusal {
	if late {
		return &refusal{status: http.StatusRequestTimeout, title: "Request Timeout", detail: "The request's body did not come in time."}
	}
	return &refusal{status: http.StatusBadRequest, title: "Bad Request", detail: "The request's body cannot be read."}
}

// tunnel refuses CONNECT over HTTP/1.1, which Traefik would answer 501.
func tunnel() *refusal {
	return &refusal{status: http.StatusBadRequest, title: "Bad Request", detail: "The gateway opens no tunnels over HTTP/1.1."}
}

func missingKey(rule *limitRule) *refusal {
	if rule.key == keyUser {
		return noCredential()
	}
	return &refusal{status: http.StatusBadRequest, title: "Bad Request", detail: "The request lacks the header " + rule.keyHeader + "."}
}

func tooMany(rule *limitRule, retryAfter time.Duration) *refusal {
	return &refusal{status: http.StatusTooManyRequests, title: "Too Many Requests", detail: "The limit " + strconv.Quote(rule.name) + " is used up.", limit: rule.name, head: rule.denial, retryAfter: retryAfter}
}

// tooLarge is of a request whose cost is above the limit.
func tooLarge(rule *limitRule) *refusal {
	return &refusal{status: http.StatusTooManyRequests, title: "Too Many Requests", detail: "A request of this cost exceeds the limit " + strconv.Quote(rule.name) + ".", limit: rule.name, never: true}
}

func unavailable(detail string, retryAfter time.Duration) *refusal {
	return &refusal{status: http.StatusServiceUnavailable, title: "Service Unavailable", detail: detail, retryAfter: retryAfter}
}

// unread is how much of a body that nobody reads may stand in the way of a
// refusal. Go's server reads up to 256 KiB of it before it answers, so a client
// that sends slowly would not be told, and its connection held, until the read
// timeout. A small body has come with the head as a rule, and its connection is
// worth more than the wait.
const unread = 64 << 10

// secondsToWait is Retry-After: rounded up, and at least 1.
func secondsToWait(d time.Duration) int64 {
	if n := seconds(d); n > 1 {
		return n
	}
	return 1
}

// closeUnread has the refusal of a long body answered at once (RFC 9112, section
// 9.6).
func closeUnread(h http.Header, r *http.Request) {
	if r.ProtoMajor == 1 && (r.ContentLength < 0 || r.ContentLength > unread) {
		h["Connection"] = []string{"close"}
	}
}

// denialHead is the body of a limit's denials up to the seconds to wait. Floods are
// denied, and to make it anew would take an interpreted denial as long as all else.
func denialHead(rule *limitRule) string {
	no := tooMany(rule, 0)
	body, _ := json.Marshal(problem{Type: "about:blank", Title: no.title, Status: no.status, Detail: no.detail, Limit: no.limit})
	head, _, _ := strings.Cut(string(body), `"request_id"`)
	return head + `"retry_after":`
}

// Values that nobody changes: a header is set anew or added to, never edited.
var (
	problemType = []string{"application/problem+json"}
	notStored   = []string{"no-store"}
)

func (no *refusal) write(w http.ResponseWriter, r *http.Request, id string) {
	refuse(w, r, w.Header(), no, id)
}

// refuse answers with the refusal. (It is a function, for the interpreter's sake.)
func refuse(w http.ResponseWriter, r *http.Request, out http.Header, no *refusal, id string) {
	if r.ContentLength != 0 {
		closeUnread(out, r)
	}
	out["Cache-Control"] = notStored
	var body []byte
	if no.head != "" {
		wait := strconv.FormatInt(secondsToWait(no.retryAfter), 10)
		out["Retry-After"] = []string{wait}
		out["Content-Type"] = problemType
		body = []byte(no.head + wait + `,"request_id":"` + id + `"}`)
	} else {
		body = no.compose(out, id)
	}
	out["Content-Length"] = []string{strconv.Itoa(len(body))}
	w.WriteHeader(no.status)
	w.Write(body) // an error here means that the client is gone
}

// compose makes the body that was not made ahead, and sets the headers that go with
// it.
func (no *refusal) compose(out http.Header, id string) []byte {
	for _, challenge := range no.challenge {
		out.Add("Www-Authenticate", challenge)
	}
	p := problem{Type: "about:blank", Title: no.title, Status: no.status, Detail: no.detail, Limit: no.limit, RequestID: id}
	if (no.status == http.StatusTooManyRequests || no.status == http.StatusServiceUnavailable) && !no.never {
		p.RetryAfter = secondsToWait(no.retryAfter)
		out.Set("Retry-After", strconv.FormatInt(p.RetryAfter, 10))
	}
	body, contentType := no.body, no.contentType
	if no.asked != "" && no.asked != id {
		body = bytes.ReplaceAll(body, []byte(no.asked), []byte(id))
	}
	if body == nil {
		body, _ = json.Marshal(p) // a struct of strings and numbers always marshals
		contentType = problemType[0]
	}
	if contentType != "" {
		out.Set("Content-Type", contentType)
	}
	return body
}
