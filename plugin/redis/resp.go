package redis

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
)

// The kinds of RESP2 and RESP3, by the first byte of a line. Lengths and
// counts are decimal; every line and every body ends in CR LF.
const (
	kindSimple   = '+' // +text
	kindError    = '-' // -WORD text
	kindInt      = ':' // :signed 64 bit
	kindBulk     = '$' // $length, body; $-1 is null (RESP2)
	kindArray    = '*' // *count, elements; *-1 is null (RESP2)
	kindNull     = '_' // _
	kindBool     = '#' // #t or #f
	kindDouble   = ',' // ,1.5  ,inf  ,nan
	kindBig      = '(' // (signed integer of any size
	kindBulkErr  = '!' // !length, body; read as kindError
	kindVerbatim = '=' // =length, three letters, ':', text; read as kindBulk
	kindMap      = '%' // %pairs, key, value, key, value ...
	kindSet      = '~' // ~count, elements
	kindPush     = '>' // >count, elements; at the top only, answers no command
	kindAttr     = '|' // |pairs, then the value they describe; dropped
)

// Bounds of one reply. A script's answer is some fifty bytes, so whoever sends
// more is broken or hostile. They hold before anything is allocated: a
// 13-byte "$1000000000" made a well known client ask for 953 MiB.
const (
	maxReply     = 64 << 10  // bytes of one reply, as received and as kept
	maxSlotReply = 512 << 10 // the same for CLUSTER SLOTS, which has a connection of its own
	maxNesting   = 4         // arrays within arrays; CLUSTER SLOTS needs all four
	elementSize  = 64        // bytes a Reply takes up in memory, rounded up
	lineBuffer   = 16 << 10  // longest line
)

// Reply is one answer of Redis. Accessors check the type of what they return.
type Reply struct {
	kind byte
	text string  // simple, error, bulk, double, big number
	num  int64   // int; bool as 0 or 1
	list []Reply // array, set, push; map as key, value, key, value
}

// Null reports an absent value.
func (r Reply) Null() bool { return r.kind == kindNull }

// Int returns an integer reply.
func (r Reply) Int() (int64, error) {
	if r.kind != kindInt {
		return 0, r.mismatch("an integer")
	}
	return r.num, nil
}

// Str returns a string reply: simple, bulk or verbatim, or the text of a
// double or a big number.
func (r Reply) Str() (string, error) {
	switch r.kind {
	case kindSimple, kindBulk, kindDouble, kindBig:
		return r.text, nil
	}
	return "", r.mismatch("a string")
}

// Array returns the elements of an array or set; those of a map are its keys
// and values in turn, as RESP2 writes a map.
func (r Reply) Array() ([]Reply, error) {
	switch r.kind {
	case kindArray, kindSet, kindMap, kindPush:
		return r.list, nil
	}
	return nil, r.mismatch("an array")
}

// Ints returns an array of integers only.
func (r Reply) Ints() ([]int64, error) {
	list, err := r.Array()
	if err != nil {
		return nil, err
	}
	ints := make([]int64, len(list))
	for i := range list {
		if list[i].kind != kindInt {
			return nil, list[i].mismatch("an integer at index " + strconv.Itoa(i))
		}
		ints[i] = list[i].num
	}
	return ints, nil
}

func (r Reply) mismatch(want string) error {
	if r.kind == kindError {
		return replyError(r.text)
	}
	return fmt.Errorf("%w: want %s, got kind %q", ErrProtocol, want, string(rune(r.kind)))
}

// parser reads replies from one connection.
type parser struct {
	in    *bufio.Reader
	limit int // bytes a reply may take
	left  int // of which this many remain to the reply being read
}

func newParser(from io.Reader, limit int) *parser {
	return &parser{in: bufio.NewReaderSize(from, lineBuffer), limit: limit}
}

// read returns the next reply. An error leaves the stream in the middle of
// one: the connection must be thrown away.
func (p *parser) read() (Reply, error) {
	p.left = p.limit
	return p.value(0)
}

// value reads one value inside as many aggregates as depth says.
func (p *parser) value(depth int) (Reply, error) {
	line, err := p.line()
	if err != nil {
		return Reply{}, err
	}
	kind, rest := line[0], line[1:]
	switch kind {
	case kindInt:
		num, err := strconv.ParseInt(string(rest), 10, 64)
		if err != nil {
			return Reply{}, malformed(line)
		}
		return Reply{kind: kindInt, num: num}, nil
	case kindSimple, kindError:
		return Reply{kind: kind, text: string(rest)}, nil
	case kindBulk, kindBulkErr, kindVerbatim:
		return p.body(kind, line)
	case kindArray, kindSet, kindPush, kindMap, kindAttr:
		return p.aggregate(kind, line, depth)
	}
	return scalar(kind, line)
}

// scalar reads the one-line kinds that only RESP3 has.
func scalar(kind byte, line []byte) (Reply, error) {
	text := string(line[1:])
	switch kind {
	case kindNull:
		if text == "" {
			return Reply{kind: kindNull}, nil
		}
	case kindBool:
		if text == "t" {
			return Reply{kind: kindBool, num: 1}, nil
		}
		if text == "f" {
			return Reply{kind: kindBool}, nil
		}
	case kindDouble:
		// A range error is a number all the same, only not one of float64.
		if _, err := strconv.ParseFloat(text, 64); err == nil || errors.Is(err, strconv.ErrRange) {
			return Reply{kind: kindDouble, text: text}, nil
		}
	case kindBig:
		digits := text
		if len(digits) > 0 && (digits[0] == '-' || digits[0] == '+') {
			digits = digits[1:]
		}
		if isDigits(digits) {
			return Reply{kind: kindBig, text: text}, nil
		}
	}
	return Reply{}, malformed(line)
}

// body reads what follows a length.
func (p *parser) body(kind byte, line []byte) (Reply, error) {
	n, err := length(line, p.left)
	if err != nil {
		return Reply{}, err
	}
	if n < 0 {
		if kind != kindBulk {
			return Reply{}, malformed(line)
		}
		return Reply{kind: kindNull}, nil
	}
	p.left -= n
	var body []byte
	if n+2 <= lineBuffer {
		if body, err = p.in.Peek(n + 2); err != nil {
			return Reply{}, unexpected(err)
		}
	} else {
		body = make([]byte, n+2)
		if _, err = io.ReadFull(p.in, body); err != nil {
			return Reply{}, unexpected(err)
		}
	}
	if body[n] != '\r' || body[n+1] != '\n' {
		return Reply{}, fmt.Errorf("%w: a body of %d bytes does not end where its length says", ErrProtocol, n)
	}
	text := string(body[:n])
	if n+2 <= lineBuffer {
		if _, err = p.in.Discard(n + 2); err != nil {
			return Reply{}, unexpected(err)
		}
	}
	switch kind {
	case kindBulkErr:
		return Reply{kind: kindError, text: text}, nil
	case kindVerbatim:
		if n < 4 || text[3] != ':' {
			return Reply{}, fmt.Errorf("%w: a verbatim string without format", ErrProtocol)
		}
		text = text[4:]
	}
	return Reply{kind: kindBulk, text: text}, nil
}

// aggregate reads what follows a count.
func (p *parser) aggregate(kind byte, line []byte, depth int) (Reply, error) {
	n, err := length(line, p.left/elementSize)
	if err != nil {
		return Reply{}, err
	}
	if n < 0 {
		if kind != kindArray {
			return Reply{}, malformed(line)
		}
		return Reply{kind: kindNull}, nil
	}
	if depth >= maxNesting {
		return Reply{}, fmt.Errorf("%w: nested deeper than %d", ErrOversize, maxNesting)
	}
	if kind == kindPush && depth > 0 {
		return Reply{}, malformed(line)
	}
	if kind == kindMap || kind == kindAttr {
		n *= 2
	}
	if p.left -= n * elementSize; p.left < 0 {
		return Reply{}, tooLong(line)
	}
	list := make([]Reply, n)
	for i := p.ints(list); i < n; i++ {
		if list[i], err = p.value(depth + 1); err != nil {
			return Reply{}, unexpected(err)
		}
	}
	if kind == kindAttr {
		return p.value(depth + 1) // a level deeper, so that a chain of attributes ends
	}
	return Reply{kind: kind, list: list}, nil
}

// ints reads the integers that an array begins with, as far as they are in the
// buffer already, and returns how many. value would do the same line by line;
// but a script's answer is integers only, and interpreted this is three times
// as fast.
func (p *parser) ints(list []Reply) int {
	buffer, err := p.in.Peek(p.in.Buffered())
	if err != nil {
		return 0
	}
	read, at := 0, 0
	for read < len(list) && at < len(buffer) && buffer[at] == kindInt {
		end := at + bytes.IndexByte(buffer[at:], '\n')
		if end < at+2 || buffer[end-1] != '\r' {
			break
		}
		num, err := strconv.ParseInt(string(buffer[at+1:end-1]), 10, 64)
		if err != nil {
			break // value will say what is wrong
		}
		list[read] = Reply{kind: kindInt, num: num}
		read++
		at = end + 1
	}
	if at > p.left {
		return 0
	}
	p.left -= at
	if _, err := p.in.Discard(at); err != nil {
		return 0
	}
	return read
}

// line returns the next line without its end. It is valid until the next read.
func (p *parser) line() ([]byte, error) {
	line, err := p.in.ReadSlice('\n')
	if err != nil {
		if errors.Is(err, bufio.ErrBufferFull) {
			return nil, tooLong(line)
		}
		if len(line) > 0 {
			err = unexpected(err)
		}
		return nil, err
	}
	if p.left -= len(line); p.left < 0 {
		return nil, tooLong(line)
	}
	end := len(line) - 2
	if end < 1 || bytes.IndexByte(line, '\r') != end {
		return nil, malformed(line)
	}
	return line[:end], nil
}

// length reads a length or count: digits, or -1. Anything above the bound is
// refused here, before memory is asked for.
func length(line []byte, bound int) (int, error) {
	digits := string(line[1:])
	if digits == "-1" {
		return -1, nil
	}
	n, err := strconv.ParseUint(digits, 10, 31) // takes no sign
	if errors.Is(err, strconv.ErrSyntax) {
		return 0, malformed(line)
	}
	if err != nil || int(n) > bound {
		return 0, tooLong(line)
	}
	return int(n), nil
}

func isDigits(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return s != ""
}

func malformed(line []byte) error {
	return fmt.Errorf("%w: %q", ErrProtocol, clip(string(line), maxQuote))
}

func tooLong(line []byte) error {
	if len(line) > 32 {
		line = line[:32]
	}
	return fmt.Errorf("%w: %q", ErrOversize, string(line))
}

// unexpected marks an end of stream inside a reply.
func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
