package redis

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
)

// The kinds of RESP2, by the first byte of a line. Lengths and counts are decimal;
// every line and every body ends in CR LF. Nothing here needs RESP3, which no
// connection asks for.
const (
	kindStatus = '+' // +text
	kindError  = '-' // -WORD text
	kindInt    = ':' // :signed 64 bit
	kindBulk   = '$' // $length, body; $-1 is null
	kindArray  = '*' // *count, elements; *-1 is null
	kindNull   = '_' // either null
)

// Bounds of one reply (design: bounded-replies). A script's answer is some fifty bytes, that to a heartbeat
// a few thousand, so whoever sends more is broken or hostile. They hold before anything is allocated: a
// 13-byte "$1000000000" made a well known client ask for 953 MiB.
const (
	maxReply     = 64 << 10  // bytes of one reply, as received and as kept
	maxSlotReply = 512 << 10 // the same for CLUSTER SLOTS, which has a connection of its own
	maxNesting   = 4         // arrays within arrays; CLUSTER SLOTS needs all four
	elementSize  = 64        // bytes a reply takes up in memory, rounded up
	lineBuffer   = 16 << 10  // longest line of a nested reply
)

// A reply is one answer of Redis.
type reply struct {
	kind byte
	text string // status, error, bulk
	num  int64  // int
	list []reply
}

// array returns the elements.
func (r reply) array() ([]reply, error) {
	if r.kind != kindArray {
		return nil, r.mismatch("an array")
	}
	return r.list, nil
}

// integer returns the number.
func (r reply) integer() (int64, error) {
	if r.kind != kindInt {
		return 0, r.mismatch("an integer")
	}
	return r.num, nil
}

func (r reply) mismatch(want string) error {
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
func (p *parser) read() (reply, error) {
	p.left = p.limit
	return p.value(0)
}

// value reads one value inside as many aggregates as depth says.
func (p *parser) value(depth int) (reply, error) {
	line, err := p.line()
	if err != nil {
		return reply{}, err
	}
	kind, rest := line[0], line[1:]
	switch kind {
	case kindInt:
		num, err := strconv.ParseInt(string(rest), 10, 64)
		if err != nil {
			return reply{}, malformed(line)
		}
		return reply{kind: kindInt, num: num}, nil
	case kindStatus, kindError:
		return reply{kind: kind, text: string(rest)}, nil
	case kindBulk:
		return p.body(line)
	case kindArray:
		return p.array(line, depth)
	}
	return reply{}, malformed(line)
}

// body reads what follows a length.
func (p *parser) body(line []byte) (reply, error) {
	n, err := length(line, p.left)
	if err != nil {
		return reply{}, err
	}
	if n < 0 {
		return reply{kind: kindNull}, nil
	}
	p.left -= n
	var body []byte
	if n+2 <= lineBuffer {
		if body, err = p.in.Peek(n + 2); err != nil {
			return reply{}, unexpected(err)
		}
	} else {
		body = make([]byte, n+2)
		if _, err = io.ReadFull(p.in, body); err != nil {
			return reply{}, unexpected(err)
		}
	}
	if body[n] != '\r' || body[n+1] != '\n' {
		return reply{}, fmt.Errorf("%w: a body of %d bytes does not end where its length says", ErrProtocol, n)
	}
	text := string(body[:n])
	if n+2 <= lineBuffer {
		if _, err = p.in.Discard(n + 2); err != nil {
			return reply{}, unexpected(err)
		}
	}
	return reply{kind: kindBulk, text: text}, nil
}

// array reads what follows a count.
func (p *parser) array(line []byte, depth int) (reply, error) {
	n, err := length(line, p.left/elementSize)
	if err != nil {
		return reply{}, err
	}
	if n < 0 {
		return reply{kind: kindNull}, nil
	}
	if depth >= maxNesting {
		return reply{}, fmt.Errorf("%w: nested deeper than %d", ErrOversize, maxNesting)
	}
	p.left -= n * elementSize
	list := make([]reply, n)
	for i := range list {
		if list[i], err = p.value(depth + 1); err != nil {
			return reply{}, unexpected(err)
		}
	}
	return reply{kind: kindArray, list: list}, nil
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
