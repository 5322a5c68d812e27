package limit

import (
	"strconv"
	"time"
)

// Place is where requests of one kind spend at a limit: the key's bucket, found
// once, and what they ask of it. A request at several limits spends at a chain
// of places.
//
// A bucket that has left its table answers nothing (bucket.leave), so a Place
// may be kept for as long as its owner likes.
type Place struct {
	bucket  *bucket
	permits int64
	cost    int64
	head    string // what stands before the number in RateLimit
	final   bool   // a denial here needs no other limit's word
	next    *Place
}

// NewPlace puts a place for such requests before a chain of others. It is nil
// for a key that memory says nothing of at the moment. In RateLimit the limit is
// called head. Where a denial is not final, Spend leaves it to others.
func NewPlace(ask *Ask, now int64, head string, final bool, next *Place) *Place {
	b := ask.Limiter.table.known(ask.Key)
	if b == nil || ask.Cost > ask.Limit {
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if now >= b.denial.until && (b.lease == nil || b.lease.left < ask.Cost) {
		return nil
	}
	return &Place{bucket: b, permits: ask.Limit, cost: ask.Cost, head: head, final: final, next: next}
}

// Spent is what became of a request at one place.
type Spent struct {
	Denied     bool
	RetryAfter time.Duration // of a denial

	lease *lease // that the permit came from
}

// Spend takes a permit at each place of a chain, or at none (I7), by what memory
// says alone; spent has room for them. Granted comes with the value of RateLimit.
// So does Denied, by one place or more: what the others granted has to go back
// (Return).
// Undecided, where memory does not tell, leaves nothing taken.
//
// This is the way of nearly every request. It is one function, with few calls,
// for any number of places, because the interpreter makes room for each
// expression, executed or not, and takes long for a call: BenchmarkHotPath in
// test/forms.
func Spend(first *Place, now int64, spent []Spent) (string, Verdict) {
	state, verdict, i := make([]byte, 0, 128), Granted, 0
	for p := first; p != nil; p = p.next {
		b, remaining, wait := p.bucket, int64(0), int64(0)
		b.mu.Lock()
		b.used = true
		if h := b.lease; h != nil && h.left >= p.cost && h.limit == p.permits && now < h.until {
			h.left -= p.cost
			b.demand.taken += p.cost
			remaining = (h.left + h.room) / p.cost
			b.mu.Unlock()
			wait = h.ends - now
			spent[i].lease = h
			if h.alone {
				spentAlone(b)
			}
		} else {
			if wait = denyAt(p, now, &spent[i]); wait < 0 {
				Return(first, spent[:i])
				return "", Undecided
			}
			verdict = Denied
		}
		state = strconv.AppendInt(append(state, p.head...), remaining, 10)
		state = strconv.AppendInt(append(state, ";t="...), (wait+almostSecond)/second, 10)
		i++
	}
	return string(state), verdict
}

const (
	second       = int64(time.Second)
	almostSecond = second - 1
)

// denyAt is the remembered denial at a place whose lease has nothing to give: it
// unlocks the bucket, and is the time to wait; negative where memory does not
// tell, or does not tell all.
func denyAt(p *Place, now int64, s *Spent) int64 {
	b, wait := p.bucket, int64(-1)
	if p.final && coveredLocked(b, p.permits, p.cost, now) {
		wait = retryLocked(b, now)
		s.Denied = true
		s.RetryAfter = time.Duration(wait)
	}
	b.mu.Unlock()
	return wait
}

// spentAlone counts a permit that was set aside without Redis.
func spentAlone(b *bucket) {
	b.limiter.engine.Degraded.Add(1)
}

// Return gives back what was granted at the places of a chain.
func Return(first *Place, spent []Spent) {
	answers := Answers(first, spent)
	for i := range answers {
		first.bucket.limiter.engine.GiveBack(&answers[i])
	}
}

// Answers are the permits that were taken at the places of a chain, for Hold.
func Answers(first *Place, spent []Spent) []Answer {
	answers := make([]Answer, len(spent))
	p := first
	for i := range spent {
		if h := spent[i].lease; h != nil {
			answers[i].bucket = p.bucket
			answers[i].Verdict = Granted
			answers[i].lease = h
			answers[i].cost = p.cost
		}
		p = p.next
	}
	return answers
}
