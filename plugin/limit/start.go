package limit

import (
	"fmt"
	"time"

	"github.com/sluice-gateway/sluice/plugin/wait"
)

// Start begins to decide, to send heartbeats and to give permits back.
func (e *Engine) Start() {
	go e.guard("heartbeat", e.beat)
	go e.guard("metronome", e.tick)
	go hear(e.core.replies, e.core.inbox)
	go e.decide()
}

// Close has the engine's goroutines end once the calls that are under way have,
// and does not wait for it. Permits in leases are lost, at most what
// I2 allows; counters in Redis stay.
func (e *Engine) Close() {
	close(e.stop)
	e.door.Lock()
	e.closed = true
	e.core.inbox <- closing{}
	e.door.Unlock()
}

// decide is the core's goroutine.
func (e *Engine) decide() {
	defer close(e.ended)
	defer close(e.core.calls)
	defer close(e.core.replies)
	defer close(e.core.wake)
	for !e.attempt("engine", func() { run(e.core) }) {
		rescue(e.core)
	}
}

// tick tells the core the time, a while after it has asked for it.
func (e *Engine) tick() {
	for {
		_, ok := <-e.core.wake
		if !ok {
			return
		}
		time.Sleep(tickEvery)
		e.core.inbox <- tick{now: e.clock()} // the core waits for it before it ends
	}
}

// guard runs a loop and starts it again after a panic: in the interpreted form
// a panic in a goroutine would end Traefik itself.
func (e *Engine) guard(name string, loop func()) {
	for !e.attempt(name, loop) {
		if wait.First(time.After(time.Second), e.stop) == 1 {
			return
		}
	}
}

func (e *Engine) attempt(name string, loop func()) (finished bool) {
	defer func() {
		if p := recover(); p != nil {
			e.log("error", fmt.Sprintf("the %s panicked and is started again: %v", name, p))
		}
	}()
	loop()
	return true
}
