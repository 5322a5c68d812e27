package web

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/labstack/echo/v4"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const someRequest = "6f1ed002-ab5d-4dc1-9e6e-a5b1e6b1c2d3"

// lockedBuffer lets the test read what the server's goroutines log.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

func open(t *testing.T, register func(*echo.Echo)) (url string, log *lockedBuffer) {
	t.Helper()
	log = &lockedBuffer{}
	s, err := Open(context.Background(), "127.0.0.1:0", nil, slog.New(slog.NewJSONHandler(log, nil)), register)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		http.DefaultClient.CloseIdleConnections()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return "http://" + s.Addr(), log
}

func TestServerAnswers(t *testing.T) {
	url, log := open(t, func(e *echo.Echo) {
		Get(e, "/mine", func(c echo.Context) error { return c.String(http.StatusOK, UserID(c)) }, Protect)
		e.GET("/panic", func(echo.Context) error { panic("secret of the inside") })
		e.GET("/broken", func(echo.Context) error { return errors.New("secret of the inside") })
		e.GET("/busy", func(echo.Context) error { return Unavailable("come back", errors.New("secret of the inside")) })
		e.POST("/body", func(c echo.Context) error {
			if _, err := ReadObject(c); err != nil {
				return err
			}
			return c.NoContent(http.StatusNoContent)
		})
	})
	tests := []struct {
		name, method, path string
		header             map[string][]string
		body               string
		status             int
		wantHeader         map[string]string
		wantBody           string
	}{
		{name: "health", method: "GET", path: "/healthz", status: 200, wantBody: `"ok"`},
		{name: "HEAD is routed with GET", method: "HEAD", path: "/healthz", status: 200},
		{name: "identity", method: "GET", path: "/mine", header: map[string][]string{UserHeader: {"u1"}}, status: 200, wantBody: "u1"},
		{name: "no identity", method: "GET", path: "/mine", status: 401,
			wantHeader: map[string]string{"WWW-Authenticate": `Bearer realm="sluice"`, "Content-Type": "application/problem+json"}, wantBody: `"status":401`},
		{name: "empty identity", method: "GET", path: "/mine", header: map[string][]string{UserHeader: {""}}, status: 401},
		{name: "two identities", method: "GET", path: "/mine", header: map[string][]string{UserHeader: {"u1", "u2"}}, status: 401},
		{name: "a bearer token is no identity", method: "GET", path: "/mine", header: map[string][]string{"Authorization": {"Bearer x"}}, status: 401},
		{name: "unknown path", method: "GET", path: "/nothing", status: 404, wantHeader: map[string]string{"Content-Type": "application/problem+json"}},
		{name: "other method", method: "DELETE", path: "/mine", status: 405, wantHeader: map[string]string{"Allow": "OPTIONS, GET, HEAD"}},
		{name: "panic", method: "GET", path: "/panic", status: 500},
		{name: "internal error", method: "GET", path: "/broken", status: 500},
		{name: "away", method: "GET", path: "/busy", status: 503, wantHeader: map[string]string{"Retry-After": "1"}, wantBody: "come back"},
		{name: "body at the bound", method: "POST", path: "/body", body: `{"a":"` + strings.Repeat("x", MaxBody-8) + `"}`, status: 204},
		{name: "body beyond it", method: "POST", path: "/body", body: `{"a":"` + strings.Repeat("x", MaxBody-7) + `"}`, status: 413, wantBody: `"status":413`},
		{name: "request id in the answer", method: "GET", path: "/nothing", header: map[string][]string{"X-Request-Id": {someRequest}}, status: 404, wantBody: someRequest},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			request, err := http.NewRequest(tt.method, url+tt.path, strings.NewReader(tt.body))
			if err != nil {
				t.Fatal(err)
			}
			for name, values := range tt.header {
				request.Header[http.CanonicalHeaderKey(name)] = values
			}
			response, err := http.DefaultClient.Do(request)
			if err != nil {
				t.Fatal(err)
			}
			defer response.Body.Close()
			body, err := io.ReadAll(response.Body)
			if err != nil {
				t.Fatal(err)
			}
			if response.StatusCode != tt.status {
				t.Errorf("status %d, want %d", response.StatusCode, tt.status)
			}
			for name, want := range tt.wantHeader {
				if got := response.Header.Get(name); got != want {
					t.Errorf("%s: %q, want %q", name, got, want)
				}
			}
			if !strings.Contains(string(body), tt.wantBody) {
				t.Errorf("body %q lacks %q", body, tt.wantBody)
			}
			if strings.Contains(string(body), "secret of the inside") {
				t.Errorf("the client reads an inner error: %s", body)
			}
		})
	}
	if got := strings.Count(log.String(), "secret of the inside"); got != 3 {
		t.Errorf("the log holds %d of the 3 causes", got)
	}
}

func TestLogLineNamesRequestAndRouteButNoUser(t *testing.T) {
	url, log := open(t, func(e *echo.Echo) {
		Get(e, "/v1/users/:id", func(c echo.Context) error { return c.NoContent(http.StatusOK) })
	})
	request, err := http.NewRequest("GET", url+"/v1/users/someone?secret=1", nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("X-Request-ID", someRequest)
	request.Header.Set(UserHeader, "someone")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	// The line is written after the answer has left.
	deadline := time.Now().Add(5 * time.Second)
	for log.String() == "" && time.Now().Before(deadline) {
		time.Sleep(time.Millisecond)
	}
	var line struct {
		RequestID string `json:"request_id"`
		Route     string `json:"route"`
		Status    int    `json:"status"`
	}
	if err := json.Unmarshal([]byte(log.String()), &line); err != nil {
		t.Fatalf("%v in %q", err, log.String())
	}
	if line.RequestID != someRequest || line.Route != "/v1/users/:id" || line.Status != 200 {
		t.Errorf("line %+v", line)
	}
	if strings.Contains(log.String(), "someone") || strings.Contains(log.String(), "secret") {
		t.Errorf("the line tells too much: %s", log.String())
	}
}

// TestCloseLetsRequestsFinish: closing waits for the one under way and refuses
// the next.
func TestCloseLetsRequestsFinish(t *testing.T) {
	entered, leave := make(chan struct{}), make(chan struct{})
	s, err := Open(context.Background(), "127.0.0.1:0", nil, slog.New(slog.DiscardHandler), func(e *echo.Echo) {
		e.GET("/slow", func(c echo.Context) error {
			close(entered)
			<-leave
			return c.NoContent(http.StatusNoContent)
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	defer http.DefaultClient.CloseIdleConnections()
	status := make(chan int, 1)
	go func() {
		response, err := http.Get("http://" + s.Addr() + "/slow")
		if err != nil {
			t.Error(err)
			status <- 0
			return
		}
		response.Body.Close()
		status <- response.StatusCode
	}()
	<-entered
	closed := make(chan error, 1)
	go func() { closed <- s.Close() }()
	<-s.served
	select {
	case err := <-closed:
		t.Fatalf("closed (%v) while a request was under way", err)
	default:
	}
	close(leave)
	if got := <-status; got != http.StatusNoContent {
		t.Errorf("the request under way got %d", got)
	}
	if err := <-closed; err != nil {
		t.Error(err)
	}
	if err := s.Close(); err != nil {
		t.Errorf("a second Close: %v", err)
	}
	if _, err := http.Get("http://" + s.Addr() + "/healthz"); err == nil {
		t.Error("a closed service answers")
	}
}

func TestOpenNamesABusyPort(t *testing.T) {
	url, _ := open(t, func(*echo.Echo) {})
	_, err := Open(context.Background(), strings.TrimPrefix(url, "http://"), nil, slog.New(slog.DiscardHandler), func(*echo.Echo) {})
	if err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("got %v", err)
	}
}
