package plugin

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// sayAgain is how often the log hears of what lasts.
const sayAgain = int64(time.Minute)

// trouble tells the log what is wrong with something: at once, then once a minute
// while it lasts with how often it was met, and that it is over.
type trouble struct {
	log   func(level, message string)
	lasts atomic.Bool // since is not 0

	mu    sync.Mutex
	since int64            // monotonic ns; 0 while all is well
	count int64            // how often since the last line
	said  map[string]int64 // what was said, by its kind, and when

	kind, message string // met last
}

// mostKinds bounds what is remembered of different causes.
const mostKinds = 16

// met notes that it failed once more. Another cause is another line at once.
func (t *trouble) met(now int64, kind, message string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.metLocked(now, kind, message)
}

// still notes that nobody tried, since it failed a moment ago.
func (t *trouble) still(now int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.since != 0 {
		t.metLocked(now, t.kind, t.message)
	}
}

func (t *trouble) metLocked(now int64, kind, message string) {
	t.kind, t.message = kind, message
	t.count++
	if t.since == 0 {
		t.since, t.said, t.count = now, map[string]int64{}, 1
		t.lasts.Store(true)
	}
	if last, ok := t.said[kind]; ok && now-last < sayAgain || len(t.said) >= mostKinds && !ok {
		return
	}
	if _, again := t.said[kind]; again {
		message += fmt.Sprintf(" (%d times in the last %s, %s in all)", t.count, rounded(now-t.said[kind]), rounded(now-t.since))
	}
	t.said[kind] = now
	t.count = 0
	t.log("error", message)
}

// over notes that it does again what it should.
func (t *trouble) over(now int64, message string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.since == 0 {
		return
	}
	message += " after " + rounded(now-t.since)
	if t.count > 0 {
		message += fmt.Sprintf(", in which it failed %d times more than was said", t.count)
	}
	t.since, t.count = 0, 0
	t.lasts.Store(false)
	t.log("info", message)
}

func rounded(ns int64) string { return time.Duration(ns).Round(time.Second / 10).String() }

// cause is why a call failed, as text and as a kind: the text without what is
// different each time, such as ports.
func cause(err error) (kind, text string) {
	text = err.Error()
	kind = text[strings.LastIndex(text, ": ")+1:]
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded) || strings.Contains(text, "timeout") {
		kind = "timeout"
	}
	return kind, text
}
