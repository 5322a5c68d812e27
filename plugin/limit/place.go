package limit

import (
	"strconv"
	"time"
)

// Place is where requests of one kind spend at a limit: the key's bucket, found
// once, and what they ask of it. A request at several limits spends at a chain
// of places.
//
// A bucket that has left its table answers nothing (leave), so a Place
// may be kept for as long as its owner likes.
type Place struct {
	bucket  *bucket
	permits int64
	cost    int64
	head    string // what stands before the number in RateLimit
	index   int    // of its answer
	next    *Place
}

// NewPlace puts a place for requests such as one that has been answered before a
// chain of others, and tells whether it is worth keeping: a key that finds no room in
// the table has a bucket for one request. The answers have the given index; in
// RateLimit the limit is called head.
func NewPlace(ask *Ask, answer *Answer, index int, head string, next *Place) (p *Place, keep bool) {
	b := answer.bucket
	p = &Place{bucket: b, permits: ask.Limit, cost: ask.Cost, head: head, index: index, next: next}
	return p, b != nil && !b.passing && !b.shared
}

// Spend takes a permit at each place of a chain by what memory says, and fills in
// the answers; those that are decided already it only reads. It is the worst of the
// verdicts, and the value of RateLimit for all that are decided; of no place it
// is Undecided. Where it is Denied,
// what others granted has to go back (GiveBack); where it is Undecided, Take has
// to be asked before that.
//
// This is the way of nearly every request. It is one function, with few calls,
// for any number of places, because the interpreter makes room for each
// expression, executed or not, and takes long for a call: BenchmarkHotPath in
// test/forms.
func Spend(first *Place, now int64, answers []Answer) (string, Verdict) {
	state := make([]byte, 0, 128)
	verdict := Granted
	if first == nil {
		verdict = Undecided
	}
	for p := first; p != nil; p = p.next {
		a := &answers[p.index]
		if a.Verdict == Undecided {
			b := p.bucket
			a.bucket = b
			b.mu.Lock()
			b.used = true
			h := b.lease
			if h != nil && h.left >= p.cost && h.limit == p.permits && now < h.until {
				h.left -= p.cost
				b.taken += p.cost
				a.Remaining = (h.left + h.room) / p.cost
				b.mu.Unlock()
				a.Verdict = Granted
				a.Reset = time.Duration(h.ends - now)
				a.lease = h
				a.cost = p.cost
				if h.alone {
					spentAlone(b, a)
				}
			} else {
				denyAt(p, now, a)
			}
		}
		if a.Verdict != Granted {
			if verdict = worse(verdict, a); a.Reset < 0 {
				continue
			}
		}
		state = strconv.AppendInt(append(state, p.head...), a.Remaining, 10)
		state = strconv.AppendInt(append(state, ";t="...), (int64(a.Reset)+almostSecond)/second, 10)
	}
	if verdict != Granted {
		state = withoutFirst(state)
	}
	return string(state), verdict
}

const (
	second       = int64(time.Second)
	almostSecond = second - 1
)

// denyAt is the remembered denial at a place whose lease has nothing to give, if
// memory tells. It unlocks the bucket.
func denyAt(p *Place, now int64, a *Answer) {
	b := p.bucket
	if p.cost > p.permits { // only a limitHeader can say so; a configured one is refused at load
		a.Verdict = Denied
	} else {
		deniedLocked(b, p.permits, p.cost, &a.Outcome, now)
	}
	b.mu.Unlock()
}

// spentAlone counts a permit that was set aside without Redis.
func spentAlone(b *bucket, a *Answer) {
	b.limiter.engine.Degraded.Add(1)
	a.Degraded = true
}

// worse is the verdict of several of which one is not granted. Where there is
// nothing to say of that one, its Reset is negative; of a denial a client is told
// when a request could pass.
func worse(verdict Verdict, a *Answer) Verdict {
	switch a.Verdict {
	case Undecided:
		a.Reset = -1
		if verdict == Granted {
			verdict = Undecided
		}
		return verdict
	case Needless:
		a.Reset = -1
		return verdict
	case Denied:
		a.Reset = a.RetryAfter
		if verdict != Unavailable {
			verdict = Denied
		}
		return verdict
	}
	return Unavailable
}

// withoutFirst is the text without the comma before a first place of which there
// is nothing to say.
func withoutFirst(state []byte) []byte {
	if len(state) > 2 && state[0] == ',' {
		state = state[2:]
	}
	return state
}

// Moved tells whether a place's bucket has made room for others, so that the
// answer came from another one.
func Moved(first *Place, answers []Answer) bool {
	for p := first; p != nil; p = p.next {
		if b := answers[p.index].bucket; b != nil && b != p.bucket {
			return true
		}
	}
	return false
}
