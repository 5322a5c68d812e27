package redis

// Serve sends the calls that come through the channel until that is closed. One
// that cannot be sent now goes back to its To at once. Serve waits for nobody but
// the readers of To.
//
// Like write it stays in one function: what nearly every call needs is done here,
// and Send does the rest.
func Serve(c *Client, calls <-chan *Call) {
	var call *Call
	var ok bool
	for {
		call, ok = <-calls
		if !ok {
			return
		}
		c.mu.Lock()
		ok = len(c.direct) < cap(c.direct)
		if ok {
			c.calls++
			c.direct <- call
		}
		c.mu.Unlock()
		if !ok && !Send(c, call) && call.To != nil {
			call.To <- call
		}
	}
}
