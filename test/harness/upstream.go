package harness

import (
	"bufio"
	"crypto/sha1"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync"
	"testing"
	"time"
)

// Seen is one request as it reached an upstream.
type Seen struct {
	Method   string      `json:"method"`
	Path     string      `json:"path"` // as on the wire, with the query
	Host     string      `json:"host"`
	Header   http.Header `json:"header"`
	Trailer  http.Header `json:"trailer"`
	BodySize int64       `json:"body_size"`
}

// Upstream answers with what reached it, or as the path says:
//
//	/status/<code>   that status
//	/events          three server-sent events, the next one whenever Next is called
//	/socket          a WebSocket that echoes one line
//	anything else    200 and Seen as JSON
type Upstream struct {
	next chan struct{}

	mu   sync.Mutex // protects seen
	seen []Seen
}

// NewUpstream makes an upstream that is a handler only.
func NewUpstream() *Upstream { return &Upstream{next: make(chan struct{})} }

// StartUpstream serves one on loopback; the test ends it.
func StartUpstream(t testing.TB) (u *Upstream, url string) {
	t.Helper()
	u = NewUpstream()
	server := httptest.NewServer(u)
	t.Cleanup(server.Close)
	return u, server.URL
}

// Seen lists the requests that arrived, oldest first.
func (u *Upstream) Seen() []Seen {
	u.mu.Lock()
	defer u.mu.Unlock()
	return append([]Seen(nil), u.seen...)
}

// Last is the newest request that arrived.
func (u *Upstream) Last(t testing.TB) Seen {
	t.Helper()
	all := u.Seen()
	if len(all) == 0 {
		t.Fatal("nothing reached the upstream")
	}
	return all[len(all)-1]
}

// Forget empties the list.
func (u *Upstream) Forget() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.seen = nil
}

// Next lets the upstream send its next event; false if nobody waits for one.
func (u *Upstream) Next(within time.Duration) bool {
	select {
	case u.next <- struct{}{}:
		return true
	case <-time.After(within):
		return false
	}
}

func (u *Upstream) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	size, err := io.Copy(io.Discard, r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	saw := Seen{Method: r.Method, Path: r.RequestURI, Host: r.Host, Header: r.Header.Clone(), Trailer: r.Trailer.Clone(), BodySize: size}
	u.mu.Lock()
	u.seen = append(u.seen, saw)
	u.mu.Unlock()

	var status int
	switch _, err := fmt.Sscanf(r.URL.Path, "/status/%d", &status); {
	case err == nil:
		w.Header().Set("Content-Type", "text/plain") // no service answers without any header, as Traefik does in its stead
		w.WriteHeader(status)
	case r.URL.Path == "/events":
		u.events(w, r)
	case r.URL.Path == "/socket":
		u.socket(w, r)
	default:
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(saw)
	}
}

// events sends an event whenever the test says so, and so proves that each one
// arrives before the next exists.
func (u *Upstream) events(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/event-stream")
	control := http.NewResponseController(w)
	for n := 1; n <= 3; n++ {
		select {
		case <-u.next:
		case <-r.Context().Done():
			return
		}
		fmt.Fprintf(w, "data: %d\n\n", n)
		if err := control.Flush(); err != nil {
			return
		}
	}
}

// socket does the opening handshake of RFC 6455 section 4.2.2 and then echoes
// one line. What follows the handshake is bytes to every proxy on the way, so
// the frames of the protocol would add nothing.
func (u *Upstream) socket(w http.ResponseWriter, r *http.Request) {
	connection, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	defer connection.Close()
	fmt.Fprintf(buffered, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n",
		socketAccept(r.Header.Get("Sec-WebSocket-Key")))
	if buffered.Flush() != nil {
		return
	}
	line, err := buffered.ReadString('\n')
	if err != nil {
		return
	}
	fmt.Fprintf(buffered, "echo %s: %s", strconv.Itoa(len(line)), line)
	_ = buffered.Flush() // the client may be gone
}

// Stream asks for /events at a URL and demands that each event arrives before the
// next one exists.
func (u *Upstream) Stream(t testing.TB, client *http.Client, url string, options ...Option) {
	t.Helper()
	answered := make(chan *http.Response, 1)
	go func() {
		request, err := http.NewRequest("GET", url, nil)
		if err != nil {
			panic(err)
		}
		for _, o := range options {
			o(request)
		}
		response, err := client.Do(request)
		if err != nil {
			t.Error(err)
		}
		answered <- response
	}()
	if !u.Next(10 * time.Second) {
		t.Fatal("the request did not reach the upstream")
	}
	response := <-answered // headers come with the first event
	if response == nil {
		return
	}
	defer response.Body.Close()
	reader := bufio.NewReader(response.Body)
	for n := 1; n <= 3; n++ {
		if n > 1 && !u.Next(10*time.Second) {
			t.Fatalf("the upstream does not send event %d", n)
		}
		var event int
		line, err := reader.ReadString('\n')
		if _, other := fmt.Sscanf(line, "data: %d\n", &event); err != nil || other != nil || event != n {
			t.Fatalf("event %q, %v; want %d", line, err, n)
		}
		if _, err := reader.ReadString('\n'); err != nil {
			t.Fatal(err)
		}
	}
}

// Socket opens a WebSocket at a base URL, with more header lines, and demands that
// its line is echoed.
func (u *Upstream) Socket(t testing.TB, base, lines string) {
	t.Helper()
	const key = "dGhlIHNhbXBsZSBub25jZQ=="
	upgrade, reader, connection := Raw(t, base, "GET /socket HTTP/1.1\r\nHost: shop.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: "+key+"\r\n"+lines+"\r\n")
	if upgrade.StatusCode != http.StatusSwitchingProtocols || upgrade.Header.Get("Sec-WebSocket-Accept") != socketAccept(key) {
		t.Fatalf("%s %v", upgrade.Status, upgrade.Header)
	}
	if _, err := io.WriteString(connection, "hello\n"); err != nil {
		t.Fatal(err)
	}
	if line, err := reader.ReadString('\n'); err != nil || line != "echo 6: hello\n" {
		t.Fatalf("%q, %v", line, err)
	}
}

// socketAccept answers a Sec-WebSocket-Key (RFC 6455 section 1.3).
func socketAccept(key string) string {
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// Endless is a body of zeros.
type Endless struct{}

func (Endless) Read(p []byte) (int, error) { clear(p); return len(p), nil }
