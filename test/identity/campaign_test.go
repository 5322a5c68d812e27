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
	"strconv"
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

// write measures what authsvc's own tests and benchmarks say, and writes all of
// it down.
func (r *results) write(t *testing.T) {
	t.Helper()
	var out strings.Builder
	fmt.Fprintf(&out, "# Identity: what was tried, and what it costs\n\nWritten by `make identity` (cd test && go test ./identity -timeout 30m -campaign).\n\nMachine: %s/%s, %d CPUs, %s; everything on loopback. Load averages at the end: %s.\n", runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), runtime.Version(), load())

	fmt.Fprintf(&out, "\n## From revocation to refusal\n\nThree gateways, three authsvc. Watchers ask every gateway with the token about once a millisecond; time runs from before the\nrevocation is asked for until each gateway's first 401. Tokens and users are revoked in turn, at each replica in turn. Allowed is\nwhat design: event-stream gives: without events 1.5 s of silence, noticed at most 0.25 s later, and a second of freshness,\nand then the question to authsvc takes its own time.\n\n| events | answers | p50 | p99 | max | allowed |\n|---|---|---|---|---|---|\n")
	for _, l := range r.latencies {
		fmt.Fprintf(&out, "| %s | %d | %s | %s | %s | %s |\n", l.name, len(l.took), ms(l.quantile(0.5)), ms(l.quantile(0.99)), ms(l.quantile(1)), ms(l.bound))
	}

	fmt.Fprintf(&out, "\n## What is away, and what happens (design: away)\n\nThrough three real gateways, with lines between them, three authsvc and Redis that are cut, held up or delayed.\n\n| case | as promised |\n|---|---|\n")
	for _, c := range r.cells {
		fmt.Fprintf(&out, "| %s | %s |\n", c.name, map[bool]string{true: "yes", false: "**no**"}[c.kept])
	}

	fmt.Fprintf(&out, "\n## Vectors\n\n`go test ./authsvc/token -run 'Wycheproof|RFC|JOSE'`. A case is right when it is accepted if and only if its file says so. Left out: the\nknown defects of json_web_signature_test.json, tcId 346, 347, 350, 351, 367, 370, 372 and 373. JWE are refused, all of them.\n\n| file | cases | accepted | all right |\n|---|---|---|---|\n")
	for _, v := range tested(t, "./authsvc/token", "Wycheproof|RFC|JOSE") {
		if found := casesLine.FindStringSubmatch(v.output); found != nil {
			fmt.Fprintf(&out, "| %s | %s | %s | %s |\n", strings.TrimPrefix(strings.TrimPrefix(v.name, "TestWycheproofJSONWebSignatures/"), "TestWycheproofPrimitives/"), found[1], found[2], map[bool]string{true: "yes", false: "**no**"}[v.passed])
		}
	}

	writeAttacks(t, &out)

	all := benchmarks(t)
	fmt.Fprintf(&out, "\n## What a check costs\n\n`go test -p 1 ./authsvc/... -run '^$' -bench 'Auth|Verify|Status' -benchmem -count 5` (its output is what benchstat reads), medians of five, on one\ncore; Auth is the whole handler of /auth without the network, Verify and VerifyCompact are what it calls. A gateway asks once per token\nand `max-age`; these are the answers it waits for. Forged tokens never reach Redis.\n\n| benchmark | µs | a second, one core | round trips to Redis | allocations |\n|---|---|---|---|---|\n")
	for _, b := range all {
		if !strings.HasPrefix(b.name, "Status") {
			fmt.Fprintf(&out, "| %s | %.1f | %.0f | %s | %s |\n", b.name, b.ns/1e3, 1e9/b.ns, b.trips, b.allocs)
		}
	}

	fmt.Fprintf(&out, "\n## The status of a hot token: which cache\n\nThree questions (token, user, session) asked of Redis in one pipeline each time, of go-redis's client-side caching, and of our own map that\nlives by the events:\n\n| way | µs | commands to Redis, each time |\n|---|---|---|\n")
	for _, b := range all {
		if way, kept := statusWays[b.name]; kept {
			fmt.Fprintf(&out, "| %s | %.2f | %s |\n", way, b.ns/1e3, b.commands)
		}
	}
	out.WriteString("\nBoth caches spare Redis. The map is kept: tracking is switched off by go-redis on Cluster, on Sentinel and with a password that changes, it\nforgets everything with the connection while Redis is away, and when invalidations are lost in silence nothing tells, where a numbered event\nthat is missing does.\n")
	if err := os.WriteFile("RESULTS.md", []byte(out.String()), 0o644); err != nil {
		t.Fatal(err)
	}
}

var (
	casesLine  = regexp.MustCompile(`(\d+) cases, (\d+) accepted`)
	classLine  = regexp.MustCompile(`class (.+): (\d+) tried, (\d+) admitted`)
	trapLine   = regexp.MustCompile(`(\d+) connections to addresses that tokens name`)
	editsLine  = regexp.MustCompile(`(\d+) edits, none accepted; (\d+) accepted with what`)
	benchLine  = regexp.MustCompile(`^Benchmark(\S+?)(?:-\d+)?\s+\d+\s+([\d.]+) ns/op(.*)$`)
	tripsPart  = regexp.MustCompile(`([\d.e+-]+) round-trips/op`)
	sentPart   = regexp.MustCompile(`([\d.e+-]+) redis-commands/op`)
	allocsPart = regexp.MustCompile(`(\d+) allocs/op`)
)

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

// writeAttacks tells what TestAttacks tries beneath HTTP, TestAttacksOverHTTP
// through /auth, and TestSignatureEdits of one token.
func writeAttacks(t *testing.T, out *strings.Builder) {
	t.Helper()
	type count struct{ tried, admitted int }
	var classes []string
	levels := [2]map[string]count{{}, {}}
	connections := "?"
	beneath, above := tested(t, "./authsvc/token", "TestAttacks$|TestSignatureEdits"), tested(t, "./authsvc", "TestAttacksOverHTTP$")
	for level, verdicts := range [][]verdict{beneath, above} {
		for _, v := range verdicts {
			if !v.passed {
				t.Errorf("%s has failed:\n%.2000s", v.name, v.output)
			}
			if found := trapLine.FindStringSubmatch(v.output); found != nil {
				connections = found[1]
			}
			for _, found := range classLine.FindAllStringSubmatch(v.output, -1) {
				if !slices.Contains(classes, found[1]) {
					classes = append(classes, found[1])
				}
				c := levels[level][found[1]]
				c.tried, c.admitted = c.tried+number(t, found[2]), c.admitted+number(t, found[3])
				levels[level][found[1]] = c
			}
		}
	}
	var sum [2]count
	fmt.Fprintf(out, "\n## Attacks\n\nThe list of authsvc/internal/forge, after RFC 8725: beneath HTTP for all 13 algorithms (`go test ./authsvc/token -run 'TestAttacks$'`), through\n/auth for issuers of every kind of key, by URL, JWKS file, PEM and secret (`go test ./authsvc -run TestAttacksOverHTTP`).\n\n| class | beneath HTTP: tried | admitted | through /auth: tried | admitted |\n|---|---|---|---|---|\n")
	for _, class := range classes {
		fmt.Fprintf(out, "| %s |", class)
		for level := range levels {
			c := levels[level][class]
			sum[level] = count{sum[level].tried + c.tried, sum[level].admitted + c.admitted}
			fmt.Fprintf(out, " %d | %d |", c.tried, c.admitted)
		}
		out.WriteString("\n")
	}
	fmt.Fprintf(out, "| **all** | %d | %d | %d | %d |\n\nConnections to addresses that these tokens name, at a listener that waits there: %s.\n", sum[0].tried, sum[0].admitted, sum[1].tried, sum[1].admitted, connections)

	fmt.Fprintf(out, "\n## Strings accepted per valid token\n\n`go test ./authsvc/token -run TestSignatureEdits`: characters put in, left out and replaced at every place, and every byte of the signature\nchanged. What ECDSA itself leaves open, (r, n-s), has the same id, so that it is revoked with the token (TestRevokedInEverySpelling).\n\n| algorithm | strings tried | accepted, the token itself included |\n|---|---|---|\n")
	for _, v := range beneath {
		if found := editsLine.FindStringSubmatch(v.output); found != nil {
			fmt.Fprintf(out, "| %s | %s | %s |\n", strings.TrimPrefix(v.name, "TestSignatureEdits/"), found[1], found[2])
		}
	}
}

func number(t *testing.T, text string) int {
	t.Helper()
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// statusWays are the benchmarks of the three ways to know a status.
var statusWays = map[string]string{
	"StatusRoundTrip": "a round trip each time", "StatusClientSideCaching": "client-side caching", "StatusByEvents": "our map, by events",
}

// benchmark is the median of one.
type benchmark struct {
	name                    string
	ns                      float64
	trips, commands, allocs string
}

func benchmarks(t *testing.T) (all []benchmark) {
	t.Helper()
	command := exec.Command("go", "test", "-p", "1", "-run", "^$", "-bench", "Auth|Verify|Status", "-benchmem", "-benchtime", "300ms", "-count", "5", "./authsvc/...")
	command.Dir = "../.."
	output, err := command.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, output)
	}
	runs := map[string][]float64{}
	for _, line := range strings.Split(string(output), "\n") {
		found := benchLine.FindStringSubmatch(line)
		if found == nil {
			continue
		}
		ns, err := strconv.ParseFloat(found[2], 64)
		if err != nil {
			t.Fatal(err)
		}
		b := benchmark{name: strings.ReplaceAll(found[1], "_", " ")}
		if runs[b.name] = append(runs[b.name], ns); len(runs[b.name]) > 1 {
			continue
		}
		for pattern, into := range map[*regexp.Regexp]*string{tripsPart: &b.trips, sentPart: &b.commands, allocsPart: &b.allocs} {
			if part := pattern.FindStringSubmatch(found[3]); part != nil {
				*into = part[1]
			}
		}
		all = append(all, b)
	}
	for i := range all {
		all[i].ns = median(runs[all[i].name])
	}
	return all
}
