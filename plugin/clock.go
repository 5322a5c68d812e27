package plugin

import "time"

// startedAt is the instant that all monotonic times count from.
var startedAt = time.Now()

// clock is the process's monotonic time in nanoseconds.
func clock() int64 { return int64(time.Since(startedAt)) }
