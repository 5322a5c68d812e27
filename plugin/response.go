package plugin

import (
	"bufio"
	"net"
	"net/http"
)

// forward hands the request to the service. Only where the answer's status
// decides whether permits count does it watch the answer: in the interpreted
// form any wrapper costs the response its Flush (RULES 11).
func forward(next http.Handler, w http.ResponseWriter, r *http.Request, holds []hold) {
	if len(holds) == 0 {
		next.ServeHTTP(w, r)
		return
	}
	watched := &statusWriter{ResponseWriter: w}
	defer func() { settle(holds, watched.final()) }()
	next.ServeHTTP(watched, r)
}

// statusWriter notes the status of the answer that passes through it.
type statusWriter struct {
	http.ResponseWriter
	status int
}

// WriteHeader notes the first final status; 1xx are only announcements.
func (w *statusWriter) WriteHeader(status int) {
	if w.status == 0 && status >= 200 {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

// Write flushes what has no known end. The interpreter hands Traefik a wrapper
// around this one that has no Flush: without it an event stream would arrive
// in one piece when it ends.
func (w *statusWriter) Write(p []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	n, err := w.ResponseWriter.Write(p)
	if err == nil && w.Header().Get("Content-Length") == "" {
		w.Flush()
	}
	return n, err
}

// Flush sends what was written so far.
func (w *statusWriter) Flush() {
	http.NewResponseController(w.ResponseWriter).Flush() // a writer that cannot flush has nothing to hurry
}

// Hijack hands over the connection, as a WebSocket needs it.
func (w *statusWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	if w.status == 0 {
		w.status = http.StatusSwitchingProtocols
	}
	return http.NewResponseController(w.ResponseWriter).Hijack()
}

// Unwrap lets http.ResponseController reach the writer beneath.
func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// final is the answer's status once it is complete.
func (w *statusWriter) final() int {
	if w.status == 0 {
		return http.StatusOK // what net/http sends when a handler writes nothing
	}
	return w.status
}
