package plugin

import (
	"math/rand/v2"
	"net/http"
	"regexp"
	"strconv"
)

const requestIDHeader = "X-Request-Id"

var canonicalUUID = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$`)

// requestID names the request on its way in and on its way out. An identifier
// that a client sent is believed only from a trusted proxy and only as a
// canonical UUID: it goes into every log line (RULES 30). One that stands on
// the response already was put there by another of our middlewares on the way
// (classic wiring), and no client can have.
func requestID(g *gate, out http.Header, r *http.Request) string {
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
// request and guards nothing, so the runtime's ChaCha8 is random enough. Its
// first bit is always set: a number of 64 bits then has sixteen hexadecimal
// digits, and two of them need no other formatting.
func newUUID() string {
	var buffer [32]byte
	digits := strconv.AppendUint(buffer[:0], rand.Uint64()&^0xf000|0x4000|1<<63, 16)
	digits = strconv.AppendUint(digits, rand.Uint64()&^(3<<62)|1<<63, 16)
	return string(digits[:8]) + "-" + string(digits[8:12]) + "-" + string(digits[12:16]) + "-" + string(digits[16:20]) + "-" + string(digits[20:])
}
