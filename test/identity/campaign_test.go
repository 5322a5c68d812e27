package identity

import (
	"flag"
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"
)

var campaign = flag.Bool("campaign", false, "measure at length and write RESULTS.md")

// rounds of revocations: enough for a median, or to see that it works.
func rounds() int {
	if *campaign {
		return 200
	}
	return 4
}

// results are what RESULTS.md tells.
type results struct {
	cells     []cell
	latencies []latency
}

// cell is one cell of design: away, with its subtest's verdict.
type cell struct {
	name string
	kept bool
}

func (r *results) run(t *testing.T, name string, f func(*testing.T)) {
	r.cells = append(r.cells, cell{name, t.Run(name, f)})
}

func (r *results) write(t *testing.T) {
	t.Helper()
	var out strings.Builder
	fmt.Fprintf(&out, "# Identity: what was tried\n\nWritten by `make identity` (cd test && go test ./identity -timeout 30m -campaign).\n\nMachine: %s/%s, %d CPUs, %s; everything on loopback. Load averages at the end: %s.\n", runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), runtime.Version(), load())

	fmt.Fprintf(&out, "\n## From revocation to refusal\n\nThree gateways, three authsvc. Watchers ask every gateway with the token about once a millisecond; time runs from before the\nrevocation is asked for until each gateway's first 401. Tokens and users are revoked in turn, at each replica in turn. Allowed is\nwhat design: event-stream gives: without events 1.5 s of silence, noticed at most 0.25 s later, and a second of freshness,\nand then the question to authsvc takes its own time.\n\n| events | answers | p50 | p99 | max | allowed |\n|---|---|---|---|---|---|\n")
	for _, l := range r.latencies {
		fmt.Fprintf(&out, "| %s | %d | %s | %s | %s | %s |\n", l.name, len(l.took), ms(l.quantile(0.5)), ms(l.quantile(0.99)), ms(l.quantile(1)), ms(l.bound))
	}

	fmt.Fprintf(&out, "\n## What is away, and what happens (design: away)\n\nThrough three real gateways, with lines between them, three authsvc and Redis that are cut, held up or delayed.\n\n| case | as promised |\n|---|---|\n")
	for _, c := range r.cells {
		fmt.Fprintf(&out, "| %s | %s |\n", c.name, map[bool]string{true: "yes", false: "**no**"}[c.kept])
	}
	if err := os.WriteFile("RESULTS.md", []byte(out.String()), 0o644); err != nil {
		t.Fatal(err)
	}
}

// load says how busy the machine was, with this and with whatever else ran: of
// the last 1, 5 and 15 minutes, where Linux tells.
func load() string {
	text, err := os.ReadFile("/proc/loadavg")
	fields := strings.Fields(string(text))
	if err != nil || len(fields) < 3 {
		return "unknown"
	}
	return strings.Join(fields[:3], ", ")
}

func ms(d time.Duration) string { return fmt.Sprintf("%.1f ms", float64(d)/1e6) }
