package faults

import (
	"context"
	"flag"
	"os"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

var campaign = flag.Bool("campaign", false, "run the whole and write RESULTS.md")

func TestMain(m *testing.M) {
	if IsGateway() {
		ServeGateway()
		return
	}
	flag.Parse()
	parallel := "6" // the short form demands counts, not times, and mostly waits
	if *campaign {
		parallel = "3"
	}
	if err := flag.Set("test.parallel", parallel); err != nil {
		panic(err)
	}
	redis.SetLogger(quiet{})
	os.Exit(m.Run())
}

// quiet hears of every server that a test takes away.
type quiet struct{}

func (quiet) Printf(context.Context, string, ...any) {}

// brisk is the pace of the tests: with a timeout that a busy machine does not
// reach by itself.
var brisk = Pace{Timeout: shipped, Before: 500 * time.Millisecond, Lasts: 1200 * time.Millisecond, After: 100 * time.Millisecond, Rate: 60, Hot: 60}

// TestFaults is every fault in one state each, and demands what does not
// depend on the machine.
func TestFaults(t *testing.T) {
	for i := range Kinds {
		kind, state := &Kinds[i], States[i%len(States)]
		t.Run(kind.Name+"/"+string(state), func(t *testing.T) {
			t.Parallel()
			o := run(t, kind, state, brisk)
			t.Log(o)
			for _, promise := range o.Broken() {
				t.Error(promise)
			}
		})
	}
}
