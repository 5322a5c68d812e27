package redistest

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// Answer says what a Proxy does with a command, which is given in lower case
// but for its arguments: pass it on, or answer it with these bytes.
type Answer func(words []string) (reply string, ours bool)

// Proxy stands in front of a redis-server and answers in its place what it is
// told to, byte for byte: as an old version would, a proxy, or something that
// is no Redis at all.
type Proxy struct {
	Addr string

	answer   atomic.Pointer[Answer]
	listener net.Listener
	tasks    sync.WaitGroup

	mu    sync.Mutex // protects conns
	conns []net.Conn
}

// Interpose starts a proxy that passes everything on to target. Without a
// target, what it has no answer for is answered by an error.
func Interpose(t testing.TB, target string) *Proxy {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{Addr: listener.Addr().String(), listener: listener}
	p.Pass()
	p.tasks.Go(func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			p.keep(client)
			p.tasks.Go(func() {
				defer client.Close()
				p.serve(client, target)
			})
		}
	})
	t.Cleanup(p.close)
	return p
}

// Pass makes the proxy pass everything on.
func (p *Proxy) Pass() { p.Reply(func([]string) (string, bool) { return "", false }) }

// Reply makes the proxy answer as told, from the next command on. An answer of
// its own that is empty closes the connection.
func (p *Proxy) Reply(answer Answer) { p.answer.Store(&answer) }

// ReplyTo answers the named commands with reply.
func (p *Proxy) ReplyTo(reply string, commands ...string) {
	p.Reply(func(words []string) (string, bool) {
		for _, command := range commands {
			if words[0] == command {
				return reply, true
			}
		}
		return "", false
	})
}

func (p *Proxy) keep(conn net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.conns = append(p.conns, conn)
}

func (p *Proxy) serve(client net.Conn, target string) {
	requests := bufio.NewReader(client)
	answers := bufio.NewWriter(client)
	defer answers.Flush() // before an answer that is empty ends the connection
	var server net.Conn
	var replies *bufio.Reader
	if target != "" {
		var err error
		if server, err = net.Dial("tcp", target); err != nil {
			return
		}
		defer server.Close()
		p.keep(server)
		replies = bufio.NewReader(server)
	}
	for {
		words, raw, err := readCommand(requests)
		if err != nil {
			return
		}
		reply, ours := (*p.answer.Load())(words)
		switch {
		case ours && reply == "":
			return
		case ours:
		case server == nil:
			reply = "-ERR unknown command\r\n"
		default:
			if _, err := server.Write(raw); err != nil {
				return
			}
			if words[0] == "subscribe" || words[0] == "psubscribe" {
				if answers.Flush() != nil {
					return
				}
				p.tasks.Go(func() { _, _ = io.Copy(server, requests) })
				_, _ = io.Copy(client, replies)
				return
			}
			var passed bytes.Buffer
			if err := readReply(replies, &passed); err != nil {
				return
			}
			reply = passed.String()
		}
		if _, err := answers.WriteString(reply); err != nil {
			return
		}
		// Like Redis, it answers a pipeline at once: by how much of an answer comes
		// first, a client may see or not see what is wrong with it.
		if requests.Buffered() == 0 && answers.Flush() != nil {
			return
		}
	}
}

func (p *Proxy) close() {
	p.listener.Close()
	p.mu.Lock()
	for _, conn := range p.conns {
		conn.Close()
	}
	p.mu.Unlock()
	p.tasks.Wait()
}

// readCommand reads an array of bulk strings.
func readCommand(r *bufio.Reader) (words []string, raw []byte, err error) {
	var all bytes.Buffer
	if err := readReply(r, &all); err != nil {
		return nil, nil, err
	}
	rest := all.String()
	var count int
	if _, err := fmt.Sscanf(rest, "*%d\r\n", &count); err != nil || count < 1 {
		return nil, nil, fmt.Errorf("no command: %q", rest)
	}
	for range count {
		_, rest, _ = strings.Cut(rest, "$")
		header, body, _ := strings.Cut(rest, "\r\n")
		length, err := strconv.Atoi(header)
		if err != nil || length > len(body) {
			return nil, nil, fmt.Errorf("no command: %q", all.String())
		}
		words, rest = append(words, body[:length]), body[length:]
	}
	words[0] = strings.ToLower(words[0])
	return words, all.Bytes(), nil
}

// readReply copies one reply of RESP 2 or 3.
func readReply(r *bufio.Reader, into *bytes.Buffer) error {
	line, err := r.ReadString('\n')
	if err != nil {
		return err
	}
	into.WriteString(line)
	count, _ := strconv.Atoi(strings.TrimSpace(line[1:]))
	switch line[0] {
	case '$', '=', '!':
		if count >= 0 {
			_, err = io.CopyN(into, r, int64(count)+2)
		}
		return err
	case '%':
		count *= 2
	case '|':
		count = 2*count + 1
	case '*', '~', '>':
	default:
		return nil
	}
	for range count {
		if err := readReply(r, into); err != nil {
			return err
		}
	}
	return nil
}
