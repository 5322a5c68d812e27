package identity

import (
	"bytes"
	"io"
	"net"
	"sync"
	"testing"
)

// line is a TCP way from a party to another that a test cuts or holds up.
type line struct {
	addr string

	listener net.Listener
	carrying sync.WaitGroup

	mu     sync.Mutex // protects what follows
	free   *sync.Cond // held, gone or links has changed
	target string
	gone   bool
	held   func(*link) bool // whose answers stay on the way; nil: nobody's
	links  map[*link]bool
}

// link is one connection through a line.
type link struct {
	client, server net.Conn
	subscriber     bool // it has sent SUBSCRIBE to Redis
	waiting        bool // an answer to it is held
}

// startLine makes a line; the test ends it.
func startLine(t testing.TB, target string) *line {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := &line{addr: listener.Addr().String(), listener: listener, target: target, links: map[*link]bool{}}
	l.free = sync.NewCond(&l.mu)
	l.carrying.Go(l.accept)
	t.Cleanup(func() {
		listener.Close()
		l.cut()
		l.carrying.Wait()
	})
	return l
}

func (l *line) accept() {
	for {
		client, err := l.listener.Accept()
		if err != nil {
			return
		}
		l.carrying.Go(func() { l.open(client) })
	}
}

// open is one connection, from its beginning to its end.
func (l *line) open(client net.Conn) {
	l.mu.Lock()
	target, gone := l.target, l.gone
	l.mu.Unlock()
	if gone {
		reset(client)
		return
	}
	server, err := net.Dial("tcp", target)
	if err != nil {
		reset(client)
		return
	}
	k := &link{client: client, server: server}
	l.mu.Lock()
	if l.links[k] = true; l.gone { // cut while dialling
		reset(client)
	}
	l.mu.Unlock()
	l.carrying.Go(func() { l.forth(k); l.drop(k) })
	l.back(k)
	l.drop(k)
}

// forth carries what the client sends and looks for SUBSCRIBE in it, which
// clients of Redis send in a piece.
func (l *line) forth(k *link) {
	buffer := make([]byte, 32<<10)
	for {
		n, err := k.client.Read(buffer)
		if bytes.Contains(bytes.ToUpper(buffer[:n]), []byte("SUBSCRIBE\r\n")) {
			l.mu.Lock()
			k.subscriber = true
			l.mu.Unlock()
		}
		if _, failed := k.server.Write(buffer[:n]); failed != nil || err != nil {
			return
		}
	}
}

// back carries what the server answers once it is not held.
func (l *line) back(k *link) {
	buffer := make([]byte, 32<<10)
	for {
		n, err := k.server.Read(buffer)
		l.mu.Lock()
		for l.links[k] && l.held != nil && l.held(k) {
			k.waiting = n > 0
			l.free.Wait()
		}
		k.waiting = false
		l.mu.Unlock()
		if _, failed := k.client.Write(buffer[:n]); failed != nil || err != nil {
			return
		}
	}
}

func (l *line) drop(k *link) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.links, k)
	k.client.Close()
	k.server.Close()
	l.free.Broadcast()
}

// cut resets every connection, and each that is made until mend.
func (l *line) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.gone = true
	l.resetLocked()
}

func (l *line) mend() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.gone = false
}

// aim leads new connections to another target and resets the old ones.
func (l *line) aim(target string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.target = target
	l.resetLocked()
}

func (l *line) resetLocked() {
	for k := range l.links {
		delete(l.links, k)
		reset(k.client)
		reset(k.server)
	}
	l.free.Broadcast()
}

// hold lets nothing more come back on the links named, without closing any: a
// black hole. release delivers what was held.
func (l *line) hold(which func(*link) bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.held = which
}

func (l *line) release() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.held = nil
	l.free.Broadcast()
}

// holding is how many links have an answer held.
func (l *line) holding() (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for k := range l.links {
		if k.waiting {
			n++
		}
	}
	return n
}

func everyone(*link) bool      { return true }
func subscribers(k *link) bool { return k.subscriber }

// reset ends a connection as a crashed peer does, with RST in place of FIN.
func reset(c io.Closer) {
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0) // only the manner is at stake
	}
	c.Close()
}
