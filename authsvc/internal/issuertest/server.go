package issuertest

import (
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
)

// Server is an issuer's key server that counts and can misbehave.
type Server struct {
	*httptest.Server
	Requests atomic.Int64

	mu      sync.Mutex // protects what follows
	body    string
	status  int
	holding chan struct{} // requests wait for it to be closed
}

// NewServer answers every request with body.
func NewServer(t testing.TB, body string) *Server {
	s := &Server{body: body, status: 200}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.Requests.Add(1)
		s.mu.Lock()
		body, status, holding := s.body, s.status, s.holding
		s.mu.Unlock()
		if holding != nil {
			select {
			case <-holding:
			case <-r.Context().Done():
			}
		}
		w.Header().Set("Location", "/elsewhere")
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}))
	t.Cleanup(s.Close)
	return s
}

// Set changes the answer.
func (s *Server) Set(status int, body string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status, s.body = status, body
}

// Hold keeps further requests waiting until release is closed; nil: no longer.
func (s *Server) Hold(release chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.holding = release
}
