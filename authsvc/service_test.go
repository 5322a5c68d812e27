package authsvc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/internal/redistest"
)

// Slow requests cost nobody else anything, and the server ends them: headers
// and bodies that never come to an end, at both listeners.
func TestSlowRequests(t *testing.T) {
	t.Parallel() // it waits, mostly
	r, _ := start(t)
	const body = "Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
	var held []net.Conn
	for _, begin := range []struct {
		address net.Addr
		request string
	}{
		{r.AdminAddr(), "POST /v1/tokens HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + r.AdminToken() + "\r\n" + body},
		{r.AdminAddr(), "POST /v1/tokens HTTP/1.1\r\nHost: x\r\n" + body},
		{r.PublicAddr(), "GET /auth HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer aaa"},
		{r.PublicAddr(), "G"},
	} {
		for range 25 {
			conn, err := net.Dial("tcp", begin.address.String())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			fmt.Fprint(conn, begin.request)
			held = append(held, conn)
		}
	}
	r.wantStatus(r.login("u1").AccessToken, 200)
	deadline := time.Now().Add(30 * time.Second) // the server's limits are 5 s and 10 s
	for i, conn := range held {
		if err := conn.SetReadDeadline(deadline); err != nil {
			t.Fatal(err)
		}
		answer, err := io.ReadAll(conn)
		var late net.Error
		if errors.As(err, &late) && late.Timeout() {
			t.Errorf("connection %d is still open", i)
		}
		if len(answer) > 0 && (len(answer) < 12 || answer[9] != '4') {
			t.Errorf("connection %d: %.200q", i, answer)
		}
	}
	r.wantStatus(r.login("u1").AccessToken, 200)
}

// TestHugeBodies: a body is refused at maxBody, whether it is announced or
// comes in chunks, and not read to its end.
func TestHugeBodies(t *testing.T) {
	r, _ := start(t)
	for _, path := range []string{"/v1/tokens", "/v1/tokens/refresh", "/v1/tokens/revoke", "/v1/tokens/introspect"} {
		for _, kind := range []string{"application/json", "application/x-www-form-urlencoded"} {
			for _, announced := range []bool{true, false} {
				sent := &counted{from: strings.NewReader(`{"user_id":"` + strings.Repeat("a", 64<<20))}
				request, _ := http.NewRequest("POST", r.inner+path, sent)
				if request.ContentLength = -1; announced {
					request.ContentLength = 64<<20 + 12
				}
				request.Header.Set("Authorization", "Bearer "+r.AdminToken())
				request.Header.Set("Content-Type", kind)
				want := http.StatusRequestEntityTooLarge
				if path == "/v1/tokens" && kind != "application/json" {
					want = http.StatusUnsupportedMediaType
				}
				response, err := r.client.Do(request)
				if err == nil {
					response.Body.Close()
					if response.StatusCode != want {
						t.Errorf("%s, %s: %d, want %d", path, kind, response.StatusCode, want)
					}
				} // else the server hung up while the body was on its way
				if n := sent.n.Load(); n > 16<<20 {
					t.Errorf("%s, %s: %d bytes were taken", path, kind, n)
				}
			}
		}
	}
}

// counted counts what is read of a body.
type counted struct {
	from io.Reader
	n    atomic.Int64
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.from.Read(p)
	c.n.Add(int64(n))
	return n, err
}

func TestOpenReportsABusyPort(t *testing.T) {
	redis := redistest.Start(t)
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	c := testConfig(t, redis.Addr)
	c.AdminListen = busy.Addr().String()
	err = (&Service{Config: c, Log: slog.New(slog.DiscardHandler)}).Open(context.Background())
	if err == nil || !strings.Contains(err.Error(), "--adminListen") || !strings.Contains(err.Error(), "in use") {
		t.Errorf("busy port: %v", err)
	}
}

func TestListenersCanBeHandedIn(t *testing.T) {
	redis := redistest.Start(t)
	public, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &Service{Config: testConfig(t, redis.Addr), PublicListener: public, Log: slog.New(slog.DiscardHandler)}
	if err := s.Open(context.Background()); err != nil {
		t.Fatal(err)
	}
	if s.PublicAddr().String() != public.Addr().String() {
		t.Errorf("listens at %s", s.PublicAddr())
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}
