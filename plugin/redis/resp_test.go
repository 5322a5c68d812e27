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

func parse(raw string) (Reply, error) { return newParser(strings.NewReader(raw), maxReply).read() }

func TestParse(t *testing.T) {
	num := func(n int64) Reply { return Reply{kind: kindInt, num: n} }
	text := func(s string) Reply { return Reply{kind: kindBulk, text: s} }
	long := strings.Repeat("x", 3*lineBuffer)
	for _, c := range []struct {
		raw  string
		want Reply
	}{
		{"+OK\r\n", Reply{kind: kindSimple, text: "OK"}},
		{"-ERR no\r\n", Reply{kind: kindError, text: "ERR no"}},
		{":0\r\n", num(0)},
		{":-9223372036854775808\r\n", num(-1 << 63)},
		{"$0\r\n\r\n", text("")},
		{"$2\r\n\r\n\r\n", text("\r\n")},
		{"$49152\r\n" + long + "\r\n", text(long)},
		{"$-1\r\n", Reply{kind: kindNull}},
		{"*-1\r\n", Reply{kind: kindNull}},
		{"_\r\n", Reply{kind: kindNull}},
		{"*0\r\n", Reply{kind: kindArray, list: []Reply{}}},
		{"*2\r\n:1\r\n$1\r\na\r\n", Reply{kind: kindArray, list: []Reply{num(1), text("a")}}},
		{"#t\r\n", Reply{kind: kindBool, num: 1}},
		{"#f\r\n", Reply{kind: kindBool}},
		{",1.5e3\r\n", Reply{kind: kindDouble, text: "1.5e3"}},
		{",inf\r\n", Reply{kind: kindDouble, text: "inf"}},
		{",-inf\r\n", Reply{kind: kindDouble, text: "-inf"}},
		{",nan\r\n", Reply{kind: kindDouble, text: "nan"}},
		{"(-3492890328409238509324850943850943825024385\r\n", Reply{kind: kindBig, text: "-3492890328409238509324850943850943825024385"}},
		{"!5\r\nERR x\r\n", Reply{kind: kindError, text: "ERR x"}},
		{"=8\r\ntxt:text\r\n", text("text")},
		{"%1\r\n+a\r\n:1\r\n", Reply{kind: kindMap, list: []Reply{{kind: kindSimple, text: "a"}, num(1)}}},
		{"~1\r\n:1\r\n", Reply{kind: kindSet, list: []Reply{num(1)}}},
		{">1\r\n:1\r\n", Reply{kind: kindPush, list: []Reply{num(1)}}},
		{"|1\r\n+ttl\r\n:9\r\n:1\r\n", num(1)},
		{"*1\r\n|1\r\n+ttl\r\n:9\r\n:1\r\n", Reply{kind: kindArray, list: []Reply{num(1)}}},
		{"*1\r\n*1\r\n*1\r\n*1\r\n:1\r\n", Reply{kind: kindArray, list: []Reply{{kind: kindArray, list: []Reply{
			{kind: kindArray, list: []Reply{{kind: kindArray, list: []Reply{num(1)}}}}}}}}},
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
		{"%-1\r\n", ErrProtocol},
		{"!-1\r\n", ErrProtocol},
		{"#x\r\n", ErrProtocol},
		{"_x\r\n", ErrProtocol},
		{",\r\n", ErrProtocol},
		{",1,5\r\n", ErrProtocol},
		{"(12a\r\n", ErrProtocol},
		{"(-\r\n", ErrProtocol},
		{"=3\r\ntxt\r\n", ErrProtocol},
		{"=4\r\ntext\r\n", ErrProtocol},
		{"*1\r\n>1\r\n:1\r\n", ErrProtocol},
		{"$1000000000\r\n", ErrOversize},
		{"$99999999999999999999\r\n", ErrOversize},
		{"$65536\r\n", ErrOversize},
		{"*100000000\r\n", ErrOversize},
		{"%1000\r\n", ErrOversize},
		{"*1025\r\n", ErrOversize},
		{"*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n:1\r\n", ErrOversize},
		{strings.Repeat("|0\r\n", 10) + ":1\r\n", ErrOversize},
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
		"$1000000000\r\n", "*100000000\r\n", "%100000000\r\n", "$65000\r\n", "*1000\r\n", "!1000000000\r\n",
		strings.Repeat("*1000\r\n", 5), strings.Repeat("%500\r\n", 5),
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
	reply := func(raw string) Reply {
		r, err := parse(raw)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	ints, err := reply("*2\r\n:1\r\n:2\r\n").Ints()
	if err != nil || !reflect.DeepEqual(ints, []int64{1, 2}) {
		t.Errorf("%v, %v", ints, err)
	}
	if s, err := reply("=5\r\ntxt:x\r\n").Str(); err != nil || s != "x" {
		t.Errorf("%q, %v", s, err)
	}
	if s, err := reply(",2.5\r\n").Str(); err != nil || s != "2.5" {
		t.Errorf("%q, %v", s, err)
	}
	if list, err := reply("%1\r\n+a\r\n:1\r\n").Array(); err != nil || len(list) != 2 {
		t.Errorf("%v, %v", list, err)
	}
	if !reply("$-1\r\n").Null() || reply(":0\r\n").Null() {
		t.Error("Null")
	}
	for _, wrong := range []func() error{
		func() error { _, err := reply("+1\r\n").Int(); return err },
		func() error { _, err := reply("_\r\n").Int(); return err },
		func() error { _, err := reply(":1\r\n").Str(); return err },
		func() error { _, err := reply("_\r\n").Str(); return err },
		func() error { _, err := reply("$1\r\n1\r\n").Array(); return err },
		func() error { _, err := reply(":1\r\n").Ints(); return err },
		func() error { _, err := reply("*2\r\n:1\r\n$1\r\n2\r\n").Ints(); return err },
		func() error { _, err := reply("*1\r\n#t\r\n").Ints(); return err },
		func() error { _, err := (Reply{}).Array(); return err },
	} {
		if err := wrong(); !errors.Is(err, ErrProtocol) {
			t.Errorf("got %v", err)
		}
	}
	if _, err := reply("*1\r\n-OOM no\r\n").Ints(); Kind(err) != "oom" {
		t.Errorf("got %v", err)
	}
}

// encode writes a reply in RESP3, so that what was parsed can be parsed again.
func encode(r Reply) string {
	switch r.kind {
	case kindInt:
		return ":" + strconv.FormatInt(r.num, 10) + "\r\n"
	case kindBool:
		return map[int64]string{0: "#f\r\n", 1: "#t\r\n"}[r.num]
	case kindNull:
		return "_\r\n"
	case kindSimple, kindDouble, kindBig:
		return string(rune(r.kind)) + r.text + "\r\n"
	case kindError:
		return fmt.Sprintf("!%d\r\n%s\r\n", len(r.text), r.text)
	case kindBulk:
		return fmt.Sprintf("$%d\r\n%s\r\n", len(r.text), r.text)
	}
	n := len(r.list)
	if r.kind == kindMap {
		n /= 2
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%c%d\r\n", r.kind, n)
	for _, element := range r.list {
		b.WriteString(encode(element))
	}
	return b.String()
}

// weigh is what a reply costs of its budget.
func weigh(r Reply) int {
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
		"+OK\r\n", "-ERR x\r\n", ":-1\r\n", "$3\r\nabc\r\n", "$-1\r\n", "*-1\r\n", "_\r\n", "#t\r\n", ",1.5\r\n", "(123\r\n",
		"!3\r\nERR\r\n", "=7\r\ntxt:abc\r\n", "%1\r\n+a\r\n:1\r\n", "~2\r\n:1\r\n:2\r\n", ">2\r\n+message\r\n+x\r\n",
		"|1\r\n+a\r\n:1\r\n:2\r\n", "*2\r\n*1\r\n:1\r\n$2\r\n\r\n\r\n", "$1000000000\r\n", "*100000000\r\n", "*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n:1\r\n",
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
		wire := c.call.appendTo(nil)
		reply, err := newParser(bytes.NewReader(wire), maxReply).read()
		var words []string
		for _, word := range reply.list {
			words = append(words, word.text)
		}
		if got := strings.Join(words, "|"); err != nil || got != c.want {
			t.Errorf("%q, %v", got, err)
		}
		c.call.asking = true
		if got := string(c.call.appendTo(nil)); got != "*1\r\n$6\r\nASKING\r\n"+string(wire) {
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
	if n := testing.AllocsPerRun(100, func() { wire = call.appendTo(wire[:0]) }); n != 0 {
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
		wire = call.appendTo(wire[:0])
	}
}

func BenchmarkParseInts(b *testing.B) {
	benchmarkParse(b, "*7\r\n:1\r\n:5\r\n:95\r\n:0\r\n:1795480825874203\r\n:3\r\n:0\r\n")
}

func BenchmarkParseText(b *testing.B) { benchmarkParse(b, "$28\r\n1 5 95 0 1795480825874203 3 \r\n") }

func benchmarkParse(b *testing.B, raw string) {
	in := newParser(&endless{raw: []byte(raw)}, maxReply)
	b.ReportAllocs()
	for i := 0; i < b.N; i++ {
		if _, err := in.read(); err != nil {
			b.Fatal(err)
		}
	}
}

// endless repeats a reply for ever.
type endless struct {
	raw []byte
	at  int
}

func (e *endless) Read(to []byte) (int, error) {
	n := 0
	for n < len(to) {
		k := copy(to[n:], e.raw[e.at:])
		n += k
		e.at = (e.at + k) % len(e.raw)
	}
	return n, nil
}
