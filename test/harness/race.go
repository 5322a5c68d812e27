//go:build race

package harness

// Race tells whether the race detector is on. Yaegi fails under it: it fills in
// its own types while goroutines run, and shares what TestSelectIsNotSafe shows.
const Race = true
