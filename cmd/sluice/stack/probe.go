package stack

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"time"
)

// probePause is how long a part that does not answer yet is left alone.
const probePause = 25 * time.Millisecond

// await asks again until a part answers as it should, the part's process ends,
// the start is cancelled or startTime has passed.
func await(ctx context.Context, what string, p *process, ask func(context.Context) error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, startTime, fmt.Errorf("no good answer within %s", startTime))
	defer cancel()
	var ended <-chan struct{}
	if p != nil {
		ended = p.ended
	}
	var last error
	for {
		if last = ask(ctx); last == nil {
			return nil
		}
		select {
		case <-ended:
			return fmt.Errorf("%s ended (%w). Its last words:\n%s", p.name, errors.Join(p.err, errEarly), p.lastWords())
		case <-ctx.Done():
			return fmt.Errorf("%s: %w; last: %w", what, context.Cause(ctx), last)
		case <-time.After(probePause):
		}
	}
}

var errEarly = errors.New("before it was ready")

// prober asks without keeping connections and without judging certificates,
// which may be the user's own for another name.
var prober = &http.Client{
	Timeout: 5 * time.Second,
	Transport: &http.Transport{
		DisableKeepAlives: true,
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true},
	},
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

// answers returns a question for await: whether a GET of the URL is answered
// with the status.
func answers(url string, status int) func(context.Context) error {
	return asks(http.MethodGet, url, nil, status)
}

// routes is the question whether a route is installed with all of its
// middlewares, put as a browser's preflight: the shipped CORS middleware, which
// comes first, answers it, so that the question spends no permit of any limit.
func routes(url string, status int) func(context.Context) error {
	return asks(http.MethodOptions, url, http.Header{
		"Origin":                        {"http://localhost"},
		"Access-Control-Request-Method": {http.MethodGet},
	}, status)
}

func asks(method, url string, header http.Header, status int) func(context.Context) error {
	return func(ctx context.Context) error {
		request, err := http.NewRequestWithContext(ctx, method, url, nil)
		if err != nil {
			return err
		}
		maps.Copy(request.Header, header)
		response, err := prober.Do(request)
		if err != nil {
			return err
		}
		response.Body.Close()
		if response.StatusCode != status {
			return fmt.Errorf("%s %s: %s", method, url, response.Status)
		}
		return nil
	}
}

// url is how this machine reaches an address that something listens on.
func url(scheme, address string) string {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return scheme + "://" + address
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return scheme + "://" + net.JoinHostPort(host, port)
}
