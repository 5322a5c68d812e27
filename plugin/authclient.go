package plugin

import (
	"context"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/sluice-gateway/sluice/plugin/config"
)

const (
	// authConnections is the pool's size for each address. Go's default of two
	// idle connections makes forwardAuth open 768 of them for 1,000 calls at
	// 128 in parallel, a quarter of the throughput of a pool of 256.
	authConnections = 256

	// downFor is how long an address that failed is passed over; then one
	// request tries it.
	downFor = int64(1e9)

	largestAuthBody = 16 << 10
)

// authClient asks the auth service at its addresses.
type authClient struct {
	addresses  []*authAddress
	userHeader string
	// A Transport, not a Client: it follows no redirect, which would lead the
	// credential somewhere else.
	transport http.RoundTripper
	timeout   time.Duration
	several   bool // addresses
	closed    chan struct{}
}

type authAddress struct {
	url     string
	request *http.Request // without context and headers
	down    atomic.Int64  // monotonic ns until which it is passed over; 0 while it answers
	trouble *trouble
}

func newAuthClient(s *config.AuthSettings, userHeader string, log func(level, message string)) *authClient {
	dialer := &net.Dialer{Timeout: s.Timeout, KeepAlive: 15 * time.Second}
	c := &authClient{
		userHeader: userHeader,
		timeout:    s.Timeout,
		several:    len(s.Addresses) > 1,
		closed:     make(chan struct{}),
		transport: &http.Transport{
			// Not dialer.DialContext: Yaegi takes that for a method expression.
			DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
				return dialer.DialContext(ctx, network, address)
			},
			TLSClientConfig:     s.TLS,
			TLSHandshakeTimeout: s.Timeout,
			MaxIdleConns:        authConnections * len(s.Addresses),
			MaxIdleConnsPerHost: authConnections,
			MaxConnsPerHost:     authConnections,
			IdleConnTimeout:     90 * time.Second,
			DisableCompression:  true,
			ForceAttemptHTTP2:   s.TLS != nil,

			MaxResponseHeaderBytes: 64 << 10,
		},
	}
	for _, address := range s.Addresses {
		if request, err := http.NewRequest(http.MethodGet, address, nil); err == nil { // settings.go has checked it
			c.addresses = append(c.addresses, &authAddress{url: request.URL.String(), request: request, trouble: &trouble{log: log}})
		}
	}
	return c
}

func (c *authClient) close() {
	close(c.closed)
	(&http.Client{Transport: c.transport}).CloseIdleConnections()
}

// complaint is what is wrong with an address.
type complaint struct {
	kind, text, remedy string
	withCredential     bool // it may be otherwise when a credential is asked about
}

// wrong is what is wrong with an answer, or with there being none; nil if
// nothing is.
func (c *authClient) wrong(answer *authAnswer, err error) *complaint {
	if err == nil && answer.decides {
		return nil
	}
	if err != nil {
		kind, text := cause(err)
		no := &complaint{kind: kind, text: "does not answer: " + text, remedy: "see that the auth service runs, and that this is its address"}
		switch {
		case kind == "timeout":
			no.text = "does not answer within " + c.timeout.String()
			no.remedy = "see that the auth service runs and that the network leads there, or raise auth.timeout"
		case strings.Contains(text, "first record does not look like a TLS handshake"):
			no.remedy = "write http:// in auth.addresses, or name the port that speaks TLS"
		case strings.Contains(text, "malformed HTTP response"):
			no.remedy = "write https:// in auth.addresses if the port speaks TLS"
		case strings.Contains(text, "x509:"):
			no.remedy = "name the authority of its certificate in auth.tls.ca"
		}
		return no
	}
	status := strings.TrimSpace(strconv.Itoa(answer.status) + " " + http.StatusText(answer.status))
	no := &complaint{kind: status, text: "answers " + status + ", which decides nothing", remedy: "see that the path is right: authsvc's is /auth, on its public port"}
	switch {
	case answer.status >= 500:
		no.remedy = "its own log tells why"
	case answer.status >= 400 && strings.Contains(strings.ToLower(string(answer.body)), "https"):
		no.remedy = "write https:// in auth.addresses: the port speaks TLS"
	case answer.status >= 300 && answer.status < 400:
		no.remedy, no.withCredential = "name the address that it leads to, "+strconv.Quote(answer.header.Get("Location"))+": redirects are not followed", true
	case answer.status >= 200 && answer.status < 300:
		no.kind, no.withCredential = "no user", true
		no.text = "answers " + status + " without one " + c.userHeader + " header, so nobody has a name"
		no.remedy = "see that it is the auth service, and that userHeader is the header that it writes"
	}
	return no
}

// tell is the line for the log.
func (c *authClient) tell(address *authAddress, no *complaint) string {
	meanwhile := "tokens that are not in memory are answered 503"
	if c.several {
		meanwhile = "the other addresses are asked, and tokens that none judges are answered 503"
	}
	return "auth.addresses: " + address.url + " " + no.text + "; meanwhile " + meanwhile + "; " + no.remedy
}

func (c *authClient) again(address *authAddress) string {
	return "auth.addresses: " + address.url + " answers again"
}

// authAnswer is what the service said.
type authAnswer struct {
	status  int
	header  http.Header
	body    []byte
	user    string // of a 2xx that names one
	decides bool   // it names one, or refuses
}

// What is the same in all questions.
var (
	userAgent = []string{"sluice"}
	schemes   = map[bool][]string{false: {"http"}, true: {"https"}} // by whether TLS was spoken
	handedOn  = []string{config.RequestIDHeader, "Traceparent", "Tracestate"}
)

// refusal hands on what the service refused with. Statuses other than 401 and
// 403 are not its to give: a redirect, say, is a misconfigured service.
func (a *authAnswer) refusal(r *http.Request) *refusal {
	switch {
	case a.status == http.StatusUnauthorized || a.status == http.StatusForbidden:
		return &refusal{
			status:      a.status,
			challenge:   a.header["Www-Authenticate"],
			body:        a.body,
			contentType: strings.Join(a.header["Content-Type"], ""),
			asked:       r.Header.Get(config.RequestIDHeader),
		}
	case a.status >= 200 && a.status < 300:
		return unavailable("The authentication service did not say who you are.", 0)
	}
	return unavailable("The authentication service gave an answer that decides nothing.", time.Second)
}
