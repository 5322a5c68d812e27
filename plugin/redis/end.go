package redis

// How a pipeline ends: it takes no more calls, and those that it has are answered
// (retire) or given up (fail, and the reader's abandon).

// shutDown has the pipeline take no more calls.
func (p *pipeline) shutDown() {
	c := p.node.client
	c.mu.Lock()
	defer c.mu.Unlock()
	if p.shut {
		return
	}
	p.shut = true
	close(p.in)
	c.assessLocked()
}

// withdraw returns the calls that the writer has not taken. It may be blocked, or
// about to take the next: that is why the channel is replaced, not emptied.
func (p *pipeline) withdraw() []*Call {
	c := p.node.client
	c.mu.Lock()
	old := p.in
	if !p.shut {
		p.in = make(chan *Call, maxQueue)
		close(old)
		c.aimLocked()
	}
	c.mu.Unlock()
	return drain(old)
}

// drain takes what is left in a closed channel, unless somebody else does.
func drain(in chan *Call) []*Call {
	var all []*Call
	for {
		call := <-in
		if call == nil {
			return all
		}
		all = append(all, call)
	}
}

// retire lets the pipeline finish what is pending and end.
func (p *pipeline) retire() {
	p.shutDown()
	p.mu.Lock()
	p.retired = true
	p.mu.Unlock()
	p.wake()
}

// leave is the writer's last act.
func (p *pipeline) leave() {
	close(p.written)
	p.wake() // which ends a retired pipeline if nothing is pending
}

// fail breaks the pipeline. The reader notices and ends the calls.
func (p *pipeline) fail(cause error) {
	p.mu.Lock()
	if p.cause == nil {
		p.cause = cause
	}
	p.mu.Unlock()
	p.shutDown()
	p.raw.Close() // not conn: closing TLS writes, and may block
}
