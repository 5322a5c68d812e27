package limit

import (
	"fmt"
	"time"

	"github.com/sluice-gateway/sluice/plugin/redis"
	"github.com/sluice-gateway/sluice/plugin/window"
)

// Whether Redis counts requests: noted of the calls that requests make, and
// rehearsed while it is in doubt, though nobody may be asking.

// wrote notes that Redis has counted a request by a call sent at the given
// instant.
func wrote(c *core, sent int64) {
	c.counted = true
	c.exact.served(sent)
	c.ailing = c.exact.trouble() != nil
}

// fails notes that Redis has not counted a request of the key.
func fails(c *core, b *bucket, err error, now int64) {
	if c.closing {
		return // it was told to end
	}
	c.failing = b
	c.ailing = true
	c.exact.failed(err, now)
}

// rehearse makes calls that show whether Redis counts requests, though nobody
// may be asking: a call of the limit script for nobody, which needs all that one
// for a request does (the command, the key pattern, and a write), and one about
// the key that failed last, which changes nothing.
func rehearse(c *core, now int64) []*redis.Call {
	tag := GlobalKey
	if b, ok := c.failing.(*bucket); ok {
		tag = b.name // of the same node in a Cluster
		if b.flight == nil && len(b.queue) == 0 && !b.shared {
			c.launches = append(c.launches, b)
		}
	}
	f := &flight{sent: now, limit: 1000000, cost: 1, need: 1}
	f.ask = window.Ask{Window: window.Span(time.Second), Limit: f.limit, Cost: f.cost, Need: f.need, Instances: 1}
	return []*redis.Call{{
		Key: limitPrefix(c.presence.prefix, rehearsalName, time.Second) + tag + "}", Script: script, Args: []string{f.ask.Word()}, Tag: f,
	}}
}

// rehearsalName is no name that a limit can have.
const rehearsalName = "_"

// rehearsed takes what became of a call for nobody.
func rehearsed(c *core, call *redis.Call, f *flight, now int64) {
	err := call.Err
	if err == nil && !tellTime(c, f.grant.Now, f.sent, now) {
		err = fmt.Errorf("%w: %s", errSense, call.Line)
	}
	switch {
	case err == nil && f.grant.Need > 0:
		wrote(c, f.sent)
	case err != nil && !c.closing:
		c.ailing = true
		c.exact.failed(err, now)
	}
}
