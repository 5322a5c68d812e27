package plugin

import (
	"crypto/rand"
	"encoding/hex"
	"net/http"
	"regexp"
	"sync/atomic"
)

// requestIDHeader names a request on its way in and on its way out.
const requestIDHeader = "X-Request-Id"

var canonicalUUID = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$`)

// vouchedID is the identifier that a trusted proxy sent, if it is a canonical
// UUID: it goes into every log line (RULES 30). nil without one.
func vouchedID(g *gate, r *http.Request) []string {
	sent := r.Header[requestIDHeader]
	if len(sent) == 1 && canonicalUUID.MatchString(sent[0]) && within(g.address.trusted, parseAddress(r.RemoteAddr)) {
		return sent
	}
	return nil
}

// uuids are identifiers made ahead, of one piece that they share and one that
// they do not: the interpreter pays for a function where it is entered, not again
// for each turn of its loops, and for each piece of text put together.
type uuids struct {
	head  string   // the first 24 characters of all of them
	tails []string // the last 12 of each
	taken atomic.Int64
}

// uuidBatch is how many have a head in common. Of their 122 random bits (RFC
// 9562, section 5.4) the last 48 are drawn for each: two of a batch are equal
// once in 10^11 batches.
const uuidBatch = 64

var ahead atomic.Value // *uuids

// newUUID is a random UUID, version 4, for one request, as a header's value.
func newUUID() []string {
	if b, ok := ahead.Load().(*uuids); ok {
		if n := b.taken.Add(1); n <= uuidBatch {
			return []string{b.head + b.tails[n-1]}
		}
	}
	return makeUUIDs()
}

// makeUUIDs replaces what was made ahead, and takes the first.
func makeUUIDs() []string {
	var random [10 + 6*uuidBatch]byte
	rand.Read(random[:]) // never fails
	random[6] = random[6]&0x0f | 0x40
	random[8] = random[8]&0x3f | 0x80
	text := hex.EncodeToString(random[:])
	b := &uuids{head: text[:8] + "-" + text[8:12] + "-" + text[12:16] + "-" + text[16:20] + "-", tails: make([]string, uuidBatch)}
	for i := range b.tails {
		b.tails[i] = text[20+12*i : 32+12*i]
	}
	b.taken.Store(1)
	ahead.Store(b)
	return []string{b.head + b.tails[0]}
}
