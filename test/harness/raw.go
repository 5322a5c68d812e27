package harness

import (
	"bufio"
	"crypto/tls"
	"net"
	"net/http"
	"net/url"
	"testing"
	"time"
)

// Dial opens a connection to a URL's host, TLS without verification for https:
// the stack under test signs its certificate itself.
func Dial(t testing.TB, base string) net.Conn {
	t.Helper()
	at, err := url.Parse(base)
	if err != nil {
		t.Fatal(err)
	}
	dialer := &net.Dialer{Timeout: 5 * time.Second}
	var connection net.Conn
	if at.Scheme == "https" {
		connection, err = tls.DialWithDialer(dialer, "tcp", at.Host, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}})
	} else {
		connection, err = dialer.Dial("tcp", at.Host)
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := connection.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { connection.Close() })
	return connection
}

// Raw sends bytes as they are, which no HTTP client would, and reads the first
// answer. The reader holds whatever follows it.
func Raw(t testing.TB, base, request string) (*http.Response, *bufio.Reader, net.Conn) {
	t.Helper()
	connection := Dial(t, base)
	if _, err := connection.Write([]byte(request)); err != nil {
		t.Fatal(err)
	}
	reader := bufio.NewReader(connection)
	response, err := http.ReadResponse(reader, nil)
	if err != nil {
		t.Fatal(err)
	}
	return response, reader, connection
}
