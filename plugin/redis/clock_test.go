package redis

import (
	"net"
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
				ours, theirs := net.Pipe()
				p := newPipeline(&link{address: "pipe", raw: ours, conn: ours, parser: newParser(ours, maxReply)}, timeout, 250*time.Millisecond)
				p.settle = func(call *Call, reply Reply, err error) { call.Done(reply, err) }
				p.start()
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
				calls := make([]*Call, tt.calls)
				for i := range calls {
					calls[i] = &Call{Name: "X", Done: nothing, TimedOut: func() {
						if late++; late == 1 {
							first = time.Since(sent)
						}
					}}
				}
				p.send(calls, time.Time{})
				time.Sleep(900 * time.Millisecond)
				p.fail(ErrClosed)
				theirs.Close()
				<-p.done
				if late != tt.late || first < tt.after || first > tt.after+5*time.Millisecond {
					t.Errorf("%d late, the first after %v; want %d after %v", late, first, tt.late, tt.after)
				}
			})
		})
	}
}
