package plugin

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"
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
	addresses []*authAddress
	client    *http.Client
	timeout   time.Duration
	clock     func() int64
}

type authAddress struct {
	url  *url.URL
	down atomic.Int64 // monotonic ns until which it is passed over; 0 while it answers
}

func newAuthClient(s *authSettings, clock func() int64) *authClient {
	dialer := &net.Dialer{Timeout: s.timeout, KeepAlive: 15 * time.Second}
	c := &authClient{
		timeout: s.timeout,
		clock:   clock,
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
			c.addresses = append(c.addresses, &authAddress{url: u})
		}
	}
	return c
}

func (c *authClient) close() { c.client.CloseIdleConnections() }

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
			continue
		}
		answer, failed := c.askAt(ctx, len(c.addresses)-i, address.url, r, credential)
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

// askAt asks one address, the first of several that are left to ask.
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
	h["Authorization"] = []string{credential}
	h["User-Agent"] = []string{"sluice"}
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
