package limit

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluice-gateway/sluice/internal/redistest"
	"github.com/sluice-gateway/sluice/plugin/redis"
	"github.com/sluice-gateway/sluice/plugin/window"
)

// puppet is an engine whose Redis does what a test says: calls wait until they are
// taken, and are answered when the test likes.
type puppet struct {
	engine  *Engine
	calls   chan *redis.Call
	away    atomic.Bool
	lost    atomic.Bool  // calls are, on their way
	fatal   atomic.Int64 // so many questions later whether Redis is well, the core panics
	busy    atomic.Int64 // ns that the core takes over that question
	started time.Time
	stored  map[string]window.Counts
}

const longestWait = 250 * time.Millisecond

// puppeteer plays a scene in virtual time. So many calls may wait to be taken.
func puppeteer(t *testing.T, room int, scene func(t *testing.T, p *puppet)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		p := &puppet{calls: make(chan *redis.Call, room), started: time.Now(), stored: map[string]window.Counts{}}
		p.engine = NewEngine(Options{
			Calls: p.calls, Healthy: p.healthy, Timeout: 25 * time.Millisecond, MaxWait: longestWait,
			Instance: "i", Prefix: "sluice", Report: func() string { return "{}" },
			Clock: func() int64 { return int64(time.Since(p.started)) }, Log: func(string, string) {},
		})
		// Without the heartbeat: only what a test asks for is called.
		go p.engine.guard("metronome", p.engine.tick)
		go hear(p.engine.core.replies, p.engine.core.inbox)
		go p.engine.decide()
		scene(t, p)
		p.close()
	})
}

func (p *puppet) healthy() bool {
	if p.fatal.Load() > 0 && p.fatal.Add(-1) == 0 {
		panic("as the test wants it")
	}
	time.Sleep(time.Duration(p.busy.Load()))
	return !p.away.Load()
}

// close ends the engine, unless the scene has.
func (p *puppet) close() {
	if p.engine.closed {
		return
	}
	p.engine.Close()
	for call := range p.calls {
		p.answer(call)
	}
}

// next is the next call to be made, within a second.
func (p *puppet) next(t *testing.T) *redis.Call {
	t.Helper()
	select {
	case call := <-p.calls:
		return call
	case <-time.After(time.Second):
		t.Fatal("no call is made")
		return nil
	}
}

// decide is Redis's work on a call, and answer its reply too.
func (p *puppet) decide(call *redis.Call) {
	line, kept, changed := redistest.Decide(p.stored[call.Key], call.Args[0], p.redisNow())
	if changed {
		p.stored[call.Key] = kept
	}
	call.Line = line
}

func (p *puppet) answer(call *redis.Call) {
	p.decide(call)
	p.end(call, nil)
}

func (p *puppet) end(call *redis.Call, err error) {
	call.Err, call.At = err, p.engine.Now()
	call.To <- call
}

// serve answers every call at once until stopped.
func (p *puppet) serve() (stop func()) {
	stopped := make(chan struct{})
	var done sync.WaitGroup
	done.Add(1)
	go func() {
		defer done.Done()
		for {
			select {
			case call := <-p.calls:
				if p.lost.Load() {
					p.end(call, redis.ErrTimeout)
				} else if p.away.Load() {
					p.end(call, redis.ErrAway)
				} else {
					p.answer(call)
				}
			case <-stopped:
				return
			}
		}
	}()
	return func() { close(stopped); done.Wait() }
}

func (p *puppet) redisNow() int64 { return 1_700_000_000e6 + time.Since(p.started).Microseconds() }

func (p *puppet) ask(name string, span time.Duration, key string, limit int64) Ask {
	return Ask{Limiter: p.engine.Limiter(name, span, 1000), Key: Key(UserKey, key), Limit: limit, Cost: 1}
}

// take asks in the background; the channel gives what came of it.
func (p *puppet) take(asks ...Ask) <-chan taken {
	out := make(chan taken, 1)
	go func() {
		answers := make([]Answer, len(asks))
		ok := Take(p.engine, &Policy{MinInstances: 1}, asks, answers, p.engine.Now())
		out <- taken{ok: ok, answers: answers}
	}()
	return out
}

// within is what comes of a request that is decided in time.
func within(t *testing.T, longest time.Duration, decided <-chan taken) taken {
	t.Helper()
	select {
	case got := <-decided:
		return got
	case <-time.After(longest):
		t.Errorf("a request has not been decided within %s", longest)
		return taken{}
	}
}

type taken struct {
	ok      bool
	answers []Answer
}

// Reports that find no room among the calls are made later.
func TestReportsThatFindNoRoom(t *testing.T) {
	puppeteer(t, 1, func(t *testing.T, p *puppet) {
		const keys = 100
		stop := p.serve()
		<-p.take(p.ask("l", time.Hour, "first", 100)) // Redis's clock is known
		p.away.Store(true)
		for n := range keys {
			if got := <-p.take(p.ask("l", time.Hour, fmt.Sprint(n), 100)); !got.ok {
				t.Fatal("denied below the limit")
			}
		}
		p.lost.Store(true)
		p.away.Store(false)
		time.Sleep(2 * time.Minute) // every report has been lost at least once
		stop()
		p.lost.Store(false)
		late := p.take(p.ask("l", time.Hour, "another", 100)) // whose call takes all the room
		time.Sleep(3 * time.Second)
		stop = p.serve()
		<-late
		time.Sleep(2 * time.Minute)
		stop()
		told := 0
		for _, counts := range p.stored {
			told += int(counts.Current())
		}
		if told != keys+2 {
			t.Errorf("Redis has been told of %d permits, %d were spent", told, keys+2)
		}
	})
}

// Reports take what requests leave them: a process that is late makes few, one that
// is not has made all in a moment (I5).
func TestReportsGiveWay(t *testing.T) {
	const keys, busy = 900, 50 * time.Millisecond
	for _, one := range []struct {
		name        string
		busy        time.Duration
		least, most int
	}{
		{"at rest", 0, keys, keys},
		{"busy", busy, 2 * fastest / 4, 2*fastest/4 + 2*int(time.Second/busy)}, // it finds out
	} {
		t.Run(one.name, func(t *testing.T) {
			puppeteer(t, 2*keys, func(t *testing.T, p *puppet) {
				stop := p.serve()
				<-p.take(p.ask("l", time.Hour, "first", 100)) // Redis's clock is known
				p.away.Store(true)
				for n := range keys {
					<-p.take(p.ask("l", time.Hour, fmt.Sprint(n), 100))
				}
				time.Sleep(2 * time.Second) // none is retried in what is measured
				p.busy.Store(int64(one.busy))
				p.away.Store(false)
				p.engine.Ready()
				time.Sleep(time.Second)
				stop()
				if told := len(p.stored) - 1; told < one.least || told > one.most {
					t.Errorf("%d keys were reported within a second, want %d to %d", told, one.least, one.most)
				}
				p.busy.Store(0)
			})
		})
	}
}

// A request has one budget, however many calls it waits for one after the other
// (design: late-replies).
func TestOneBudgetForAllCalls(t *testing.T) {
	const span = 10 * time.Second
	puppeteer(t, 100, func(t *testing.T, p *puppet) {
		first, second := p.ask("first", span, "u", 1), p.ask("second", span, "u", 1)
		stop := p.serve()
		<-p.take(first)
		time.Sleep(2 * time.Second)
		if got := <-p.take(first); got.ok {
			t.Fatal("admitted over the limit")
		}
		stop()
		time.Sleep(span)
		both := p.take(first, second) // the one that denied last is asked alone
		call := p.next(t)
		time.Sleep(200 * time.Millisecond)
		p.answer(call)
		call = p.next(t)
		within(t, longestWait-200*time.Millisecond+2*tickEvery, both)
		p.answer(call)
	})
}

// Nor does one whose grant came too late wait for those that came after it.
func TestOneBudgetAtTheWindowsEnd(t *testing.T) {
	const span = 10 * time.Second
	puppeteer(t, 100, func(t *testing.T, p *puppet) {
		time.Sleep(span - time.Duration(p.redisNow()%window.Span(span))*time.Microsecond - 220*time.Millisecond)
		early := p.take(p.ask("l", span, "early", 100))
		call := p.next(t)
		p.decide(call)
		time.Sleep(230 * time.Millisecond) // the window's end is over
		behind := p.ask("l", span, "later", 100)
		later := p.take(behind)
		slow := p.next(t)
		queued := p.take(behind) // for longer than early may
		time.Sleep(5 * time.Millisecond)
		p.end(call, nil)
		again := p.next(t)
		within(t, longestWait-235*time.Millisecond+2*tickEvery, early)
		p.answer(slow)
		p.answer(again)
		<-later
		defer p.serve()()
		<-queued
	})
}

// What a busy process is late itself does not count against Redis: it was there all
// the time (I1, design: late-replies).
func TestBusyProcessIsNotRedis(t *testing.T) {
	puppeteer(t, 100, func(t *testing.T, p *puppet) {
		crowded := p.ask("l", time.Hour, "u", 1000)
		first := p.take(crowded)
		call := p.next(t)
		queued := p.take(crowded)
		p.busy.Store(int64(60 * time.Millisecond))
		time.Sleep(2 * longestWait)
		p.answer(call)
		p.answer(p.next(t))
		for _, got := range []taken{<-first, <-queued} {
			if !got.ok || got.answers[0].Degraded {
				t.Errorf("got %+v, want a permit of Redis's", got)
			}
		}
		p.busy.Store(0)
	})
}

// A key that finds no room in the table is limited too when its call fails.
func TestI6NoRoomAndNoRedis(t *testing.T) {
	puppeteer(t, 100, func(t *testing.T, p *puppet) {
		const limit = 3
		limiter := p.engine.Limiter("l", time.Hour, 1)
		ask := func(key string) Ask { return Ask{Limiter: limiter, Key: Key(UserKey, key), Limit: limit, Cost: 1} }
		stop := p.serve()
		got := <-p.take(ask("holder"))
		hold := p.engine.Hold(&got.answers[0], p.engine.Now()) // its key stays
		stop()
		var all []<-chan taken
		for range 20 {
			all = append(all, p.take(ask("u")))
		}
		for range all {
			p.end(p.next(t), redis.ErrTimeout)
		}
		admitted := 0
		var permits []Answer
		for _, one := range all {
			if got := <-one; got.ok {
				admitted++
				permits = append(permits, got.answers[0])
			}
		}
		if admitted != limit {
			t.Errorf("%d requests of one key were admitted without Redis, its limit is %d", admitted, limit)
		}
		p.away.Store(true)
		for i := range permits {
			p.engine.GiveBack(&permits[i])
		}
		defer p.serve()()
		if got := <-p.take(ask("u")); !got.ok {
			t.Error("a permit that was given back admits nobody")
		}
		hold.Settle(true)
	})
}

// What keys owe of windows that are long over keeps nobody out of the table, and
// is not reported.
func TestI6LongOutage(t *testing.T) {
	for _, limit := range []int64{10, 100} {
		puppeteer(t, 100, func(t *testing.T, p *puppet) {
			const span, keys = 10 * time.Second, 20
			limiter := p.engine.Limiter("l", span, keys)
			ask := func(key string) Ask { return Ask{Limiter: limiter, Key: Key(UserKey, key), Limit: limit, Cost: 1} }
			stop := p.serve()
			<-p.take(ask("0")) // Redis's clock is known
			p.away.Store(true)
			for n := range 5 * keys {
				<-p.take(ask(fmt.Sprint(n % keys)))
			}
			time.Sleep(3 * span)
			for n := range 2 * keys { // the table's hand goes round once before it takes
				<-p.take(ask(fmt.Sprint("new", n%keys)))
			}
			settled(p.engine)
			found := 0
			for n := range keys {
				if limiter.table.buckets[Key(UserKey, fmt.Sprint("new", n))] != nil {
					found++
				}
			}
			if found != keys {
				t.Errorf("limit %d: %d of %d new keys found room, though nothing counts of the old ones", limit, found, keys)
			}
			if debtors := p.engine.core.debtors.Len(); debtors > keys {
				t.Errorf("limit %d: %d keys are kept to be reported, the table holds %d", limit, debtors, keys)
			}
			stop()
			p.away.Store(false)
			calls := 0
			for deadline := time.After(2 * time.Second); calls >= 0; {
				select {
				case call := <-p.calls:
					p.answer(call)
					calls++
					continue
				case <-deadline:
				}
				break
			}
			if calls != keys {
				t.Errorf("limit %d: %d reports, want one for each of the %d keys that count", limit, calls, keys)
			}
		})
	}
}

// A request that has outlived its configuration takes a permit of all its limits or
// of none, too.
func TestI7AfterClose(t *testing.T) {
	puppeteer(t, 100, func(t *testing.T, p *puppet) {
		stop := p.serve()
		wide, tight := p.ask("wide", time.Hour, "u", 2), p.ask("tight", time.Hour, "u", 1)
		if got := <-p.take(tight); !got.ok {
			t.Fatal("denied below the limit")
		}
		stop()
		p.close()
		for range 3 {
			if got := <-p.take(wide, tight); got.ok {
				t.Fatal("admitted over the limit")
			}
		}
		if got := <-p.take(wide); !got.ok {
			t.Error("requests that another limit refused have used the limit up")
		}
	})
}

// Each request that passes by what was set aside without Redis is told so, also
// where it had to wait first.
func TestDegradedBehindAFailedCall(t *testing.T) {
	puppeteer(t, 100, func(t *testing.T, p *puppet) {
		const requests = 40
		ask := p.ask("l", time.Minute, "u", 1000)
		stop := p.serve()
		for range 200 { // demand, so that something is set aside
			<-p.take(ask)
			time.Sleep(time.Millisecond)
		}
		time.Sleep(2 * time.Second)
		for range 50 {
			<-p.take(ask)
		}
		time.Sleep(1500 * time.Millisecond)
		stop()
		var all []<-chan taken
		for range requests {
			all = append(all, p.take(ask))
			time.Sleep(100 * time.Microsecond)
		}
		before := p.engine.Degraded.Load()
		call := p.next(t)
		p.away.Store(true)
		p.end(call, redis.ErrTimeout)
		defer p.serve()()
		told := int64(0)
		for _, one := range all {
			got := <-one
			if !got.ok || !got.answers[0].Degraded {
				t.Fatalf("admitted %v, degraded %v", got.ok, got.answers[0].Degraded)
			}
			told++
		}
		if n := p.engine.Degraded.Load() - before; n != told {
			t.Errorf("%d answers are counted as given without Redis, %d were", n, told)
		}
	})
}

// A permit that comes back while a call is under way is in nobody's way: Redis did
// not know of it when it denied.
func TestGiveBackWhileAsking(t *testing.T) {
	for _, limit := range []int64{1, 100} {
		puppeteer(t, 100, func(t *testing.T, p *puppet) {
			const span = 15 * time.Minute
			ask := p.ask("l", span, "u", limit)
			stop := p.serve()
			var holds []*Hold
			for range limit {
				got := <-p.take(ask)
				holds = append(holds, p.engine.Hold(&got.answers[0], p.engine.Now()))
				time.Sleep(20 * time.Millisecond)
			}
			time.Sleep(1500 * time.Millisecond)
			stop()
			second := p.take(ask)
			call := p.next(t)
			p.decide(call)
			for _, h := range holds {
				h.Settle(false)
			}
			settled(p.engine)
			p.end(call, nil)
			got := <-second
			if got.ok || got.answers[0].RetryAfter > time.Second {
				t.Errorf("limit %d: admitted %v, Retry-After %s, though a permit is on its way back", limit, got.ok, got.answers[0].RetryAfter)
			}
			defer p.serve()()
			if got := <-p.take(ask); !got.ok {
				t.Errorf("limit %d: a permit that came back is denied from memory", limit)
			}
		})
	}
}

// A request that is given up because the core panicked is not touched any more: its
// answers may be another's by then.
func TestGivenUp(t *testing.T) {
	puppeteer(t, 100, func(t *testing.T, p *puppet) {
		first, second := p.ask("first", time.Hour, "u", 100), p.ask("second", time.Hour, "u", 100)
		one, two := p.take(first), p.take(second)
		calls := []*redis.Call{p.next(t), p.next(t)}
		p.fatal.Store(2) // it waits behind the first call by then
		got := <-p.take(first, second)
		if got.ok || got.answers[0].Verdict != Unavailable || got.answers[1].Verdict != Unavailable {
			t.Fatalf("%+v", got)
		}
		p.end(calls[0], redis.ErrTimeout)
		p.end(calls[1], redis.ErrTimeout)
		defer p.serve()()
		if !(<-one).ok || !(<-two).ok {
			t.Error("denied below the limit")
		}
		time.Sleep(100 * time.Millisecond)
		if got.answers[0].Verdict != Unavailable || got.answers[1].Verdict != Unavailable {
			t.Errorf("answers that were given have changed: %v, %v", got.answers[0].Verdict, got.answers[1].Verdict)
		}
	})
}

// What is wrong is said in full while the first limit is being opened, too.
func TestAloneBeforeAnyPolicy(t *testing.T) {
	puppeteer(t, 100, func(t *testing.T, p *puppet) {
		before := withoutRedis(&p.engine.limiters, p.engine.presence)
		limiter := p.engine.Limiter("l", time.Hour, 10)
		if now := withoutRedis(&p.engine.limiters, p.engine.presence); now == "" || now != before {
			t.Errorf("%q, before it was %q", now, before)
		}
		limiter.Use(Policy{OnFailure: Deny})
		if now := withoutRedis(&p.engine.limiters, p.engine.presence); now == "" || now == before {
			t.Errorf("%q", now)
		}
	})
}
