package store

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// errOdd: Redis answered what is no answer to the question.
var errOdd = errors.New("unexpected reply")

// isOdd tells that Redis answered, but not what it was asked: by an error, by
// another type, or by what no Redis says.
func isOdd(err error) bool {
	return replied(err) || errors.Is(err, errOdd) || errors.Is(err, errWire)
}

// code is the word that Redis begins an error with.
func code(err error) string {
	var reply redis.Error
	if !errors.As(err, &reply) {
		return "odd"
	}
	word, _, _ := strings.Cut(reply.Error(), " ")
	return word
}

// unexpected describes a reply without showing what it holds: that might be a
// user's.
func unexpected(reply any, want string) error {
	got := fmt.Sprintf("%T", reply)
	switch reply := reply.(type) {
	case nil:
		got = "nothing"
	case int64:
		got = "a number"
	case string:
		got = fmt.Sprintf("a text of %d bytes", len(reply))
	case []any:
		got = fmt.Sprintf("a list of %d", len(reply))
	}
	return fmt.Errorf("%w: %s in place of %s", errOdd, got, want)
}

// isOK accepts OK, and nothing else.
func isOK(reply any, err error) error {
	if err == nil && reply != "OK" {
		err = unexpected(reply, "OK")
	}
	return err
}

// isNumber accepts a number.
func isNumber(reply any, err error) error {
	if _, number := reply.(int64); err == nil && !number {
		err = unexpected(reply, "a number")
	}
	return err
}

// texts accepts a list of strings.
func texts(reply any, err error) ([]string, error) {
	if err != nil {
		return nil, err
	}
	list, isList := reply.([]any)
	if !isList {
		return nil, unexpected(reply, "a list of texts")
	}
	all := make([]string, len(list))
	for i, element := range list {
		var isText bool
		if all[i], isText = element.(string); !isText {
			return nil, unexpected(element, "a text in a list")
		}
	}
	return all, nil
}

// textsOf accepts a list of so many strings.
func textsOf(count int, reply any, err error) ([]string, error) {
	all, err := texts(reply, err)
	if err == nil && len(all) != count {
		err = unexpected(reply, fmt.Sprintf("a list of %d", count))
	}
	return all, err
}

// firstFailed is the error of a pipeline. A key of a foreign type concerns that
// key only, and the error that go-redis returns is the first one, which may be
// that.
func firstFailed(cmds []redis.Cmder, err error) error {
	for _, cmd := range cmds {
		if err := cmd.Err(); err != nil && !redis.HasErrorPrefix(err, "WRONGTYPE") {
			return err
		}
	}
	if replied(err) {
		return nil
	}
	return err
}

// maxSkew is how far Redis's clock may be from ours before its times are
// believed to be none. Tokens live by them.
const maxSkew = 24 * time.Hour

// instant accepts unix milliseconds that lie no further ahead than maxSkew.
func instant(text string) (int64, error) {
	ms, err := strconv.ParseInt(text, 10, 64)
	if err != nil || ms < 0 || ms > time.Now().Add(maxSkew).UnixMilli() {
		return 0, unexpected(text, "a time in unix milliseconds, at most a day ahead")
	}
	return ms, nil
}

// presentInstant accepts what Redis's clock shows now.
func presentInstant(text string) (int64, error) {
	ms, err := instant(text)
	if err == nil && ms < time.Now().Add(-maxSkew).UnixMilli() {
		err = fmt.Errorf("%w: redis's clock is more than %s behind this machine's; set both by NTP", errOdd, maxSkew)
	}
	return ms, err
}

// problems gathers what is wrong with the replies of one question.
type problems struct {
	refused error // Redis does not serve
	odd     error // it does, but holds what authsvc did not write
}

func (p *problems) add(what string, err error) {
	if p.odd == nil {
		p.odd = fmt.Errorf("%s: %w", what, err)
	}
}

// fail notes a reply that is an error, or one of a wrong type.
func (p *problems) fail(what string, reply any, err error) {
	switch {
	case err == nil:
		p.add(what, unexpected(reply, "a text"))
	case redis.HasErrorPrefix(err, "WRONGTYPE"):
		p.add(what, err)
	case p.refused == nil:
		p.refused = fmt.Errorf("%s: %w", what, err)
	}
}

// text is the value of a reply, if there is one.
func (p *problems) text(what string, cmd *redis.Cmd) (text string, there bool) {
	reply, err := cmd.Result()
	if errors.Is(err, redis.Nil) {
		return "", false
	}
	text, there = reply.(string)
	if err != nil || !there {
		p.fail(what, reply, err)
	}
	return text, there
}

// telling remembers what the log was told of.
type telling struct {
	mu         sync.Mutex // protects what follows
	last       map[string]time.Time
	unreported map[string]int
}

// tell logs a kind of fault at once and then, while it lasts, once a minute.
func (s *Store) tell(kind, message string, err error) {
	s.told.mu.Lock()
	defer s.told.mu.Unlock()
	if len(s.told.last) > 100 || s.told.last == nil {
		s.told.last, s.told.unreported = make(map[string]time.Time), make(map[string]int)
	}
	if last, told := s.told.last[kind]; told && time.Since(last) < time.Minute {
		s.told.unreported[kind]++
		return
	}
	s.Log.Error(message, "error", err, "unreported", s.told.unreported[kind])
	s.told.last[kind], s.told.unreported[kind] = time.Now(), 0
}
