package store

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// What one reply may hold. go-redis allocates what a reply announces, before a
// byte of it has come: `$1000000000` takes a gigabyte. The largest good replies
// are a gateway's heartbeat (64 KiB) and a cluster's list of commands (some
// 200 KiB).
const (
	maxReply = 4 << 20  // bytes, and 16 for each element of a list
	maxLine  = 16 << 10 // of an error, a number or a length
	maxDepth = 16       // of lists within lists
)

// errWire: what comes is no RESP, or more of it than anything asked for.
var errWire = errors.New("not an answer that redis gives")

// wires makes connections to Redis, and knows those that are open.
type wires struct {
	dialer net.Dialer
	tls    *tls.Config

	mu   sync.Mutex // protects open
	open map[*wire]struct{}
}

// dial never fails: what cannot be reached fails at its first use. go-redis
// counts failed dials and, after as many as its pool is large, tries only once
// a second. That is the breaker's office, which does it ten times a second.
func (w *wires) dial(ctx context.Context, network, address string) (net.Conn, error) {
	var conn net.Conn
	var err error
	if w.tls != nil {
		conn, err = (&tls.Dialer{NetDialer: &w.dialer, Config: w.tls}).DialContext(ctx, network, address)
	} else {
		conn, err = w.dialer.DialContext(ctx, network, address)
	}
	if err != nil {
		return unreached{err}, nil
	}
	guarded := &wire{Conn: conn, wires: w}
	w.mu.Lock()
	w.open[guarded] = struct{}{}
	w.mu.Unlock()
	if raw, plain := conn.(syscall.Conn); plain {
		return plainWire{guarded, raw}, nil
	}
	return guarded, nil
}

// cut closes every connection. After an outage each of them may lead nowhere
// without knowing it: a machine that went away sends no farewell.
func (w *wires) cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for open := range w.open {
		_ = open.Conn.Close()
	}
	clear(w.open)
}

// wire looks through what passes on a connection: nothing that is no RESP, that
// is too large or that nobody asked for reaches go-redis.
type wire struct {
	net.Conn
	wires      *wires
	sent       resp
	received   resp
	owed       atomic.Int64 // replies still to come
	subscribed atomic.Bool  // from now on Redis speaks unasked
	looksUp    atomic.Bool  // Sentinel has been asked for the master's address
	bad        error        // why it was closed; only who reads touches it
}

func (w *wire) Write(p []byte) (int, error) {
	_, command, _ := bytes.Cut(p[:min(len(p), 64)], []byte("\r\n"))
	switch name := strings.ToLower(string(command)); {
	case strings.HasPrefix(name, "$9\r\nsubscribe\r\n"), strings.HasPrefix(name, "$10\r\npsubscribe\r\n"):
		w.subscribed.Store(true)
	case strings.HasPrefix(name, "$8\r\nsentinel\r\n$23\r\nget-master-addr-by-name\r\n"):
		w.looksUp.Store(true)
	}
	commands, err := w.sent.read(p, nil)
	if err != nil {
		return 0, fmt.Errorf("a command for redis: %w", err)
	}
	w.owed.Add(int64(commands))
	return w.Conn.Write(p)
}

func (w *wire) Read(p []byte) (int, error) {
	if w.bad != nil {
		return 0, w.bad
	}
	n, err := w.Conn.Read(p)
	var look func([]element) error
	switch {
	case w.subscribed.Load():
		look = checkMessage
	case w.looksUp.Load():
		look = checkAddress
	}
	replies, bad := w.received.read(p[:n], look)
	if replies > 0 {
		w.looksUp.Store(false)
	}
	if owed := w.owed.Add(-int64(replies)); bad == nil && owed < 0 && !w.subscribed.Load() {
		bad = fmt.Errorf("%w: a reply that nothing was asked for", errWire)
	}
	if bad != nil {
		w.bad = bad
		_ = w.Close()
		return 0, bad
	}
	return n, err
}

func (w *wire) Close() error {
	w.wires.mu.Lock()
	delete(w.wires.open, w)
	w.wires.mu.Unlock()
	return w.Conn.Close()
}

// plainWire lets go-redis see whether an idle connection has been closed or has
// been sent what nobody asked for. (Below TLS that cannot be seen.)
type plainWire struct {
	*wire
	raw syscall.Conn
}

func (p plainWire) SyscallConn() (syscall.RawConn, error) { return p.raw.SyscallConn() }

// unreached stands for a connection that could not be made.
type unreached struct{ err error }

func (u unreached) Read([]byte) (int, error)              { return 0, u.err }
func (u unreached) Write([]byte) (int, error)             { return 0, u.err }
func (u unreached) SyscallConn() (syscall.RawConn, error) { return nil, u.err } // never healthy
func (u unreached) Close() error                          { return nil }
func (u unreached) LocalAddr() net.Addr                   { return &net.TCPAddr{} }
func (u unreached) RemoteAddr() net.Addr                  { return &net.TCPAddr{} }
func (u unreached) SetDeadline(time.Time) error           { return nil }
func (u unreached) SetReadDeadline(time.Time) error       { return nil }
func (u unreached) SetWriteDeadline(time.Time) error      { return nil }

// resp follows a stream of RESP values, in whatever pieces it comes.
//
//	a line    +text  -error  :number  ,float  #boolean  (large number  _ none
//	a bulk    $length text  =length text  !length error
//	a list    *length elements  ~length elements  >length elements  %length pairs
//
// We speak RESP 2 with Redis, but go-redis RESP 3 with Sentinel.
type resp struct {
	line  []byte    // a header, as far as it has come
	left  int       // bytes of a bulk string still to come, its CRLF included
	lists []int     // elements still to come, for every list that is open
	size  int       // of the value, as announced
	outer byte      // the value's kind
	kept  []element // of the outermost list, if they are looked at
}

// element is one of a list. Its kind is the byte that it begins with, and _ for
// "there is none".
type element struct {
	kind byte
	text []byte
}

// read takes the next piece and returns how many values it ends. Of each that is
// a list, look is shown the elements.
func (r *resp) read(p []byte, look func([]element) error) (ended int, err error) {
	for len(p) > 0 {
		var whole bool
		if r.left > 0 {
			p, whole, err = r.body(p, look != nil)
		} else {
			p, whole, err = r.header(p, look != nil)
		}
		if err != nil {
			return ended, err
		}
		if !whole || !r.close() {
			continue
		}
		if look != nil && (r.outer == '*' || r.outer == '>') {
			if err := look(r.kept); err != nil {
				return ended, err
			}
		}
		r.size, r.outer, r.kept = 0, 0, nil
		ended++
	}
	return ended, nil
}

// body goes on in a bulk string.
func (r *resp) body(p []byte, keep bool) (rest []byte, whole bool, err error) {
	n := max(0, min(r.left-2, len(p)))
	if keep && len(r.lists) == 1 && len(r.kept) > 0 {
		last := &r.kept[len(r.kept)-1]
		last.text = append(last.text, p[:n]...)
	}
	p, r.left = p[n:], r.left-n
	for ; len(p) > 0 && r.left > 0; p, r.left = p[1:], r.left-1 {
		if p[0] != "\n\r"[r.left-1] {
			return nil, false, fmt.Errorf("%w: a text of another length than it says", errWire)
		}
	}
	return p, r.left == 0, nil
}

// header goes on in a line: a whole value, or the length of one.
func (r *resp) header(p []byte, keep bool) (rest []byte, whole bool, err error) {
	end := bytes.IndexByte(p, '\n') + 1
	if end == 0 {
		end = len(p)
	}
	r.line = append(r.line, p[:end]...)
	p = p[end:]
	if len(r.line) > maxLine {
		return nil, false, fmt.Errorf("%w: a line of more than %d bytes", errWire, maxLine)
	}
	if r.line[len(r.line)-1] != '\n' {
		return p, false, nil
	}
	line, ended := bytes.CutSuffix(r.line, []byte("\r\n"))
	r.line = r.line[:0]
	if !ended || len(line) == 0 {
		return nil, false, fmt.Errorf("%w: %.40q", errWire, line)
	}
	kind, text := line[0], line[1:]
	number, bad := strconv.Atoi(string(text))
	switch kind {
	case '+', '-', ',', '#', '(', '_':
		bad = nil
	case ':':
	case '$', '=', '!', '*', '~', '%', '>':
		if number < -1 {
			bad = errWire
		}
		if number < 0 {
			kind, text = '_', nil
		}
	default:
		bad = errWire
	}
	if bad != nil {
		return nil, false, fmt.Errorf("%w: %.40q", errWire, line)
	}
	if len(r.lists) == 0 {
		r.outer = kind
	}
	if keep && len(r.lists) == 1 {
		r.kept = append(r.kept, element{kind: kind})
		if kind != '$' {
			r.kept[len(r.kept)-1].text = bytes.Clone(text)
		}
	}
	return p, r.open(kind, number), r.tooLarge(line)
}

// open begins what the header announces. It tells whether that is all already.
func (r *resp) open(kind byte, number int) bool {
	switch kind {
	case '$', '=', '!':
		r.size += min(number, maxReply) + 1
		r.left = min(number, maxReply) + 2
		return false
	case '*', '~', '%', '>':
		number = min(number, maxReply)
		if kind == '%' {
			number *= 2
		}
		r.size += 16 * number
		if number > 0 {
			r.lists = append(r.lists, number)
		}
		return number == 0
	}
	return true
}

func (r *resp) tooLarge(line []byte) error {
	if r.size <= maxReply && len(r.lists) <= maxDepth {
		return nil
	}
	return fmt.Errorf("%w: it announces %.40q; at most %d bytes in lists of %d levels are taken", errWire, line, maxReply, maxDepth)
}

// close ends a value and every list that it was the last element of. It tells
// whether nothing is open then.
func (r *resp) close() bool {
	for depth := len(r.lists) - 1; depth >= 0; depth-- {
		if r.lists[depth]--; r.lists[depth] > 0 {
			return false
		}
		r.lists = r.lists[:depth]
	}
	return true
}

func form(list []element) string {
	var kinds strings.Builder
	for _, e := range list {
		kinds.WriteByte(e.kind)
	}
	return kinds.String()
}

// checkMessage looks at what a subscriber is sent. go-redis takes it apart
// without a look, partly in goroutines of its own, where a panic ends the
// process; checkAddress is there for the same reason.
func checkMessage(got []element) error {
	forms := map[string]string{
		"message": "$$$", "pmessage": "$$$$", "pong": "$$",
		"subscribe": "$$:", "unsubscribe": "$$:", "psubscribe": "$$:", "punsubscribe": "$$:",
	}
	if len(got) == 0 || forms[string(got[0].text)] != form(got) {
		return fmt.Errorf("%w: a message of the form %.20q", errWire, form(got))
	}
	// From Sentinel: name, old host, old port, new host, new port.
	if string(got[0].text) == "message" && string(got[1].text) == "+switch-master" && bytes.Count(got[2].text, []byte(" ")) < 4 {
		return fmt.Errorf("%w: +switch-master %.80q", errWire, got[2].text)
	}
	return nil
}

// checkAddress looks at Sentinel's host and port of the master.
func checkAddress(got []element) error {
	if form(got) != "$$" {
		return fmt.Errorf("%w: an address of the form %.20q", errWire, form(got))
	}
	return nil
}
