package attacks

import (
	"bytes"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
)

// caseHeader names a request, so that what arrives can be told apart.
const caseHeader = "X-Case"

// seen is one request as the service read it.
type seen struct {
	method, target, host string
	header, trailer      http.Header
	body                 int
}

// echo is the service behind the gateway. It answers 200 and keeps all that it
// was sent: requests by their name, and the bytes as they came.
type echo struct {
	url string

	mu    sync.Mutex        // protects the rest
	byID  map[string][]seen // "" holds requests without a name: nobody sent such
	tape  bytes.Buffer
	serve int
	left  int // slow ones whose client went away
}

func startEcho(t *testing.T) *echo {
	e := &echo{byID: map[string][]seen{}}
	server := httptest.NewUnstartedServer(e)
	server.Listener = taped{server.Listener, e}
	server.Config.MaxHeaderBytes = 4 << 20 // the gateway is to refuse, not the service
	server.Start()
	t.Cleanup(server.Close)
	e.url = server.URL
	return e
}

func (e *echo) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if strings.Contains(r.RequestURI, "?impatient") {
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(200 * time.Millisecond))
	}
	size, err := io.Copy(io.Discard, r.Body)
	id := r.Header.Get(caseHeader)
	e.mu.Lock()
	e.byID[id] = append(e.byID[id], seen{r.Method, r.RequestURI, r.Host, r.Header.Clone(), r.Trailer.Clone(), int(size)})
	e.serve++
	e.mu.Unlock()
	switch {
	case strings.Contains(r.RequestURI, "?impatient"):
		http.Error(w, "the body did not come", http.StatusInternalServerError)
		return
	case strings.Contains(r.RequestURI, "?slow"):
		select {
		case <-r.Context().Done():
			e.mu.Lock()
			e.left++
			e.mu.Unlock()
		case <-time.After(time.Second):
		}
	case err != nil, strings.Contains(r.RequestURI, "?dies"):
		panic(http.ErrAbortHandler)
	}
	// The name goes back, so that a client notices when it reads another's answer.
	w.Header().Set(caseHeader, id)
	switch {
	case strings.Contains(r.RequestURI, "?closes"):
		w.Header().Set("Connection", "close")
	case strings.Contains(r.RequestURI, "fail=500"):
		w.WriteHeader(http.StatusInternalServerError)
	case strings.EqualFold(r.Header.Get("Upgrade"), "websocket"):
		w.Header().Set("Upgrade", "websocket")
		w.Header().Set("Connection", "Upgrade")
		w.WriteHeader(http.StatusSwitchingProtocols)
	}
}

// take returns what arrived under a name, and forgets it.
func (e *echo) take(id string) []seen {
	e.mu.Lock()
	defer e.mu.Unlock()
	all := e.byID[id]
	delete(e.byID, id)
	return all
}

// served is how many requests arrived so far.
func (e *echo) served() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.serve
}

// abandoned is how many slow requests ended since nobody waited.
func (e *echo) abandoned() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.left
}

// heard says whether a text was among the bytes that arrived since rewind.
func (e *echo) heard(text string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return bytes.Contains(bytes.ToLower(e.tape.Bytes()), bytes.ToLower([]byte(text)))
}

func (e *echo) rewind() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.tape.Reset()
}

type taped struct {
	net.Listener
	echo *echo
}

func (l taped) Accept() (net.Conn, error) {
	connection, err := l.Listener.Accept()
	return tapedConn{connection, l.echo}, err
}

type tapedConn struct {
	net.Conn
	echo *echo
}

func (c tapedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.echo.mu.Lock()
	c.echo.tape.Write(p[:n])
	c.echo.mu.Unlock()
	return n, err
}
