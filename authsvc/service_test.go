package authsvc

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"testing"

	"github.com/sluice-gateway/sluice/internal/redistest"
)

// Slow and malformed requests end, and cost nobody else anything.
func TestSlowRequests(t *testing.T) {
	r, _ := start(t)
	var held []net.Conn
	for range 50 {
		conn, err := net.Dial("tcp", r.AdminAddr().String())
		if err != nil {
			t.Fatal(err)
		}
		held = append(held, conn)
		fmt.Fprintf(conn, "POST /v1/tokens HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{", r.AdminToken())
	}
	r.wantStatus(r.login("u1").AccessToken, 200)
	for _, conn := range held {
		conn.Close()
	}
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
