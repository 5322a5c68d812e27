package forms_test

import (
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/test/harness"
)

// TestLogSaysWhyAuthFails: at start, before anybody asks, and once however many
// ask.
func TestLogSaysWhyAuthFails(t *testing.T) {
	authsvc := http.NewServeMux() // as authsvc answers: at /auth, and nowhere else
	authsvc.HandleFunc("/auth", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusUnauthorized) })
	plain := httptest.NewServer(authsvc)
	defer plain.Close()
	secure := httptest.NewUnstartedServer(authsvc)
	secure.Config.ErrorLog = log.New(io.Discard, "", 0) // of clients that do not know its authority
	secure.StartTLS()
	defer secure.Close()
	secureAt := secure.Listener.Addr().String()
	for name, c := range map[string]struct{ address, cause string }{
		"wrong path":            {plain.URL, "answers 404 Not Found"},
		"another service":       {plain.URL + "/auth/admin", "authsvc's is /auth, on its public port"},
		"dead port":             {"http://" + harness.FreeAddress(t) + "/auth", "connection refused"},
		"unknown host":          {"http://nobody.invalid/auth", "no such host"},
		"https to an http port": {strings.Replace(plain.URL, "http://", "https://", 1) + "/auth", "write http:// in auth.addresses"},
		"http to an https port": {"http://" + secureAt + "/auth", "write https:// in auth.addresses"},
		"unknown authority":     {"https://" + secureAt + "/auth", "auth.tls.ca"},
	} {
		t.Run(name, func(t *testing.T) {
			both(t, func(t *testing.T, b *bed) {
				said := logging(t)
				gate := b.gate(fmt.Sprintf(`{redis: REDIS, auth: {addresses: [%q]}}`, c.address))
				harness.Eventually(t, 10*time.Second, "the log says what is wrong at start", func() error {
					if len(said.lines("ERR sluice: auth.addresses: "+c.address+" ", c.cause, "503")) != 1 {
						return fmt.Errorf("the log: %q", said.lines("auth.addresses"))
					}
					return nil
				})
				if got := statuses(gate, 4, as("ann")); got != "503 503 503 503" {
					t.Errorf("%s", got)
				}
				if got := said.lines("auth.addresses: " + c.address + " "); len(got) != 1 {
					t.Errorf("%d lines: %q", len(got), got)
				}
			})
		})
	}
}

// TestLogSaysThatAuthAnswersAgain, without a request too.
func TestLogSaysThatAuthAnswersAgain(t *testing.T) {
	both(t, func(t *testing.T, b *bed) {
		for name, asks := range map[string]bool{"asked": true, "unasked": false} {
			t.Run(name, func(t *testing.T) {
				said := logging(t)
				address := harness.FreeAddress(t)
				b := b.on(t)
				gate := b.gate(fmt.Sprintf(`{redis: REDIS, auth: {addresses: ["http://%s/auth"]}}`, address))
				harness.Eventually(t, 10*time.Second, "it is said to be away", func() error {
					if asks {
						statuses(gate, 1, as("ann"))
					}
					if len(said.lines(address, "connection refused")) == 0 {
						return fmt.Errorf("the log: %q", said.lines("auth.addresses"))
					}
					return nil
				})
				listener, err := net.Listen("tcp", address)
				if err != nil {
					t.Fatal(err)
				}
				server := &http.Server{Handler: http.HandlerFunc(judgeToken)}
				go func() { _ = server.Serve(listener) }()
				defer server.Close()
				harness.Eventually(t, 10*time.Second, "it is said to answer", func() error {
					if asks {
						statuses(gate, 1, as("ann"))
					}
					if len(said.lines(" INF sluice: auth.addresses: http://"+address+"/auth answers again after ")) != 1 {
						return fmt.Errorf("the log: %q", said.lines("auth.addresses"))
					}
					return nil
				})
			})
		}
	})
}

// TestLogSaysWhatAuthAnswers, where the mistake shows only with a credential.
func TestLogSaysWhatAuthAnswers(t *testing.T) {
	for name, c := range map[string]struct {
		judge http.HandlerFunc
		says  string
	}{
		"nobody's name": {func(http.ResponseWriter, *http.Request) {}, "answers 200 OK without one X-User-Id header"},
		"elsewhere": {func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/login", http.StatusFound) },
			`answers 302 Found, which decides nothing; meanwhile tokens that are not in memory are answered 503; name the address that it leads to, "/login": redirects are not followed`},
		"its own trouble": {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) }, "answers 503 Service Unavailable, which decides nothing"},
		"silence":         {func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, "does not answer within 300ms"},
	} {
		t.Run(name, func(t *testing.T) {
			both(t, func(t *testing.T, b *bed) {
				said := logging(t)
				b.auth.judgeBy(c.judge)
				gate := b.gate(`{redis: REDIS, auth: {addresses: ["AUTH"], timeout: 300ms}}`)
				if got := statuses(gate, 3, as("ann")); got != "503 503 503" {
					t.Errorf("%s", got)
				}
				harness.Eventually(t, 5*time.Second, "the log says why", func() error {
					if got := said.lines("ERR sluice: auth.addresses: "+b.auth.URL+"/auth ", c.says); len(got) != 1 {
						return fmt.Errorf("%d lines: %q", len(got), said.lines("auth.addresses"))
					}
					return nil
				})
			})
		})
	}
}
