package identity

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"slices"
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

// cell is one cell of DESIGN section 8, with its subtest's verdict.
type cell struct {
	name string
	kept bool
}

func (r *results) run(t *testing.T, name string, f func(*testing.T)) {
	r.cells = append(r.cells, cell{name, t.Run(name, f)})
}

// write measures what authsvc's own tests and benchmarks say, and writes all of
// it down.
func (r *results) write(t *testing.T) {
	t.Helper()
	var out strings.Builder
	fmt.Fprintf(&out, "# Identity: what was tried, and what it costs\n\nWritten by `make identity` (cd test && go test ./identity -timeout 30m -campaign).\n\nMachine: %s/%s, %d CPUs, %s; everything on loopback.\n", runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), runtime.Version())

	fmt.Fprintf(&out, "\n## From revocation to refusal\n\nThree gateways, three authsvc. Watchers ask every gateway with the token about once a millisecond; time runs from before the\nrevocation is asked for until each gateway's first 401. Tokens and users are revoked in turn, at each replica in turn. Allowed is\nwhat RULES 8 gives: without events 1.5 s of silence, noticed at most 0.25 s later, and a second of freshness.\n\n| events | answers | p50 | p99 | max | allowed |\n|---|---|---|---|---|---|\n")
	for _, l := range r.latencies {
		fmt.Fprintf(&out, "| %s | %d | %s | %s | %s | %s |\n", l.name, len(l.took), ms(l.quantile(0.5)), ms(l.quantile(0.99)), ms(l.quantile(1)), ms(l.bound))
	}

	fmt.Fprintf(&out, "\n## What is away, and what happens (DESIGN section 8)\n\nThrough three real gateways, with lines between them, three authsvc and Redis that are cut, held up or delayed.\n\n| case | as promised |\n|---|---|\n")
	for _, c := range r.cells {
		fmt.Fprintf(&out, "| %s | %s |\n", c.name, map[bool]string{true: "yes", false: "**no**"}[c.kept])
	}

	fmt.Fprintf(&out, "\n## Vectors\n\n`go test ./authsvc/token -run 'Wycheproof|RFC|JOSE'`. A case is right when it is accepted if and only if its file says so. Left out: the\nknown defects of json_web_signature_test.json, tcId 346, 347, 350, 351, 367, 370, 372 and 373. JWE are refused, all of them.\n\n| file | cases | accepted | all right |\n|---|---|---|---|\n")
	for _, v := range tested(t, "./authsvc/token", "Wycheproof|RFC|JOSE") {
		if found := casesLine.FindStringSubmatch(v.output); found != nil {
			fmt.Fprintf(&out, "| %s | %s | %s | %s |\n", strings.TrimPrefix(strings.TrimPrefix(v.name, "TestWycheproofJSONWebSignatures/"), "TestWycheproofPrimitives/"), found[1], found[2], map[bool]string{true: "yes", false: "**no**"}[v.passed])
		}
	}

	fmt.Fprintf(&out, "\n## Attacks\n\n| level | tried | admitted | connections to addresses a token names |\n|---|---|---|---|\n")
	for _, v := range append(tested(t, "./authsvc", "TestAttacksOverHTTP$"), tested(t, "./authsvc/token", "TestSignatureEdits")...) {
		if found := attacksLine.FindStringSubmatch(v.output); found != nil {
			fmt.Fprintf(&out, "| %s | %s | %s | 0 |\n", v.name, found[1], map[bool]string{true: "0", false: "**some**"}[v.passed])
		}
	}

	fmt.Fprintf(&out, "\n## What a check costs\n\n`go test ./authsvc/... -run '^$' -bench 'Auth|Verify|Status' -count 5`, medians of five, GOMAXPROCS %d; /auth is the whole handler without\nthe network. A gateway asks once per token and `max-age`; these are the answers it waits for.\n\n| benchmark | µs | a second, one core | round trips to Redis | allocations |\n|---|---|---|---|---|\n", runtime.GOMAXPROCS(0))
	for _, line := range benchmarks(t) {
		fmt.Fprintln(&out, line)
	}
	if err := os.WriteFile("RESULTS.md", []byte(out.String()), 0o644); err != nil {
		t.Fatal(err)
	}
}

var (
	casesLine   = regexp.MustCompile(`(\d+) cases, (\d+) accepted`)
	attacksLine = regexp.MustCompile(`(\d+) (?:attacks|edits)`)
	benchLine   = regexp.MustCompile(`^Benchmark(\S+?)(?:-\d+)?\s+\d+\s+([\d.]+) ns/op(.*)$`)
	tripsPart   = regexp.MustCompile(`([\d.e+-]+) round-trips/op`)
	allocsPart  = regexp.MustCompile(`(\d+) allocs/op`)
)

func ms(d time.Duration) string { return fmt.Sprintf("%.1f ms", float64(d)/1e6) }

// verdict is one test of another package.
type verdict struct {
	name, output string
	passed       bool
}

// tested runs tests of the root module and returns what each said.
func tested(t *testing.T, pkg, run string) []verdict {
	t.Helper()
	command := exec.Command("go", "test", "-json", "-count=1", "-run", run, pkg)
	command.Dir = "../.."
	output, err := command.Output() // a test that fails says so in the table
	if len(output) == 0 {
		t.Fatalf("%s: %v", command, err)
	}
	var all []verdict
	at := map[string]int{}
	for lines := bufio.NewScanner(strings.NewReader(string(output))); lines.Scan(); {
		var event struct{ Action, Test, Output string }
		if json.Unmarshal(lines.Bytes(), &event) != nil || event.Test == "" {
			continue
		}
		i, known := at[event.Test]
		if !known {
			i = len(all)
			at[event.Test] = i
			all = append(all, verdict{name: event.Test})
		}
		all[i].output += event.Output
		all[i].passed = all[i].passed || event.Action == "pass"
	}
	return all
}

func median(values []float64) float64 {
	slices.Sort(values)
	return values[len(values)/2]
}

// benchmarks are rows of the table of costs: the median of each benchmark.
func benchmarks(t *testing.T) []string {
	t.Helper()
	command := exec.Command("go", "test", "-run", "^$", "-bench", "Auth|Verify|Status", "-benchmem", "-benchtime", "300ms", "-count", "5", "./authsvc/...")
	command.Dir = "../.."
	output, err := command.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, output)
	}
	type figures struct {
		ns            []float64
		trips, allocs string
	}
	var names []string
	all := map[string]*figures{}
	for _, line := range strings.Split(string(output), "\n") {
		found := benchLine.FindStringSubmatch(line)
		if found == nil {
			continue
		}
		f := all[found[1]]
		if f == nil {
			f = &figures{}
			all[found[1]] = f
			names = append(names, found[1])
		}
		var ns float64
		if _, err := fmt.Sscan(found[2], &ns); err != nil {
			t.Fatal(err)
		}
		f.ns = append(f.ns, ns)
		if part := tripsPart.FindStringSubmatch(found[3]); part != nil {
			f.trips = part[1]
		}
		if part := allocsPart.FindStringSubmatch(found[3]); part != nil {
			f.allocs = part[1]
		}
	}
	var rows []string
	for _, name := range names {
		f := all[name]
		ns := median(f.ns)
		rows = append(rows, fmt.Sprintf("| %s | %.2f | %.0f | %s | %s |", strings.ReplaceAll(name, "_", " "), ns/1e3, 1e9/ns, f.trips, f.allocs))
	}
	return rows
}
