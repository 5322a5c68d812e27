package redis

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"reflect"
	"runtime"
	"strconv"
	"strings"
	"testing"
)

func parse(raw string) (reply, error) { return newParser(strings.NewReader(raw), maxReply).read() }

func TestParse(t *testing.T) {
	num := func(n int64) reply { return reply{kind: kindInt, num: n} }
	text := func(s string) reply { return reply{kind: kindBulk, text: s} }
	long := strings.Repeat("x", 3*lineBuffer)
	for _, c := range []struct {
		raw  string
		want reply
	}{
		{"+OK\r\n", reply{kind: kindStatus, text: "OK"}},
		{"-ERR no\r\n", reply{kind: kindError, text: "ERR no"}},
		{":0\r\n", num(0)},
		{":-9223372036854775808\r\n", num(-1 << 63)},
		{"$0\r\n\r\n", text("")},
		{"$2\r\n\r\n\r\n", text("\r\n")},
		{"$49152\r\n" + long + "\r\n", text(long)},
		{"$-1\r\n", reply{kind: kindNull}},
		{"*-1\r\n", reply{kind: kindNull}},
		{"*0\r\n", reply{kind: kindArray, list: []reply{}}},
		{"*2\r\n:1\r\n$1\r\na\r\n", reply{kind: kindArray, list: []reply{num(1), text("a")}}},
		{"*1\r\n*1\r\n*1\r\n*1\r\n:1\r\n", reply{kind: kindArray, list: []reply{{kind: kindArray, list: []reply{
			{kind: kindArray, list: []reply{{kind: kindArray, list: []reply{num(1)}}}}}}}}},
	} {
		got, err := parse(c.raw)
		if err != nil || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%.40q: %v, %v", c.raw, got, err)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for _, c := range []struct {
		raw  string
		want error
	}{
		{"", io.EOF},
		{":1", io.ErrUnexpectedEOF},
		{"$3\r\nab", io.ErrUnexpectedEOF},
		{"*2\r\n:1\r\n", io.ErrUnexpectedEOF},
		{"\r\n", ErrProtocol},
		{"+\n", ErrProtocol},
		{"+a\rb\r\n", ErrProtocol},
		{"+OK\n", ErrProtocol},
		{"?\r\n", ErrProtocol},
		{":1x\r\n", ErrProtocol},
		{":\r\n", ErrProtocol},
		{":9223372036854775808\r\n", ErrProtocol},
		{"$+3\r\nabc\r\n", ErrProtocol},
		{"$-0\r\n\r\n", ErrProtocol},
		{"$-2\r\n", ErrProtocol},
		{"$ 3\r\nabc\r\n", ErrProtocol},
		{"$3\r\nabcd\r\n", ErrProtocol},
		{"$?\r\n;1\r\na\r\n;0\r\n", ErrProtocol}, // streamed: Redis does not send it
		{"*-2\r\n", ErrProtocol},
		{"_\r\n", ErrProtocol}, // RESP3, as what follows
		{"#t\r\n", ErrProtocol},
		{",1.5\r\n", ErrProtocol},
		{"(12\r\n", ErrProtocol},
		{"!3\r\nERR\r\n", ErrProtocol},
		{"=7\r\ntxt:abc\r\n", ErrProtocol},
		{"%1\r\n+a\r\n:1\r\n", ErrProtocol},
		{"~1\r\n:1\r\n", ErrProtocol},
		{">1\r\n:1\r\n", ErrProtocol},
		{"|1\r\n+a\r\n:1\r\n:2\r\n", ErrProtocol},
		{"*2\r\n:1\r\n_\r\n", ErrProtocol},
		{"$1000000000\r\n", ErrOversize},
		{"$99999999999999999999\r\n", ErrOversize},
		{"$65536\r\n", ErrOversize},
		{"*100000000\r\n", ErrOversize},
		{"*1025\r\n", ErrOversize},
		{"*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n:1\r\n", ErrOversize},
		{"+" + strings.Repeat("x", lineBuffer) + "\r\n", ErrOversize},
		{"*2\r\n$40000\r\n" + strings.Repeat("x", 40000) + "\r\n$40000\r\n", ErrOversize},
		{"*4\r\n" + strings.Repeat("*1000\r\n", 4), ErrOversize},
	} {
		if got, err := parse(c.raw); !errors.Is(err, c.want) {
			t.Errorf("%.40q: got %v, %v; want %v", c.raw, got, err, c.want)
		}
	}
}

// What a hostile server can make one connection allocate, its read buffer and
// the error included.
func TestHostileRepliesAllocateLittle(t *testing.T) {
	for _, raw := range []string{
		"$1000000000\r\n", "*100000000\r\n", "$65000\r\n", "*1000\r\n", strings.Repeat("*1000\r\n", 5),
		"*1000\r\n" + strings.Repeat("*1000\r\n", 1000),
	} {
		in := newParser(strings.NewReader(raw), maxReply)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := in.read()
		runtime.ReadMemStats(&after)
		if grown := after.TotalAlloc - before.TotalAlloc; err == nil || grown > maxReply+8192 { // size classes round up
			t.Errorf("%.20q: %d bytes, %v", raw, grown, err)
		}
	}
}

func TestAccessorsCheckTypes(t *testing.T) {
	parsed := func(raw string) reply {
		r, err := parse(raw)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	if list, err := parsed("*2\r\n:1\r\n$1\r\na\r\n").array(); err != nil || len(list) != 2 {
		t.Errorf("%v, %v", list, err)
	}
	if n, err := parsed(":-7\r\n").integer(); err != nil || n != -7 {
		t.Errorf("%v, %v", n, err)
	}
	for _, wrong := range []func() error{
		func() error { _, err := parsed("+1\r\n").integer(); return err },
		func() error { _, err := parsed("$-1\r\n").integer(); return err },
		func() error { _, err := parsed("$1\r\n1\r\n").array(); return err },
		func() error { _, err := (reply{}).array(); return err },
	} {
		if err := wrong(); !errors.Is(err, ErrProtocol) {
			t.Errorf("got %v", err)
		}
	}
	if _, err := parsed("-OOM no\r\n").array(); Kind(err) != "oom" {
		t.Errorf("got %v", err)
	}
}

// encode writes a reply, so that what was parsed can be parsed again.
func encode(r reply) string {
	switch r.kind {
	case kindInt:
		return ":" + strconv.FormatInt(r.num, 10) + "\r\n"
	case kindNull:
		return "$-1\r\n"
	case kindStatus, kindError:
		return string(rune(r.kind)) + r.text + "\r\n"
	case kindBulk:
		return fmt.Sprintf("$%d\r\n%s\r\n", len(r.text), r.text)
	}
	wire := fmt.Sprintf("*%d\r\n", len(r.list))
	for _, element := range r.list {
		wire += encode(element)
	}
	return wire
}

// weigh is what a reply costs of its budget.
func weigh(r reply) int {
	n := len(r.text)
	for _, element := range r.list {
		n += elementSize + weigh(element)
	}
	return n
}

// Whatever comes: no panic, no more than the bounds allow, the same result
// however the bytes are cut, and what parses means the same when written anew.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		"+OK\r\n", "-ERR x\r\n", ":-1\r\n", "$3\r\nabc\r\n", "$-1\r\n", "*-1\r\n", "_\r\n", "*2\r\n*1\r\n:1\r\n$2\r\n\r\n\r\n", "$1000000000\r\n", "*100000000\r\n", "*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n:1\r\n",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		got, err := newParser(bytes.NewReader(raw), maxReply).read()
		again, err2 := newParser(oneByOne{bytes.NewReader(raw)}, maxReply).read()
		if (err == nil) != (err2 == nil) || !reflect.DeepEqual(got, again) {
			t.Fatalf("in one piece %v, %v; byte by byte %v, %v", got, err, again, err2)
		}
		if err != nil {
			return
		}
		if weigh(got) > maxReply {
			t.Fatalf("weighs %d", weigh(got))
		}
		rewritten, err := newParser(strings.NewReader(encode(got)), 2*maxReply).read() // encoding may take more digits
		if err != nil || !reflect.DeepEqual(got, rewritten) {
			t.Fatalf("%v became %v, %v", got, rewritten, err)
		}
	})
}

// oneByOne hands out single bytes.
type oneByOne struct{ from io.Reader }

func (o oneByOne) Read(to []byte) (int, error) { return o.from.Read(to[:1]) }

// The wire is what Redis reads: parse it back as a command.
func TestEncode(t *testing.T) {
	script := NewScript("return 1")
	for _, c := range []struct {
		call Call
		want string
	}{
		{Call{Name: "PING"}, "PING"},
		{Call{Name: "SET", Key: "k", Args: []string{"v", "PX", "1"}}, "SET|k|v|PX|1"},
		{Call{Name: "SET", Key: "k\r\n$1", Args: []string{""}}, "SET|k\r\n$1|"},
		{Call{Script: script, Key: "k", Args: []string{"a"}}, "EVALSHA|e0e1f9fabfc9d4800c877a703b823ac0578ff8db|1|k|a"},
		{Call{Script: script}, "EVALSHA|e0e1f9fabfc9d4800c877a703b823ac0578ff8db|0"},
		{Call{Script: script, Key: "k", bySource: true}, "EVAL|return 1|1|k"},
	} {
		wire := appendCall(nil, &c.call)
		reply, err := newParser(bytes.NewReader(wire), maxReply).read()
		var words []string
		for _, word := range reply.list {
			words = append(words, word.text)
		}
		if got := strings.Join(words, "|"); err != nil || got != c.want {
			t.Errorf("%q, %v", got, err)
		}
		c.call.asking = true
		if got := string(appendCall(nil, &c.call)); got != "*1\r\n$6\r\nASKING\r\n"+string(wire) {
			t.Errorf("asking: %q", got)
		}
	}
}

func TestSlotOf(t *testing.T) {
	for key, want := range map[string]int{
		"123456789": 12739, // CRC-16/XMODEM's check value, 0x31C3
		"":          0,
		"foo":       12182, "{foo}": 12182, "a{foo}b{bar}": 12182,
		"foo{}{bar}": 8363, "foo{{bar}}zap": slotOf("{bar"), "foo{bar": slotOf("foo{bar"),
	} {
		if got := slotOf(key); got != want {
			t.Errorf("%q: %d, want %d", key, got, want)
		}
	}
}

// The wire is built in the caller's goroutine, on the path of a request.
func TestEncodeDoesNotAllocate(t *testing.T) {
	call := &Call{Key: "k", Script: increment, Args: []string{"100", "60000000"}}
	wire := make([]byte, 0, 512)
	if n := testing.AllocsPerRun(100, func() { wire = appendCall(wire[:0], call) }); n != 0 {
		t.Errorf("%v allocations a call", n)
	}
}

func BenchmarkEncode(b *testing.B) {
	call := &Call{
		Key: "sluice:lim:1:per-user:60000:{u42}", Script: increment,
		Args: []string{"100", "60000000", "1", "4", "3", "0", "0", "0"},
	}
	var wire []byte
	b.ReportAllocs()
	for i := 0; i < b.N; i++ {
		wire = appendCall(wire[:0], call)
	}
}
