package forms_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/test/forms"
	"github.com/sluice-gateway/sluice/test/harness"
)

// before puts a gate before a service, with the proxy between them that Traefik
// uses, which answers in the service's stead by a status and a text alone.
func (b *bed) before(t *testing.T, config string, service http.HandlerFunc) (base string) {
	t.Helper()
	served := httptest.NewServer(service)
	t.Cleanup(served.Close)
	target, err := url.Parse(served.URL)
	if err != nil {
		t.Fatal(err)
	}
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target) },
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) {
			w.WriteHeader(http.StatusInternalServerError)
			_, _ = io.WriteString(w, http.StatusText(http.StatusInternalServerError))
		},
	}
	gate := httptest.NewServer(b.form.New(t, forms.FromFile(t, b.fill(config)), proxy))
	t.Cleanup(gate.Close)
	if strings.Contains(config, "REDIS") {
		b.connected()
	}
	return gate.URL
}

// moody does as it is asked by the path, and otherwise reads the body and answers
// 200; 500 if it cannot read it.
func moody(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/500":
		http.Error(w, "", http.StatusInternalServerError)
		return
	case "/dies":
		panic(http.ErrAbortHandler)
	case "/impatient":
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(200 * time.Millisecond))
	}
	if _, err := io.Copy(io.Discard, r.Body); err != nil {
		http.Error(w, "the body broke off", http.StatusInternalServerError)
	}
}

// TestClientsGetNoRefund: what the client brings about counts, whatever status it
// ends in, and is answered as its fault where it still listens.
func TestClientsGetNoRefund(t *testing.T) {
	const chunked, short = "Transfer-Encoding: chunked\r\n\r\n", "Content-Length: 10\r\n\r\nhello"
	much := strings.Repeat("a", 8000) // Go's client writes no less than its buffer holds
	ways := []struct {
		name, path, rest string
		status           int  // 0: the client does not wait for it
		halfClosed       bool // the client sends no more, and reads
		held             bool // the client keeps the connection, and says no more
		refundOnly       bool
	}{
		{name: "a line that is no size", path: "/", rest: chunked + "5\r\nhello\r\nno size\r\n", status: 400},
		{name: "a chunk longer than its size", path: "/", rest: chunked + "1\r\nhello\r\n0\r\n\r\n", status: 400},
		{name: "trailers that are none", path: "/", rest: chunked + "1\r\nx\r\n0\r\nno trailer\r\n\r\n", status: 400},
		{name: "a body that stops", path: "/", rest: chunked + "5\r\nhello\r\n", status: 400, halfClosed: true},
		{name: "a body shorter than its length", path: "/", rest: short, status: 400, halfClosed: true},
		{name: "a short body, and gone", path: "/", rest: short},
		{name: "a chunk, and gone", path: "/", rest: chunked + "5\r\nhello\r\n"},
		{name: "a stall that the service ends", path: "/impatient", rest: "Content-Length: 9000\r\n\r\n" + much, held: true},
		{name: "a stall in chunks that the service ends", path: "/impatient", rest: chunked + "1f40\r\n" + much + "\r\n", held: true},
		{name: "a request that the service dies of", path: "/dies", rest: "\r\n", status: 500, refundOnly: true},
	}
	rules := map[string]string{"refunded": "refundStatus: ['5xx']", "counted": "countStatus: [401]"}
	waiting(t, func(t *testing.T, b *bed) {
		b.redis.RoomIn(hour, 2*time.Minute)
		for kind, rule := range rules {
			var mu sync.Mutex
			arrived := map[string]int{}
			base := b.before(t, fmt.Sprintf(`{redis: REDIS, limits: [{name: %s, key: "header:X-Client", onMissingKey: deny, limit: 3, window: 1h, %s}]}`, kind, rule), func(w http.ResponseWriter, r *http.Request) {
				mu.Lock()
				arrived[r.Header.Get("X-Client")]++
				mu.Unlock()
				moody(w, r)
			})
			for i, way := range ways {
				if way.refundOnly && kind != "refunded" {
					continue
				}
				t.Run(kind+"/"+way.name, func(t *testing.T) {
					client := fmt.Sprint("client-", i)
					for range 3 {
						request := "POST " + way.path + " HTTP/1.1\r\nHost: x\r\nX-Client: " + client + "\r\n" + way.rest
						if way.held {
							if _, err := io.WriteString(harness.Dial(t, base), request); err != nil {
								t.Fatal(err)
							}
							continue
						}
						if status := halfRequest(t, base, request, way.halfClosed, way.status != 0); status != way.status {
							t.Errorf("answered %d, want %d", status, way.status)
						}
					}
					harness.Eventually(t, 10*time.Second, "each of them has its permit", func() error {
						mu.Lock()
						defer mu.Unlock()
						if arrived[client] != 3 {
							return fmt.Errorf("%d arrived", arrived[client])
						}
						return nil
					})
					b.spent(t, base, kind, client)
				})
			}
		}
	})
}

// halfRequest sends bytes, and returns the status of the answer, or 0 where
// nobody waits for one.
func halfRequest(t *testing.T, base, bytes string, halfClosed, waits bool) int {
	t.Helper()
	connection := harness.Dial(t, base)
	defer connection.Close()
	if _, err := io.WriteString(connection, bytes); err != nil {
		t.Fatal(err)
	}
	if halfClosed {
		if err := connection.(*net.TCPConn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
	}
	if !waits {
		return 0
	}
	response, err := http.ReadResponse(bufio.NewReader(connection), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if response.StatusCode == http.StatusBadRequest && (response.Header.Get("Content-Type") != "application/problem+json" || response.Header.Get("X-Request-ID") == "") {
		t.Errorf("%d with %v", response.StatusCode, response.Header)
	}
	return response.StatusCode
}

// spent waits until a client's permits are used up for good: while one of them
// is not settled, Retry-After is 1 (design: unsettled-permits). What it asks by costs nothing.
func (b *bed) spent(t *testing.T, base, kind, client string) {
	t.Helper()
	harness.Eventually(t, 5*time.Second, "the permits are used up", func() error {
		r, err := http.NewRequest("GET", base+map[string]string{"refunded": "/500", "counted": "/"}[kind], nil)
		if err != nil {
			return err
		}
		r.Header.Set("X-Client", client)
		response, err := http.DefaultClient.Do(r)
		if err != nil {
			return err
		}
		response.Body.Close()
		if after, _ := strconv.Atoi(response.Header.Get("Retry-After")); response.StatusCode != http.StatusTooManyRequests || after < 60 {
			return fmt.Errorf("%d, Retry-After %d, RateLimit %s", response.StatusCode, after, response.Header.Get("RateLimit"))
		}
		return nil
	})
}

// TestServiceAnswersGiveBack: with a body or without, what the service itself
// says decides; and a service that is away locks nobody out of a limit on
// failures.
func TestServiceAnswersGiveBack(t *testing.T) {
	both(t, func(t *testing.T, b *bed) {
		b.redis.RoomIn(hour, time.Minute)
		for name, c := range map[string]struct {
			rule, path, body string
			want             int
		}{
			"5xx":             {"refundStatus: ['5xx']", "/500", "", 500},
			"5xx to a body":   {"refundStatus: ['5xx']", "/500", "hello", 500},
			"2xx to a body":   {"countStatus: [401]", "/", "hello", 200},
			"nobody answers":  {"countStatus: [401]", "/dies", "", 500},
			"nobody, a body ": {"countStatus: [401]", "/dies", "hello", 500},
		} {
			t.Run(name, func(t *testing.T) {
				rule := strings.NewReplacer(" ", "-", "5xx", "five", "2xx", "two", ",", "").Replace(name)
				base := b.before(t, fmt.Sprintf(`{redis: REDIS, limits: [{name: "g%s", key: ip, limit: 2, window: 1h, %s}]}`, strings.Trim(rule, "-"), c.rule), func(w http.ResponseWriter, r *http.Request) {
					_, _ = io.Copy(io.Discard, r.Body)
					moody(w, r)
				})
				for i := range 5 {
					response, err := http.Post(base+c.path, "text/plain", strings.NewReader(c.body))
					if err != nil {
						t.Fatal(err)
					}
					response.Body.Close()
					if response.StatusCode != c.want {
						t.Errorf("request %d: %s, want %d", i, response.Status, c.want)
					}
				}
			})
		}
	})
}

// TestPanicsCount: a handler that ends without an answer gives nothing back.
func TestPanicsCount(t *testing.T) {
	both(t, func(t *testing.T, b *bed) {
		b.redis.RoomIn(hour, time.Minute)
		gate := b.gateTo(`{redis: REDIS, limits: [{name: p, key: ip, limit: 2, window: 1h, countStatus: [401]}]}`,
			http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }))
		for range 2 {
			func() {
				defer func() { _ = recover() }() // as net/http does
				ask(gate)
			}()
		}
		if got := statuses(gate, 1); got != "429" {
			t.Errorf("after two aborted requests of two: %s", got)
		}
	})
}

// TestTunnels: CONNECT over HTTP/1.1 is refused as the client's mistake, and a
// protocol that is none is not switched to.
func TestTunnels(t *testing.T) {
	both(t, func(t *testing.T, b *bed) {
		base := b.before(t, "userHeader: X-User-ID", moody)
		for request, want := range map[string]int{
			"CONNECT / HTTP/1.1\r\nHost: x\r\n\r\n":                                         400,
			"CONNECT x:80 HTTP/1.1\r\nHost: x\r\n\r\n":                                      400,
			"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: \xff\xfe\r\n\r\n": 200,
		} {
			if got := halfRequest(t, base, request, false, true); got != want {
				t.Errorf("%q: %d, want %d", request, got, want)
			}
		}
	})
}

// TestOneOfEach: where the service says what the gateway says, the client is told
// the gateway's alone, from a service's first answer on.
func TestOneOfEach(t *testing.T) {
	names := []string{"X-Request-ID", "RateLimit", "RateLimit-Policy", "X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset"}
	talks := func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		if r.URL.Path == "/hint" {
			w.WriteHeader(http.StatusEarlyHints)
		}
		if r.URL.Path != "/hint" && r.URL.Path != "/quiet" {
			for _, name := range names {
				h.Set(name, "theirs")
			}
		}
		h.Set("X-Theirs", "kept")
		if r.Header.Get("Upgrade") != "" {
			h.Set("Upgrade", "websocket")
			h.Set("Connection", "Upgrade")
			w.WriteHeader(http.StatusSwitchingProtocols)
		}
	}
	gates := map[string]struct {
		config string
		ours   int // so many of the names
	}{
		"id":      {"userHeader: X-User-ID", 1},
		"limits":  {"{redis: REDIS, limits: [{name: l, key: ip, limit: 100000, window: 1h}]}", 3},
		"watched": {"{redis: REDIS, limits: [{name: w, key: ip, limit: 100000, window: 1h, countStatus: [401]}]}", 3},
		"legacy":  {"{redis: REDIS, legacyHeaders: true, limits: [{name: y, key: ip, limit: 100000, window: 1h}]}", 6},
	}
	both(t, func(t *testing.T, b *bed) {
		for name, gate := range gates {
			t.Run(name, func(t *testing.T) {
				base := b.before(t, gate.config, talks)
				try := func(request string) error {
					response, _, _ := harness.Raw(t, base, request)
					for response.StatusCode == http.StatusEarlyHints {
						return errors.New("the hint is all there is")
					}
					if response.Header.Get("X-Theirs") != "kept" {
						return fmt.Errorf("%s without the service's own header", response.Status)
					}
					for i, name := range names {
						values := response.Header.Values(name)
						if i < gate.ours && (len(values) != 1 || values[0] == "theirs" || values[0] == "") {
							return fmt.Errorf("%s: %q", name, values)
						}
					}
					return nil
				}
				get := func(path string) string { return "GET " + path + " HTTP/1.1\r\nHost: x\r\n\r\n" }
				for _, request := range []string{
					get("/"), get("/"), "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi",
					"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
				} {
					if err := try(request); err != nil {
						t.Errorf("%q: %v", request, err)
					}
				}
			})
			// A service that was silent for long is noticed by its first word.
			t.Run(name+", late", func(t *testing.T) {
				base := b.before(t, gate.config, talks)
				client := &http.Client{}
				defer client.CloseIdleConnections()
				for i, path := range append(slices.Repeat([]string{"/quiet"}, 150), "/", "/", "/hint", "/hint") {
					response, err := client.Get(base + path)
					if err != nil {
						t.Fatal(err)
					}
					response.Body.Close()
					for j, name := range names[:gate.ours] {
						if values := response.Header.Values(name); i != 150 && (len(values) != 1 || values[0] == "theirs") {
							t.Fatalf("answer %d (%s), %s (%d): %q", i, path, name, j, values)
						}
					}
				}
			})
		}
	})
}

// TestOneOfEachBehindAnother: two gates on the way say together what each says.
func TestOneOfEachBehindAnother(t *testing.T) {
	both(t, func(t *testing.T, b *bed) {
		service := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Add("RateLimit", "theirs")
			w.Header().Add("X-RateLimit-Limit", "theirs")
		})
		const config = `{redis: REDIS, legacyHeaders: true, limits: [{name: %s, key: ip, limit: %d, window: 1h}]}`
		inner := b.form.New(t, forms.FromFile(t, b.fill(fmt.Sprintf(config, "inner", 7))), service)
		outer := b.form.New(t, forms.FromFile(t, b.fill(fmt.Sprintf(config, "outer", 9))), inner)
		b.connected()
		for range 3 {
			h := ask(outer).Header()
			state := h.Values("RateLimit")
			if len(state) != 1 || !strings.HasPrefix(state[0], `"outer";r=`) || !strings.Contains(state[0], `, "inner";r=`) || len(h.Values("X-Request-ID")) != 1 {
				t.Errorf("%v", h)
			}
			if got := h.Values("X-RateLimit-Limit"); len(got) != 1 || got[0] != "7" {
				t.Errorf("X-RateLimit-Limit: %q", got)
			}
		}
	})
}
