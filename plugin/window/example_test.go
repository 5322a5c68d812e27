package window_test

import (
	"fmt"
	"time"

	"github.com/sluice-gateway/sluice/plugin/window"
)

// Of a limit of 100 a minute 96 are used. Three requests of cost 2 ask for six
// permits: two requests pass.
func ExampleDecide() {
	minute := window.Span(time.Minute)
	now := 1000*minute + minute/2 // half of the minute with index 1000 is over
	stored := window.Counts{Index: 1000, Granted: 96}
	grant, changed := window.Decide(stored, window.Ask{Window: minute, Limit: 100, Cost: 2, Need: 6, Instances: 1}, now)
	fmt.Println(grant.Need, "granted,", grant.Counts.Granted, "used, changed:", changed)
	// Output: 4 granted, 100 used, changed: true
}

// The previous minute is full and the one that runs is empty: after a quarter of
// it the previous one still weighs three quarters.
func ExampleRoom() {
	minute := window.Span(time.Minute)
	counts := window.Counts{Index: 1000, PreviousGranted: 100}
	fmt.Println(window.Room(counts, minute, 100, 1000*minute+minute/4))
	// Output: 25
}

// There is room for 25, and for one more each 0.6 s: a request of cost 75 waits.
func ExampleFreeAt() {
	minute := window.Span(time.Minute)
	counts := window.Counts{Index: 1000, PreviousGranted: 100}
	now := 1000*minute + minute/4
	free := window.FreeAt(counts, minute, 100, 75, now)
	fmt.Println(time.Duration(free-now) * time.Microsecond)
	// Output: 30s
}

// A small limit over a window that is not short is counted by a log.
func ExampleExact() {
	fmt.Println(window.Exact(64, window.Span(time.Minute)))
	fmt.Println(window.Exact(100, window.Span(time.Minute)))
	fmt.Println(window.Exact(10, window.Span(time.Second)))
	// Output:
	// true
	// false
	// false
}
