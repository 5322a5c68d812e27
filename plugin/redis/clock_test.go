package redis

import (
	"testing"
	"testing/synctest"
	"time"
)

// A Redis that is slow but answers is at work: no call is late for waiting behind
// others, until it has waited as long as any may. One that falls silent is given up
// after one timeout. (In virtual time, so that a busy machine changes nothing.)
func TestLateIsSilence(t *testing.T) {
	const timeout = 25 * time.Millisecond
	for _, tt := range []struct {
		name   string
		calls  int
		pace   time.Duration // between replies
		silent int           // replies come before Redis falls silent; 0: all of them
		late   int
		after  time.Duration // when the first is late
	}{
		{"ten in time", 10, 20 * time.Millisecond, 0, 0, 0},
		{"more than anybody waits for", 40, 20 * time.Millisecond, 0, 28, 250 * time.Millisecond},
		{"silent from the start", 3, 0, -1, 3, timeout},
		{"silent after the second", 5, 20 * time.Millisecond, 2, 3, 2*20*time.Millisecond + timeout},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p, theirs := piped(Config{Timeout: timeout, MaxWait: 250 * time.Millisecond})
				c := p.node.client
				go func() {
					in := newParser(theirs, 1<<20)
					for n := 1; ; n++ {
						if _, err := in.read(); err != nil {
							return
						}
						if tt.silent != 0 && n > tt.silent {
							continue
						}
						time.Sleep(tt.pace)
						if _, err := theirs.Write([]byte(":1\r\n")); err != nil {
							return
						}
					}
				}()
				sent := time.Now()
				late, first := 0, time.Duration(0)
				to := make(chan interface{}, 2*tt.calls)
				for i := 0; i < tt.calls; i++ {
					p.take(&Call{Name: "X", To: to})
				}
				p.start() // only now, so that all leave in one write
				time.Sleep(900 * time.Millisecond)
				p.fail(ErrClosed)
				theirs.Close()
				<-p.done
				c.Close()
				for len(to) > 0 {
					if overdue, ok := (<-to).(*Overdue); ok {
						if late == 0 {
							first = time.Duration(overdue.At) - sent.Sub(c.config.Epoch)
						}
						late += len(overdue.Calls)
					}
				}
				if late != tt.late || first < tt.after || first > tt.after+5*time.Millisecond {
					t.Errorf("%d late, the first after %v; want %d after %v", late, first, tt.late, tt.after)
				}
			})
		})
	}
}

// What this process was late itself is not Redis's silence: here an owner takes no
// calls for two timeouts, while a call waits for its answer.
func TestOwnLatenessIsNoSilence(t *testing.T) {
	const timeout, busy = 20 * time.Millisecond, 40 * time.Millisecond
	for _, tt := range []struct {
		name   string
		answer time.Duration // when the second call's answer comes
		late   time.Duration // when it is overdue; 0: never
	}{
		{"answered meanwhile", busy - 10*time.Millisecond, 0},
		{"answered soon after", busy + 10*time.Millisecond, 0},
		{"silent", time.Second, busy + timeout},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p, theirs := piped(Config{Timeout: timeout, MaxWait: 250 * time.Millisecond})
				c := p.node.client
				p.start()
				gone := make(chan struct{})
				go func() {
					defer close(gone)
					in := newParser(theirs, 1<<20)
					in.read()
					theirs.Write([]byte(":1\r\n"))
					in.read()
					time.Sleep(tt.answer)
					theirs.Write([]byte(":2\r\n"))
				}()
				sent := time.Now()
				slow, to := make(chan interface{}), make(chan interface{}, 2)
				p.take(&Call{Name: "X", To: slow})
				p.take(&Call{Name: "X", To: to})
				time.Sleep(busy)
				<-slow
				first := <-to
				late := time.Duration(0)
				if overdue, ok := first.(*Overdue); ok {
					late = time.Duration(overdue.At) - sent.Sub(c.config.Epoch)
				}
				if late < tt.late || late > tt.late+5*time.Millisecond {
					t.Errorf("overdue after %v, want %v", late, tt.late)
				}
				p.fail(ErrClosed)
				theirs.Close()
				<-p.done
				c.Close()
				<-gone
			})
		})
	}
}

// An idle connection costs a ping a second.
func TestIdleIsQuiet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, theirs := piped(Config{Timeout: 20 * time.Millisecond})
		c := p.node.client
		p.start()
		pings := 0
		gone := make(chan struct{})
		go func() {
			defer close(gone)
			in := newParser(theirs, 1<<20)
			for {
				if _, err := in.read(); err != nil {
					return
				}
				pings++
				theirs.Write([]byte("+PONG\r\n"))
			}
		}()
		time.Sleep(5500 * time.Millisecond)
		p.fail(ErrClosed)
		<-p.done
		c.Close()
		<-gone
		if pings != 5 {
			t.Errorf("%d pings in five seconds and a half", pings)
		}
	})
}
