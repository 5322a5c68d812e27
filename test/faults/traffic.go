package faults

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// Stream is one kind of client: so many requests a second, each sent at its
// time whether the one before was answered or not.
type Stream struct {
	Route   string
	Key     string
	EachOwn bool          // each request has a key of its own: Key and its number,
	Cycle   int           // which begins anew after so many; 0: never
	Rate    int           // requests a second
	Delay   time.Duration // before the first
}

// key of the n-th request.
func (s *Stream) key(n int) string {
	if s.EachOwn && s.Cycle > 0 {
		n %= s.Cycle
	}
	if s.EachOwn {
		return s.Key + strconv.Itoa(n)
	}
	return s.Key
}

// Record is one request.
type Record struct {
	Stream int
	Key    string
	Status int
	Start  time.Time // wall clock: processes of one machine share it
	Took   time.Duration

	// Net is Took without the time during which the machine did not run this
	// process, as far as stalls saw it: not a wait that the plugin caused.
	Net time.Duration
}

// End is when the answer came.
func (r *Record) End() time.Time { return r.Start.Add(r.Took) }

// Traffic is what a load has done.
type Traffic struct {
	Records []Record
	Longest time.Duration // the longest time during which the machine did not run the process
	Pending int           // requests without any answer 10 s after the load ended
}

// load is traffic under way.
type load struct {
	stop    chan struct{}
	running sync.WaitGroup // streams and requests
	pending atomic.Int64

	mu      sync.Mutex // protects records
	records []Record

	meter *stalls
}

// Start sets streams going, until Stop.
func (g *gateway) Start(streams []Stream, _ *Nothing) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	l := &load{stop: make(chan struct{}), meter: watchStalls()}
	for i := range streams {
		handler := g.routes[streams[i].Route]
		if handler == nil {
			return fmt.Errorf("no route %s", streams[i].Route)
		}
		l.running.Add(1)
		go l.run(handler, i, &streams[i])
	}
	g.load = l
	return nil
}

// run is one stream. After a stall of the machine it does not make up for what
// it missed with a burst.
func (l *load) run(handler http.Handler, stream int, s *Stream) {
	defer l.running.Done()
	if s.Delay > 0 {
		select {
		case <-l.stop:
			return
		case <-time.After(s.Delay):
		}
	}
	tick := time.NewTicker(time.Second / time.Duration(s.Rate))
	defer tick.Stop()
	for n := 0; ; n++ {
		l.running.Add(1)
		l.pending.Add(1)
		go func() {
			defer l.running.Done()
			r := send(handler, s.key(n))
			r.Stream = stream
			l.mu.Lock()
			l.records = append(l.records, r)
			l.mu.Unlock()
			l.pending.Add(-1)
		}()
		select {
		case <-l.stop:
			return
		case <-tick.C:
		}
	}
}

// Stop ends the streams and tells what they did.
func (g *gateway) Stop(_ Nothing, t *Traffic) error {
	g.mu.Lock()
	l := g.load
	g.mu.Unlock()
	close(l.stop)
	ended := make(chan struct{})
	go func() {
		l.running.Wait()
		close(ended)
	}()
	select {
	case <-ended:
	case <-time.After(10 * time.Second):
	}
	l.meter.end()
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range l.records {
		r := &l.records[i]
		r.Net = r.Took - l.meter.within(r.Start, r.End())
	}
	g.mu.Lock()
	g.load = nil
	g.mu.Unlock()
	*t = Traffic{Records: l.records, Longest: l.meter.longest(), Pending: int(l.pending.Load())}
	return nil
}

// send makes one request and waits for its answer.
func send(handler http.Handler, key string) Record {
	r := httptest.NewRequest(http.MethodGet, "http://shop.example/v1/products", nil)
	r.Header.Set(keyHeader, key)
	r.Header.Set("Authorization", "Bearer "+key) // which routeKnown alone reads
	w := &answer{header: http.Header{}}
	start := time.Now()
	handler.ServeHTTP(w, r)
	return Record{Key: key, Status: w.status, Start: start, Took: time.Since(start)}
}

// answer keeps an answer's status.
type answer struct {
	header http.Header
	status int
}

func (a *answer) Header() http.Header         { return a.header }
func (a *answer) Write(b []byte) (int, error) { return len(b), nil }
func (a *answer) WriteHeader(status int) {
	if a.status == 0 {
		a.status = status
	}
}

// Volley is a number of requests of one key that all wait for the same start.
type Volley struct {
	Route string
	Key   string
	Count int
}

// Hits is how they were answered.
type Hits struct {
	Admitted, Denied, Failed int
	Allocated                uint64 // bytes, by the whole process
}

// Fire sends a volley.
func (g *gateway) Fire(v Volley, h *Hits) error {
	g.mu.Lock()
	handler := g.routes[v.Route]
	g.mu.Unlock()
	if handler == nil {
		return fmt.Errorf("no route %s", v.Route)
	}
	var before, after runtime.MemStats
	start := make(chan struct{})
	var ready, done sync.WaitGroup
	var admitted, denied, failed atomic.Int64
	for range v.Count {
		ready.Add(1)
		done.Add(1)
		go func() {
			defer done.Done()
			ready.Done()
			<-start
			switch send(handler, v.Key).Status {
			case http.StatusOK:
				admitted.Add(1)
			case http.StatusTooManyRequests:
				denied.Add(1)
			default:
				failed.Add(1)
			}
		}()
	}
	ready.Wait()
	runtime.ReadMemStats(&before)
	close(start)
	done.Wait()
	runtime.ReadMemStats(&after)
	*h = Hits{Admitted: int(admitted.Load()), Denied: int(denied.Load()), Failed: int(failed.Load()), Allocated: after.TotalAlloc - before.TotalAlloc}
	return nil
}

// Flood is requests of as many keys, as fast as two workers can.
type Flood struct {
	Route string
	Key   string // followed by the number
	Keys  int
	Hot   bool          // one key, Key itself, for all
	For   time.Duration // ends the flood early; 0: it does not
}

// Flooded is what became of them.
type Flooded struct {
	Hits
	Took time.Duration
}

// Rush sends a flood.
func (g *gateway) Rush(f Flood, out *Flooded) error {
	g.mu.Lock()
	handler := g.routes[f.Route]
	g.mu.Unlock()
	if handler == nil {
		return fmt.Errorf("no route %s", f.Route)
	}
	const workers = 2
	var next atomic.Int64
	var admitted, denied, failed atomic.Int64
	var done sync.WaitGroup
	start := time.Now()
	for range workers {
		done.Add(1)
		go func() {
			defer done.Done()
			r := httptest.NewRequest(http.MethodGet, "http://shop.example/v1/products", nil)
			key := []string{f.Key}
			for {
				n := next.Add(1)
				if n > int64(f.Keys) || f.For > 0 && time.Since(start) > f.For {
					return
				}
				if !f.Hot {
					key = []string{f.Key + strconv.FormatInt(n, 10)}
				}
				r.Header = http.Header{keyHeader: key}
				w := &answer{header: http.Header{}}
				handler.ServeHTTP(w, r)
				switch w.status {
				case http.StatusOK:
					admitted.Add(1)
				case http.StatusTooManyRequests:
					denied.Add(1)
				default:
					failed.Add(1)
				}
			}
		}()
	}
	done.Wait()
	out.Hits = Hits{Admitted: int(admitted.Load()), Denied: int(denied.Load()), Failed: int(failed.Load())}
	out.Took = time.Since(start)
	return nil
}

// Start sets streams going.
func (g *Gateway) Start(streams ...Stream) {
	g.t.Helper()
	g.ask("Start", streams, &Nothing{})
}

// End ends the streams and tells what they did.
func (g *Gateway) End() *Traffic {
	g.t.Helper()
	var t Traffic
	g.ask("Stop", Nothing{}, &t)
	for i := range t.Records { // by this process's clock
		t.Records[i].Start = t.Records[i].Start.Add(-g.shift)
	}
	return &t
}

// Fire sends a volley.
func (g *Gateway) Fire(v Volley) Hits {
	g.t.Helper()
	var h Hits
	g.ask("Fire", v, &h)
	return h
}

// Rush sends a flood.
func (g *Gateway) Rush(f Flood) Flooded {
	g.t.Helper()
	var out Flooded
	g.ask("Rush", f, &out)
	return out
}

// stalls notes when the machine did not run this process: a goroutine that
// wants to run every 2 ms finds out.
type stalls struct {
	stop chan struct{}
	done chan struct{}
	list []stall
}

type stall struct{ from, to time.Time }

const (
	stallStep  = 2 * time.Millisecond
	stallNoted = 2 * time.Millisecond // what a timer is late anyway is not noted
)

func watchStalls() *stalls {
	s := &stalls{stop: make(chan struct{}), done: make(chan struct{})}
	go func() {
		defer close(s.done)
		last := time.Now()
		for {
			select {
			case <-s.stop:
				return
			case <-time.After(stallStep):
			}
			now := time.Now()
			if now.Sub(last) > stallStep+stallNoted {
				s.list = append(s.list, stall{last.Add(stallStep), now})
			}
			last = now
		}
	}()
	return s
}

// end stops the watch; only then may the others be called.
func (s *stalls) end() {
	close(s.stop)
	<-s.done
}

func (s *stalls) longest() time.Duration {
	longest := time.Duration(0)
	for _, one := range s.list {
		longest = max(longest, one.to.Sub(one.from))
	}
	return longest
}

// within is the time stalled between two instants.
func (s *stalls) within(from, to time.Time) time.Duration {
	sum := time.Duration(0)
	for _, one := range s.list {
		a, b := one.from, one.to
		if a.Before(from) {
			a = from
		}
		if b.After(to) {
			b = to
		}
		if b.After(a) {
			sum += b.Sub(a)
		}
	}
	return sum
}
