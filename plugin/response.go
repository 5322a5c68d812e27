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
	watched := &statusWriter{ResponseWriter: w, holds: holds}
	defer watched.note(http.StatusOK) // what net/http sends when a handler writes nothing
	next.ServeHTTP(watched, r)
}

// statusWriter lets the status of the answer that passes through it settle the
// request's permits, as soon as there is one: an answer may take hours to end,
// and a permit that is unsettled for long is given back (limit/giveback.go).
type statusWriter struct {
	http.ResponseWriter
	holds  []hold
	status int
}

// note settles by the first status it hears.
func (w *statusWriter) note(status int) {
	if w.status == 0 {
		w.status = status
		settle(w.holds, status)
	}
}

// WriteHeader notes the first final status; 1xx are only announcements.
func (w *statusWriter) WriteHeader(status int) {
	if status >= 200 {
		w.note(status)
	}
	w.ResponseWriter.WriteHeader(status)
}

// Write flushes what has no known end. The interpreter hands Traefik a wrapper
// around this one that has no Flush: without it an event stream would arrive
// in one piece when it ends.
func (w *statusWriter) Write(p []byte) (int, error) {
	w.note(http.StatusOK)
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
	w.note(http.StatusSwitchingProtocols)
	return http.NewResponseController(w.ResponseWriter).Hijack()
}

// Unwrap lets http.ResponseController reach the writer beneath.
func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
