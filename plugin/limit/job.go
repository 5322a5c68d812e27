package limit

// release notes that a waiter's outcome stands; the core settles the job where it
// was the last.
func release(c *core, w *waiter) {
	w.released = true
	j := w.job.(*job)
	j.open--
	if j.open == 0 {
		c.settled = append(c.settled, j)
	}
}

// settle ends a job none of whose answers is waited for any more, or asks for the
// others: a limit that denied last is asked alone first, else the others would
// bleed a permit for each request that it refuses (design: co-limits).
func settle(c *core, j *job, now int64) {
	undecided := false
	for i := range j.answers {
		switch j.answers[i].Verdict {
		case Undecided:
			undecided = true
		case Granted, Needless:
		default:
			refuse(c, j, now)
			return
		}
	}
	if undecided {
		askFor(c, j, now)
		return
	}
	j.done <- true
}

// refuse gives back what the other limits granted.
func refuse(c *core, j *job, now int64) {
	for i := range j.answers {
		a := &j.answers[i]
		if a.Verdict == Undecided {
			a.Verdict = Needless
		} else if a.Verdict == Granted && a.cost != 0 {
			giveBack(c, a, now)
			a.cost = 0
		}
	}
	j.done <- false
}

// askFor has the undecided answers of a job wait for calls: only the first whose
// limit denied last, if there is one beside others.
func askFor(c *core, j *job, now int64) {
	first := -1
	for i := range j.answers {
		if a := &j.answers[i]; len(j.asks) > 1 && a.Verdict == Undecided && a.bucket.denial.last {
			first = i
			break
		}
	}
	j.open = 1 // until all are under way
	for i := range j.answers {
		if j.answers[i].Verdict == Undecided && (first < 0 || first == i) {
			await(c, j, i, now)
		}
	}
	j.open--
	if j.open == 0 {
		c.settled = append(c.settled, j)
	}
}

// await has one ask wait for a call, its own or one that it shares. Where no call
// is needed after all, or none is possible, it is decided at once.
func await(c *core, j *job, i int, now int64) {
	ask, answer := &j.asks[i], &j.answers[i]
	b := answer.bucket
	switch {
	case ask.Cost > ask.Limit: // only a limitHeader can say so; a configured one is refused at load
		answer.Verdict = Denied
		return
	case answerFromMemory(c, j, i, now): // another's reply came meanwhile
		return
	case b.shared || b.flight != nil && (b.flight.timedOut || !c.healthy()):
		fallBack(c, j, i, now)
		return
	}
	w := &waiter{job: j, at: i}
	j.open++
	b.queue = append(b.queue, w)
	first := b.flight == nil
	if first {
		c.launches = append(c.launches, b)
	}
	if !first || j.deadline < now-c.lag+c.longest { // it has waited for another limit's call
		limitWait(c, w)
	}
}

// recall answers an ask from what another request has learnt since it looked.
func recall(c *core, j *job, i int, now int64) {
	ask, answer := &j.asks[i], &j.answers[i]
	b := answer.bucket
	b.mu.Lock()
	b.used = true
	b.mu.Unlock()
	if ask.Cost > ask.Limit { // no waiting helps
		answer.Verdict = Denied
		return
	}
	answerFromMemory(c, j, i, now)
}

// answerFromMemory takes a permit of the key's lease, or refuses by a remembered
// denial, and reports whether it did either.
func answerFromMemory(c *core, j *job, i int, now int64) bool {
	ask, answer := &j.asks[i], &j.answers[i]
	b := answer.bucket
	b.mu.Lock()
	spent := spendLocked(b, ask.Limit, ask.Cost, &answer.Outcome, now)
	known := spent || deniedLocked(b, ask.Limit, ask.Cost, &answer.Outcome, now) == Denied
	b.mu.Unlock()
	if spent && answer.lease.local {
		countDegraded(c, &answer.Outcome)
	}
	return known
}

// limitWait releases a waiter that has to wait for more than one call when its
// budget ends: one that waits for the first is released by that call's answer
// or time-out.
func limitWait(c *core, w *waiter) {
	if w.limited {
		return
	}
	w.limited = true
	c.restless = true
	// Nearly always the last: only one that has waited for another call before
	// has less time left than those who have come since.
	e := c.waiting.Back()
	for e != nil && deadlineOf(e.Value) > w.job.(*job).deadline {
		e = e.Prev()
	}
	if e == nil {
		c.waiting.PushFront(w)
	} else {
		c.waiting.InsertAfter(w, e)
	}
}

// deadlineOf is when a waiter is released at the latest.
func deadlineOf(w interface{}) int64 { return w.(*waiter).job.(*job).deadline }

// outOfBudget decides for a request that queued behind a call and has waited
// for as long as it may: by the last numbers known if Redis answers, else as
// without Redis (design: late-replies).
func outOfBudget(c *core, w *waiter, now int64) {
	j := w.job.(*job)
	if f := j.answers[w.at].bucket.flight; f != nil && f.timedOut || !c.healthy() {
		fallBack(c, j, w.at, now)
	} else {
		byLastNumbers(c, j, w.at, now)
	}
	release(c, w)
}

// decideWithout decides for a waiter without Redis.
func decideWithout(c *core, w *waiter, now int64) {
	fallBack(c, w.job.(*job), w.at, now)
	release(c, w)
}
