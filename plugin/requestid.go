package plugin

import (
	"crypto/rand"
	"encoding/hex"
	"net/http"
	"regexp"
)

const requestIDHeader = "X-Request-Id"

var canonicalUUID = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$`)

// requestID names the request on its way in and on its way out. An identifier
// that a client sent is believed only from a trusted proxy and only as a
// canonical UUID: it goes into every log line (RULES 30). One that stands on
// the response already was put there by another of our middlewares on the way
// (classic wiring), and no client can have.
func (g *gate) requestID(w http.ResponseWriter, r *http.Request) string {
	out := w.Header()
	if named := out[requestIDHeader]; len(named) == 1 {
		r.Header[requestIDHeader] = named
		return named[0]
	}
	id := ""
	if len(g.address.trusted) > 0 {
		if sent := r.Header[requestIDHeader]; len(sent) == 1 && canonicalUUID.MatchString(sent[0]) && within(g.address.trusted, parseAddress(r.RemoteAddr)) {
			id = sent[0]
		}
	}
	if id == "" {
		id = newUUID()
	}
	value := []string{id}
	r.Header[requestIDHeader] = value
	out[requestIDHeader] = value
	return id
}

// newUUID is a random UUID, version 4 (RFC 9562, section 5.4).
func newUUID() string {
	var b [16]byte
	rand.Read(b[:]) // never fails: crypto/rand crashes the program instead
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	x := hex.EncodeToString(b[:])
	return x[:8] + "-" + x[8:12] + "-" + x[12:16] + "-" + x[16:20] + "-" + x[20:]
}
