package attacks

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// front is one of the ways in.
type front struct {
	name string
	tls  bool
	h2   bool
}

var (
	plain1 = front{"HTTP/1.1", false, false}
	tls1   = front{"HTTP/1.1 TLS", true, false}
	tls2   = front{"HTTP/2 TLS", true, true}
	plain2 = front{"HTTP/2 cleartext", false, true} // prior knowledge, RFC 9113 section 3.3
	fronts = []front{plain1, tls1, tls2, plain2}
)

// field is one header line, spelled as it is sent.
type field struct{ name, value string }

// message is a request as it is sent, legal or not.
type message struct {
	method, target, host string
	fields               []field
	body                 string
	trailers             []field
	pseudo               []field // of HTTP/2, in place of those that method, target and host make
}

// answer is what came back; status 0: the connection or stream was closed.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// patience bounds the wait for any answer.
const patience = 10 * time.Second

var errClosed = errors.New("closed without an answer")

// client sends messages to one front, over one connection while it lasts.
type client struct {
	address string
	front   front
	from    string // local address; empty: any

	connection net.Conn
	reader     *bufio.Reader
	h2         *http2Conn
}

func (c *client) close() {
	if c.connection != nil {
		c.connection.Close()
	}
	c.connection, c.reader, c.h2 = nil, nil, nil
}

func (c *client) dial() error {
	dialer := &net.Dialer{Timeout: patience}
	if c.from != "" {
		dialer.LocalAddr = &net.TCPAddr{IP: net.ParseIP(c.from)}
	}
	connection, err := dialer.Dial("tcp", c.address)
	if err != nil {
		return err
	}
	if c.front.tls {
		protocol := "http/1.1"
		if c.front.h2 {
			protocol = "h2"
		}
		// The stack under attack signs its certificate itself.
		connection = tls.Client(connection, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{protocol}})
	}
	c.connection, c.reader = connection, bufio.NewReader(connection)
	if c.front.h2 {
		c.h2, err = openHTTP2(connection)
	}
	return err
}

// send returns the answer. That the gateway closes instead is an answer too.
func (c *client) send(m message) (answer, error) {
	if c.connection == nil {
		if err := c.dial(); err != nil {
			c.close()
			return answer{}, fmt.Errorf("dial: %w", err)
		}
	}
	if err := c.connection.SetDeadline(time.Now().Add(patience)); err != nil {
		return answer{}, err
	}
	var got answer
	var err error
	if c.h2 != nil {
		got, err = c.h2.roundTrip(m)
	} else {
		got, err = c.http1(m)
	}
	if err != nil {
		c.close()
		var timeout net.Error
		if errors.As(err, &timeout) && timeout.Timeout() {
			return got, err
		}
		return answer{}, nil
	}
	return got, nil
}

func (c *client) http1(m message) (answer, error) {
	if _, err := c.connection.Write(m.http1()); err != nil {
		return answer{}, err
	}
	response, err := http.ReadResponse(c.reader, &http.Request{Method: m.method})
	if err != nil {
		return answer{}, err
	}
	got := answer{status: response.StatusCode, header: response.Header}
	if response.StatusCode == http.StatusSwitchingProtocols {
		c.close()
		return got, nil
	}
	got.body, err = io.ReadAll(response.Body)
	if response.Close || err != nil {
		c.close()
	}
	return got, nil
}

// http1 writes the message as HTTP/1.1.
func (m message) http1() []byte {
	var out bytes.Buffer
	fmt.Fprintf(&out, "%s %s HTTP/1.1\r\nHost: %s\r\n", m.method, m.target, m.host)
	for _, f := range m.fields {
		fmt.Fprintf(&out, "%s: %s\r\n", f.name, f.value)
	}
	switch {
	case len(m.trailers) > 0:
		fmt.Fprintf(&out, "Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n", max(1, len(m.body)), cmpBody(m.body))
		for _, f := range m.trailers {
			fmt.Fprintf(&out, "%s: %s\r\n", f.name, f.value)
		}
		out.WriteString("\r\n")
	case m.body != "" || m.method == "POST" || m.method == "PUT" || m.method == "PATCH":
		fmt.Fprintf(&out, "Content-Length: %d\r\n\r\n%s", len(m.body), m.body)
	default:
		out.WriteString("\r\n")
	}
	return out.Bytes()
}

func cmpBody(body string) string {
	if body == "" {
		return "x"
	}
	return body
}

// http2Conn speaks frames, so that a header may be sent which no client would.
type http2Conn struct {
	framer  *http2.Framer
	encoded bytes.Buffer
	encoder *hpack.Encoder
	next    uint32
	streams uint32 // SETTINGS_MAX_CONCURRENT_STREAMS
}

func openHTTP2(connection net.Conn) (*http2Conn, error) {
	if err := connection.SetDeadline(time.Now().Add(patience)); err != nil {
		return nil, err
	}
	if _, err := io.WriteString(connection, http2.ClientPreface); err != nil {
		return nil, err
	}
	c := &http2Conn{framer: http2.NewFramer(connection, connection), next: 1}
	c.encoder = hpack.NewEncoder(&c.encoded)
	c.framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	c.framer.AllowIllegalWrites = true
	if err := c.framer.WriteSettings(http2.Setting{ID: http2.SettingEnablePush, Val: 0}); err != nil {
		return nil, err
	}
	for {
		frame, err := c.framer.ReadFrame()
		if err != nil {
			return nil, err
		}
		if settings, ok := frame.(*http2.SettingsFrame); ok && !settings.IsAck() {
			c.streams, _ = settings.Value(http2.SettingMaxConcurrentStreams)
			return c, c.framer.WriteSettingsAck()
		}
	}
}

func (c *http2Conn) block(fields []field) []byte {
	c.encoded.Reset()
	for _, f := range fields {
		_ = c.encoder.WriteField(hpack.HeaderField{Name: f.name, Value: f.value}) // to a buffer
	}
	return bytes.Clone(c.encoded.Bytes())
}

// roundTrip sends names in lower case, as HTTP/2 demands; one that begins with
// "!" is sent as it stands.
func (c *http2Conn) roundTrip(m message) (answer, error) {
	id := c.next
	c.next += 2
	scheme := "https"
	all := []field{{":method", m.method}, {":scheme", scheme}, {":authority", m.host}}
	if m.method != "CONNECT" || m.target != "" {
		all = append(all, field{":path", m.target})
	}
	if m.pseudo != nil {
		all = spelled(m.pseudo)
	}
	all = append(all, spelled(m.fields)...)
	hasBody := m.body != "" || len(m.trailers) > 0
	block := c.block(all)
	const most = 16000 // of a frame's 16,384
	first := block[:min(len(block), most)]
	rest := block[len(first):]
	if err := c.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: first, EndStream: !hasBody, EndHeaders: len(rest) == 0}); err != nil {
		return answer{}, err
	}
	for len(rest) > 0 {
		part := rest[:min(len(rest), most)]
		rest = rest[len(part):]
		if err := c.framer.WriteContinuation(id, len(rest) == 0, part); err != nil {
			return answer{}, err
		}
	}
	if hasBody {
		if err := c.framer.WriteData(id, len(m.trailers) == 0, []byte(m.body)); err != nil {
			return answer{}, err
		}
	}
	if len(m.trailers) > 0 {
		if err := c.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: c.block(spelled(m.trailers)), EndStream: true, EndHeaders: true}); err != nil {
			return answer{}, err
		}
	}
	return c.read(id)
}

func spelled(fields []field) []field {
	out := make([]field, 0, len(fields))
	for _, f := range fields {
		name, asItIs := strings.CutPrefix(f.name, "!")
		if !asItIs {
			name = strings.ToLower(name)
		}
		out = append(out, field{name, f.value})
	}
	return out
}

func (c *http2Conn) read(id uint32) (answer, error) {
	got := answer{header: http.Header{}}
	for {
		frame, err := c.framer.ReadFrame()
		if err != nil {
			return got, err
		}
		switch f := frame.(type) {
		case *http2.MetaHeadersFrame:
			if f.StreamID != id {
				continue
			}
			for _, h := range f.Fields {
				if h.Name == ":status" {
					got.status, _ = strconv.Atoi(h.Value)
				} else {
					got.header.Add(h.Name, h.Value)
				}
			}
			if f.StreamEnded() {
				return got, nil
			}
		case *http2.DataFrame:
			if f.StreamID != id {
				continue
			}
			got.body = append(got.body, f.Data()...)
			if n := len(f.Data()); n > 0 { // the windows never close
				_ = c.framer.WriteWindowUpdate(0, uint32(n))
				_ = c.framer.WriteWindowUpdate(id, uint32(n))
			}
			if f.StreamEnded() {
				return got, nil
			}
		case *http2.RSTStreamFrame:
			if f.StreamID == id { // NO_ERROR follows an answer that did not wait for the body
				if got.status != 0 {
					return got, nil
				}
				return answer{}, nil
			}
		case *http2.GoAwayFrame:
			return got, errClosed
		case *http2.SettingsFrame:
			if !f.IsAck() {
				_ = c.framer.WriteSettingsAck()
			}
		case *http2.PingFrame:
			if !f.IsAck() {
				_ = c.framer.WritePing(true, f.Data)
			}
		}
	}
}
