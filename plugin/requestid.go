package plugin

import (
	"math/rand/v2"
	"net/http"
	"regexp"
	"strconv"
	"sync/atomic"
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
		value = newUUID()
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

// uuids are identifiers made ahead, as header values. Interpreted, that saves a
// request 30 allocations of some 450: the interpreter pays for a function where
// it is entered, and not again for each turn of its loops.
type uuids struct {
	made  [][]string
	taken atomic.Int64
}

// uuidBatch is how many are made at a time, some 20 KiB.
const uuidBatch = 256

var ahead atomic.Value // *uuids

// newUUID is a random UUID, version 4 (RFC 9562, section 5.4), for one request.
func newUUID() []string {
	if b, ok := ahead.Load().(*uuids); ok {
		if n := b.taken.Add(1); n <= uuidBatch {
			return b.made[n-1]
		}
	}
	return makeUUIDs()
}

// makeUUIDs replaces what was made ahead, and takes the first. They name
// requests and guard nothing, so the runtime's ChaCha8 is random enough. The
// first bit of each half is set: a number of 64 bits then has sixteen
// hexadecimal digits, and two of them need no other formatting.
func makeUUIDs() []string {
	b := &uuids{made: make([][]string, uuidBatch)}
	var buffer [32]byte
	for i := range b.made {
		d := strconv.AppendUint(buffer[:0], rand.Uint64()&^0xf000|0x4000|1<<63, 16)
		d = strconv.AppendUint(d, rand.Uint64()&^(3<<62)|1<<63, 16)
		b.made[i] = []string{string(d[:8]) + "-" + string(d[8:12]) + "-" + string(d[12:16]) + "-" + string(d[16:20]) + "-" + string(d[20:])}
	}
	b.taken.Store(1)
	ahead.Store(b)
	return b.made[0]
}
