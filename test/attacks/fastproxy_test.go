package attacks

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluice-gateway/sluice/cmd/sluice/stack"
)

// difference is what Traefik's fastProxy does otherwise than its standard proxy,
// seen from outside. None is the plugin's doing, and the cases of other classes
// that rest on it are not tried there (breach.standard, and requests without
// :authority).
type difference struct {
	what string
	show func(*bed) error // nil: it is so
}

var differences = []difference{
	{"A body that cannot be read before the first 64 KiB are written is left out, and the request arrives whole, with none; the standard proxy lets it end in an error.", emptied},
	{"An answer that comes before the request's body has ended is heard once it has: a client that stalls keeps its permits unsettled for 30 s.", unheard},
	{"A client that goes away ends nothing: the service works on until it has answered.", worksOn},
	{"A service that closes a connection after an answer, and says so, costs other requests theirs: fastProxy takes the connection up again, and they get 502, or no answer at all for as long as the client waits.", closes},
	{"A request with an empty Host, or none over HTTP/2, is never written: fastProxy dials the service again and again, thousands of times a second, until the client goes away. Anybody can send it. `passHostHeader: false` of every service prevents it.",
		noAnswer("POST /v1/users/login HTTP/1.1\r\nHost: \r\nContent-Length: 2\r\n\r\n{}")},
}

// compared are the setups that differ in nothing but the proxy.
func compared(s setup) bool { return s.wiring == stack.Fast && !s.again }

// differing demands of fastProxy that it differs, for docs/configuration.md says so, and of
// the standard proxy that it does not.
func differing(b *bed, _ class) (o outcome) {
	for _, d := range differences {
		o.tried++
		err := d.show(b)
		switch {
		case b.fastProxy && err != nil:
			o.findings = append(o.findings, fmt.Sprintf("no longer so: %s: %v", d.what, err))
		case !b.fastProxy && err == nil:
			o.findings = append(o.findings, "the standard proxy too: "+d.what)
		}
	}
	b.echo.take("differs")
	return o
}

// lately is longer than the standard proxy takes for any of this.
const lately = 2 * time.Second

// raw sends a request as it stands over plain HTTP/1.1, and waits for its answer.
func (b *bed) raw(request string) (*http.Response, error) {
	c := &client{address: b.door.address(plain1), front: plain1}
	defer c.close()
	if err := c.dial(); err != nil {
		return nil, err
	}
	if err := c.connection.SetDeadline(time.Now().Add(lately)); err != nil {
		return nil, err
	}
	if _, err := io.WriteString(c.connection, request); err != nil {
		return nil, err
	}
	return http.ReadResponse(c.reader, nil)
}

func noAnswer(request string) func(*bed) error {
	return func(b *bed) error {
		if response, err := b.raw(request); err == nil {
			return fmt.Errorf("answered %s", response.Status)
		}
		return nil
	}
}

func emptied(b *bed) error {
	const id = "emptied"
	response, err := b.raw("POST /limited/guess HTTP/1.1\r\nHost: " + echoHost + "\r\nX-Client: " + id + "\r\nX-Case: " + id + "\r\n" + chunks + "no size\r\n")
	if err != nil {
		return err
	}
	arrived := b.echo.take(id)
	if response.StatusCode != http.StatusOK || len(arrived) != 1 || arrived[0].header.Get("Content-Length") != "0" {
		return fmt.Errorf("answered %s, arrived %v", response.Status, arrived)
	}
	return nil
}

// unheard: the service has answered, and Retry-After is still 1 (design: unsettled-permits).
func unheard(b *bed) error {
	way := breaches1[slices.IndexFunc(breaches1, func(w breach) bool { return w.name == "a body that the service tires of" })]
	if err := b.breach(plain1, way, "/limited/guess", "", "unheard"); err == nil {
		return errors.New("the permits are settled")
	}
	b.echo.take("unheard")
	return nil
}

// worksOn: the service takes a second over this, or until it hears that nobody
// waits.
func worksOn(b *bed) error {
	before := b.echo.abandoned()
	c := &client{address: b.door.address(plain1), front: plain1}
	if err := c.dial(); err != nil {
		return err
	}
	_, err := io.WriteString(c.connection, "GET /limited/guess?slow HTTP/1.1\r\nHost: "+echoHost+"\r\nX-Client: hurried\r\nX-Case: hurried\r\n\r\n")
	for deadline := time.Now().Add(lately); err == nil && len(b.echo.take("hurried")) == 0; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			err = errors.New("the request does not arrive")
		}
	}
	c.close()
	if err != nil {
		return err
	}
	for deadline := time.Now().Add(lately); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if b.echo.abandoned() > before {
			return errors.New("the service heard of it")
		}
	}
	return nil
}

// closes: it is a matter of which of two things comes first.
func closes(b *bed) error {
	var senders sync.WaitGroup
	var hurt atomic.Int64
	for sender := range 8 {
		senders.Go(func() {
			for n := range 100 {
				response, err := b.raw(fmt.Sprintf("POST /limited/guess?closes HTTP/1.1\r\nHost: %s\r\nX-Client: closes-%d-%d\r\nX-Case: differs\r\nContent-Length: 2\r\n\r\nhi", echoHost, sender, n))
				if err != nil || response.StatusCode == http.StatusBadGateway {
					hurt.Add(1)
					return
				}
			}
		})
	}
	senders.Wait()
	if hurt.Load() == 0 {
		return errors.New("all of 800 requests were answered")
	}
	return nil
}
