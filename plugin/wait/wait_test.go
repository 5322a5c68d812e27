package wait

import (
	"testing"
	"time"
)

func TestFirst(t *testing.T) {
	never, ready, done := make(chan struct{}), make(chan struct{}, 1), make(chan struct{})
	Poke(ready)
	Poke(ready) // full: nothing happens
	if got := First(never, ready); got != 1 {
		t.Errorf("chose %d", got)
	}
	if got := First(never, time.After(time.Millisecond)); got != 1 {
		t.Errorf("chose %d", got)
	}
	if Closed(done) {
		t.Error("closed before it was")
	}
	close(done)
	if !Closed(done) || First(never, done) != 1 {
		t.Error("not closed after it was")
	}
}
