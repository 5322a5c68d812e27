// Package task runs what goes on in the background so that no mistake in it
// ends the process.
package task

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"
)

// Group runs tasks until their context ends.
type Group struct {
	Log    *slog.Logger
	Panics atomic.Int64 // how many were survived

	running sync.WaitGroup
}

// pause is how long a task rests after a panic.
const pause = 100 * time.Millisecond

// Go runs a task. One that panics is logged, counted and begun anew.
func (g *Group) Go(ctx context.Context, name string, f func(context.Context)) {
	g.running.Go(func() {
		for {
			err := g.Try(name, func() error { f(ctx); return nil })
			if err == nil {
				return
			}
			select {
			case <-ctx.Done():
				return
			case <-time.After(pause):
			}
		}
	})
}

// Wait returns when all tasks have ended.
func (g *Group) Wait() { g.running.Wait() }

// Try runs f and makes an error of a panic.
func (g *Group) Try(name string, f func() error) (err error) {
	defer func() {
		if panicked := recover(); panicked != nil {
			g.Panics.Add(1)
			err = fmt.Errorf("panic in %s: %v", name, panicked)
			g.Log.Error("panic", "task", name, "error", err, "stack", string(debug.Stack()))
		}
	}()
	return f()
}
