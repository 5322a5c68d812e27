package redis

import (
	"errors"
	"fmt"
	"strings"
)

// What a call came to means for its node: for the breaker, the topology, and the
// call itself, which may go another way.

const maxHops = 3 // redirects of one call

// served ends a call that Redis has answered with a status or an integer.
func (n *node) served(p *pipeline, call *Call, text string, now int64) {
	switch {
	case call.own == probe:
		n.probed(call, nil)
	case call.own == users && !call.late:
		p.unproven = false
		n.answered = true
		n.breaker.good()
	}
	endCall(call, text, nil, now)
}

// refused ends a call that Redis has answered with an error, unless it goes
// another way.
func (n *node) refused(p *pipeline, call *Call, text string, now int64) {
	f := faultOf(text)
	if call.own == users && !call.late && n.redirect(p, call, f, text) {
		return
	}
	away := f.away || n.stranded(call, f)
	switch {
	case call.own != users:
	case away:
		p.unproven = true
		n.breaker.bad(refused, 1, call.Key)
	case !call.late:
		n.breaker.good()
	}
	if f.word == "readonly" {
		p.retire() // demoted; where the master is now, the next connection finds out
	}
	if away && (f.word == "moved" || f.word == "ask") {
		n.client.monitor.log("error", f.word, p.address+" is part of a Redis Cluster: set redis.cluster to true")
	}
	if f.word == "readonly" || f.word == "clusterdown" || f.word == "moved" {
		n.client.lookAgain()
	}
	n.failed(call, replyError(text), now)
}

// failed ends a call with an error.
func (n *node) failed(call *Call, err error, now int64) {
	if call.own == probe {
		n.probed(call, err)
	}
	if call.own == users && !(call.late && errors.Is(err, ErrTimeout)) { // overdue has counted that one
		n.client.monitor.failed(err)
	}
	endCall(call, "", err, now)
}

// overdue hears from the reader that calls have waited too long.
func (n *node) overdue(p *pipeline, calls int) {
	p.unproven = true
	n.client.monitor.count(ErrTimeout, calls)
	n.client.monitor.log("warn", "timeout", fmt.Sprintf("no reply within %v", n.client.config.Timeout))
	n.breaker.bad(silent, calls, "")
}

// probed takes the outcome of a probe.
func (n *node) probed(call *Call, err error) {
	n.probing.Store(false)
	sick := err != nil && Kind(err) != "noperm" && (isAway(err) || n.stranded(call, faultNamed(Kind(err))))
	if !call.late && !sick {
		n.breaker.close()
	}
}

// stranded reports whether an answer that redirect could not act on says that
// this server will serve nobody: a redirect outside a Cluster, where no slot map
// will ever follow it, and a script that is unknown though its source was sent.
// In a Cluster the server is well, and the next slot map puts things right.
func (n *node) stranded(call *Call, f *fault) bool {
	switch f.word {
	case "moved", "ask":
		return !n.client.config.Cluster
	case "noscript":
		return call.bySource
	}
	return false
}

// redirect sends a call again that Redis proved not to have executed, and
// reports whether it is on its way (design: never-twice).
func (n *node) redirect(p *pipeline, call *Call, f *fault, text string) bool {
	to := p
	switch f.word {
	case "noscript":
		if call.Script == nil || call.bySource {
			return false
		}
		call.bySource = true
		call.asking = call.asked
	case "tryagain":
		call.asking = call.asked
	case "moved", "ask":
		if f.word == "moved" {
			n.client.lookAgain()
		}
		other := n.client.nodeAt(movedTo(text, p.address))
		if other == nil || other.breaker.open.Load() {
			return false
		}
		to = other.pipeline()
		call.asked = f.word == "ask"
		call.asking = call.asked
	default:
		return false
	}
	if call.hops++; call.hops > maxHops {
		return false
	}
	return to.take(call)
}

// movedTo reads the address in "MOVED 3999 127.0.0.1:6381", which may name the
// port alone and writes IPv6 without brackets.
func movedTo(text, from string) string {
	address := text[strings.LastIndexByte(text, ' ')+1:]
	colon := strings.LastIndexByte(address, ':')
	if colon < 0 {
		return ""
	}
	return addressOn(strings.Trim(address[:colon], "[]"), address[colon+1:], from)
}
