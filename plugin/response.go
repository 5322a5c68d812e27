package plugin

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync/atomic"

	"github.com/sluice-gateway/sluice/plugin/config"
)

// What the gateway says of a request it says once. Traefik's proxy adds a
// service's headers to ours, so a service that names X-Request-ID or RateLimit
// itself would have the client told two of each; and a 1xx answer of a service
// makes it drop ours (net/http/httputil). Both can be mended only in a wrapper
// around the answer, which costs one allocation compiled, but 120 of some 370
// interpreted (BenchmarkHotPath in test/forms). So the first answers behind a gate
// are watched, and all of a service that is known to do so; of the others it is
// noticed afterwards, and one answer has gone out by then.
const (
	watchedFirst = 100
	talksOver    = -1 << 60 // of gate.quiet: for good
)

// watch hands the request to the service and watches the answer. It has to where
// the status decides whether the permits in holds count, where the client may yet
// break its body off, and where the service may talk over us; elsewhere ServeHTTP
// calls the service itself, and looks at what it did: in the interpreted form any
// wrapper costs the response its Flush as well (design: answer-wrapper).
func watch(g *gate, w http.ResponseWriter, r *http.Request, out http.Header, holds []hold) {
	watched := &answer{ResponseWriter: w, gate: g, request: r, holds: holds, id: out[config.RequestIDHeader], policy: out["Ratelimit-Policy"], state: out["Ratelimit"]}
	if g.legacyHeaders {
		watched.legacy = legacyOf(out)
	}
	if r.ContentLength != 0 && r.Body != nil {
		watched.body = &clientBody{ReadCloser: r.Body, left: r.ContentLength}
		watched.before = out.Clone()
		r.Body = watched.body
	}
	defer watched.end()
	g.next.ServeHTTP(watched, r)
	if watched.status == 0 {
		watched.WriteHeader(http.StatusOK) // what net/http sends when a handler writes nothing
	}
}

// answer is the way of the service's answer to the client. The status settles
// the request's permits as soon as there is one: an answer may take hours to end.
type answer struct {
	http.ResponseWriter
	gate    *gate
	request *http.Request
	holds   []hold
	body    *clientBody // nil where the request has none
	before  http.Header // with a body: what the answer's headers were when the request went on

	id, policy, state []string
	legacy            [][]string

	status   int
	hijacked bool
	instead  bool // our own answer was given instead; what else is written is nobody's
}

// note settles by the first status it hears.
func (w *answer) note(status int) {
	if w.status != 0 {
		return
	}
	w.status = status
	if len(w.holds) > 0 {
		settleBy(w.holds, outcome{status: status, fault: status >= 400 && w.clientsFault(), own: status >= 499 && !fromService(w.ResponseWriter.Header())})
	}
}

// end counts the permits of a request whose handler panicked: nobody answered.
func (w *answer) end() {
	if w.status == 0 {
		w.status = http.StatusInternalServerError
		settleBy(w.holds, outcome{status: w.status, fault: true})
	}
}

// clientsFault tells whether the client may have brought an error about: it went
// away, its body cannot be read, or has not ended by the time of the answer.
func (w *answer) clientsFault() bool {
	return w.request.Context().Err() != nil || w.body != nil && w.body.state.Load() != bodyEnded
}

// fromService tells a service's answer from those that Traefik gives in its
// stead: its proxy and its buffering write a status and a text, and no header.
func fromService(h http.Header) bool {
	return h["Date"] != nil || h["Content-Length"] != nil || h["Content-Type"] != nil
}

// WriteHeader hears the first final status; 1xx are only announcements.
func (w *answer) WriteHeader(status int) {
	if status < 200 {
		w.ResponseWriter.WriteHeader(status)
		return
	}
	if w.status == 0 && status >= 499 && w.body != nil {
		if state := w.body.state.Load(); state >= bodyBroken {
			w.note(status)
			if state == bodyLate {
				w.refuse(late)
			} else {
				w.refuse(unreadable)
			}
			return
		}
	}
	w.note(status)
	if w.instead {
		return
	}
	h := w.ResponseWriter.Header()
	w.insist(h)
	w.ResponseWriter.WriteHeader(status)
	// Both sides may be talking, and the client waits for the head. But a head with
	// Grpc-Status is all of an answer, and has to end the stream itself: gRPC's
	// Trailers-Only.
	if w.body != nil && h["Content-Length"] == nil && h["Grpc-Status"] == nil && w.body.state.Load() == bodyUnderWay {
		w.Flush()
	}
}

// refuse answers in the place of whoever has begun to.
func (w *answer) refuse(no *refusal) {
	h := w.ResponseWriter.Header()
	for name := range h {
		delete(h, name)
	}
	for name, values := range w.before {
		h[name] = values
	}
	w.instead = true
	no.write(w.ResponseWriter, w.request, w.id)
}

// insist leaves of the headers that are the gateway's to say what the gateway
// said.
func (w *answer) insist(h http.Header) {
	if len(w.holds) == 0 {
		w.gate.hear(h)
	}
	h[config.RequestIDHeader] = w.id
	if w.state != nil {
		insistOn(h, "Ratelimit", w.state)
	}
	if w.policy != nil {
		insistOn(h, "Ratelimit-Policy", w.policy)
	}
	for i, values := range w.legacy {
		if values != nil {
			h[legacyNames[i]] = values
		}
	}
}

// hear notes whether the answer talked over us: something of ours is there twice,
// or no more.
func (g *gate) hear(h http.Header) {
	switch {
	case len(h[config.RequestIDHeader]) != 1 || len(h["Ratelimit"]) > 1 || len(h["Ratelimit-Policy"]) > 1 || len(h[legacyNames[0]]) > 1:
		g.quiet.Store(talksOver)
	case g.quiet.Load() < watchedFirst:
		g.quiet.Add(1)
	}
}

// insistOn keeps what a middleware of ours behind this one has added to it.
func insistOn(h http.Header, name string, said []string) {
	if now := h[name]; len(now) > 0 && strings.HasPrefix(now[0], said[0]) {
		h[name] = now[:1]
		return
	}
	h[name] = said
}

// Header is the answer's. A switch of protocols is written without WriteHeader:
// Traefik's proxy adds the service's headers, and then asks for all of them.
func (w *answer) Header() http.Header {
	h := w.ResponseWriter.Header()
	if w.hijacked {
		w.insist(h)
	}
	return h
}

// Write flushes what has no known end. The interpreter hands Traefik a wrapper
// around this one that has no Flush: without it an event stream would arrive
// in one piece when it ends.
func (w *answer) Write(p []byte) (int, error) {
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	if w.instead {
		return len(p), nil
	}
	n, err := w.ResponseWriter.Write(p)
	if err == nil && w.ResponseWriter.Header().Get("Content-Length") == "" {
		w.Flush()
	}
	return n, err
}

// Flush sends what was written so far.
func (w *answer) Flush() {
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	http.NewResponseController(w.ResponseWriter).Flush() // a writer that cannot flush has nothing to hurry
}

// Hijack hands over the connection, as a WebSocket needs it.
func (w *answer) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	w.note(http.StatusSwitchingProtocols)
	w.hijacked = true
	return http.NewResponseController(w.ResponseWriter).Hijack()
}

// Unwrap lets http.ResponseController reach the writer beneath.
func (w *answer) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// What became of a request's body so far.
const (
	bodyUnderWay = int32(iota)
	bodyEnded
	bodyBroken
	bodyLate
)

// clientBody notes whether the client sent all of its body, and as it should.
type clientBody struct {
	io.ReadCloser
	left  int64 // of Content-Length; below 0 where the client did not say
	state atomic.Int32
}

func (b *clientBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.left -= int64(n)
	switch {
	case err == io.EOF || err == nil && b.left == 0:
		b.state.Store(bodyEnded)
	case err != nil && b.state.Load() == bodyUnderWay && errors.Is(err, os.ErrDeadlineExceeded):
		b.state.Store(bodyLate)
	case err != nil && b.state.Load() == bodyUnderWay:
		b.state.Store(bodyBroken)
	}
	return n, err
}
