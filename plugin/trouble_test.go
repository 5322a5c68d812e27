package plugin

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

// What lasts is said at once, then once a minute with a count, and its end too.
func TestTroubleIsSaidOnceAMinute(t *testing.T) {
	var lines []string
	tr := &trouble{log: func(level, message string) { lines = append(lines, level+": "+message) }}
	at := func(seconds int64) int64 { return 1e12 + seconds*int64(time.Second) }
	tr.over(at(0), "fine")
	tr.still(at(0))
	for s := int64(0); s < 130; s++ {
		tr.met(at(s), "refused", "it is refused")
	}
	tr.still(at(130))
	tr.met(at(131), "slow", "it is slow")
	tr.over(at(135), "fine")
	tr.over(at(136), "fine")
	tr.met(at(140), "refused", "it is refused")
	want := []string{
		"error: it is refused",
		"error: it is refused (60 times in the last 1m0s, 1m0s in all)",
		"error: it is refused (60 times in the last 1m0s, 2m0s in all)",
		"error: it is slow",
		"info: fine after 2m15s",
		"error: it is refused",
	}
	if strings.Join(lines, "\n") != strings.Join(want, "\n") {
		t.Errorf("the log:\n%s\nwant:\n%s", strings.Join(lines, "\n"), strings.Join(want, "\n"))
	}
}

// Causes are bounded, and ports make no new ones.
func TestCauses(t *testing.T) {
	lines := 0
	tr := &trouble{log: func(string, string) { lines++ }}
	for i := range 1000 {
		tr.met(1e12, fmt.Sprint(i), "")
	}
	if lines != mostKinds {
		t.Errorf("%d lines for a thousand causes at once", lines)
	}
	kinds := map[string]bool{}
	for i := range 9 {
		kind, _ := cause(fmt.Errorf("read tcp 127.0.0.1:%d->127.0.0.1:1: %w", i, errors.New("connection reset by peer")))
		kinds[kind] = true
	}
	if len(kinds) != 1 {
		t.Errorf("kinds: %v", kinds)
	}
}
