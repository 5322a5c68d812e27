package redis

import (
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/internal/redistest"
)

// What goes seldom goes through code that the happy way does not touch, and the
// interpreter may understand it in another way than the compiler.
func TestFaults(t *testing.T) {
	server := redistest.Start(t)
	d := interpret(t, server.Addr)
	t.Run("replies", func(t *testing.T) {
		for i, want := range []string{"1 done", "2 done", "3 done"} {
			if i == 2 {
				server.Do("SCRIPT", "FLUSH")
			}
			if got := d.call("", "n", "1"); got != want {
				t.Errorf("call %d: %q, want %q", i, got, want)
			}
		}
		if got := d.call("INCRBY", "n", "4"); got != "7" {
			t.Errorf("an integer: %q", got)
		}
		if got := d.call("INCRBY", "n", "x"); got != "other" {
			t.Errorf("an error: %q", got)
		}
	})

	t.Run("silence", func(t *testing.T) {
		server.Do("CLIENT", "PAUSE", "400")
		if got, want := d.call("", "n", "1"), "1 overdue, 8 done"; got != want {
			t.Errorf("%q, want %q", got, want)
		}
		server.Signal(syscall.SIGSTOP) // for longer than the client has patience
		if got, want := d.call("", "n", "1"), "1 overdue, timeout"; got != want {
			t.Errorf("%q, want %q", got, want)
		}
		if got, want := d.call("", "n", "1"), "refused: away"; got != want {
			t.Errorf("%q, want %q", got, want)
		}
		server.Signal(syscall.SIGCONT)
		d.wait(t, "Redis to be well again", d.healthy)
	})

	if said := d.log(); strings.Contains(said, "panic") {
		t.Error(said)
	}
}

// However connections break, every call ends once, and runs once at most.
func TestExecutions(t *testing.T) {
	server := redistest.Start(t)
	d := interpret(t, server.Addr)
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			case <-time.After(10 * time.Millisecond):
				server.Do("CLIENT", "KILL", "TYPE", "normal")
			}
		}
	}()
	good, unknown, losses := 0, 0, 0
	for begun := time.Now(); time.Since(begun) < 2*time.Second || losses < 3 || good < 1000; {
		if time.Since(begun) > 30*time.Second {
			t.Errorf("%d losses and %d answers: the test does not reach what it is for", losses, good)
			break
		}
		if !d.healthy() {
			losses++
			d.wait(t, "a healthy client", d.healthy)
		}
		g, u := d.tally(50, "n")
		good += g
		unknown += u
	}
	close(stop)
	<-stopped
	ran, err := strconv.Atoi(server.Do("GET", "n"))
	if err != nil || ran < good || ran > good+unknown {
		t.Errorf("%d calls ran; %d were answered, of %d nobody knows (%v)", ran, good, unknown, err)
	}
	t.Logf("%d ran, %d answered, %d unknown, %d losses", ran, good, unknown, losses)
	if said := d.log(); strings.Contains(said, "panic") {
		t.Error(said)
	}
}

// An owner that closed its channel costs its connection, not the process.
func TestPanickingOwner(t *testing.T) {
	d := interpret(t, redistest.Start(t).Addr)
	d.call("", "n", "1")
	d.gone()
	said := ""
	d.wait(t, "the panic to be told", func() bool { said += d.log(); return strings.Contains(said, "panic in reader: send on closed channel") })
	d.wait(t, "an answer", func() bool { return strings.HasSuffix(d.call("", "n", "1"), " done") })
}

// wait polls until the condition holds.
func (d *interpreted) wait(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(15 * time.Second); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for %s; the client said:\n%s", what, d.log())
		}
	}
}
