package attacks

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/http2"
)

// A breach is a way in which a client can make an answer of its own: an error
// that is no answer of the service to a whole request.
type breach struct {
	name   string
	target string // after the route's path
	// HTTP/1.1: what follows the head's usual lines, and what the client does then.
	rest string
	then ending
	// HTTP/2: whether the request announces a length, and the client's last act.
	frames func(c *client, id uint32) error
	length string
	answer bool // an answer is awaited, and it is the client's fault: 4xx
	counts bool // by countStatus too: nobody answers, but it is not known to be the client's doing

	standard bool // of Traefik's standard proxy alone: what fastProxy makes of it is one of differences
}

type ending int

const (
	waits      ending = iota // for the answer
	halfCloses               // sends no more, and waits
	goes                     // closes at once
	stalls                   // holds the connection, and says nothing
)

const chunks = "Transfer-Encoding: chunked\r\n\r\n"

// manyBytes are more than the proxy keeps back before it writes to the service.
var manyBytes = strings.Repeat("a", 8000)

var breaches1 = []breach{
	{name: "a chunk size that is none", rest: chunks + "1\r\nx\r\nno size\r\n", answer: true, counts: true},
	{name: "a first chunk size that is none", rest: chunks + "no size\r\n", answer: true, counts: true, standard: true},
	{name: "a chunk longer than its size", rest: chunks + "1\r\nxyz\r\n0\r\n\r\n", answer: true, counts: true},
	{name: "a chunk size of 20 digits", rest: chunks + "11111111111111111111\r\nx", answer: true, counts: true, standard: true},
	{name: "trailers that are none", rest: chunks + "1\r\nx\r\n0\r\nno colon\r\n\r\n", answer: true, counts: true},
	{name: "chunks that stop", rest: chunks + "1\r\nx\r\n", then: halfCloses, counts: true},
	{name: "chunks that stop when the service has them", rest: chunks + "1f40\r\n" + manyBytes + "\r\n", then: halfCloses, counts: true},
	{name: "a body shorter than its length", rest: "Content-Length: 10\r\n\r\nhello", then: halfCloses, counts: true},
	{name: "a long body shorter than its length", rest: "Content-Length: 9000\r\n\r\n" + manyBytes, then: halfCloses, counts: true},
	{name: "a short body, and gone", rest: "Content-Length: 10\r\n\r\nhello", then: goes, counts: true},
	{name: "a long body, and gone", rest: "Content-Length: 9000\r\n\r\n" + manyBytes, then: goes, counts: true},
	{name: "chunks, and gone", rest: chunks + "1f40\r\n" + manyBytes + "\r\n", then: goes, counts: true},
	{name: "a whole request, and gone", target: "?slow", rest: "Content-Length: 2\r\n\r\nhi", then: goes, counts: true, standard: true},
	{name: "a body that the service tires of", target: "?impatient", rest: "Content-Length: 9000\r\n\r\n" + manyBytes, then: stalls, counts: true, standard: true},
	{name: "chunks that the service tires of", target: "?impatient", rest: chunks + "1f40\r\n" + manyBytes + "\r\n", then: stalls, counts: true, standard: true},
	{name: "a request that the service dies of", target: "?dies", rest: "Content-Length: 2\r\n\r\nhi", standard: true},
}

// data is a part of a body, and what the client does after it.
func data(bytes string, end bool, last func(c *client, id uint32) error) func(*client, uint32) error {
	return func(c *client, id uint32) error {
		if err := c.h2.framer.WriteData(id, end, []byte(bytes)); err != nil || last == nil {
			return err
		}
		return last(c, id)
	}
}

func reset(c *client, id uint32) error { return c.h2.framer.WriteRSTStream(id, http2.ErrCodeCancel) }
func hangUp(c *client, _ uint32) error { c.close(); return nil }

var breaches2 = []breach{
	{name: "a body shorter than its length", length: "10", frames: data("hello", true, nil), counts: true, standard: true},
	{name: "a body longer than its length", length: "5", frames: data("hello and more", true, nil), counts: true},
	{name: "a long body shorter than its length", length: "9000", frames: data(manyBytes, true, nil), counts: true, standard: true},
	{name: "a head, and the stream reset", frames: reset, counts: true},
	{name: "a part of the body, and the stream reset", frames: data(manyBytes, false, reset), counts: true},
	{name: "a part of the body, and gone", frames: data(manyBytes, false, hangUp), counts: true},
	{name: "a whole request, and the stream reset", target: "?slow", frames: data("hi", true, reset), counts: true, standard: true},
	{name: "a whole request, and gone", target: "?slow", frames: data("hi", true, hangUp), counts: true, standard: true},
	{name: "a body that the service tires of", target: "?impatient", length: "9000", frames: data(manyBytes, false, nil), counts: true, standard: true},
	{name: "a request that the service dies of", target: "?dies", frames: data("hi", true, nil), standard: true},
}

// refunding tries whether a client can have permits refunded. What it has used up
// in such a manner is not given back, whatever it ended in; what asks for it
// afterwards costs nothing by itself.
func refunding(b *bed, c class) (o outcome) {
	b.redis.RoomIn(time.Hour, 2*time.Minute)
	type attempt struct {
		breach
		front front
	}
	var all []attempt
	for _, f := range fronts {
		ways := breaches1
		if f.h2 {
			ways = breaches2
		}
		for _, way := range ways {
			if !way.standard || !b.fastProxy {
				all = append(all, attempt{way, f})
			}
		}
	}
	for _, a := range sample(all, c.sample) {
		for _, route := range []struct{ path, free string }{{"/limited/refund", "?fail=500"}, {"/limited/guess", ""}} {
			if route.free == "" && !a.counts {
				continue
			}
			o.tried++
			client := fmt.Sprintf("breach-%d", caseNumber.Add(1))
			if err := b.breach(a.front, a.breach, route.path, route.free, client); err != nil {
				o.findings = append(o.findings, fmt.Sprintf("%s, %s, %s: %v", a.front.name, route.path, a.name, err))
			}
			b.echo.take(client)
		}
	}
	return o
}

func (b *bed) breach(f front, way breach, path, free, name string) error {
	for range allowance {
		c := &client{address: b.door.address(f), front: f}
		defer c.close()
		if err := c.dial(); err != nil {
			return err
		}
		_ = c.connection.SetDeadline(time.Now().Add(patience))
		if f.h2 {
			fields := []field{{":method", "POST"}, {":scheme", "https"}, {":authority", echoHost}, {":path", path + way.target}, {"x-case", name}, {"x-client", name}}
			if way.length != "" {
				fields = append(fields, field{"content-length", way.length})
			}
			if err := c.h2.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: c.h2.block(fields), EndHeaders: true}); err != nil {
				return err
			}
			if err := way.frames(c, 1); err != nil {
				return err
			}
			continue
		}
		if _, err := io.WriteString(c.connection, "POST "+path+way.target+" HTTP/1.1\r\nHost: "+echoHost+"\r\nX-Case: "+name+"\r\nX-Client: "+name+"\r\n"+way.rest); err != nil {
			return err
		}
		switch way.then {
		case goes:
			c.close()
			continue
		case stalls:
			continue
		case halfCloses:
			if half, ok := c.connection.(interface{ CloseWrite() error }); ok {
				if err := half.CloseWrite(); err != nil {
					return err
				}
			}
		}
		response, err := http.ReadResponse(c.reader, nil)
		if way.answer && (err != nil || response.StatusCode != http.StatusBadRequest) {
			if err != nil {
				return err
			}
			return fmt.Errorf("answered %s", response.Status)
		}
	}
	if err := b.granted(strings.TrimPrefix(path, "/limited/"), name); err != nil {
		return err
	}
	// While a permit is not settled, Retry-After is 1 (design: unsettled-permits).
	var last string
	for deadline := time.Now().Add(slack); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		c := &client{address: b.door.http, front: plain1}
		got, err := c.send(message{method: "GET", target: path + free, host: echoHost, fields: []field{caseField(name), {"X-Client", name}}})
		c.close()
		if err != nil {
			return err
		}
		if after, _ := strconv.Atoi(got.header.Get("Retry-After")); got.status == http.StatusTooManyRequests && after > 60 {
			return nil
		}
		last = fmt.Sprintf("%d, RateLimit %s", got.status, got.header.Get("RateLimit"))
	}
	return fmt.Errorf("the permits came back: %s", last)
}

// granted waits until all permits of a client have been granted: who asks while
// another still holds one is refused, and that proves nothing.
func (b *bed) granted(limit, client string) (err error) {
	for deadline := time.Now().Add(slack); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		var keys []string
		if keys, err = b.redis.Client.Keys(context.Background(), "*:lim:1:limited-"+limit+":3600000:{h"+client+"}").Result(); err != nil || len(keys) != 1 {
			err = errors.Join(err, fmt.Errorf("%d counters of %s", len(keys), client))
			continue
		}
		var value string
		var number, grants int
		value, err = b.redis.Client.Get(context.Background(), keys[0]).Result()
		if _, scanned := fmt.Sscan(value, &number, &number, &grants); scanned == nil && grants >= allowance {
			return nil
		}
		err = errors.Join(err, fmt.Errorf("not all permits are granted: %s", value))
	}
	return err
}
