package redis

import (
	"crypto/sha1"
	"encoding/hex"
	"strconv"
)

// Script is a Lua script of at most one key. It answers a status, such as
// `return {ok = 'text'}` makes, or an integer.
type Script struct {
	byHash   string // the words EVALSHA, hash and number of keys, encoded
	bySource string // the words EVAL, source and number of keys, encoded
}

// NewScript hashes the source, once.
func NewScript(source string) *Script {
	hash := sha1.Sum([]byte(source))
	return &Script{
		byHash:   string(appendWord(appendWord(nil, "EVALSHA"), hex.EncodeToString(hash[:]))),
		bySource: string(appendWord(appendWord(nil, "EVAL"), source)),
	}
}

// Call is one command for Redis, answered in one line: a status or an integer.
// It belongs to the client from Send until it has ended; it can be sent once.
type Call struct {
	Key    string  // routes in a Cluster; the script's KEYS[1], or the command's first argument
	Script *Script // EVALSHA, and EVAL when Redis does not know it; nil for a command:
	Name   string  // for example "SET"
	Args   []string

	// To gets this *Call exactly once, when it has ended, and before that at
	// most once an *Overdue that names it. It has to be read until every call
	// has ended: the connection waits for room. Nil: nobody asks.
	To  chan<- interface{}
	Tag interface{} // the owner's, untouched

	Line string // the reply, without its kind and CR LF
	Err  error  // or why there is none
	At   int64  // when it ended: monotonic ns since Config.Epoch

	own      purpose
	since    int64 // when it was first written, as At; 0 before
	late     bool  // its owner was told that it is overdue
	bySource bool  // Redis answered NOSCRIPT
	asked    bool  // Redis answered ASK
	asking   bool  // so the command goes out with ASKING before it, whose reply is still to come
	hops     int   // redirects so far
}

// A purpose tells the client's own calls from its users'.
type purpose int

const (
	users purpose = iota
	ping          // shows that an idle connection lives
	probe         // decides whether the breaker may close
)

// Overdue tells that these calls have waited too long: whoever waits for them
// should give up. They stay in the pipeline and still end later, because what
// they are granted has been counted (design: late-replies). One message names all calls of a
// connection that have the same To.
type Overdue struct {
	Calls []*Call
	At    int64 // monotonic ns since Config.Epoch
}

// endCall hands a call back to its owner. It is no method, nor is appendCall:
// interpreted, a value of a type with methods is not copied when it is sent as an
// interface, so that its receiver would see what the variable holds later.
func endCall(call *Call, line string, err error, at int64) {
	call.Line = line
	call.Err = err
	call.At = at
	if call.To != nil {
		call.To <- call
	}
}

// appendCall encodes the call for the wire. A call gives the same bytes until it
// is answered: reader.go relies on that to tell which calls of a broken write
// got out, and writer.go encodes the most frequent kind by itself.
func appendCall(wire []byte, call *Call) []byte {
	if call.asking {
		wire = append(wire, "*1\r\n$6\r\nASKING\r\n"...)
	}
	words := len(call.Args) + 1
	if call.Key != "" {
		words++
	}
	if call.Script != nil {
		words += 2
	}
	wire = append(wire, '*')
	wire = strconv.AppendInt(wire, int64(words), 10)
	wire = append(wire, '\r', '\n')
	switch {
	case call.Script == nil:
		wire = appendWord(wire, call.Name)
	case call.bySource:
		wire = append(wire, call.Script.bySource...)
	default:
		wire = append(wire, call.Script.byHash...)
	}
	if call.Script != nil {
		if call.Key == "" {
			wire = append(wire, "$1\r\n0\r\n"...)
		} else {
			wire = append(wire, "$1\r\n1\r\n"...)
		}
	}
	if call.Key != "" {
		wire = appendWord(wire, call.Key)
	}
	for _, arg := range call.Args {
		wire = appendWord(wire, arg)
	}
	return wire
}

// head is what precedes the key when the script goes out by its hash, with a
// key and so many arguments.
func (s *Script) head(args int) string {
	return "*" + strconv.Itoa(args+4) + "\r\n" + s.byHash + "$1\r\n1\r\n"
}

// lengths are the lengths of short words, encoded.
var lengths = makeLengths()

func makeLengths() []string {
	all := make([]string, 512)
	for n := range all {
		all[n] = "$" + strconv.Itoa(n) + "\r\n"
	}
	return all
}

// appendCommand encodes a command of the client's own.
func appendCommand(wire []byte, words ...string) []byte {
	wire = append(wire, "*"+strconv.Itoa(len(words))+"\r\n"...)
	for _, word := range words {
		wire = appendWord(wire, word)
	}
	return wire
}

func appendWord(wire []byte, word string) []byte {
	wire = append(wire, '$')
	wire = strconv.AppendInt(wire, int64(len(word)), 10)
	wire = append(wire, '\r', '\n')
	wire = append(wire, word...)
	return append(wire, '\r', '\n')
}
