package harness

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/authsvc"
)

// NewClient speaks HTTP/2 where it can, follows no redirect, and takes any
// certificate: stacks sign theirs themselves.
func NewClient() *http.Client {
	return &http.Client{
		Timeout:       20 * time.Second,
		Transport:     &http.Transport{MaxIdleConnsPerHost: 64, DisableCompression: true, ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// Reply is an answer, read to its end.
type Reply struct {
	Proto  string
	Status int
	Header http.Header
	Body   []byte
	Sent   time.Time
	Took   time.Duration
}

func (r Reply) String() string {
	return fmt.Sprintf("%d after %v, %v %.300s", r.Status, r.Took, r.Header, r.Body)
}

// Into decodes the body.
func (r Reply) Into(t testing.TB, value any) {
	t.Helper()
	if err := json.Unmarshal(r.Body, value); err != nil {
		t.Fatalf("%v in %s", err, r)
	}
}

// Option changes a request before it is sent.
type Option func(*http.Request)

// Bearer presents a token.
func Bearer(token string) Option { return Header("Authorization", "Bearer "+token) }

// Header sets a header; several values make several lines.
func Header(name string, values ...string) Option {
	return func(r *http.Request) { r.Header[http.CanonicalHeaderKey(name)] = values }
}

// Ask sends a request with a body of JSON, or with none.
func Ask(client *http.Client, method, url string, body any, options ...Option) (Reply, error) {
	var content io.Reader
	if body != nil {
		encoded, err := json.Marshal(body)
		if err != nil {
			return Reply{}, err
		}
		content = bytes.NewReader(encoded)
	}
	request, err := http.NewRequest(method, url, content)
	if err != nil {
		return Reply{}, err
	}
	if body != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	for _, o := range options {
		o(request)
	}
	sent := time.Now()
	response, err := client.Do(request)
	if err != nil {
		return Reply{Sent: sent, Took: time.Since(sent)}, err
	}
	defer response.Body.Close()
	read, err := io.ReadAll(response.Body)
	return Reply{response.Proto, response.StatusCode, response.Header, read, sent, time.Since(sent)}, err
}

// Admin asks an authsvc's admin listener as the operator does.
func Admin(t testing.TB, service *authsvc.Service, method, path string, body any) Reply {
	t.Helper()
	got, err := Ask(http.DefaultClient, method, "http://"+service.AdminAddr().String()+path, body, Bearer(service.AdminToken()))
	if err != nil {
		t.Fatal(err)
	}
	return got
}
