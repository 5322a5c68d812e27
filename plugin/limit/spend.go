package limit

import "time"

// Handle is where requests of one kind spend at a limit: the key's bucket, found
// once, and what they ask of it. A request at several limits spends at a chain
// of places.
//
// A bucket that has left its table answers nothing (leave), so a Handle
// may be kept for as long as its owner likes.
type Handle struct {
	bucket  *bucket
	permits int64
	cost    int64
	next    *Handle
}

// NewHandle puts a place for requests such as one that has been answered before a
// chain of others, and tells whether it is worth keeping: a key that finds no room in
// the table has a bucket for one request.
func NewHandle(ask *Ask, answer *Answer, next *Handle) (p *Handle, keep bool) {
	b := answer.bucket
	p = &Handle{bucket: b, permits: ask.Limit, cost: ask.Cost, next: next}
	return p, b != nil && !b.passing && !b.shared
}

// Spending is a request that spends. Answers has one for each place; what is decided
// already is only read.
type Spending struct {
	Handles *Handle
	Now     int64 // monotonic ns
	Answers []Answer
	Verdict Verdict   // the worst; of no place it is Undecided
	Done    chan bool // hears when a Spender has spent; false where that failed
}

// Spend takes a permit at each place of a chain by what memory says. Where the verdict
// is Denied, what others granted has to go back (GiveBack); where it is Undecided, Take
// has to be asked before that.
//
// This is the way of nearly every request. The interpreter makes room for each
// expression of a function at each call, executed or not; a Spender stays in it, and
// does so once: a third fewer allocations a request, for two changes of goroutine
// (BenchmarkHotPath in test/forms).
func Spend(s *Spending, by *Spender) {
	var (
		p       *Handle
		a       *Answer
		b       *bucket
		h       *lease
		verdict Verdict
		now     int64
		i       int
	)
	for {
		now = s.Now
		verdict = Granted
		if s.Handles == nil {
			verdict = Undecided
		}
		i = 0
		for p = s.Handles; p != nil; p = p.next {
			a = &s.Answers[i]
			i++
			if a.Verdict == Undecided {
				b = p.bucket
				a.bucket = b
				b.mu.Lock()
				b.used = true
				h = b.lease
				if h != nil && h.left >= p.cost && h.limit == p.permits && now < h.until {
					h.left -= p.cost
					b.taken += p.cost
					a.Remaining = (h.left + h.room) / p.cost
					b.mu.Unlock()
					a.Verdict = Granted
					a.Reset = time.Duration(h.ends - now)
					a.lease = h
					a.cost = p.cost
					if h.local {
						spentLocally(b, a)
					}
				} else {
					denyAt(p, now, a)
				}
			}
			if a.Verdict != Granted {
				verdict = worse(verdict, a.Verdict)
			}
		}
		s.Verdict = verdict
		if by == nil {
			return
		}
		s.Done <- true
		s = <-by.Next
		by.serves = s
	}
}

// Spender is a goroutine that spends for others, one after the other.
type Spender struct {
	Next   chan *Spending
	serves *Spending
}

// NewSpender starts one. It never ends.
func NewSpender() *Spender {
	s := &Spender{Next: make(chan *Spending, 1)}
	go func() {
		for {
			spendOn(s)
		}
	}()
	return s
}

// spendOn spends until something makes it panic, which would end Traefik.
func spendOn(s *Spender) {
	defer func() {
		if p := recover(); p != nil {
			s.serves.Done <- false
		}
	}()
	first := <-s.Next

	s.serves = first
	Spend(first, s)
}

// denyAt is the remembered denial at a place whose lease has nothing to give, if
// memory tells. It unlocks the bucket.
func denyAt(p *Handle, now int64, a *Answer) {
	b := p.bucket
	if p.cost > p.permits { // only a limitHeader can say so; a configured one is refused at load
		a.Verdict = Denied
	} else {
		deniedLocked(b, p.permits, p.cost, &a.Outcome, now)
	}
	b.mu.Unlock()
}

// spentLocally counts a permit that was set aside without Redis.
func spentLocally(b *bucket, a *Answer) {
	b.limiter.degraded.Add(1)
	a.Degraded = true
}

// worse is the verdict of several, one of which is not granted.
func worse(verdict, one Verdict) Verdict {
	switch {
	case one == Unavailable || verdict == Unavailable:
		return Unavailable
	case one == Denied || verdict == Denied:
		return Denied
	case one == Undecided:
		return Undecided
	}
	return verdict
}

// Moved tells whether a place's bucket has made room for others, so that the
// answer came from another one.
func Moved(first *Handle, answers []Answer) bool {
	i := 0
	for p := first; p != nil; p = p.next {
		if b := answers[i].bucket; b != nil && b != p.bucket {
			return true
		}
		i++
	}
	return false
}
