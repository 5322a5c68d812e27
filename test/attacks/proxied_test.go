package attacks

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"
)

// A peer is a client as a balancer's PROXY line names it.
type peer struct {
	name string
	line func(port int) []byte // what stands before the request
	from string                // who says so; empty: the balancer's address
}

// second is version 2 of the PROXY protocol, in the family of the address as
// written: an IPv4-mapped one travels as IPv6.
func second(address string) func(int) []byte {
	return func(port int) []byte {
		source := netip.MustParseAddr(address)
		line := []byte("\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c")
		target := netip.MustParseAddr("192.0.2.1")
		if source.Is6() {
			line[13], line[15] = 0x21, 36
			target = netip.MustParseAddr("2001:db8::1")
		}
		line = append(line, source.AsSlice()...)
		line = append(line, target.AsSlice()...)
		line = binary.BigEndian.AppendUint16(line, uint16(port))
		return binary.BigEndian.AppendUint16(line, 443)
	}
}

// first is version 1, which spells the address.
func first(family, address string) func(int) []byte {
	return func(port int) []byte {
		target := "2001:db8::1"
		if family == "TCP4" {
			target = "192.0.2.1"
		}
		return fmt.Appendf(nil, "PROXY %s %s %s %d 443\r\n", family, address, target, port)
	}
}

func nothingBefore(int) []byte { return nil }

// proxied tries, at the gateways behind the balancer, whether one client can be
// several: addresses of one /64, and one address in every notation.
func proxied(b *bed, _ class) (o outcome) {
	b.redis.RoomIn(time.Hour, time.Minute)
	type clients struct {
		part  string
		same  []peer // one client to a limit on addresses
		other peer   // somebody else, who is not refused
	}
	var all []clients
	for n := range 4 { // whole networks of their own, so that each begins afresh
		net6, net4 := fmt.Sprintf("2001:db8:%x:1", 0x100+n), fmt.Sprintf("198.51.100.%d", 10+n)
		rotating := clients{part: "addresses of one /64", other: peer{name: "the next /64", line: second(net6[:len(net6)-1] + "2::1")}}
		for _, suffix := range []string{"::1", "::2", "::dead:beef", ":ffff:ffff:ffff:ffff", ":1234:5678:9abc:def0", "::ff:fe00:1"} {
			rotating.same = append(rotating.same, peer{name: suffix, line: second(net6 + suffix)})
		}
		rotating.same = append(rotating.same,
			peer{name: "version 1", line: first("TCP6", net6+"::77")},
			peer{name: "version 1, capitals and zeros", line: first("TCP6", strings.ToUpper(fmt.Sprintf("2001:0db8:%04x:0001:0000:0000:0000:0078", 0x100+n)))})
		mapped := clients{part: "one IPv4 address in every notation", other: peer{name: "another address", line: second(fmt.Sprintf("198.51.100.%d", 200+n))}, same: []peer{
			{name: "IPv4", line: second(net4)},
			{name: "IPv4 mapped into IPv6", line: second("::ffff:" + net4)},
			{name: "version 1", line: first("TCP4", net4)},
			{name: "version 1, mapped", line: first("TCP6", "::ffff:"+net4)},
			{name: "version 1, mapped, in hexadecimal", line: first("TCP6", fmt.Sprintf("::ffff:c633:64%02x", 10+n))},
		}}
		from := fmt.Sprintf("127.77.0.%d", 1+n)
		stranger := clients{part: "a stranger's PROXY line", other: peer{name: "a stranger elsewhere", line: nothingBefore, from: fmt.Sprintf("127.78.0.%d", 1+n)}, same: []peer{
			{name: "nothing", line: nothingBefore, from: from},
			{name: "a stranger's version 2", line: second(fmt.Sprintf("198.51.100.%d", 100+n)), from: from},
			{name: "a stranger's version 1", line: first("TCP4", fmt.Sprintf("198.51.100.%d", 110+n)), from: from},
			{name: "a stranger's IPv6", line: second(fmt.Sprintf("2001:db8:%x:9::1", 0x100+n)), from: from},
		}}
		all = append(all, rotating, mapped, stranger)
	}
	for _, c := range all {
		passed := 0
		for round := range 2 * allowance {
			for i, p := range c.same {
				o.count(c.part, 1, 0)
				status, err := b.asPeer(p, round*len(c.same)+i)
				// A stranger's line is no request: 400 and a closed connection are
				// as good as counting it to where it came from.
				if err != nil && p.from == "" {
					o.findings = append(o.findings, fmt.Sprintf("%s: %v", p.name, err))
				}
				if status == http.StatusOK {
					passed++
				}
			}
		}
		if passed != allowance {
			o.count(c.part, 0, max(0, passed-allowance))
			o.findings = append(o.findings, fmt.Sprintf("%s and %d more ways to say so: %d requests passed a limit of %d", c.same[0].name, len(c.same)-1, passed, allowance))
		}
		o.tried++
		if status, err := b.asPeer(c.other, 0); status != http.StatusOK {
			o.findings = append(o.findings, fmt.Sprintf("%s: %d, %v", c.other.name, status, err))
		}
	}
	b.echo.take("proxied")
	return o
}

// asPeer sends one request to a gateway, each in turn, as the balancer would.
func (b *bed) asPeer(p peer, n int) (status int, err error) {
	gateways := b.stack.Balanced()
	from := p.from
	if from == "" {
		from = "127.0.0.1"
	}
	dialer := net.Dialer{Timeout: 5 * time.Second, LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	connection, err := dialer.Dial("tcp", gateways[n%len(gateways)])
	if err != nil {
		return 0, err
	}
	defer connection.Close()
	if err := connection.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return 0, err
	}
	request := fmt.Sprintf("GET /limited/ip HTTP/1.1\r\nHost: %s\r\n%s: proxied\r\nConnection: close\r\n\r\n", echoHost, caseHeader)
	if _, err := connection.Write(append(p.line(1024+n), request...)); err != nil {
		return 0, err
	}
	response, err := http.ReadResponse(bufio.NewReader(connection), nil)
	if err != nil {
		return 0, err
	}
	response.Body.Close()
	return response.StatusCode, nil
}
