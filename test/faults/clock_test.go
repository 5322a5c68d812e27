package faults

import (
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/test/harness"
)

// TestClocks is a gateway whose wall clock is ten minutes ahead, and one whose
// clock is ten minutes behind, beside one that is right: nothing may change, with
// Redis or without.
//
// The tests below are built once more, with a clock that adds what the
// environment says.
func TestClocks(t *testing.T) {
	if os.Getenv(clocksAreOff) != "" {
		t.Skip("this is the binary of such tests")
	}
	list, err := harness.ShiftedClock(t.TempDir(), clockShift)
	if err != nil {
		t.Fatal(err)
	}
	run := exec.Command("go", "test", "-overlay", list, "-tags", "compiledalone", "-count=1", "-timeout", "5m", "-run", "^TestClocksAreOff$", "-v", ".")
	run.Env = append(os.Environ(), clocksAreOff+"=1")
	out, err := run.CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Error(err)
	}
}

// clocksAreOff in the environment says that the binary was built by TestClocks.
const clocksAreOff = "SLUICE_FAULTS_CLOCKS"

// off are the gateways' clocks.
var off = []time.Duration{0, 10 * time.Minute, -10 * time.Minute}

// TestClocksAreOff is what TestClocks runs.
func TestClocksAreOff(t *testing.T) {
	if os.Getenv(clocksAreOff) == "" {
		t.Skip("TestClocks runs this, built for it")
	}
	t.Run("they are", func(t *testing.T) {
		for _, want := range off {
			g := StartGateway(t, want)
			var shown time.Time
			g.ask("Clock", Nothing{}, &shown)
			if got := time.Until(shown); (got - want).Abs() > 5*time.Second {
				t.Errorf("a clock is off by %v, want %v", got, want)
			}
		}
	})
	// Windows of these tests began a few minutes ago at most: for a gateway that
	// believed its own clock it would be another window.
	t.Run("parallel", func(t *testing.T) {
		p := stampedeOver(t, &Kind{Over: straight, Clocks: off}, asCompiled, byInstants, 30, 5*time.Second)
		demand(t, p.Wrong)
		if p.Degraded != 0 {
			t.Errorf("%d decisions without Redis", p.Degraded)
		}
	})
	for i := range Kinds {
		kind := Kinds[i]
		kind.Clocks = off
		for name, state := range map[string]State{"refused": Warm, "established silence": Under, "restart empty": Cold, "FLUSHALL": Under, "TIME steps back": Warm} {
			if kind.Name == name {
				t.Run(name, func(t *testing.T) {
					t.Parallel()
					o := run(t, &kind, state, brisk)
					t.Log(o)
					demand(t, o.Broken())
				})
			}
		}
	}
}
