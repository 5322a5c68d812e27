package forms_test

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/test/harness"
)

// served puts a gate before a real upstream.
func (b *bed) served(t *testing.T, config string) (base string, up *harness.Upstream) {
	up = harness.NewUpstream()
	return b.before(t, config, up.ServeHTTP), up
}

// streaming are the gates that an answer may have to stream through: the one
// that only passes on, and the one that watches the answer's status.
var streaming = map[string]string{
	"passed on":  `{redis: REDIS, limits: [{name: l, key: ip, limit: 1000, window: 1h}]}`,
	"watched":    `{redis: REDIS, limits: [{name: l, key: ip, limit: 1000, window: 1h, countStatus: [401, 5xx]}]}`,
	"refundable": `{redis: REDIS, limits: [{name: l, key: ip, limit: 1000, window: 1h, refundStatus: [101]}]}`,
}

// TestEventStream is design: answer-wrapper: each event arrives before the next exists.
func TestEventStream(t *testing.T) {
	both(t, func(t *testing.T, b *bed) {
		for name, config := range streaming {
			t.Run(name, func(t *testing.T) {
				base, up := b.served(t, config)
				client := &http.Client{Timeout: 20 * time.Second}
				defer client.CloseIdleConnections()
				up.Stream(t, client, base+"/events")
			})
		}
	})
}

// TestWebSocket is design: answer-wrapper on connections that stop being HTTP.
func TestWebSocket(t *testing.T) {
	both(t, func(t *testing.T, b *bed) {
		for name, config := range streaming {
			t.Run(name, func(t *testing.T) {
				base, up := b.served(t, config)
				up.Socket(t, base, "X-User-ID: root\r\n")
				if got := up.Last(t).Header.Get("X-User-ID"); got != "" {
					t.Errorf("the upgrade carried X-User-ID: %s", got)
				}
			})
		}
	})
}

// TestEarlyAnswers: 103 and 100 announce an answer and are none.
func TestEarlyAnswers(t *testing.T) {
	both(t, func(t *testing.T, b *bed) {
		b.redis.RoomIn(hour, 30*time.Second)
		hints := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Link", "</a.css>; rel=preload")
			w.WriteHeader(http.StatusEarlyHints)
			body, err := io.ReadAll(r.Body) // sends 100 Continue
			if err != nil || len(body) != 5 {
				panic(http.ErrAbortHandler)
			}
			w.WriteHeader(http.StatusUnauthorized)
		})
		server := httptest.NewServer(b.gateTo(`{redis: REDIS, limits: [{name: guess, key: ip, limit: 2, window: 1h, countStatus: [401]}]}`, hints))
		t.Cleanup(server.Close) // after the connections, which it would wait for
		var got []string
		for range 3 {
			connection := harness.Dial(t, server.URL)
			fmt.Fprintf(connection, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
			reader := bufio.NewReader(connection)
			said := ""
			for {
				response, err := http.ReadResponse(reader, nil)
				if err != nil {
					t.Fatal(err)
				}
				said += fmt.Sprintf("%d ", response.StatusCode)
				if response.StatusCode == http.StatusContinue {
					fmt.Fprint(connection, "hello")
				}
				if response.StatusCode >= 200 {
					break
				}
			}
			got = append(got, strings.TrimSpace(said))
		}
		if strings.Join(got, ", ") != "103 100 401, 103 100 401, 429" {
			t.Errorf("answers: %q", got)
		}
	})
}

// TestBodiesPassUntouched: the gate neither reads nor changes what goes either
// way, watched or not.
func TestBodiesPassUntouched(t *testing.T) {
	const size = 8 << 20
	both(t, func(t *testing.T, b *bed) {
		for name, config := range streaming {
			t.Run(name, func(t *testing.T) {
				base, up := b.served(t, config)
				response, err := http.Post(base+"/upload", "application/octet-stream", io.LimitReader(harness.Endless{}, size))
				if err != nil {
					t.Fatal(err)
				}
				response.Body.Close()
				if got := up.Last(t).BodySize; response.StatusCode != 200 || got != size {
					t.Errorf("%s, %d bytes of %d", response.Status, got, size)
				}
			})
		}
	})
}
