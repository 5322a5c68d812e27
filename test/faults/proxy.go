package faults

import (
	"bufio"
	"crypto/sha1"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// Behaviour is what a fault does on the way between gateway and Redis. It may
// be looked at from many connections at once. Done is closed at its end.
type Behaviour struct {
	// Command sees a command before Redis does. It returns the words to
	// forward, or none and an answer in Redis's stead. nil: forward all.
	Command func(words []string, source string) (forward []string, answer string)

	// Reply gives the gateway something for Redis's reply, and tells whether
	// that is a whole reply which is no protocol error. nil: deliver it.
	Reply func(to *net.TCPConn, words []string, reply []byte) (whole bool)

	// Swallowed commands never reach Redis, and their connection is reset;
	// nil: none is.
	Swallowed func(words []string) bool

	// Late is by how much every reply comes later.
	Late time.Duration

	// Held commands are not forwarded before the end, as where packets are
	// dropped and sent again; nil: none is.
	Held func(words []string) bool

	done chan struct{}
}

// Door is what becomes of new connections.
type Door int

// The doors: open, closed (connection refused), and gone (nobody answers the
// SYN).
const (
	DoorOpen Door = iota
	DoorClosed
	DoorGone
)

// Ledger is what the proxies saw Redis do.
//
// A key of its own is asked for by one request. Should its lease die unused,
// since the machine slept for a second, a second reservation says in its
// arguments that it knows of the first; one that was sent twice does not.
type Ledger struct {
	timeout time.Duration // redis.timeout: an answer that comes later is none

	mu         sync.Mutex     // protects what follows
	executions map[string]int // reservations that Redis ran, by key and all arguments
	first      map[int]time.Time
	since      time.Time           // first counts from here
	trials     map[int][]time.Time // by gateway: when it had reason to call Redis well
}

// Proxy is the way from one gateway to Redis.
type Proxy struct {
	Addr string

	t        testing.TB
	gateway  int // whose way
	upstream string
	now      *atomic.Pointer[Behaviour]
	ledger   *Ledger
	sources  *sync.Map // SHA-1 of a script -> its source, learned from EVAL

	mu       sync.Mutex // protects what follows
	listener net.Listener
	hole     []io.Closer // what makes DoorGone
	links    map[*proxied]bool
}

// proxied is one connection through a proxy.
type proxied struct {
	proxy  *Proxy
	client *net.TCPConn
	server *net.TCPConn
	fifo   chan exchange // commands whose replies are to come, in order
}

// exchange is one command.
type exchange struct {
	words  []string
	answer string // in Redis's stead; empty: Redis answers
	at     time.Time
}

func startProxy(t testing.TB, gateway int, upstream string, now *atomic.Pointer[Behaviour], ledger *Ledger, sources *sync.Map) *Proxy {
	t.Helper()
	p := &Proxy{t: t, gateway: gateway, upstream: upstream, now: now, ledger: ledger, sources: sources, links: map[*proxied]bool{}}
	// Below the ports that the kernel gives to connections: while the door is
	// closed, none of them must take this one.
	listener, err := net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(20000+rand.IntN(10000)))
	for try := 0; err != nil && try < 100; try++ {
		listener, err = net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(20000+rand.IntN(10000)))
	}
	if err != nil {
		t.Fatal(err)
	}
	p.Addr = listener.Addr().String()
	p.listener = listener
	go p.accept(listener)
	t.Cleanup(func() {
		p.Door(DoorClosed)
		p.Cut(false)
	})
	return p
}

// Door opens or closes the way for new connections.
func (p *Proxy) Door(d Door) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.listener != nil {
		p.listener.Close()
		p.listener = nil
	}
	for _, c := range p.hole {
		c.Close()
	}
	p.hole = nil
	switch d {
	case DoorOpen:
		if err := takeBack(func() (err error) {
			p.listener, err = net.Listen("tcp", p.Addr)
			return err
		}); err != nil {
			p.t.Error(err)
			return
		}
		go p.accept(p.listener)
	case DoorGone:
		if err := p.dig(); err != nil {
			p.t.Error(err)
		}
	}
}

// takeBack binds a port that was closed a moment ago. A process that another cell
// is starting has a copy of the closed socket until it runs its program, and the
// hole's last connection may be on its way out: both end by themselves.
func takeBack(bind func() error) error {
	err := bind()
	for try := 0; err != nil && try < 200; try++ {
		time.Sleep(10 * time.Millisecond)
		err = bind()
	}
	return err
}

// dig makes a listener whose backlog is full: the kernel drops its SYNs.
func (p *Proxy) dig() error {
	_, text, err := net.SplitHostPort(p.Addr)
	if err != nil {
		return err
	}
	port, err := strconv.Atoi(text)
	if err != nil {
		return err
	}
	hole, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	p.hole = append(p.hole, closer(hole))
	if err := syscall.SetsockoptInt(hole, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1); err != nil {
		return err
	}
	if err := takeBack(func() error {
		return syscall.Bind(hole, &syscall.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 1}})
	}); err != nil {
		return err
	}
	if err := takeBack(func() error { return syscall.Listen(hole, 0) }); err != nil {
		return err
	}
	for range 16 {
		filler, err := net.DialTimeout("tcp", p.Addr, 100*time.Millisecond)
		if err != nil {
			return nil
		}
		p.hole = append(p.hole, filler)
	}
	return errors.New("this kernel does not drop the SYNs of a full backlog")
}

type closer int

func (fd closer) Close() error { return syscall.Close(int(fd)) }

// Cut ends the connections there are, with RST or FIN.
func (p *Proxy) Cut(reset bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for l := range p.links {
		if reset {
			_ = l.client.SetLinger(0)
		}
		l.client.Close()
	}
}

func (p *Proxy) accept(listener net.Listener) {
	for {
		client, err := listener.Accept()
		if err != nil {
			return
		}
		go p.serve(client.(*net.TCPConn))
	}
}

func (p *Proxy) serve(client *net.TCPConn) {
	p.ledger.trial(p.gateway)
	server, err := net.Dial("tcp", p.upstream)
	if err != nil {
		client.Close()
		return
	}
	l := &proxied{proxy: p, client: client, server: server.(*net.TCPConn), fifo: make(chan exchange, 1<<16)}
	p.mu.Lock()
	p.links[l] = true
	p.mu.Unlock()
	go l.commands()
	l.replies()
	p.mu.Lock()
	delete(p.links, l)
	p.mu.Unlock()
}

// commands passes on what the gateway says. What has arrived here is executed
// even if the gateway hangs up meanwhile, as with any network in between.
func (l *proxied) commands() {
	defer close(l.fifo)
	in := bufio.NewReaderSize(l.client, 1<<16)
	for {
		words, err := readCommand(in)
		if err != nil {
			return
		}
		source := l.proxy.script(words)
		forward, answer := words, ""
		b := l.proxy.now.Load()
		if b != nil && b.Held != nil && b.Held(words) {
			<-b.done
		}
		if b != nil && b.Swallowed != nil && b.Swallowed(words) {
			_ = l.client.SetLinger(0)
			l.client.Close()
			return
		}
		if b != nil && b.Command != nil {
			forward, answer = b.Command(words, source)
		}
		if answer != "" || !strings.EqualFold(words[0], "SUBSCRIBE") { // whose reply is a push
			l.fifo <- exchange{words: words, answer: answer, at: time.Now()}
		}
		if answer != "" {
			continue
		}
		if _, err := l.server.Write(encode(forward)); err != nil {
			return
		}
	}
}

// replies passes on what Redis answers, in the order of the commands.
func (l *proxied) replies() {
	defer l.client.Close()
	defer l.server.Close()
	incoming := make(chan []byte, 1<<10)
	go func() {
		defer close(incoming)
		in := bufio.NewReaderSize(l.server, 1<<16)
		for {
			reply, err := readReply(in)
			if err != nil {
				return
			}
			incoming <- reply
		}
	}()
	defer func() { // lets the reader end
		l.server.Close()
		for range incoming {
		}
	}()
	for fifo := l.fifo; fifo != nil; {
		select {
		case x, more := <-fifo:
			switch {
			case !more:
				fifo = nil
			case x.answer != "":
				l.deliver(x, []byte(x.answer))
			default:
				reply, alive := l.next(incoming)
				if !alive {
					return
				}
				l.note(x, reply, l.deliver(x, reply))
			}
		case reply, alive := <-incoming:
			if !alive {
				return
			}
			for reply[0] != '>' {
				x, more := <-fifo // Redis's farewell answers no command: then this is the end
				if !more {
					break
				}
				if x.answer == "" {
					l.note(x, reply, l.deliver(x, reply))
					reply = nil
					break
				}
				l.deliver(x, []byte(x.answer))
			}
			if reply != nil {
				l.client.Write(reply)
			}
		}
	}
}

// next is Redis's next reply to a command; pushes before it pass through.
func (l *proxied) next(incoming chan []byte) ([]byte, bool) {
	for {
		select {
		case reply, alive := <-incoming:
			if alive && reply[0] == '>' {
				l.client.Write(reply)
				continue
			}
			return reply, alive
		case <-time.After(time.Minute):
			return nil, false
		}
	}
}

// deliver gives the gateway a reply as the fault of the moment would have it,
// and tells whether it was a whole one.
func (l *proxied) deliver(x exchange, reply []byte) bool {
	b := l.proxy.now.Load()
	if b != nil && b.Late > 0 {
		time.Sleep(time.Until(x.at.Add(b.Late)))
	}
	if b != nil && b.Reply != nil && x.answer == "" {
		return b.Reply(l.client, x.words, reply)
	}
	_, err := l.client.Write(reply)
	return err == nil
}

// note writes down what Redis did.
func (l *proxied) note(x exchange, reply []byte, delivered bool) {
	if delivered && reply[0] != '-' && time.Since(x.at) < l.proxy.ledger.timeout {
		l.proxy.ledger.trial(l.proxy.gateway)
	}
	if !reserves(x.words) || reply[0] != '+' {
		return
	}
	g := l.proxy.ledger
	g.mu.Lock()
	defer g.mu.Unlock()
	g.executions[strings.Join(x.words[3:], " ")]++
	if delivered && !g.since.IsZero() && g.first[l.proxy.gateway].IsZero() {
		g.first[l.proxy.gateway] = time.Now()
	}
}

func newLedger(timeout time.Duration) *Ledger {
	return &Ledger{timeout: timeout, executions: map[string]int{}, first: map[int]time.Time{}, trials: map[int][]time.Time{}}
}

// trial notes a new connection, or an answer in time: either closes a breaker, or
// keeps it closed.
func (g *Ledger) trial(gateway int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.trials[gateway] = append(g.trials[gateway], time.Now())
}

// trialsOf tells when a gateway had reason to call Redis well.
func (g *Ledger) trialsOf(gateway int) []time.Time {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Clone(g.trials[gateway])
}

// awaitFirst starts to look for each gateway's first reservation.
func (g *Ledger) awaitFirst() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.since = time.Now()
	g.first = map[int]time.Time{}
}

// recovered tells when the last of all gateways made its first reservation,
// counted from awaitFirst; false while one has none.
func (g *Ledger) recovered() (time.Duration, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.first) < gateways {
		return 0, false
	}
	last := time.Duration(0)
	for _, at := range g.first {
		last = max(last, at.Sub(g.since))
	}
	return last, true
}

// script remembers the source of an EVAL and finds that of an EVALSHA.
func (p *Proxy) script(words []string) string {
	if len(words) < 2 {
		return ""
	}
	switch strings.ToUpper(words[0]) {
	case "EVAL":
		sum := sha1.Sum([]byte(words[1]))
		p.sources.Store(hex.EncodeToString(sum[:]), words[1])
		return words[1]
	case "EVALSHA":
		if source, ok := p.sources.Load(strings.ToLower(words[1])); ok {
			return source.(string)
		}
	}
	return ""
}

// reserves tells whether a command is a call of the limit's script that needs
// something: EVALSHA hash 1 key "window limit cost need extra instances[...]...".
func reserves(words []string) bool {
	if !isScript(words) || len(words) != 5 {
		return false
	}
	asked, _, _ := strings.Cut(words[4], "[")
	ask := strings.Fields(asked)
	return len(ask) == 6 && ask[3] != "0"
}

// isScript tells whether a command runs a script.
func isScript(words []string) bool {
	name := strings.ToUpper(words[0])
	return name == "EVALSHA" || name == "EVAL"
}

// encode writes a command as RESP.
func encode(words []string) []byte {
	out := fmt.Appendf(nil, "*%d\r\n", len(words))
	for _, w := range words {
		out = fmt.Appendf(out, "$%d\r\n%s\r\n", len(w), w)
	}
	return out
}

// readCommand reads an array of bulk strings.
func readCommand(in *bufio.Reader) ([]string, error) {
	count, err := readCount(in, '*')
	if err != nil {
		return nil, err
	}
	words := make([]string, count)
	for i := range words {
		n, err := readCount(in, '$')
		if err != nil {
			return nil, err
		}
		body := make([]byte, n+2)
		if _, err := io.ReadFull(in, body); err != nil {
			return nil, err
		}
		words[i] = string(body[:n])
	}
	if len(words) == 0 {
		return nil, errors.New("a command without words")
	}
	return words, nil
}

func readCount(in *bufio.Reader, kind byte) (int, error) {
	line, err := in.ReadString('\n')
	if err != nil {
		return 0, err
	}
	if line[0] != kind {
		return 0, fmt.Errorf("want %q, got %q", kind, line)
	}
	return strconv.Atoi(strings.TrimSpace(line[1:]))
}

// readReply reads one reply as it came.
func readReply(in *bufio.Reader) ([]byte, error) {
	line, err := in.ReadBytes('\n')
	if err != nil {
		return nil, err
	}
	reply := append([]byte(nil), line...)
	n, _ := strconv.Atoi(strings.TrimSpace(string(line[1:])))
	switch line[0] {
	case '$', '=', '!':
		if n < 0 {
			return reply, nil
		}
		body := make([]byte, n+2)
		if _, err := io.ReadFull(in, body); err != nil {
			return nil, err
		}
		return append(reply, body...), nil
	case '%', '|':
		n *= 2
		fallthrough
	case '*', '~', '>':
		for range n {
			element, err := readReply(in)
			if err != nil {
				return nil, err
			}
			reply = append(reply, element...)
		}
	}
	return reply, nil
}
