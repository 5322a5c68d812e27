package plugin

import (
	"crypto/rand"
	"encoding/hex"
	"net/http"
	"regexp"
	"strings"
	"sync"

	"github.com/sluice-gateway/sluice/plugin/config"
)

var canonicalUUID = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$`)

// vouchedID is the identifier that a trusted proxy sent, if it is a canonical
// UUID: it goes into every log line (design: request-id). Without one it is a new one.
func vouchedID(g *gate, r *http.Request) []string {
	sent := r.Header[config.RequestIDHeader]
	if len(sent) == 1 && canonicalUUID.MatchString(sent[0]) && within(g.address.Trusted, parseAddress(r.RemoteAddr)) {
		return sent
	}
	return newUUID()
}

// uuids are made ahead by a goroutine of their own: to receive one costs the
// interpreter next to nothing, to make one half as much as all else that a request
// needs.
var (
	uuids       = make(chan []string, 4*uuidBatch)
	makingUUIDs sync.Once
)

// uuidBatch is how many share their first 24 characters. Of their 122 random bits
// (RFC 9562, section 5.4) the last 48 are drawn for each: two of a batch are equal
// once in 10^11 batches.
const uuidBatch = 64

// newUUID is a random UUID, version 4, for one request, as a header's value.
func newUUID() []string {
	id := <-uuids // not returned at once: Yaegi cannot
	return id
}

// makeUUIDs sends them for as long as the process lives. A batch is put together by
// few native calls.
func makeUUIDs(made chan []string) {
	tail := regexp.MustCompile(`.{12}`)
	random := make([]byte, 10+6*uuidBatch)
	var batch []string
	var text string
	var i int
	for {
		rand.Read(random) // never fails
		random[6] = random[6]&0x0f | 0x40
		random[8] = random[8]&0x3f | 0x80
		text = hex.EncodeToString(random)
		batch = strings.Fields(tail.ReplaceAllString(text[20:], text[:8]+"-"+text[8:12]+"-"+text[12:16]+"-"+text[16:20]+"-$0 "))
		for i = range batch {
			made <- batch[i : i+1 : i+1]
		}
	}
}
