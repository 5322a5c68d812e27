// Package wait is what `select` is elsewhere.
//
// Yaegi 0.16.1 keeps one list of cases for each select statement and shares it
// between all goroutines that run the statement at a time: one may then wait on
// another's channels (test/dialect_test.go shows it). Engines, connections and
// subscriptions all run the same few loops, so their selects are calls of
// package reflect, each with a list of its own.
package wait

import "reflect"

// First waits until one of the channels has a value or is closed, receives from
// it, and returns its index.
func First(channels ...interface{}) int {
	cases := make([]reflect.SelectCase, len(channels))
	for i, channel := range channels {
		cases[i] = reflect.SelectCase{Dir: reflect.SelectRecv, Chan: reflect.ValueOf(channel)}
	}
	chosen, _, _ := reflect.Select(cases)
	return chosen
}

// Poke sends to the channel unless that would block.
func Poke(channel chan struct{}) {
	reflect.ValueOf(channel).TrySend(reflect.ValueOf(struct{}{}))
}

// Closed tells whether a channel on which nothing is ever sent is closed.
func Closed(channel interface{}) bool {
	value, _ := reflect.ValueOf(channel).TryRecv()
	return value.IsValid()
}
