package faults

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"
)

// Overload is more clients than the machine can serve: as many as an attacker
// likes, who wait for nothing. Gateways are late then, and Redis is not.
type Overload struct {
	Form, Fault string
	Clients     int
	Limit       int64
	Window      time.Duration

	Before, During, After Phase
	Recovery              time.Duration // until every gateway reserved at Redis again
	Remarks               []string
}

// Phase is what the clients saw in one part of it.
type Phase struct {
	Windows  []int // of the shared key admitted, in each whole window
	Degraded int64 // decisions without Redis
	Took     time.Duration
	Requests int
	Lost     int           // without answer, or with 5xx
	Refused  int           // of requests with a key that nobody used before
	Longest  time.Duration // that an answer took
}

// Crowding is how it is done.
type Crowding struct {
	Clients int
	Limit   int64
	Window  time.Duration
	Well    int           // whole windows with Redis well, before the fault and after it
	Lasts   time.Duration // the fault, if it lasts
}

// crowding are the figures of the campaign, and brief ones for the tests.
var (
	crowding = Crowding{Clients: 200, Limit: 100, Window: 5 * time.Second, Well: 3, Lasts: 2500 * time.Millisecond}
	crowded  = Crowding{Clients: 100, Limit: 20, Window: time.Second, Well: 1, Lasts: 1500 * time.Millisecond}
)

// Overloaded are the faults that come on top.
var Overloaded = []Kind{
	{Name: "kill -9", Over: straight, begin: func(b *bed) { b.server.Kill() }, end: func(b *bed) { b.server.Restart() }, Forgets: true},
	{Name: "FLUSHALL", Over: straight, begin: func(b *bed) { b.do("FLUSHALL") }, end: nothing, Forgets: true, Serves: true},
	{Name: "stopped", Over: straight, begin: func(b *bed) { b.stop() }, end: func(b *bed) { b.resume() }},
}

// freshEvery: so many requests of a client share the key of all, then comes one
// with a key that nobody used before, which is a call.
const freshEvery = 8

// overload has the crowd ask three gateways, at the shipped timeouts, before,
// during and after a fault.
func overload(t testing.TB, form string, kind *Kind, c Crowding) *Overload {
	b := newBed(t, 0, kind)
	b.setup.Form, b.setup.Window = form, c.Window
	b.setup.Limits = map[string]int64{routeOwn: 30, routeHot: c.Limit}
	b.open()
	b.connected()
	o := &Overload{Form: form, Fault: kind.Name, Clients: c.Clients, Limit: c.Limit, Window: c.Window}
	degraded := b.degraded()
	since := func() int64 {
		now := b.degraded()
		defer func() { degraded = now }()
		return now - degraded
	}
	pass := func(windows int) { // and what is left of the one that runs
		now := time.Now()
		time.Sleep(now.Truncate(c.Window).Add(time.Duration(windows+1) * c.Window).Sub(now))
	}

	crowd := b.gather(c.Clients)
	began := time.Now()
	pass(c.Well)
	o.Before.Degraded = since()
	fault := time.Now()
	kind.start(b)
	time.Sleep(c.Lasts)
	kind.stop(b)
	ended := time.Now()
	o.Recovery = -1
	for time.Since(ended) < 30*time.Second && o.Recovery < 0 {
		if b.settled() {
			o.Recovery = time.Since(ended)
		}
	}
	over := time.Now().Truncate(c.Window).Add(c.Window) // the window in which it recovered is the fault's
	time.Sleep(time.Until(over))
	o.During.Degraded = since()
	over = maxTime(over, time.Now().Add(-c.Window).Truncate(c.Window)) // heartbeats may have taken a while
	pass(c.Well)
	o.After.Degraded = since()
	crowd.leave()
	o.Before.judge(crowd, c.Window, began, fault)
	o.During.judge(crowd, c.Window, fault.Truncate(c.Window), over)
	o.After.judge(crowd, c.Window, over, time.Now())
	return o
}

func maxTime(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// judge counts what happened in a phase. What straddles the edge of a window
// counts for none: it may have been granted in either.
func (p *Phase) judge(c *crowd, window time.Duration, from, to time.Time) {
	p.Took = to.Sub(from)
	for at := from.Add(window - 1).Truncate(window); !at.Add(window).After(to); at = at.Add(window) {
		n := 0
		for _, r := range c.admitted {
			if !r.start.Before(at) && !r.end.After(at.Add(window)) {
				n++
			}
		}
		p.Windows = append(p.Windows, n)
	}
	for _, s := range c.seconds {
		if !s.at.Before(from) && s.at.Before(to) {
			p.Requests += s.requests
			p.Lost += s.lost
			p.Refused += s.refused
			p.Longest = max(p.Longest, s.longest)
		}
	}
}

// most is the largest number of the windows.
func (p *Phase) most() int {
	most := 0
	for _, n := range p.Windows {
		most = max(most, n)
	}
	return most
}

// excused tells whether the machine was so busy that answers took longer than
// any request waits for Redis: then some may have been decided without it.
func (o *Overload) excused() bool {
	return max(o.Before.Longest, o.After.Longest) > longestWait
}

// due is what may be admitted in a window that the fault touches: where Redis is
// away the limit by its count and the limit by the shares (design: fallback-share); where it
// forgets, the limit and what the best informed gateway did not know.
func (o *Overload) due(kind *Kind) int {
	if kind.grants() {
		return int(o.Limit) + lag
	}
	return 2 * int(o.Limit)
}

// Broken lists what was promised and not kept. While Redis is well no decision is
// made without it: the machine is late, and Redis is not. Excused are those of a
// moment in which a machine with other things to do left Redis out as well.
func (o *Overload) Broken(kind *Kind, excused int) []string {
	var broken []string
	demand := func(holds bool, format string, args ...any) {
		if !holds {
			broken = append(broken, fmt.Sprintf(format, args...))
		}
	}
	for _, p := range []struct {
		name string
		*Phase
	}{{"before the fault", &o.Before}, {"after it", &o.After}} {
		demand(p.Degraded <= int64(excused), "%d decisions without Redis %s", p.Degraded, p.name)
		demand(len(p.Windows) > 0 && p.most() <= int(o.Limit+p.Degraded), "%v admitted %s, at most %d each are due", p.Windows, p.name, o.Limit)
		demand(p.Refused == 0, "%d first requests of a key refused %s", p.Refused, p.name)
	}
	demand(o.During.most() <= o.due(kind), "%v admitted during the fault, at most %d each are due", o.During.Windows, o.due(kind))
	demand(o.Recovery >= 0, "no recovery")
	demand(o.Before.Requests > 0 && o.Before.Lost+o.During.Lost+o.After.Lost == 0, "%d, %d, %d requests lost", o.Before.Lost, o.During.Lost, o.After.Lost)
	return broken
}

// String is it in one line.
func (o *Overload) String() string {
	phase := func(p *Phase) string {
		return fmt.Sprintf("windows %v, degraded %d, %d requests, longest %v", p.Windows, p.Degraded, p.Requests, p.Longest.Round(time.Millisecond))
	}
	return fmt.Sprintf("%s, %s: before %s; during %s; after %s; recovery %v", o.Form, o.Fault, phase(&o.Before), phase(&o.During), phase(&o.After), o.Recovery.Round(time.Millisecond))
}

// crowd is clients at work, each on a connection of its own.
type crowd struct {
	t       testing.TB
	stop    chan struct{}
	running sync.WaitGroup

	mu       sync.Mutex // protects what follows
	admitted []span     // requests of the shared key
	seconds  []second
}

type span struct{ start, end time.Time }

// second is what one client saw in some second.
type second struct {
	at                      time.Time
	requests, lost, refused int
	longest                 time.Duration
}

// gather sends clients to the gateways, in turn.
func (b *bed) gather(clients int) *crowd {
	c := &crowd{t: b.t, stop: make(chan struct{})}
	for i := range clients {
		g := b.gateways[i%len(b.gateways)]
		if g.address == "" {
			g.ask("Listen", Nothing{}, &g.address)
		}
		conn, err := net.Dial("tcp", g.address)
		if err != nil {
			b.t.Fatal(err)
		}
		c.running.Go(func() {
			defer conn.Close()
			c.ask(conn, i)
		})
	}
	return c
}

// leave ends the clients.
func (c *crowd) leave() {
	close(c.stop)
	c.running.Wait()
}

// ask is one client, who never waits between two requests.
func (c *crowd) ask(conn net.Conn, number int) {
	answers := bufio.NewReader(conn)
	now := second{at: time.Now()}
	for n := 0; ; n++ {
		select {
		case <-c.stop:
			c.note(now)
			return
		default:
		}
		if time.Since(now.at) > time.Second {
			c.note(now)
			now = second{at: time.Now()}
		}
		route, key := routeHot, hotKey
		if n%freshEvery == freshEvery-1 {
			route, key = routeOwn, fmt.Sprintf("crowd%d-%d", number, n)
		}
		start := time.Now()
		status, err := converse(conn, answers, route, key)
		end := time.Now()
		now.requests++
		now.longest = max(now.longest, end.Sub(start))
		switch {
		case err != nil:
			now.lost++
			c.t.Error(err) // no client of a gateway that lives loses its connection
			c.note(now)
			return
		case status >= 500:
			now.lost++
		case status == http.StatusOK && route == routeHot:
			c.mu.Lock()
			c.admitted = append(c.admitted, span{start, end})
			c.mu.Unlock()
		case status != http.StatusOK && route == routeOwn:
			now.refused++
		}
	}
}

func (c *crowd) note(s second) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seconds = append(c.seconds, s)
}

// converse asks one thing and reads the answer.
func converse(conn net.Conn, answers *bufio.Reader, route, key string) (int, error) {
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		return 0, err
	}
	if _, err := fmt.Fprintf(conn, "GET /%s HTTP/1.1\r\nHost: shop.example\r\n%s: %s\r\n\r\n", route, keyHeader, key); err != nil {
		return 0, err
	}
	answer, err := http.ReadResponse(answers, nil)
	if err != nil {
		return 0, err
	}
	defer answer.Body.Close()
	_, err = io.Copy(io.Discard, answer.Body)
	return answer.StatusCode, err
}
