package redis

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
)

// The errors that callers tell apart. Every error of a call wraps one of
// the sentinels of this file; errors.Is finds it, Kind names it.
var (
	ErrAway     = errors.New("redis: away")            // no usable connection, or the breaker is open: nothing was written
	ErrTimeout  = errors.New("redis: timeout")         // written, and no answer in time
	ErrProtocol = errors.New("redis: protocol error")  // the reply is not RESP, or not of the type that was asked for
	ErrOversize = errors.New("redis: oversized reply") // longer, wider or deeper than the bounds in resp.go
	ErrClosed   = errors.New("redis: client closed")

	errTooOld = errors.New("redis: too old")
)

// A fault is one way for Redis, or the way to it, to fail.
type fault struct {
	word   string // the counter's label
	reply  string // first word of the error reply that tells of it
	err    error
	away   bool // Redis cannot serve now: callers fall back and the breaker counts it
	notRun bool // proves that the command was not executed (design: never-twice)
}

// faults, the specific before the general: Kind takes the first that fits.
//
// OOM, MISCONF and NOREPLICAS prove nothing about a script: Redis raises them
// at the first command inside it that needs memory or a writable master, and a
// script may have caught one before and gone on.
var faults = []fault{
	{"loading", "LOADING", errors.New("redis: loading"), true, true},
	{"masterdown", "MASTERDOWN", errors.New("redis: replica without master"), true, true},
	{"clusterdown", "CLUSTERDOWN", errors.New("redis: cluster down"), true, true},
	{"readonly", "READONLY", errors.New("redis: not a master"), true, true},
	{"busy", "BUSY", errors.New("redis: busy with a script"), true, true},
	{"noauth", "NOAUTH", errors.New("redis: authentication required"), true, true},
	{"noperm", "NOPERM", errors.New("redis: not permitted"), true, true},
	{"tryagain", "TRYAGAIN", errors.New("redis: slot in migration"), true, true},
	{"wrongpass", "WRONGPASS", errors.New("redis: wrong user name or password"), true, true},
	{"maxclients", "", errors.New("redis: too many clients"), true, true},
	{"denied", "DENIED", errors.New("redis: protected mode"), true, true},
	{"oom", "OOM", errors.New("redis: out of memory"), true, false},
	{"misconf", "MISCONF", errors.New("redis: writes stopped"), true, false},
	{"noreplicas", "NOREPLICAS", errors.New("redis: too few replicas"), true, false},
	{"moved", "MOVED", errors.New("redis: slot moved"), false, true},
	{"ask", "ASK", errors.New("redis: slot being moved"), false, true},
	{"noscript", "NOSCRIPT", errors.New("redis: script unknown"), false, true},
	{"script", "", errors.New("redis: script failed"), false, false},
	{"version", "", errTooOld, true, true},
	{"refused", "", errors.New("redis: connection refused"), true, true},
	{"reset", "", errors.New("redis: connection reset"), true, false},
	{"eof", "", errors.New("redis: connection closed by the server"), true, false},
	{"tls", "", errors.New("redis: TLS failed"), true, false},
	{"oversize", "", ErrOversize, true, false},
	{"protocol", "", ErrProtocol, true, false},
	{"timeout", "", ErrTimeout, true, false},
	{"closed", "", ErrClosed, true, false},
	{"away", "", ErrAway, true, true},
}

// other is the fault of an error reply that no row above knows, such as ERR or
// WRONGTYPE: Redis is well, the command is not.
var other = fault{word: "other", err: errors.New("redis: error reply")}

// Kind names an error in one short, stable word, for counters and logs.
func Kind(err error) string {
	for i := range faults {
		if errors.Is(err, faults[i].err) {
			return faults[i].word
		}
	}
	return other.word
}

// NotExecuted reports whether the error proves that the call did not run, so
// that sending it again cannot count twice (design: never-twice).
func NotExecuted(err error) bool {
	if errors.Is(err, ErrAway) { // a lost connection's error wraps both where nothing was written
		return true
	}
	for i := range faults {
		if faults[i].notRun && errors.Is(err, faults[i].err) {
			return true
		}
	}
	return false
}

// isAway reports whether the error says that Redis cannot serve now.
func isAway(err error) bool {
	for i := range faults {
		if faults[i].away && errors.Is(err, faults[i].err) {
			return true
		}
	}
	return false
}

func faultNamed(word string) *fault {
	for i := range faults {
		if faults[i].word == word {
			return &faults[i]
		}
	}
	return &other
}

// The rows that code names.
var (
	faultMaxClients = faultNamed("maxclients")
	faultReadOnly   = faultNamed("readonly")
	faultScript     = faultNamed("script")
	faultWrongPass  = faultNamed("wrongpass")
	faultRefused    = faultNamed("refused")
	faultReset      = faultNamed("reset")
	faultEOF        = faultNamed("eof")
	faultTLS        = faultNamed("tls")
)

// faultOf reads an error reply, its leading '-' removed.
func faultOf(text string) *fault {
	word := text
	if i := strings.IndexByte(text, ' '); i > 0 {
		word = text[:i]
	}
	if word != "ERR" {
		for i := range faults {
			if faults[i].reply == word {
				return &faults[i]
			}
		}
	}
	switch {
	case strings.HasPrefix(text, "ERR max number of clients"):
		return faultMaxClients
	case strings.HasPrefix(text, "ERR invalid password") || strings.HasPrefix(text, "ERR invalid username-password") ||
		strings.HasPrefix(text, "ERR Client sent AUTH") || strings.HasPrefix(text, "ERR AUTH <password> called without"):
		return faultWrongPass
	case strings.Contains(text, "user_script"):
		// Before Redis 7 the error of a command inside a script is quoted in
		// the script's own: "ERR Error running script (...): -READONLY You ..."
		for i := range faults {
			if faults[i].reply != "" && strings.Contains(text, ": -"+faults[i].reply+" ") {
				return &faults[i]
			}
		}
		return faultScript
	}
	return &other
}

const maxQuote = 300 // bytes of a reply that an error repeats

// replyError is the Go error of an error reply.
func replyError(text string) error {
	return fmt.Errorf("%w: %s", faultOf(text).err, clip(text, maxQuote))
}

// clip bounds what a server can put into our log.
func clip(text string, limit int) string {
	if len(text) > limit {
		return text[:limit] + "..."
	}
	return text
}

// networkError puts what the net package returned under one of our sentinels.
// Refused and reset are recognised by text, against our custom: their errno
// values live in package syscall, which Yaegi does not offer to plugins.
func networkError(err error) error {
	if err == nil || Kind(err) != other.word {
		return err
	}
	text := err.Error()
	switch {
	case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("%w: %w", faultEOF.err, err)
	case errors.Is(err, os.ErrDeadlineExceeded) || strings.Contains(text, "timeout") || strings.Contains(text, "deadline exceeded"):
		return fmt.Errorf("%w: %w", ErrTimeout, err)
	case strings.Contains(text, "refused"):
		return fmt.Errorf("%w: %w", faultRefused.err, err)
	case strings.Contains(text, "connection reset") || strings.Contains(text, "broken pipe") || strings.Contains(text, "forcibly closed"):
		return fmt.Errorf("%w: %w", faultReset.err, err)
	case errors.Is(err, net.ErrClosed):
		return fmt.Errorf("%w: %w", ErrClosed, err)
	}
	return err
}
