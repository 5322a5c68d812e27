package redis

// Serve sends the calls that come through the channel until that is closed. One
// that cannot be sent now goes back to its To at once. Serve waits for nobody but
// the readers of To.
func Serve(c *Client, calls <-chan *Call) {
	var call *Call
	var ok bool
	for {
		call, ok = <-calls
		if !ok {
			return
		}
		if !Send(c, call) && call.To != nil {
			call.To <- call
		}
	}
}
