package limit

// Times that Redis's clock can tell, in microseconds.
const (
	earliest = int64(946684800e6)  // 2000
	latest   = int64(4102444800e6) // 2100
	nearby   = int64(3600e6)       // a clock is believed to have leapt further only once two replies in a row agree
	closely  = int64(1e3)          // what is known to this is not learnt again
)

// tellTime learns Redis's clock from a reply to what was sent at the given
// instant, and reports whether it makes sense. One that took longer than replies
// may, and longer than the one last believed, tells less than is known.
func tellTime(c *core, micros, sent, now int64) bool {
	if micros < earliest || micros > latest {
		return false
	}
	offset := micros - sent/1000
	last := c.told
	c.told = offset
	if c.known && !near(offset, c.offset) && !near(offset, last) {
		return false
	}
	if off := now - sent; !c.known || off <= c.timeout || off <= c.clockError {
		c.known = true
		c.clockError = off
		c.offset = offset
	}
	return true
}

func near(a, b int64) bool { return a-b < nearby && b-a < nearby }

// redisNow is Redis's clock in unix microseconds, as far as this process
// knows it.
func (c *core) redisNow(now int64) int64 { return now/1000 + c.offset }

// later is the later of two instants, or the larger of two numbers.
func later(a, b int64) int64 {
	if a > b {
		return a
	}
	return b
}
