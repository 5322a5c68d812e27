package plugin

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/internal/redistest"
	"github.com/sluice-gateway/sluice/plugin/config"
)

// Who sends a body and is refused is told so before it ends, however slowly it
// comes, and keeps the connection only where little can be left of it.
func TestRefusalBeforeTheBodyEnds(t *testing.T) {
	server := httptest.NewServer(misconfigured{})
	defer server.Close()
	for _, test := range []struct {
		name, request string
		closed        bool
	}{
		{"none", "GET / HTTP/1.1\r\nHost: a\r\n\r\n", false},
		{"small and whole", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx", false},
		{"chunks that do not end", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n", true},
		{"long, and one byte of it", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 65537\r\n\r\nx", true},
		{"long, and GET", "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 65537\r\n\r\n", true},
		{"HTTP/1.0", "POST / HTTP/1.0\r\nContent-Length: 65537\r\n\r\nx", true},
	} {
		t.Run(test.name, func(t *testing.T) {
			connection, err := net.Dial("tcp", server.Listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer connection.Close()
			if err := connection.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
				t.Fatal(err)
			}
			if _, err := io.WriteString(connection, test.request); err != nil {
				t.Fatal(err)
			}
			response, err := http.ReadResponse(bufio.NewReader(connection), nil)
			if err != nil {
				t.Fatalf("no answer: %v", err)
			}
			if response.StatusCode != http.StatusServiceUnavailable || response.Close != test.closed {
				t.Errorf("%d, closed %t, want %t", response.StatusCode, response.Close, test.closed)
			}
		})
	}
}

// In HTTP/2 a refused body costs its stream, never the connection of others.
func TestRefusalInHTTP2(t *testing.T) {
	r := httptest.NewRequest("POST", "/", nil)
	r.ProtoMajor, r.ContentLength = 2, -1
	w := httptest.NewRecorder()
	misconfigured{}.ServeHTTP(w, r)
	if got := w.Header().Values("Connection"); got != nil {
		t.Errorf("Connection: %q", got)
	}
}

// Two credentials are refused where forwardAuth comes after us too: it would hand
// on both, and its service's 400 counts as no failure, so that a flood of them
// would reach it without a limit.
func TestTwoCredentials(t *testing.T) {
	passed := 0
	gate, err := New(t.Context(), http.HandlerFunc(func(http.ResponseWriter, *http.Request) { passed++ }), CreateConfig(), "before forwardAuth")
	if err != nil {
		t.Fatal(err)
	}
	for _, credentials := range [][]string{nil, {"Bearer a"}, {"Bearer a", "Bearer a"}, {"", "Bearer a"}} {
		r := httptest.NewRequest("GET", "/", nil)
		r.Header["Authorization"] = credentials
		w := httptest.NewRecorder()
		before := passed
		gate.ServeHTTP(w, r)
		if refused := w.Code == http.StatusBadRequest && passed == before; refused != (len(credentials) > 1) {
			t.Errorf("%q: %d, passed %d times", credentials, w.Code, passed-before)
		}
	}
}

// Requests that wait for one answer about one credential are refused in its words,
// each under its own name.
func TestSharedRefusalNamesEachRequest(t *testing.T) {
	no := &refusal{status: http.StatusUnauthorized, body: []byte(`{"detail":"expired","request_id":"first"}`), contentType: "application/problem+json", asked: "first"}
	for _, id := range []string{"first", "other", "first"} {
		w := httptest.NewRecorder()
		no.write(w, httptest.NewRequest("GET", "/", nil), []string{id})
		if want := `{"detail":"expired","request_id":"` + id + `"}`; w.Body.String() != want {
			t.Errorf("%s, want %s", w.Body, want)
		}
	}
}

// A request that costs more than one limit allows is never told to come again,
// though another limit denies it too, and for a time (design: whole-requests).
func TestTooLargeAndUsedUp(t *testing.T) {
	server := redistest.Start(t)
	hourly := config.Limit{Name: "hourly", Key: config.KeyUser, Limit: "1", Window: "1h"}
	own := config.Limit{Name: "own", Key: config.KeyUser, Limit: "10", Window: "24h", Cost: "5", LimitHeader: "X-User-Limit"}
	for name, limits := range map[string][]config.Limit{"hourly first": {hourly, own}, "own first": {own, hourly}} {
		t.Run(name, func(t *testing.T) {
			c := CreateConfig()
			c.Redis = []config.Redis{{Addresses: []string{server.Addr}, Timeout: "1s"}}
			c.TrustUserHeader = "true"
			c.Limits = limits
			handler, err := New(t.Context(), http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}), c, "gate")
			if err != nil {
				t.Fatal(err)
			}
			await(t, "the connection", func() bool { return handler.(*gate).backend.client.Healthy() })
			ask := func(limit string) *httptest.ResponseRecorder {
				r := httptest.NewRequest("GET", "/", nil)
				r.Header.Set("X-User-ID", name)
				r.Header.Set("X-User-Limit", limit)
				w := httptest.NewRecorder()
				handler.ServeHTTP(w, r)
				return w
			}
			if w := ask("10"); w.Code != http.StatusOK {
				t.Fatalf("the first request: %d", w.Code)
			}
			if w := ask("10"); w.Code != http.StatusTooManyRequests || w.Header().Get("Retry-After") == "" {
				t.Errorf("the second: %d, %v", w.Code, w.Header())
			}
			w := ask("3")
			if told := w.Header().Get("Retry-After"); w.Code != http.StatusTooManyRequests || told != "" || !strings.Contains(w.Body.String(), `"limit":"own"`) {
				t.Errorf("one that can never pass: %d, Retry-After %q, %s", w.Code, told, w.Body)
			}
		})
	}
}
