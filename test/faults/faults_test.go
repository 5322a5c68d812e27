package faults

import (
	"flag"
	"os"
	"testing"
	"time"
)

var campaign = flag.Bool("campaign", false, "run the whole and write RESULTS.md")

func TestMain(m *testing.M) {
	if IsGateway() {
		ServeGateway()
		return
	}
	flag.Parse()
	os.Exit(m.Run())
}

// brisk is the pace of the tests: with a timeout that a busy machine does not
// reach by itself.
var brisk = Pace{Timeout: 100 * time.Millisecond, Before: 500 * time.Millisecond, Lasts: 1200 * time.Millisecond, After: 100 * time.Millisecond, Rate: 60, Hot: 20}

func TestOne(t *testing.T) {
	for _, state := range States {
		for i := range Kinds {
			t.Run(Kinds[i].Name+"/"+string(state), func(t *testing.T) {
				o := run(t, &Kinds[i], state, brisk)
				t.Logf("%+v", *o)
			})
		}
	}
}
