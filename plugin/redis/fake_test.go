package redis

import (
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// A fake is a server that answers as the test says, wrong if need be.
type fake struct {
	listener net.Listener
	accepted atomic.Int64
	commands atomic.Int64 // other than the client's own

	mu      sync.Mutex
	answer  func(s *session, words []string) string // raw bytes; for what the handshake does not ask
	greet   func(s *session, words []string) string // HELLO, AUTH, SELECT, CLIENT, INFO, ROLE and PING; nil: all is well
	open    map[net.Conn]bool
	stopped bool
}

// A session is one connection to a fake.
type session struct {
	net.Conn
	fake *fake
}

func startFake(t testing.TB, answer func(s *session, words []string) string) *fake {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := &fake{listener: l, answer: answer, open: map[net.Conn]bool{}}
	go f.serve()
	t.Cleanup(f.stop)
	return f
}

func (f *fake) address() string { return f.listener.Addr().String() }

func (f *fake) serve() {
	for {
		conn, err := f.listener.Accept()
		if err != nil {
			return
		}
		f.accepted.Add(1)
		f.mu.Lock()
		if f.stopped {
			conn.Close()
		}
		f.open[conn] = true
		f.mu.Unlock()
		go f.talk(&session{conn, f})
	}
}

func (f *fake) talk(s *session) {
	defer func() {
		s.Close()
		f.mu.Lock()
		delete(f.open, s.Conn)
		f.mu.Unlock()
	}()
	in := newParser(s, 1<<20)
	for {
		command, err := in.read()
		if err != nil {
			return
		}
		var words []string
		for _, word := range command.list {
			words = append(words, word.text)
		}
		f.mu.Lock()
		answer, greet := f.answer, f.greet
		f.mu.Unlock()
		var raw string
		switch words[0] {
		case "HELLO", "AUTH", "SELECT", "CLIENT", "INFO", "ROLE", "PING":
			if greet != nil {
				raw = greet(s, words)
			} else {
				raw = welcome(s, words)
			}
		default:
			f.commands.Add(1)
			raw = answer(s, words)
		}
		if _, err := s.Write([]byte(raw)); err != nil {
			return
		}
	}
}

// welcome is the handshake of a Redis that is well.
func welcome(_ *session, words []string) string {
	switch words[0] {
	case "HELLO":
		return "*4\r\n+proto\r\n:2\r\n+role\r\n+master\r\n"
	case "PING":
		return "+PONG\r\n"
	}
	return "+OK\r\n"
}

func (f *fake) behave(answer func(s *session, words []string) string) {
	f.mu.Lock()
	f.answer = answer
	f.mu.Unlock()
}

func (f *fake) welcomeWith(greet func(s *session, words []string) string) {
	f.mu.Lock()
	f.greet = greet
	f.mu.Unlock()
}

// drop closes the connections there are.
func (f *fake) drop() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for conn := range f.open {
		conn.Close()
	}
}

func (f *fake) stop() {
	f.mu.Lock()
	f.stopped = true
	f.mu.Unlock()
	f.listener.Close()
	f.drop()
}

// reset closes the connection with RST.
func (s *session) reset() {
	s.Conn.(*net.TCPConn).SetLinger(0)
	s.Close()
}

// always answers every command alike.
func always(raw string) func(*session, []string) string {
	return func(*session, []string) string { return raw }
}

var well = always(":1\r\n")

// A fate is what a test wants to hear of a call: its Tag, where the call comes
// back to an inbox.
type fate struct {
	late, ended func()
}

// inbox is the To of calls whose Tag is a *fate; it runs them on one goroutine,
// as an owner's loop would.
func inbox(t testing.TB) chan<- interface{} {
	to := make(chan interface{}, 1<<14)
	quit := make(chan struct{})
	t.Cleanup(func() { close(quit) })
	go func() {
		for {
			select {
			case message := <-to:
				hear(message)
			case <-quit:
				return
			}
		}
	}()
	return to
}

func hear(message interface{}) {
	if overdue, ok := message.(*Overdue); ok {
		for _, call := range overdue.Calls {
			call.Tag.(*fate).late()
		}
		return
	}
	message.(*Call).Tag.(*fate).ended()
}

// A witness follows calls from Send to their end, and fails the test if one
// ends twice or is told that it is overdue after its end.
type witness struct {
	t       testing.TB
	to      chan<- interface{}
	sent    atomic.Int64
	ended   atomic.Int64
	good    atomic.Int64
	late    atomic.Int64
	notRun  atomic.Int64 // ended with an error that proves it
	slowest atomic.Int64 // nanoseconds until a waiter was released
	mu      sync.Mutex
	kinds   map[string]int
}

func watch(t testing.TB) *witness {
	return &witness{t: t, to: inbox(t), kinds: map[string]int{}}
}

// call makes a call that the witness follows.
func (w *witness) call(key string) *Call {
	call := &Call{Key: key, Script: increment, Args: []string{"1"}, To: w.to}
	var ended, late atomic.Bool
	sent := time.Now()
	released := func() {
		waited := int64(time.Since(sent))
		for {
			was := w.slowest.Load()
			if waited <= was || w.slowest.CompareAndSwap(was, waited) {
				return
			}
		}
	}
	call.Tag = &fate{
		late: func() {
			if ended.Load() || !late.CompareAndSwap(false, true) {
				w.t.Error("Overdue came twice, or after the end")
			}
			w.late.Add(1)
			released()
		},
		ended: func() {
			if !ended.CompareAndSwap(false, true) {
				w.t.Error("a call ended twice")
			}
			if !late.Load() {
				released()
			}
			w.mu.Lock()
			if call.Err != nil {
				w.kinds[Kind(call.Err)]++
			}
			w.mu.Unlock()
			if call.Err == nil {
				w.good.Add(1)
			} else if NotExecuted(call.Err) {
				w.notRun.Add(1)
			}
			w.ended.Add(1)
		},
	}
	w.sent.Add(1)
	return call
}

// send hands calls over; those that cannot be sent have ended.
func send(c *Client, calls ...*Call) {
	for _, call := range calls {
		if !Send(c, call) {
			call.Tag.(*fate).ended()
		}
	}
}

// settled waits until every call has ended.
func (w *witness) settled() {
	w.t.Helper()
	eventually(w.t, 10*time.Second, "every call to end", func() bool { return w.ended.Load() == w.sent.Load() })
}

func (w *witness) kind(kind string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.kinds[kind]
}

func (w *witness) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var b strings.Builder
	fmt.Fprintf(&b, "%d sent, %d ended, %d good, %d late, slowest %v, errors %v", w.sent.Load(), w.ended.Load(),
		w.good.Load(), w.late.Load(), time.Duration(w.slowest.Load()), w.kinds)
	return b.String()
}
