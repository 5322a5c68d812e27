package plugin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/sluice-gateway/sluice/plugin/wait"
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

var errAuthAway = errors.New("no address of the authentication service answers")

// authClient asks the auth service, at the first of its addresses that
// answers.
type authClient struct {
	addresses  []*authAddress
	userHeader string
	client     *http.Client
	timeout    time.Duration
	clock      func() int64
	closed     chan struct{}
}

type authAddress struct {
	url     *url.URL
	down    atomic.Int64 // monotonic ns until which it is passed over; 0 while it answers
	trouble trouble
}

func newAuthClient(s *authSettings, userHeader string, clock func() int64, log func(level, message string)) *authClient {
	dialer := &net.Dialer{Timeout: s.timeout, KeepAlive: 15 * time.Second}
	c := &authClient{
		userHeader: userHeader,
		timeout:    s.timeout,
		clock:      clock,
		closed:     make(chan struct{}),
		client: &http.Client{
			// A redirect would lead the credential somewhere else. (Yaegi wants
			// the parameters named: unnamed, it returns one of them.)
			CheckRedirect: func(next *http.Request, via []*http.Request) error { return http.ErrUseLastResponse },
			Transport: &http.Transport{
				// Not dialer.DialContext: Yaegi takes that for a method expression.
				DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
					return dialer.DialContext(ctx, network, address)
				},
				TLSClientConfig:       s.tls,
				TLSHandshakeTimeout:   s.timeout,
				ResponseHeaderTimeout: s.timeout,
				MaxIdleConns:          authConnections * len(s.addresses),
				MaxIdleConnsPerHost:   authConnections,
				MaxConnsPerHost:       authConnections,
				IdleConnTimeout:       90 * time.Second,
				DisableCompression:    true,
				ForceAttemptHTTP2:     s.tls != nil,

				MaxResponseHeaderBytes: 64 << 10,
			},
		},
	}
	for _, address := range s.addresses {
		if u, err := url.Parse(address); err == nil { // settings.go has checked it
			c.addresses = append(c.addresses, &authAddress{url: u, trouble: trouble{log: log}})
		}
	}
	for _, address := range c.addresses {
		go c.greet(address)
	}
	return c
}

func (c *authClient) close() {
	close(c.closed)
	c.client.CloseIdleConnections()
}

// greet asks an address as soon as it is configured, without a credential, so
// that the log tells of a wrong one before a user does. It does so until there
// is an answer; from then on requests find out what it is worth.
func (c *authClient) greet(address *authAddress) {
	defer func() {
		if p := recover(); p != nil { // an interpreted goroutine that panics would end Traefik
			address.trouble.met(c.clock(), "panic", fmt.Sprint("asking "+address.url.String()+" at start panicked: ", p))
		}
	}()
	for complained := false; ; complained = true {
		ctx, cancel := context.WithTimeout(context.Background(), c.timeout)
		answer, err := c.askAt(ctx, 1, address.url, nil, "")
		cancel()
		if wait.Closed(c.closed) {
			return
		}
		if wrong := c.wrong(answer, err); wrong == nil {
			if complained { // else what requests with a credential have met meanwhile stands
				address.trouble.over(c.clock(), c.again(address))
			}
			return
		} else if err == nil && answer.status < 500 {
			if !wrong.withCredential {
				address.trouble.met(c.clock(), wrong.kind, c.tell(address, wrong))
			}
			return
		} else {
			address.trouble.met(c.clock(), wrong.kind, c.tell(address, wrong))
		}
		if wait.First(time.After(time.Second), c.closed) == 1 {
			return
		}
	}
}

// complaint is what is wrong with an address.
type complaint struct {
	kind, text, remedy string
	withCredential     bool // it may be otherwise when a credential is asked about
}

// wrong is what is wrong with an answer, or with there being none; nil if
// nothing is.
func (c *authClient) wrong(answer *authAnswer, err error) *complaint {
	if err != nil {
		kind, text := cause(err)
		no := &complaint{kind: kind, text: "does not answer: " + text, remedy: "see that the auth service runs, and that this is its address"}
		switch {
		case kind == "timeout":
			no.text = "does not answer within " + c.timeout.String()
			no.remedy = "see that the auth service runs and that the network leads there, or raise auth.timeout"
		case strings.Contains(text, "server gave HTTP response to HTTPS client"):
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
	case answer.status == http.StatusUnauthorized || answer.status == http.StatusForbidden:
		return nil
	case answer.status >= 500:
		no.remedy = "its own log tells why"
	case answer.status >= 400 && strings.Contains(strings.ToLower(string(answer.body)), "https"):
		no.remedy = "write https:// in auth.addresses: the port speaks TLS"
	case answer.status >= 300 && answer.status < 400:
		no.remedy, no.withCredential = "name the address that it leads to, "+strconv.Quote(answer.header.Get("Location"))+": redirects are not followed", true
	case answer.status >= 200 && answer.status < 300:
		if users := answer.header[c.userHeader]; len(users) == 1 && users[0] != "" {
			return nil
		}
		no.kind, no.withCredential = "no user", true
		no.text = "answers " + status + " without one " + c.userHeader + " header, so nobody has a name"
		no.remedy = "see that it is the auth service, and that userHeader is the header that it writes"
	}
	return no
}

// tell is the line for the log.
func (c *authClient) tell(address *authAddress, no *complaint) string {
	meanwhile := "tokens that are not in memory are answered 503"
	if len(c.addresses) > 1 {
		meanwhile = "the other addresses are asked, and tokens that none judges are answered 503"
	}
	return "auth.addresses: " + address.url.String() + " " + no.text + "; meanwhile " + meanwhile + "; " + no.remedy
}

func (c *authClient) again(address *authAddress) string {
	return "auth.addresses: " + address.url.String() + " answers again"
}

// authAnswer is what the service said.
type authAnswer struct {
	status int
	header http.Header
	body   []byte
}

// ask puts the credential to the first address that can judge it. An answer of
// 5xx, or none, sends the question to the next; each address may use its part
// of the time that is left, so that one that is silent leaves some to others.
func (c *authClient) ask(r *http.Request, credential string) (*authAnswer, error) {
	// The answer may serve other requests too: this one's end must not take
	// it from them.
	ctx, cancel := context.WithTimeout(context.Background(), c.timeout)
	defer cancel()
	err := errAuthAway
	for i, address := range c.addresses {
		if !address.usable(c.clock()) {
			address.trouble.still(c.clock())
			continue
		}
		answer, failed := c.askAt(ctx, len(c.addresses)-i, address.url, r, credential)
		if wrong := c.wrong(answer, failed); wrong != nil {
			address.trouble.met(c.clock(), wrong.kind, c.tell(address, wrong))
		} else {
			address.trouble.over(c.clock(), c.again(address))
		}
		if failed != nil {
			address.down.Store(c.clock() + downFor)
			err = failed
			continue
		}
		address.down.Store(0)
		if answer.status < 500 {
			return answer, nil
		}
		err = errAuthAway
	}
	return nil, err
}

// usable tells whether to try an address. Of those that come after it was down
// long enough, one does.
func (a *authAddress) usable(now int64) bool {
	down := a.down.Load()
	return down == 0 || now >= down && a.down.CompareAndSwap(down, now+downFor)
}

// askAt asks one address, the first of several that are left to ask. Without a
// request there is nothing to tell of it, and no credential.
func (c *authClient) askAt(ctx context.Context, several int, to *url.URL, r *http.Request, credential string) (*authAnswer, error) {
	if deadline, ok := ctx.Deadline(); ok && several > 1 {
		part, cancel := context.WithTimeout(ctx, time.Until(deadline)/time.Duration(several))
		defer cancel()
		ctx = part
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, to.String(), nil)
	if err != nil {
		return nil, err
	}
	h := request.Header
	h["User-Agent"] = []string{"sluice"}
	if r != nil {
		h["Authorization"] = []string{credential}
		h["X-Forwarded-Method"] = []string{r.Method}
		h["X-Forwarded-Host"] = []string{r.Host}
		h["X-Forwarded-Uri"] = []string{r.URL.RequestURI()}
		h["X-Forwarded-Proto"] = []string{scheme(r)}
		h["X-Forwarded-For"] = []string{parseAddress(r.RemoteAddr).String()}
		for _, name := range []string{requestIDHeader, "Traceparent", "Tracestate"} {
			if values := r.Header[name]; values != nil {
				h[name] = values
			}
		}
	}
	response, err := c.client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, largestAuthBody))
	if err != nil {
		return nil, err
	}
	return &authAnswer{status: response.StatusCode, header: response.Header, body: body}, nil
}

func scheme(r *http.Request) string {
	if r.TLS != nil {
		return "https"
	}
	return "http"
}

// refusal hands on what the service refused with. Statuses other than 401 and
// 403 are not its to give: a redirect, say, is a misconfigured service.
func (a *authAnswer) refusal(r *http.Request) *refusal {
	switch a.status {
	case http.StatusUnauthorized, http.StatusForbidden:
		return &refusal{
			status:      a.status,
			challenge:   a.header["Www-Authenticate"],
			body:        a.body,
			contentType: strings.Join(a.header["Content-Type"], ""),
			asked:       r.Header.Get(requestIDHeader),
		}
	}
	return unavailable("The authentication service gave an answer that decides nothing.", time.Second)
}
