package limit

// GiveBack returns the permit of a granted answer that was not used after all:
// to the lease it came from while that lives, else to the window it was
// granted in, else nowhere (design: give-back). A permit taken without Redis goes back
// there only if it was reported since. It does so once; an answer without a
// permit changes nothing.
func (e *Engine) GiveBack(a *Answer) {
	if a.Verdict != Granted || a.cost == 0 {
		return
	}
	back := &returned{answer: *a, now: e.clock()}
	b := a.bucket
	a.cost = 0
	b.mu.Lock()
	back.done = toLease(b, &back.answer, back.now)
	if !back.done {
		b.denial.until = 0 // there may be room now, or will be
	}
	b.mu.Unlock()
	e.tell(back)
}

// giveBack is GiveBack for the core.
func giveBack(c *core, a *Answer, now int64) {
	b := a.bucket
	b.mu.Lock()
	done := toLease(b, a, now)
	b.mu.Unlock()
	takeBack(c, b, a, done, now)
}

// takeBack notes in the ledger what no lease could take, and sees to it that what
// is back is looked after.
func takeBack(c *core, b *bucket, a *Answer, done bool, now int64) {
	if !done {
		b.mu.Lock()
		b.denial.until = 0 // also of one that was made since the permit was let go
		b.mu.Unlock()
		if a.lease != nil {
			returnTo(b, a.lease, a.cost, a.instant)
		} else {
			b.ledger.forget(a.window, a.cost, a.instant)
		}
	}
	watch(c, b, now)
}
