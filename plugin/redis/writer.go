package redis

import "time"

const (
	fullWrite = 64 << 10 // bytes that are worth a write, though more calls wait
	mostCalls = 512      // of one write: fewer than flight holds, or the writer would wait for itself
	maxKept   = 64 << 10 // a buffer that grew larger is given back
)

// write is the writer's goroutine: it encodes what callers send, and puts all
// that has gathered out in one Write. A call is in flight before its bytes leave,
// so that its reply finds it there.
//
// Interpreted, a function that is entered makes room for each of its expressions;
// what a loop does in a function that stays costs nothing of the kind. So this
// one stays, its variables stand before the loop, the most frequent call (a
// script, by its hash) is encoded in place, and only the others by appendCall.
func write(p *pipeline) {
	defer p.leave()
	var (
		epoch   = p.epoch
		timeout = p.timeout
		conn    = p.conn
		in      = p.next(nil)
		flight  = p.flight
		short   = lengths
		most    = len(short)

		call             *Call   // only ever received into: Yaegi cannot assign to it otherwise
		script           *Script // of head
		args             int     // of head
		head, text, word string
		wire             []byte
		now, then, first int64
		count, sent, i   int
		err              error
	)
	defer func() {
		if r := recover(); r != nil {
			p.fail(panicked("writer", r, p.report))
			if p.taken != nil {
				flight <- p.taken // to be ended with the others
			}
		}
	}()
	for {
		call = <-in
		if call == nil {
			in = p.next(in)
			if in == nil {
				return
			}
			continue
		}
		now = int64(time.Since(epoch))
		first = now
		count = 0
		wire = wire[:0]
		for call != nil {
			p.taken = call
			if call.Script == nil || call.bySource || call.asking || call.Key == "" || len(call.Key) >= most {
				wire = appendCall(wire, call)
			} else {
				if call.Script != script || len(call.Args) != args {
					script = call.Script // one by one: Yaegi loses a value of a parallel assignment with an expression in it
					args = len(call.Args)
					head = script.head(args)
				}
				text = head + short[len(call.Key)] + call.Key + "\r\n"
				for i = 0; i < args; i++ {
					word = call.Args[i]
					if len(word) < most {
						text = text + short[len(word)] + word + "\r\n"
					} else {
						text += string(appendWord(nil, word))
					}
				}
				wire = append(wire, text...)
			}
			if call.since == 0 {
				call.since = now
			} else if call.since < first {
				first = call.since // it was redirected: its time has been running
			}
			flight <- call
			p.taken = nil
			count++
			if len(in) == 0 || len(wire) >= fullWrite || count == mostCalls {
				break
			}
			call = <-in // nil if they were withdrawn meanwhile
		}
		p.mu.Lock()
		if first+timeout < p.armed {
			p.armLocked(first + timeout) // before the write: one that blocks is an answer that does not come
		}
		p.mu.Unlock()
		sent, err = conn.Write(wire)
		if err != nil {
			p.last = torn{count, len(wire), sent}
			p.fail(networkError(err))
			return
		}
		then = int64(time.Since(epoch))
		if then-now > tardy {
			p.excuse(then)
		}
		if cap(wire) > maxKept {
			wire = nil
		}
	}
}
