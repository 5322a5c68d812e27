package attacks

import (
	"bufio"
	"cmp"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/sluice-gateway/sluice/traefik/build"
)

// outcome is how one class did on one wiring.
type outcome struct {
	class, source, wiring string

	tried    int
	reached  int      // of them arrived at the service, where the class counts it
	gained   int      // requests beyond a limit
	findings []string // what must not happen and did

	parts map[string]part // of a class that has several
}

// part is how one kind of bypass did.
type part struct{ tried, gained int }

// count notes cases of a part, which are the class's too.
func (o *outcome) count(name string, tried, gained int) {
	if o.parts == nil {
		o.parts = map[string]part{}
	}
	o.parts[name] = part{o.parts[name].tried + tried, o.parts[name].gained + gained}
	o.tried += tried
	o.gained += gained
}

// report fails the test with what was found.
func (o *outcome) report(t *testing.T) {
	t.Helper()
	t.Logf("%d tried, %d arrived as they should, %d findings", o.tried, o.reached, len(o.findings))
	for i, finding := range o.findings {
		if i == 40 {
			t.Errorf("and %d more", len(o.findings)-i)
			break
		}
		t.Error(finding)
	}
}

// results are what RESULTS.md tells.
var results struct {
	mu      sync.Mutex // protects the rest
	classes []outcome
	costs   []cost
	bites   map[string][]bitten // by wiring
}

func remember(wiring string, line bitten) {
	results.mu.Lock()
	defer results.mu.Unlock()
	if results.bites == nil {
		results.bites = map[string][]bitten{}
	}
	results.bites[wiring] = append(results.bites[wiring], line)
}

// TestMain writes RESULTS.md after a run of everything, good or bad.
func TestMain(m *testing.M) {
	flag.Parse()
	code := m.Run()
	if *full && len(results.classes) == expected() && len(results.bites) == 2 {
		file, err := os.Create("RESULTS.md")
		if err == nil {
			err = writeResults(file)
		}
		if err == nil {
			err = file.Close()
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

const head = `# Attacks on the running gateway

Written by ` + "`cd test && go test ./attacks -timeout 40m -full`" + `. Traefik %s, %s/%s, %s, all on loopback.
Attacks go through four ways in: HTTP/1.1 and HTTP/2, with and without TLS. Setups are both wirings with the plugin compiled in, the
fast one interpreted, on three gateways behind the balancer, and with Traefik's experimental.fastProxy.

## Cases

**Arrived** are those that reached the service as they should: with the identity that the gateway found out, once, and with
nothing that the client said of itself; the rest was refused (empty: not counted in this class). **Gained** are requests beyond
a limit: each attacker first uses it up, and then asks again in another manner. Exhaustion counts connections and requests. Where a
class says so, a run fails as well in which too few cases arrive, or one request that nothing is wrong with does not: a gateway
that refuses everything would hold nothing.

| class | source | setup | tried | passed | arrived | gained |
|---|---|---|---|---|---|---|
`

func writeResults(to io.Writer) error {
	w := bufio.NewWriter(to)
	fmt.Fprintf(w, head, build.Version, runtime.GOOS, runtime.GOARCH, runtime.Version())
	var found []string
	total, bad := 0, 0
	for _, o := range results.classes {
		failed := min(len(o.findings), o.tried)
		gained, arrived := "", ""
		if o.reached > 0 {
			arrived = fmt.Sprint(o.reached)
		}
		if o.class == bypassClass {
			gained = fmt.Sprint(o.gained)
		}
		fmt.Fprintf(w, "| %s | %s | %s | %d | %d | %s | %s |\n", o.class, o.source, o.wiring, o.tried, o.tried-failed, arrived, gained)
		total, bad = total+o.tried, bad+failed
		for _, finding := range o.findings {
			found = append(found, fmt.Sprintf("%s, %s: %s", o.wiring, o.class, oneLine(finding, 300)))
		}
	}
	fmt.Fprintf(w, "\n%d cases, %d of them passed.\n", total, total-bad)
	if len(found) > 0 {
		fmt.Fprintf(w, "\nOpen:\n\n- %s\n", strings.Join(found, "\n- "))
	}
	fmt.Fprintf(w, "\n## Rate limits, by what is tried\n\nOver all setups.\n\n| an attacker who has used his limit up comes by | tried | gained |\n|---|---|---|\n")
	parts := map[string]part{}
	for _, o := range results.classes {
		for name, p := range o.parts {
			parts[name] = part{parts[name].tried + p.tried, parts[name].gained + p.gained}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(parts)) {
		fmt.Fprintf(w, "| %s | %d | %d |\n", name, parts[name].tried, parts[name].gained)
	}
	fmt.Fprintf(w, "\n## What Traefik's fastProxy does otherwise\n\nFound by this suite and shown in each of its runs, beside the standard proxy, which does none of it. Cases of other classes that rest\non it are tried on the standard proxy alone.\n\n")
	for _, d := range differences {
		fmt.Fprintf(w, "- %s\n", d.what)
	}
	fmt.Fprintf(w, "\n## What a bad token costs authsvc\n\nMedian of 200 over one connection on loopback, the way there and back included; %v more than\nthe first line fails the suite.\n"+
		"The limit bad-token lets 30 a minute and address come so far, however they fail.\n\n| credential | bytes | µs |\n|---|---|---|\n", mostCost)
	for _, c := range results.costs {
		fmt.Fprintf(w, "| %s | %d | %d |\n", c.name, c.bytes, c.median.Microseconds())
	}
	fmt.Fprintf(w, `
## The suite bites

Each setting was opened by itself on a gateway beside the stack. The attack that it closes found nothing on the closed gateway and
the following on the opened one.

| opened | wiring | attack | found |
|---|---|---|---|
`)
	for _, wiring := range bothWirings {
		lines := slices.SortedFunc(slices.Values(results.bites[wiring]), func(a, b bitten) int { return cmp.Compare(a.setting, b.setting) })
		for _, line := range lines {
			found := oneLine(line.opened, 140)
			switch {
			case line.closed != "":
				found = "**on the closed gateway too**: " + oneLine(line.closed, 140)
			case found == "":
				found = "**nothing: the suite does not notice**"
			}
			fmt.Fprintf(w, "| %s | %s | %s | %s |\n", line.setting, wiring, line.attack, found)
		}
	}
	return w.Flush()
}

// tokenText is a JWT, in whatever length it was quoted.
var tokenText = regexp.MustCompile(`eyJ[A-Za-z0-9_.-]+`)

// oneLine fits a finding into a cell.
func oneLine(text string, most int) string {
	text, _, _ = strings.Cut(text, "\n")
	text = tokenText.ReplaceAllString(text, "(token)")
	text = strings.NewReplacer("|", "\\|", "<", "&lt;").Replace(text)
	if len(text) > most {
		text = text[:most] + "..."
	}
	return text
}
