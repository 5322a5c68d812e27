// Package redis runs plugin/redis as a stock Traefik does: interpreted by Yaegi.
package redis

import (
	"runtime"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/traefik/yaegi/interp"
	"github.com/traefik/yaegi/stdlib"

	"github.com/sluice-gateway/sluice"
	"github.com/sluice-gateway/sluice/internal/redistest"
	"github.com/sluice-gateway/sluice/test/harness"
)

// driver is an owner of calls, interpreted as the client is.
const driver = `package driver

import (
	"fmt"
	"strings"
	"time"

	"github.com/sluice-gateway/sluice/plugin/redis"
)

var (
	client *redis.Client
	script = redis.NewScript("return {ok = redis.call('INCRBY', KEYS[1], ARGV[1]) .. ' ' .. ARGV[2]}")
	inbox  = make(chan interface{}, 4096)
	calls  = make(chan *redis.Call, 4096)
	log    = make(chan string, 100)
)

func Open(address string) {
	client = redis.New(redis.Config{Addresses: []string{address}, Timeout: 150 * time.Millisecond, MaxWait: 500 * time.Millisecond,
		Log: func(level, message string) { log <- level + " " + message }})
	go redis.Serve(client, calls)
}

func Close() {
	close(calls)
	client.Close()
}

func Healthy() bool { return client.Healthy() }

// Log is what the client has said.
func Log() string {
	said := ""
	for len(log) > 0 {
		line := <-log
		said += line + "\n"
	}
	return said
}

// Call makes one call and says how it ended, and whether it was overdue before.
func Call(name, key, arg string) string {
	call := &redis.Call{Key: key, To: inbox, Name: name, Args: []string{arg}}
	if name == "" {
		call.Script = script
		call.Args = []string{arg, "done"}
	}
	if !redis.Send(client, call) {
		return "refused: " + redis.Kind(call.Err)
	}
	said := ""
	for {
		message := <-inbox
		if overdue, ok := message.(*redis.Overdue); ok {
			said += fmt.Sprint(len(overdue.Calls), " overdue, ")
			continue
		}
		if message.(*redis.Call) != call {
			return "another call"
		}
		if call.Err != nil {
			return said + redis.Kind(call.Err)
		}
		return said + call.Line
	}
}

// Tally makes n calls and returns how many were answered well, and of how many
// nobody knows whether they ran.
func Tally(n int, key string) (good, unknown int) {
	args := []string{"1", "done"}
	sent, i := 0, 0
	for i = 0; i < n; i++ {
		if redis.Send(client, &redis.Call{Key: key, Script: script, Args: args, To: inbox}) {
			sent++
		}
	}
	for sent > 0 {
		message := <-inbox
		call, ok := message.(*redis.Call)
		if !ok {
			continue
		}
		sent--
		if call.Err == nil {
			good++
		} else if !redis.NotExecuted(call.Err) {
			unknown++
		}
	}
	return good, unknown
}

// Gone makes a call for an owner who has closed its channel.
func Gone() {
	gone := make(chan interface{})
	close(gone)
	redis.Send(client, &redis.Call{Name: "PING", To: gone})
}

// Many makes n calls in groups of so many, handed over as an engine does, and
// returns how many were answered well.
func Many(n, group int) int {
	args := []string{"1", strings.Repeat("x", 30)}
	good, sent, i := 0, 0, 0
	var call *redis.Call
	var message interface{}
	for n > 0 {
		n -= group
		for i = 0; i < group; i++ {
			calls <- &redis.Call{Key: "sluice:lim:1:per-user:60000:{u42}", Script: script, Args: args, To: inbox}
		}
		sent = group
		for sent > 0 {
			message = <-inbox
			var ok bool
			if call, ok = message.(*redis.Call); ok {
				sent--
				if call.Err == nil {
					good++
				}
			}
		}
	}
	return good
}
`

// interpreted is the driver with what it offers.
type interpreted struct {
	open    func(address string)
	close   func()
	healthy func() bool
	log     func() string
	call    func(name, key, arg string) string
	tally   func(n int, key string) (good, unknown int)
	gone    func()
	many    func(n, group int) int
}

func interpret(t testing.TB, address string) *interpreted {
	t.Helper()
	if harness.Race {
		t.Skip("Yaegi itself does not pass the race detector")
	}
	files := fstest.MapFS{"go/src/driver/driver.go": {Data: []byte(driver)}}
	for path, content := range sluice.PluginSource() {
		if strings.HasPrefix(path, "plugin/redis/") || strings.HasPrefix(path, "plugin/wait/") {
			files["go/src/"+sluice.Module+"/"+path] = &fstest.MapFile{Data: content}
		}
	}
	i := interp.New(interp.Options{GoPath: "go", SourcecodeFilesystem: files})
	if err := i.Use(stdlib.Symbols); err != nil {
		t.Fatal(err)
	}
	if _, err := i.Eval(`import "driver"`); err != nil {
		t.Fatal(err)
	}
	symbol := func(name string) any {
		value, err := i.Eval("driver." + name)
		if err != nil {
			t.Fatal(err)
		}
		return value.Interface()
	}
	d := &interpreted{
		open:    symbol("Open").(func(string)),
		close:   symbol("Close").(func()),
		healthy: symbol("Healthy").(func() bool),
		log:     symbol("Log").(func() string),
		call:    symbol("Call").(func(string, string, string) string),
		tally:   symbol("Tally").(func(int, string) (int, int)),
		gone:    symbol("Gone").(func()),
		many:    symbol("Many").(func(int, int) int),
	}
	d.open(address)
	t.Cleanup(d.close)
	d.wait(t, "a healthy client", d.healthy)
	return d
}

// mostAllocations bounds what the interpreter allocates for a call from Serve to its
// return to the owner, who is interpreted too.
const mostAllocations = 80

func TestCallsAreCheap(t *testing.T) {
	d := interpret(t, redistest.Start(t).Addr)
	for _, group := range []int{1, 20} {
		const calls = 2000
		d.many(calls, group) // the script is known from here on
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		good := d.many(calls, group)
		runtime.ReadMemStats(&after)
		each := float64(after.Mallocs-before.Mallocs) / calls
		t.Logf("groups of %d: %.0f allocations and %.0f bytes a call", group, each, float64(after.TotalAlloc-before.TotalAlloc)/calls)
		if good != calls || each > mostAllocations {
			t.Errorf("groups of %d: %.0f allocations a call, want at most %d; %d of %d answered well", group, each, mostAllocations, good, calls)
		}
	}
}

func BenchmarkCalls(b *testing.B) {
	d := interpret(b, redistest.Start(b).Addr)
	for _, group := range []struct {
		name string
		size int
	}{{"one at a time", 1}, {"twenty at a time", 20}} {
		b.Run(group.name, func(b *testing.B) {
			b.ReportAllocs()
			d.many(b.N, group.size)
		})
	}
}
