package task

import (
	"context"
	"log/slog"
	"testing"
)

// A task that panics is counted and goes on; one that returns is done.
func TestPanicsAreSurvived(t *testing.T) {
	g := &Group{Log: slog.New(slog.DiscardHandler)}
	runs := 0
	g.Go(t.Context(), "clumsy", func(context.Context) {
		if runs++; runs < 3 {
			panic("index out of range")
		}
	})
	g.Wait()
	if runs != 3 || g.Panics.Load() != 2 {
		t.Errorf("%d runs, %d panics, want 3 and 2", runs, g.Panics.Load())
	}
	if err := g.Try("call", func() error { panic("no") }); err == nil || g.Panics.Load() != 3 {
		t.Errorf("a panic became %v", err)
	}
	ended, end := context.WithCancel(t.Context())
	end()
	g.Go(ended, "late", func(context.Context) { panic("late") })
	g.Wait() // it is not begun again
}
