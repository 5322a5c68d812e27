package redis

import (
	"net"
	"testing"
	"time"
)

// piped makes a pipeline, not started, whose server the test plays at the other
// end.
func piped(config Config) (p *pipeline, server net.Conn) {
	ours, theirs := net.Pipe()
	c := newClient(config)
	p = newPipeline(c.newNode("", nil), &link{address: "pipe", raw: ours, conn: ours, parser: newParser(ours, maxReply)})
	return p, theirs
}

// A write that breaks tells which of its calls Redis has whole: those may have
// run, the others have not.
func TestBrokenWrite(t *testing.T) {
	const calls = 6
	for _, tt := range []struct {
		name     string
		whole    int // calls that get out
		part     int // bytes of the next
		answered int
	}{
		{"nothing", 0, 0, 0},
		{"a part of the first", 0, 3, 0},
		{"two", 2, 0, 0},
		{"two and a half", 2, 20, 0},
		{"one of three answered", 3, 1, 1},
		{"all of three answered", 3, 1, 3},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p, server := piped(Config{Timeout: time.Second})
			defer p.node.client.Close()
			to := make(chan interface{}, calls)
			size := 0
			for i := 0; i < calls; i++ { // the writer will find them all: one write
				call := &Call{Key: "k", Script: increment, Args: []string{string(rune('0' + i))}, To: to, Tag: i}
				size = len(appendCall(nil, call))
				if !p.take(call) {
					t.Fatal("refused")
				}
			}
			p.start()
			if n := tt.whole*size + tt.part; n > 0 {
				got := make([]byte, n)
				for at := 0; at < n; {
					k, err := server.Read(got[at:])
					if err != nil {
						t.Fatal(err)
					}
					at += k
				}
			}
			for i := 0; i < tt.answered; i++ {
				server.Write([]byte("+OK\r\n"))
			}
			server.Close()
			<-p.done
			for i := 0; i < calls; i++ {
				call := (<-to).(*Call)
				if call.Tag != i || (call.Err == nil) != (i < tt.answered) || (call.Err != nil && NotExecuted(call.Err)) != (i >= tt.whole) {
					t.Errorf("call %d ended as number %v with %v", call.Tag, i, call.Err)
				}
			}
		})
	}
}

// However many calls wait, for the writer or for their replies, those that were
// taken end when the connection breaks, and the others are refused at once.
func TestFullPipeline(t *testing.T) {
	p, server := piped(Config{Timeout: 10 * time.Second})
	defer p.node.client.Close()
	go func() {
		buffer := make([]byte, 1<<16)
		for { // reads all and answers nothing
			if _, err := server.Read(buffer); err != nil {
				return
			}
		}
	}()
	p.start()
	const full = 2 * maxQueue // what waits for the writer, and what it has written
	to := make(chan interface{}, full+10)
	taken := 0
	eventually(t, 10*time.Second, "a full pipeline", func() bool {
		for taken < full && p.take(&Call{Name: "X", To: to}) {
			taken++
		}
		return taken == full
	})
	for end := time.Now().Add(50 * time.Millisecond); time.Now().Before(end) && taken < cap(to); {
		if p.take(&Call{Name: "X", To: to}) {
			taken++
		}
		time.Sleep(time.Millisecond)
	}
	if taken > full+1 { // the one in the writer's hand
		t.Errorf("%d calls were taken", taken)
	}
	p.fail(ErrClosed)
	server.Close()
	<-p.done
	if len(to) != taken {
		t.Errorf("%d of %d calls ended", len(to), taken)
	}
}
