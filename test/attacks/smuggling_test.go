package attacks

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"
)

// linger is how long a smuggler waits for a second answer before it hangs up.
const linger = 150 * time.Millisecond

// raw is a whole byte stream for one connection; %ID% stands for its name.
type raw struct{ name, bytes string }

// smuggled is a request hidden in another. It asks for what needs a token and
// has none: wherever the gateway itself sees a request in it, that is refused,
// so that it arrives only if the gateway and the service disagree about where
// the first one ends.
const smuggled = "GET /v1/users/smuggled HTTP/1.1\r\nHost: " + echoHost + "\r\nX-User-ID: " + lie + "\r\nX-Case: smuggled\r\n\r\n"

// framings are headers that frame a body (RFC 9112 section 6), each wrong or
// doubtful in one way.
func framings(length int) (lengths, codings []string) {
	n := fmt.Sprint(length)
	lengths = []string{
		"", "Content-Length: 0", "Content-Length: " + n, "Content-Length: +" + n, "Content-Length: -1", "Content-Length: 0x1F", "Content-Length: " + n + ", " + n, "Content-Length: " + n + ", 0",
		"Content-Length: " + n + "\r\nContent-Length: " + n, "Content-Length: " + n + "\r\nContent-Length: 0", "Content-Length: 0\r\nContent-Length: " + n, "Content-Length:\t" + n + "\t", "Content-Length: " + n + ";", "Content-Length: 1e2",
		"Content-Length : " + n, "Content_Length: " + n, "Content-Length: \r\n " + n, "Content-Length: 0" + n, "Content-Length: ", "X: a\nContent-Length: " + n, "X: a\rContent-Length: " + n, "Content-Length: 99999999999999999999",
	}
	codings = []string{
		"", "Transfer-Encoding: chunked", "transfer-encoding: CHUNKED", "Transfer-Encoding: chunked ", "Transfer-Encoding:\tchunked", "Transfer-Encoding:chunked", "Transfer-Encoding : chunked", "Transfer_Encoding: chunked", "Transfer-Encoding: x, chunked", "Transfer-Encoding: chunked, identity",
		"Transfer-Encoding: identity", "Transfer-Encoding: chunked;q=1", "Transfer-Encoding: \"chunked\"", "Transfer-Encoding: chunked\x00", "Transfer-Encoding: \x0bchunked", "Transfer-Encoding: xchunked", "Transfer-Encoding: chunk", "Transfer-Encoding: chunked, chunked",
		"Transfer-Encoding: gzip, chunked", "Transfer-Encoding: ,chunked", "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity", "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", "Transfer-Encoding:\r\n chunked", "X: a\nTransfer-Encoding: chunked", "X: a\rTransfer-Encoding: chunked", " Transfer-Encoding: chunked",
		"Transfer-Encoding: chun\r\n ked", "Transfer-Encoding\x00: chunked", "TRANSFER-ENCODING: chunKed", "Transfer-Encoding: ", "Transfer-\r\n Encoding: chunked", "Connection: Transfer-Encoding\r\nTransfer-Encoding: chunked", "Connection: Content-Length\r\nTransfer-Encoding: chunked", "Transfer-Encoding: chunKed", "TE: chunked", "Transfer-Encoding;: chunked",
	}
	return lengths, codings
}

// smugglings are the mutations (RFC 9112 sections 2.2, 5.2, 6.1, 6.3, 7.1,
// CWE-444; CVE-2025-22871 for the bare LF that ends a chunk's size line).
func smugglings(b *bed) []raw {
	head := "POST /v1/orders HTTP/1.1\r\nHost: " + echoHost + "\r\nX-Case: %ID%\r\nAuthorization: Bearer " + b.token + "\r\n"
	chunked := head + "Transfer-Encoding: chunked\r\n\r\n"
	var all []raw
	add := func(name, bytes string) { all = append(all, raw{name, bytes}) }

	// CL.TE, TE.CL, TE.TE: either reading of the body leaves a request behind.
	early := "0\r\n\r\n" + smuggled
	late := fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(smuggled), smuggled)
	for _, body := range []struct{ name, bytes string }{{"ends early", early}, {"ends late", late}} {
		lengths, codings := framings(len(body.bytes))
		for _, length := range lengths {
			for _, coding := range codings {
				if length == "" && coding == "" {
					continue
				}
				lines := ""
				for _, line := range []string{length, coding} {
					if line != "" {
						lines += line + "\r\n"
					}
				}
				add(fmt.Sprintf("%s: %q + %q", body.name, length, coding), head+lines+"\r\n"+body.bytes)
				if length != "" && coding != "" {
					add(fmt.Sprintf("%s: %q + %q", body.name, coding, length), head+coding+"\r\n"+length+"\r\n\r\n"+body.bytes)
				}
			}
		}
	}
	// Chunks (RFC 9112 section 7.1).
	for _, size := range []string{
		"1;a=b", "1;a=\"\r\n\"", "1;a=\n", "1;\n", "1 ;a", "1\t", " 1", "+1", "-1", "0x1", "01", "0000000000000001", "1\x00", "1_", "1 1", "1,1", "１", "g", "", ";", "FFFFFFFFFFFFFFFF", "10000000000000001", "7fffffffffffffff", "1;" + strings.Repeat("a", 20000), "1\r", "1\v", "1\f", "1;a=\r", "1;a=b\nX",
	} {
		for _, end := range []string{"\r\n", "\n", "\r", "\r\r\n", "\n\r\n", ""} {
			add(fmt.Sprintf("chunk size %.20q, line ended by %q", size, end), chunked+size+end+"x\r\n0\r\n\r\n"+smuggled)
		}
	}
	for _, end := range []string{"\n", "\r", "", "\r\n\r\n", "xx", "\n\n"} {
		add(fmt.Sprintf("chunk data ended by %q", end), chunked+"1\r\nx"+end+"0\r\n\r\n"+smuggled)
		add(fmt.Sprintf("last chunk ended by %q", end), chunked+"1\r\nx\r\n0"+end+"\r\n"+smuggled)
		add(fmt.Sprintf("trailers ended by %q", end), chunked+"1\r\nx\r\n0\r\nA: b"+end+"\r\n"+smuggled)
		add(fmt.Sprintf("head ended by %q", end), strings.TrimSuffix(chunked, "\r\n")+end+"1\r\nx\r\n0\r\n\r\n"+smuggled)
	}
	for _, trailer := range []string{"Content-Length: 5", "Transfer-Encoding: chunked", "Host: other", "X-Case: smuggled", "GET /v1/users/smuggled HTTP/1.1", " folded: a", "a : b", "X_User_ID: " + lie, "\x00: a", "X-User-ID: " + lie} {
		add(fmt.Sprintf("trailer %q", trailer), chunked+"1\r\nx\r\n0\r\n"+trailer+"\r\n\r\n"+smuggled)
	}
	// Lines (RFC 9112 sections 2.2, 3, 5.2).
	for _, pair := range [][2]string{{"\r\n", "\n"}, {"\r\n", "\r"}, {"\r\n", "\r\r\n"}, {"\r\n", "\n\r"}, {" HTTP/1.1", " HTTP/1.0"}, {" HTTP/1.1", ""}, {" HTTP/1.1", " HTTP/2.0"}, {" HTTP/1.1", " HTTP/1.1 "}, {" HTTP/1.1", " HTTP/1.1\x0b"}, {" HTTP/1.1", "\tHTTP/1.1"}, {" HTTP/1.1", "  HTTP/1.1"}, {" HTTP/1.1", " http/1.1"}, {" HTTP/1.1", " HTTP/01.1"}, {" HTTP/1.1", " HTTP/1.10"},
		{"POST", " POST"}, {"POST", "\r\nPOST"}, {"POST", "\x00POST"}, {"POST", "GET"}, {"POST", "HEAD"}, {"POST", "OPTIONS"}, {"Host:", "X-Filler: a\r\n folded\r\nHost:"}, {"Host:", " Host:"}, {"Host: " + echoHost, "Host: " + echoHost + "\r\nHost: other"}, {"Host: " + echoHost + "\r\n", ""}, {"Host: ", "Host: other@"}, {"Host: ", "Host: a, "}, {"X-Case", "Expect: 100-continue\r\nX-Case"}, {"X-Case", "Expect: 200-ok\r\nX-Case"}, {"X-Case", "Connection: keep-alive\r\nX-Case"}, {"X-Case", "Connection: close\r\nX-Case"}, {"X-Case", "Upgrade: h2c\r\nConnection: Upgrade\r\nX-Case"}, {"X-Case", "Upgrade: websocket\r\nConnection: Upgrade\r\nX-Case"},
		{"X-Case", ": a\r\nX-Case"}, {"X-Case", "no colon\r\nX-Case"}, {"X-Case", "\x7f: a\r\nX-Case"}} {
		for _, body := range []string{"Content-Length: 0\r\n\r\n", "Content-Length: 5\r\n\r\nhello", "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "\r\n"} {
			add(fmt.Sprintf("%q for %q before %.25q", pair[1], pair[0], body), strings.ReplaceAll(head+body, pair[0], pair[1])+smuggled)
		}
	}
	return all
}

// smuggling compares what the gateway answered with what the service saw.
func smuggling(b *bed, c class) (o outcome) {
	const workers = 24 // they wait, mostly
	all := sample(smugglings(b), c.sample)
	var mu sync.Mutex
	var wait sync.WaitGroup
	type job struct {
		raw
		front front
	}
	jobs := make(chan job)
	for range workers {
		wait.Go(func() {
			victim := &client{address: b.door.http, front: plain1}
			defer victim.close()
			for j := range jobs {
				id := fmt.Sprintf("smuggler-%d", caseNumber.Add(1))
				answers, passed, err := b.smuggle(j.front, strings.ReplaceAll(j.bytes, "%ID%", id))
				arrived := b.echo.take(id)
				if err == nil {
					err = countsAgree(answers, passed, arrived)
				}
				if err == nil {
					err = b.unharmed(victim)
				}
				mu.Lock()
				o.tried++
				if len(arrived) > 0 {
					o.reached++
				}
				if err != nil {
					o.findings = append(o.findings, fmt.Sprintf("%s, %s: %v", j.front.name, j.name, err))
				}
				mu.Unlock()
			}
		})
	}
	for _, r := range all {
		jobs <- job{r, plain1}
		jobs <- job{r, tls1}
	}
	close(jobs)
	wait.Wait()
	for _, name := range []string{"smuggled", ""} {
		for _, s := range b.echo.take(name) {
			o.findings = append(o.findings, fmt.Sprintf("a hidden request arrived: %s %s %v", s.method, s.target, s.header))
		}
	}
	return o
}

// smuggle sends a stream, reads answers until nothing more comes, and returns
// how many there were and how many came from the service.
func (b *bed) smuggle(f front, bytes string) (answers, passed int, err error) {
	c := &client{address: b.door.address(f), front: f}
	defer c.close()
	if err := c.dial(); err != nil {
		return 0, 0, err
	}
	if err := c.connection.SetDeadline(time.Now().Add(patience)); err != nil {
		return 0, 0, err
	}
	if _, err := io.WriteString(c.connection, bytes); err != nil {
		return 0, 0, nil // refused before it was read
	}
	reader := bufio.NewReader(c.connection)
	for answers < 10 {
		if err := c.connection.SetReadDeadline(time.Now().Add(linger)); err != nil {
			return answers, passed, err
		}
		response, err := http.ReadResponse(reader, nil)
		if err != nil {
			break
		}
		if response.StatusCode < 200 && response.StatusCode != http.StatusSwitchingProtocols {
			continue
		}
		answers++
		if response.Header.Get(caseHeader) != "" {
			passed++
		}
		if response.StatusCode == http.StatusSwitchingProtocols {
			break
		}
		if _, err := io.Copy(io.Discard, response.Body); err != nil || response.Close {
			break
		}
	}
	return answers, passed, nil
}

// countsAgree: the service saw the outer request once or not at all, whole and
// intact, and no more answers came from it than requests arrived.
func countsAgree(answers, passed int, arrived []seen) error {
	if len(arrived) > 1 || passed > len(arrived) {
		return fmt.Errorf("%d answers, %d of them from the service, which saw %d requests", answers, passed, len(arrived))
	}
	for _, s := range arrived {
		if s.target != "/v1/orders" {
			return fmt.Errorf("%s arrived", s.target)
		}
		if err := intact(s, ann); err != nil {
			return err
		}
	}
	return nil
}

// unharmed: the next one to come gets the answer to its own request.
func (b *bed) unharmed(victim *client) error {
	id := fmt.Sprintf("victim-%d", caseNumber.Add(1))
	got, err := victim.send(b.protected(caseField(id)))
	arrived := b.echo.take(id)
	if err != nil || got.status != http.StatusOK || len(arrived) != 1 || got.header.Get(caseHeader) != id {
		return fmt.Errorf("the next client's request: %d %v, named %q, arrived %d times", got.status, err, got.header.Get(caseHeader), len(arrived))
	}
	return intact(arrived[0], ann)
}
