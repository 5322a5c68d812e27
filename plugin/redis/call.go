package redis

import (
	"crypto/sha1"
	"encoding/hex"
	"strconv"
	"time"
)

// Script is a Lua script of at most one key.
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

// Call is one command for Redis. It belongs to the client from Send until
// Done; it can be sent once.
type Call struct {
	Key    string  // routes in a Cluster; the script's KEYS[1], or the command's first argument
	Script *Script // EVALSHA, and EVAL when Redis does not know it; nil for a command:
	Name   string  // for example "SET"
	Args   []string

	// Done is called exactly once: from one of the client's goroutines, which
	// it must not block, or from within Send when nothing can be sent.
	Done func(Reply, error)
	// TimedOut is called at most once and before Done: waiters should give up.
	// The call stays in the pipeline, and a late reply still comes to Done,
	// because what it granted has been counted (RULES 4). May be nil.
	TimedOut func()

	bySource bool      // Redis answered NOSCRIPT
	asked    bool      // Redis answered ASK
	asking   bool      // so the command goes out with ASKING before it, whose reply is still to come
	hops     int       // redirects so far
	late     bool      // timed out
	probe    bool      // the client's own
	since    time.Time // when it was first written, if it was redirected since
}

// appendTo encodes the call for the wire. A call gives the same bytes until it
// is answered: pipeline.go relies on that to tell which calls of a broken write
// got out.
func (call *Call) appendTo(wire []byte) []byte {
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
