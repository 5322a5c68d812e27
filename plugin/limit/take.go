package limit

// Take takes a permit at every limit of asks, or at none (I7), and reports
// whether it did. answers has the length of asks; those that are decided already
// stand. An answer that the outcome of another made needless becomes Needless. It
// waits for a silent Redis at most once a timeout, for a busy one a quarter of a
// second, and never for one that is away.
func Take(e *Engine, p *Policy, asks []Ask, answers []Answer, now int64) bool {
	j := &job{policy: p, asks: asks, answers: answers, now: now, done: make(chan bool, 1)}
	e.door.RLock()
	closed := e.closed
	if !closed {
		e.core.inbox <- j
	}
	e.door.RUnlock()
	if closed {
		return takeLocally(e, j)
	}
	granted := <-j.done
	return granted
}

// takeLocally decides for a request that has outlived its configuration.
func takeLocally(e *Engine, j *job) bool {
	<-e.ended
	e.door.Lock()
	defer e.door.Unlock()
	return decideLocally(e.core, j)
}

// decideLocally decides a job without the core's goroutine, which has ended, and
// without Redis.
func decideLocally(c *core, j *job) bool {
	granted := true
	for i := range j.asks {
		ask, answer := &j.asks[i], &j.answers[i]
		if answer.Verdict == Undecided {
			answer.bucket = find(c, ask)
			if ask.Cost > ask.Limit {
				answer.Verdict = Denied
			} else if !answerFromMemory(c, j, i, j.now) {
				fallBack(c, j, i, j.now)
			}
		}
		granted = granted && answer.Verdict == Granted
	}
	if !granted {
		refuse(c, j, j.now)
	}
	return granted
}
