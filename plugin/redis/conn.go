package redis

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"
)

// A link is a connection that has shaken hands: authenticated, named, its
// database selected, and answering.
type link struct {
	address string
	raw     net.Conn // TCP
	conn    net.Conn // raw, or TLS over it
	parser  *parser
	replica bool
}

// dial opens a connection and nothing more. Everything up to the end of the
// handshake has to be done within DialTimeout.
func (c *Client) dial(ctx context.Context, address string, limit int) (*link, error) {
	until := time.Now().Add(c.config.DialTimeout)
	ctx, cancel := context.WithDeadline(ctx, until)
	defer cancel()
	raw, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, networkError(err)
	}
	raw.SetDeadline(until)
	l := &link{address: address, raw: raw, conn: raw}
	if c.config.TLS != nil {
		settings := c.config.TLS.Clone()
		if settings.ServerName == "" {
			settings.ServerName, _, _ = net.SplitHostPort(address)
		}
		secure := tls.Client(raw, settings)
		if err := secure.HandshakeContext(ctx); err != nil {
			raw.Close()
			return nil, fmt.Errorf("%w: %w", faultTLS.err, err)
		}
		l.conn = secure
	}
	l.parser = newParser(l.conn, limit)
	return l, nil
}

// connect opens a connection that is ready for calls: to a master, unless the
// server is too old or too closed to say what it is.
func (c *Client) connect(ctx context.Context, address string) (*link, error) {
	l, err := c.dial(ctx, address, maxReply)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { l.raw.Close() })
	defer stop()
	if err := c.greet(l); err != nil {
		l.raw.Close()
		return nil, err
	}
	if l.replica {
		l.raw.Close()
		return nil, fmt.Errorf("%w: %s is a replica", faultReadOnly.err, address)
	}
	return l, nil
}

// greet shakes hands by HELLO with those who know it.
func (c *Client) greet(l *link) error {
	password, err := c.password()
	if err != nil {
		return err
	}
	hello := []string{"HELLO", "2"}
	if password != "" {
		hello = append(hello, "AUTH", c.user(), password)
	}
	if c.config.ClientName != "" {
		hello = append(hello, "SETNAME", c.config.ClientName)
	}
	commands := [][]string{hello}
	if c.config.DB != 0 {
		commands = append(commands, []string{"SELECT", strconv.Itoa(c.config.DB)})
	}
	commands = append(commands, []string{"PING"})
	replies, err := l.ask(commands...)
	if err != nil {
		return err
	}
	if first := replies[0]; first.kind == kindError {
		if !knowsNoHello(first.text, password != "") {
			return replyError(first.text)
		}
		return c.greetOld(l, password)
	}
	l.replica = textOf(replies[0], "role") == "replica"
	if err := tooOld(textOf(replies[0], "version")); err != nil {
		return err
	}
	return ready(l, replies[1:])
}

// knowsNoHello tells whether the answer to HELLO leaves hope for the handshake
// that every server and proxy knows: HELLO is unknown or forbidden, or a proxy
// wants AUTH by itself before anything else.
func knowsNoHello(text string, password bool) bool {
	switch f := faultOf(text); f.word {
	case "noauth":
		return password
	case "noperm":
		return true
	default:
		return !f.away && (strings.HasPrefix(text, "ERR") || strings.HasPrefix(text, "NOPROTO"))
	}
}

// oldestVersion is the first Redis whose scripts may read the clock and write.
const oldestVersion = 5

// tooOld refuses a server that is too old; one that does not tell its version,
// or in another way than Redis, may be as it likes.
func tooOld(version string) error {
	major, err := strconv.Atoi(strings.SplitN(version, ".", 2)[0])
	if err != nil || major >= oldestVersion {
		return nil
	}
	return fmt.Errorf("%w: this is Redis %s, and the limits need %d.0 or newer, whose scripts may both read the clock and write", errTooOld, clip(version, maxQuote), oldestVersion)
}

// greetOld is the handshake before Redis 6.
func (c *Client) greetOld(l *link, password string) error {
	var commands [][]string
	if password != "" {
		if c.config.Username != "" {
			commands = append(commands, []string{"AUTH", c.config.Username, password})
		} else {
			commands = append(commands, []string{"AUTH", password})
		}
	}
	if c.config.DB != 0 {
		commands = append(commands, []string{"SELECT", strconv.Itoa(c.config.DB)})
	}
	must := len(commands)
	if c.config.ClientName != "" {
		commands = append(commands, []string{"CLIENT", "SETNAME", c.config.ClientName})
	}
	commands = append(commands, []string{"INFO", "server"}, []string{"ROLE"}, []string{"PING"})
	replies, err := l.ask(commands...)
	if err != nil {
		return err
	}
	if err := tooOld(versionIn(replies[len(replies)-3].text)); err != nil {
		return err
	}
	// CLIENT, INFO and ROLE may be forbidden to us; a master is assumed then.
	if role, err := replies[len(replies)-2].array(); err == nil && len(role) > 0 {
		l.replica = role[0].text == "slave"
	}
	checked := append([]reply{}, replies[:must]...)
	return ready(l, append(checked, replies[len(replies)-1]))
}

// ready checks the replies to SELECT and PING, and that nothing else came.
// PING shows LOADING and BUSY, which HELLO does not; that it is forbidden is
// an answer as good as PONG.
func ready(l *link, replies []reply) error {
	for i, r := range replies {
		if r.kind != kindError {
			continue
		}
		if i == len(replies)-1 && faultOf(r.text).word == "noperm" {
			continue
		}
		return replyError(r.text)
	}
	if l.parser.in.Buffered() > 0 {
		return fmt.Errorf("%w: more replies than commands", ErrProtocol)
	}
	return l.raw.SetDeadline(time.Time{})
}

// textOf reads a field of HELLO's reply.
func textOf(hello reply, field string) string {
	for i := 0; i+1 < len(hello.list); i += 2 {
		if hello.list[i].text == field {
			return hello.list[i+1].text
		}
	}
	return ""
}

// versionIn reads the version in INFO's reply.
func versionIn(info string) string {
	const field = "redis_version:"
	at := strings.Index(info, field)
	if at < 0 {
		return ""
	}
	return strings.TrimSpace(strings.SplitN(info[at+len(field):], "\n", 2)[0])
}

// ask sends commands in one write and reads as many replies.
func (l *link) ask(commands ...[]string) ([]reply, error) {
	var wire []byte
	for _, words := range commands {
		wire = appendCommand(wire, words...)
	}
	// A server that is full or protected writes one error and closes: our
	// write may fail then, and the error is still there to be read.
	_, writing := l.conn.Write(wire)
	replies := make([]reply, 0, len(commands))
	for len(replies) < len(commands) {
		r, err := l.parser.read()
		if err != nil {
			if len(replies) > 0 && replies[0].kind == kindError {
				return nil, replyError(replies[0].text)
			}
			if writing != nil {
				err = writing
			}
			return nil, networkError(err)
		}
		replies = append(replies, r)
	}
	return replies, nil
}

func (c *Client) user() string {
	if c.config.Username == "" {
		return "default"
	}
	return c.config.Username
}

// password asks for the secret anew at every connection: it may have changed.
func (c *Client) password() (string, error) {
	if c.config.Password == nil {
		return "", nil
	}
	password, err := c.config.Password()
	if err != nil {
		return "", fmt.Errorf("redis: password: %w", err)
	}
	return password, nil
}
