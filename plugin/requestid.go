package plugin

import (
	"encoding/binary"
	"encoding/hex"
	"math/rand/v2"
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
func requestID(g *gate, w http.ResponseWriter, r *http.Request) string {
	out := w.Header()
	value := out[requestIDHeader]
	if value == nil && len(g.address.trusted) > 0 {
		value = vouchedID(g, r)
	}
	if value == nil {
		value = []string{newUUID()}
	}
	r.Header[requestIDHeader] = value
	out[requestIDHeader] = value
	return value[0]
}

// vouchedID is the identifier that a trusted proxy sent; nil without one.
func vouchedID(g *gate, r *http.Request) []string {
	sent := r.Header[requestIDHeader]
	if len(sent) == 1 && canonicalUUID.MatchString(sent[0]) && within(g.address.trusted, parseAddress(r.RemoteAddr)) {
		return sent
	}
	return nil
}

// newUUID is a random UUID, version 4 (RFC 9562, section 5.4). It names a
// request and guards nothing, so the runtime's ChaCha8 is random enough.
func newUUID() string {
	var b [16]byte
	binary.BigEndian.PutUint64(b[:8], rand.Uint64()&^0xf000|0x4000)
	binary.BigEndian.PutUint64(b[8:], rand.Uint64()&^(3<<62)|1<<63)
	var text [36]byte
	hex.Encode(text[:8], b[:4])
	hex.Encode(text[9:13], b[4:6])
	hex.Encode(text[14:18], b[6:8])
	hex.Encode(text[19:23], b[8:10])
	hex.Encode(text[24:], b[10:])
	text[8], text[13], text[18], text[23] = '-', '-', '-', '-'
	return string(text[:])
}
