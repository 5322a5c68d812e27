package attacks

import (
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/http2"

	"github.com/sluice-gateway/sluice/test/harness"
)

// slack is how long a bystander may wait while an attack runs. It is generous:
// what is looked for is a gateway that is stuck, not one that is busy.
const slack = 5 * time.Second

// exhausting are attempts to use the gateway or authsvc up. Each is bounded in
// count and time, and during each a bystander has to be served.
var exhausting = []struct {
	name, source string
	try          func(*bed) (cases int, err error)
}{
	{"headers of 40 KiB to 1 MiB, in one field and in many", "CWE-770, RFC 6585 5", hugeHeaders},
	{"tokens of 10 KiB to 10 MiB", "CWE-770", hugeTokens},
	{"CONTINUATION without end", "CVE-2023-45288, CVE-2024-27316", continuations},
	{"streams opened and reset", "CVE-2023-44487", rapidReset},
	{"PING and SETTINGS floods", "CVE-2019-9512, CVE-2019-9515", pings},
	{"many connections that say nothing, and heads that do not end", "CWE-400, slowloris", slowConnections},
	{"bodies that do not end, without a token", "CWE-400, RUDY", slowBodies},
	{"bodies beyond the bound", "CWE-770", bigBodies},
	{"a flood of bad tokens", "CWE-307, design: shipped-limits", badTokens},
	{"floods of credentials that are no token", "CWE-307, design: answers", badCredentials},
	{"what a bad token costs authsvc", "CWE-400, CWE-407, RFC 8725 3.9", costs},
	{"a flood of distinct clients and users", "CWE-770, I6", distinctClients},
}

func exhaustion(b *bed, _ class) (o outcome) {
	b.auth = startRecorder(b.t, b.ready.AuthSvc)
	guarded := b.weaken(nil, replaced("name: bad-token, key: ip, limit: 1000000", "name: bad-token-flood, key: ip, limit: 30"))
	for _, e := range exhausting {
		begun := time.Now()
		cases, err := e.try(guarded)
		b.t.Logf("%s: %v", e.name, time.Since(begun))
		if err == nil {
			err = guarded.bystander()
		}
		o.tried += cases
		if err != nil {
			o.findings = append(o.findings, fmt.Sprintf("%s (%s): %v", e.name, e.source, err))
		}
	}
	return o
}

// bystander is somebody else's good request, over HTTP/1.1 and HTTP/2.
func (b *bed) bystander() error {
	for _, f := range []front{plain1, tls2} {
		c := &client{address: b.door.address(f), front: f, from: "127.200.0.1"}
		begun := time.Now()
		got, err := c.send(b.protected(caseField("bystander")))
		c.close()
		b.echo.take("bystander")
		if took := time.Since(begun); err != nil || got.status != http.StatusOK || took > slack {
			return fmt.Errorf("a bystander over %s: %d after %v, %v", f.name, got.status, took, err)
		}
	}
	return nil
}

func hugeHeaders(b *bed) (cases int, err error) {
	for _, f := range fronts {
		// Go allows 4 KiB beyond what it is told, and counts HTTP/2 fields by
		// RFC 9113 section 6.5.2.
		for _, size := range []int{40 << 10, 64 << 10, 256 << 10, 1 << 20} {
			for _, fields := range []int{1, 100, 10000} {
				filler := make([]field, fields)
				for i := range filler {
					filler[i] = field{fmt.Sprintf("X-Filler-%d", i), strings.Repeat("a", max(1, size/fields-12))}
				}
				o := b.fire(b.door, []probe{{name: fmt.Sprintf("%d bytes in %d fields", size, fields), front: f, message: b.protected(filler...), judge: never}})
				cases++
				if len(o.findings) > 0 {
					err = errors.Join(err, errors.New(o.findings[0]))
				}
			}
		}
	}
	return cases, err
}

// hugeTokens: what is too long is refused before authsvc is asked, or by it
// before anything is parsed.
func hugeTokens(b *bed) (cases int, err error) {
	b.auth.take()
	for _, f := range fronts {
		for _, size := range []int{10 << 10, 30 << 10, 100 << 10, 1 << 20, 10 << 20} {
			begun := time.Now()
			o := b.fire(b.door, []probe{{name: fmt.Sprintf("%d bytes", size), front: f, message: bare("GET", "/v1/products", field{"Authorization", "Bearer " + strings.Repeat("a", size)})(b), judge: never}})
			cases++
			if len(o.findings) > 0 {
				err = errors.Join(err, errors.New(o.findings[0]))
			}
			if took := time.Since(begun); took > slack {
				err = errors.Join(err, fmt.Errorf("%s, %d bytes: %v", f.name, size, took))
			}
		}
	}
	for _, asked := range b.auth.take() {
		if n := len(asked.Get("Authorization")); n > 40<<10 {
			err = errors.Join(err, fmt.Errorf("authsvc was asked about %d bytes", n))
		}
	}
	return cases, err
}

// deaf is a connection whose answers nobody looks at, and what tells its end.
func (b *bed) deaf(f front) (c *client, gone chan struct{}, err error) {
	c, gone = &client{address: b.door.address(f), front: f}, make(chan struct{})
	if err := c.dial(); err != nil {
		return c, gone, err
	}
	_ = c.connection.SetDeadline(time.Now().Add(patience))
	connection := c.connection
	go func() { defer close(gone); _, _ = io.Copy(io.Discard, connection) }()
	return c, gone, nil
}

// continuations sends header fragments until the gateway hangs up: it must, long
// before 16 MiB.
func continuations(b *bed) (cases int, err error) {
	const most = 1024 // frames of 16 KiB
	for _, f := range http2s {
		c, gone, refused := b.deaf(f)
		if refused != nil {
			return cases, refused
		}
		cases++
		block := c.h2.block([]field{{":method", "GET"}, {":scheme", "https"}, {":authority", echoHost}, {":path", "/v1/products"}})
		failed := c.h2.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block})
		sent := 0
		for ; failed == nil && sent < most; sent++ {
			failed = c.h2.framer.WriteContinuation(1, false, c.h2.block([]field{{fmt.Sprintf("x-%d", sent), strings.Repeat("a", 16000)}}))
		}
		c.close()
		<-gone
		if sent == most {
			err = errors.Join(err, fmt.Errorf("%s: %d MiB of one head were taken", f.name, sent*16000>>20))
		}
	}
	return cases, err
}

func rapidReset(b *bed) (cases int, err error) {
	before := b.echo.served()
	const resets = 2000
	for _, f := range http2s {
		c, gone, refused := b.deaf(f)
		if refused != nil {
			return cases, refused
		}
		cases++
		for i := range uint32(resets) {
			block := c.h2.block([]field{{":method", "GET"}, {":scheme", "https"}, {":authority", echoHost}, {":path", "/v1/products"}})
			if c.h2.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 2*i + 1, BlockFragment: block, EndStream: true, EndHeaders: true}) != nil ||
				c.h2.framer.WriteRSTStream(2*i+1, http2.ErrCodeCancel) != nil {
				break
			}
		}
		err = errors.Join(err, b.bystander())
		c.close()
		<-gone
	}
	// Without a token none may reach the service, two bystanders a front do.
	if arrived := b.echo.served() - before; arrived > 2*len(http2s) {
		err = errors.Join(err, fmt.Errorf("%d requests reached the service", arrived))
	}
	return cases, err
}

func pings(b *bed) (cases int, err error) {
	for _, f := range http2s {
		for _, send := range []func(*http2.Framer) error{
			func(framer *http2.Framer) error { return framer.WritePing(false, [8]byte{1}) },
			func(framer *http2.Framer) error {
				return framer.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 65535})
			},
		} {
			c := &client{address: b.door.address(f), front: f}
			if err := c.dial(); err != nil {
				return cases, err
			}
			cases++
			// Nothing is read: answers would pile up in the gateway.
			lasts := time.Second / 4
			if *full {
				lasts = time.Second
			}
			_ = c.connection.SetDeadline(time.Now().Add(lasts))
			for i := 0; i < 200_000 && send(c.h2.framer) == nil; i++ {
			}
			err = errors.Join(err, b.bystander())
			c.close()
		}
	}
	return cases, err
}

func slowConnections(b *bed) (cases int, err error) {
	const each = 300
	var held []net.Conn
	defer func() {
		for _, connection := range held {
			connection.Close()
		}
	}()
	for _, start := range []string{"", "G", "GET /v1/products HTTP/1.1\r\nHost: " + echoHost + "\r\nX-Filler: a"} {
		for range each {
			connection, err := net.DialTimeout("tcp", b.door.http, patience)
			if err != nil {
				return cases, err
			}
			held = append(held, connection)
			if _, err := io.WriteString(connection, start); err != nil {
				return cases, err
			}
			cases++
		}
		err = errors.Join(err, b.bystander())
	}
	return cases, err
}

// slowBodies: nobody without a token gets a byte of a body to authsvc or to a
// service. He is told so at once, or, since Go's server first reads what is left
// of a short body, held until the read timeout at his own cost.
func slowBodies(b *bed) (cases int, err error) {
	for _, f := range http1 {
		for _, body := range []string{"Content-Length: 1000000\r\n\r\nx", "Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n", "Expect: 100-continue\r\nContent-Length: 1000000\r\n\r\n"} {
			c := &client{address: b.door.address(f), front: f, from: "127.203.0.1"}
			if err := c.dial(); err != nil {
				return cases, err
			}
			cases++
			_ = c.connection.SetDeadline(time.Now().Add(time.Second / 2))
			_, failed := io.WriteString(c.connection, "POST /v1/orders HTTP/1.1\r\nHost: "+echoHost+"\r\nX-Case: slow-body\r\n"+body)
			var line string
			if failed == nil {
				line, failed = c.reader.ReadString('\n')
			}
			c.close()
			var held net.Error
			if !strings.Contains(line, " 401 ") && !(errors.As(failed, &held) && held.Timeout()) {
				err = errors.Join(err, fmt.Errorf("%s, %.20q: %q %v", f.name, body, line, failed))
			}
			if arrived := b.echo.take("slow-body"); len(arrived) > 0 {
				err = errors.Join(err, fmt.Errorf("%s, %.20q: arrived", f.name, body))
			}
		}
	}
	return cases, err
}

// bigBodies: 2 MiB where 1 MiB is the bound, by length and by chunks.
func bigBodies(b *bed) (cases int, err error) {
	there := *b // whose failures nobody has counted yet
	there.from = "127.205.0.1"
	b = &there
	for _, f := range fronts {
		for _, target := range []string{"/v1/orders", "/v1/users/login", "/v1/users/register"} {
			m := message{method: "POST", target: target, host: echoHost, fields: []field{bearer(b.token)}, body: strings.Repeat("a", 2<<20)}
			if f == tls2 { // a client that knows flow control
				cases++
				err = errors.Join(err, b.bigBody(target))
			}
			if f.h2 {
				m.body = strings.Repeat("a", 1<<14) // one frame: ours knows none
				m.fields = append(m.fields, field{"content-length", fmt.Sprint(2 << 20)})
			}
			o := b.fire(b.door, []probe{{name: "too big", front: f, message: m, fails: f.h2, judge: func(got answer, arrived []seen) error {
				for _, s := range arrived {
					if s.body > 1<<20 {
						return fmt.Errorf("%d bytes arrived", s.body)
					}
				}
				if got.status != http.StatusRequestEntityTooLarge && !f.h2 || got.status == http.StatusOK {
					return fmt.Errorf("it was answered %d", got.status)
				}
				return nil
			}}})
			cases++
			if len(o.findings) > 0 {
				err = errors.Join(err, errors.New(o.findings[0]))
			}
		}
	}
	return cases, err
}

// bigBody sends 2 MiB over HTTP/2, without saying how much it will be.
func (b *bed) bigBody(target string) error {
	dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(b.from)}}
	transport := &http.Transport{DialContext: dialer.DialContext, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, ForceAttemptHTTP2: true}
	defer transport.CloseIdleConnections()
	for range 2 {
		request, err := http.NewRequest("POST", "https://"+b.door.https+target, io.LimitReader(harness.Endless{}, 2<<20))
		if err != nil {
			return err
		}
		request.Host = echoHost
		request.Header.Set("Authorization", "Bearer "+b.token)
		request.Header.Set(caseHeader, "big-body")
		response, err := (&http.Client{Transport: transport, Timeout: patience}).Do(request)
		if err != nil {
			return err
		}
		response.Body.Close()
		arrived := b.echo.take("big-body")
		if response.ProtoMajor != 2 || response.StatusCode != http.StatusRequestEntityTooLarge || len(arrived) > 0 {
			return fmt.Errorf("2 MiB to %s over %s: %d, arrived %d times", target, response.Proto, response.StatusCode, len(arrived))
		}
	}
	return nil
}

// badTokens: one address tries 600 tokens, each another; authsvc is asked about
// as many as the limit of failures says, and somebody else is served.
func badTokens(b *bed) (cases int, err error) {
	b.redis.RoomIn(time.Minute, 15*time.Second)
	b.auth.take()
	const tokens, limit = 600, 30
	c := &client{address: b.door.http, front: plain1, from: "127.201.0.1"}
	defer c.close()
	count := map[int]int{}
	head := b.token[:strings.Index(b.token, ".")]
	for i := range tokens {
		got, err := c.send(message{method: "GET", target: "/v1/products", host: echoHost, fields: []field{bearer(fmt.Sprintf("%s.e30.%043d", head, i))}})
		if err != nil {
			return cases, err
		}
		cases++
		count[got.status]++
	}
	if asked := len(b.auth.take()); asked != limit || count[http.StatusUnauthorized] != limit || count[http.StatusTooManyRequests] != tokens-limit {
		err = fmt.Errorf("authsvc was asked %d times about %d bad tokens, the limit is %d; answers %v", asked, tokens, limit, count)
	}
	return cases, err
}

// badCredentials: an address for each manner of failing. However it fails, authsvc
// is asked no more often than bad-token says, and somebody else is served.
func badCredentials(b *bed) (cases int, err error) {
	b.redis.RoomIn(time.Minute, 20*time.Second)
	const requests, limit = 100, 30
	good := b.token
	for n, fields := range [][]field{
		nil, {{"Authorization", ""}}, {{"Authorization", "Bearer"}}, {{"Authorization", "Basic YTpi"}}, {bearer("")}, {bearer("a.b.c")}, {bearer(changed(good, 2))}, {bearer(changed(good, 1))}, {bearer(good), bearer(good)}, {bearer("a"), bearer("b")}, {bearer(good), {"authorization", "Basic YTpi"}},
		{bearer(strings.Repeat("a", 20<<10))}, {bearer("eyJhbGciOiJFUzI1NiIsImtpZCI6ImEifQ.e30.AAAA")}, {{"Authorization", "Bearer " + good + " "}, {"X-Forwarded-For", "203.0.113.1"}}, {bearer(good + "\xe9")},
	} {
		b.auth.take()
		c := &client{address: b.door.http, front: plain1, from: fmt.Sprintf("127.204.0.%d", 1+n)}
		passed := 0
		for range requests {
			got, failed := c.send(message{method: "GET", target: "/v1/products", host: echoHost, fields: fields})
			if failed != nil {
				return cases, failed
			}
			cases++
			if got.status == http.StatusOK {
				passed++ // white space around a good token is none of its own
			} else if got.status < 400 || got.status >= 500 {
				err = errors.Join(err, fmt.Errorf("%.60q: %d", fields, got.status))
			}
		}
		c.close()
		if asked := len(b.auth.take()); passed == 0 && asked > limit {
			err = errors.Join(err, fmt.Errorf("%.60q: authsvc was asked %d times, the limit of failures is %d", fields, asked, limit))
		}
	}
	return cases, err
}

// cost is what authsvc spends on one kind of token.
type cost struct {
	name   string
	bytes  int
	median time.Duration
}

// mostCost bounds what it takes beyond a good token that is known: what takes a
// tenth of a millisecond must not take fifty, whatever it holds. (A forged token of
// 1 MiB once took 80 ms.)
const mostCost = 5 * time.Millisecond

// costs asks authsvc itself, so that only its own work is measured, and the way
// there and back over one connection on loopback.
func costs(b *bed) (cases int, err error) {
	encode := func(text string) string { return base64.RawURLEncoding.EncodeToString([]byte(text)) }
	parts := strings.Split(b.token, ".")
	header, _ := base64.RawURLEncoding.DecodeString(parts[0])
	deep := strings.Repeat("[", 2500) + strings.Repeat("]", 2500)
	kinds := []struct {
		name   string
		header string
	}{
		{"a good token, known", "Bearer " + b.token},
		{"no token", ""},
		{"garbage", "Bearer garbage"},
		{"8,191 dots", "Bearer " + strings.Repeat(".", 8191)},
		{"three segments that are no base64", "Bearer " + strings.Repeat("A", 2000) + "." + strings.Repeat("=", 10) + ".A"},
		{"a header nested 2,500 deep", "Bearer " + encode(`{"alg":`+deep+`}`) + "." + parts[1] + "." + parts[2]},
		{"a header of 700 members", "Bearer " + encode(`{"alg":"ES256"`+manyMembers(700)+`}`) + ".e30.AAAA"},
		{"claims of 5,000 bytes under another's signature", "Bearer " + parts[0] + "." + encode(`{"a":"`+strings.Repeat("a", 5000)+`"}`) + "." + parts[2]},
		{"a changed signature", "Bearer " + changed(b.token, 2)},
		{"a changed signature of another length", "Bearer " + b.token + strings.Repeat("A", 4000)},
		{"a key that nobody has", "Bearer " + encode(strings.Replace(string(header), `"kid":"`, `"kid":"x`, 1)) + "." + parts[1] + "." + parts[2]},
		{"no kid, so that every key is tried", "Bearer " + encode(`{"alg":"ES256","typ":"at+jwt"}`) + "." + parts[1] + "." + parts[2]},
		{"RS256 under a key for ES256", "Bearer " + encode(strings.Replace(string(header), "ES256", "RS256", 1)) + "." + parts[1] + "." + parts[2]},
		{"60 KiB", "Bearer " + strings.Repeat("a", 60<<10)},
	}
	// In turn, so that a busy machine is as busy for all of them.
	const rounds = 200
	took := make([][]time.Duration, len(kinds))
	for range rounds {
		for i, kind := range kinds {
			request, failed := http.NewRequest("GET", b.ready.AuthSvc+"/auth", nil)
			if failed != nil {
				return cases, failed
			}
			if kind.header != "" {
				request.Header.Set("Authorization", kind.header)
			}
			begun := time.Now()
			response, failed := http.DefaultClient.Do(request)
			if failed != nil {
				return cases, failed
			}
			_, _ = io.Copy(io.Discard, response.Body)
			response.Body.Close()
			took[i] = append(took[i], time.Since(begun))
			cases++
			if want := map[bool]int{true: http.StatusOK, false: http.StatusUnauthorized}[i == 0]; response.StatusCode != want {
				return cases, fmt.Errorf("%s: %s", kind.name, response.Status)
			}
		}
	}
	all := make([]cost, len(kinds))
	for i, kind := range kinds {
		slices.Sort(took[i])
		all[i] = cost{kind.name, len(kind.header), took[i][rounds/2]}
		if all[i].median > all[0].median+mostCost {
			err = errors.Join(err, fmt.Errorf("%s takes authsvc %v, a good token %v", kind.name, all[i].median, all[0].median))
		}
	}
	results.mu.Lock()
	defer results.mu.Unlock()
	results.costs = all
	return cases, err
}

// distinctClients: 1,000 addresses and as many header values on small tables.
func distinctClients(b *bed) (cases int, err error) {
	for i := range 1000 {
		c := &client{address: b.door.http, front: plain1, from: fmt.Sprintf("127.202.%d.%d", i/250, 1+i%250)}
		for _, limit := range []string{"ip", "small"} {
			ok, failed := limitedBy(b, c, limit, fmt.Sprintf("distinct-%d", i))
			cases++
			if failed != nil || !ok {
				err = errors.Join(err, fmt.Errorf("client %d on %s: passed %t, %v", i, limit, ok, failed))
			}
		}
		c.close()
		if err != nil {
			break
		}
	}
	return cases, err
}
