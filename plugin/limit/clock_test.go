package limit

import (
	"testing"
	"time"
)

// A clock that leaps by more than an hour is believed once two replies in a row
// agree: one alone may be a lie, between true ones too.
func TestLeapOfTheClock(t *testing.T) {
	const true0, leap = int64(1_800_000_000e6), int64(2 * 3600e6)
	now := int64(5e9)
	c := &core{timeout: int64(25 * time.Millisecond)}
	start := now
	for i, reply := range []struct {
		ahead    int64 // of the clock first told, us
		believed bool
		known    int64 // how far ahead the clock is taken to be after it
	}{
		{0, true, 0},
		{60e6, true, 60e6}, // a step that nobody minds
		{0, true, 0},
		{leap, false, 0},
		{0, true, 0},
		{leap, false, 0}, // the same lie, but not twice in a row
		{-leap, false, 0},
		{leap, false, 0},
		{5 * leap, false, 0},
		{5*leap + 1e6, true, 5*leap + 1e6},
		{5 * leap, true, 5 * leap},
		{0, false, 5 * leap}, // and back
		{0, true, 0},
		{earliest - true0 - 1e9, false, 0},
		{earliest - true0 - 1e9, false, 0}, // no time at all, however often
		{latest - true0 + 1e9, false, 0},
		{latest - true0 + 1e9, false, 0},
	} {
		now += int64(time.Second)
		sent := now - int64(time.Millisecond)
		if got := tellTime(c, true0+(sent-start)/1000+reply.ahead, sent, now); got != reply.believed {
			t.Errorf("reply %d, %+v: believed is %v", i, reply, got)
		}
		if known := c.redisNow(now) - true0 - (now-start)/1000; known != reply.known {
			t.Errorf("reply %d, %+v: the clock is taken to be %d ahead", i, reply, known)
		}
	}
}
