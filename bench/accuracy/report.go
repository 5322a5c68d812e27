package accuracy

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/sluice-gateway/sluice/plugin/window"
	"github.com/sluice-gateway/sluice/traefik/build"
)

// report is the file.
type report struct {
	seed     uint64
	redis    string // version
	note     string // on the web log
	tables   []table
	specials specials
}

// table is one quota's.
type table struct {
	quota    quota
	traffics []traffic
	rows     []row
}

type row struct {
	traffic, subject string
	calls            int
	score            score
}

func (r *report) String() string {
	var b strings.Builder
	b.WriteString("# How exact the limits are\n\nWritten by `go run ./bench accuracy` (seed " + fmt.Sprint(r.seed) + "); every figure is the program's.\n\n")
	r.writeSummary(&b)
	for _, t := range r.tables {
		t.write(&b)
	}
	r.writeColumns(&b)
	r.writeBounds(&b)
	r.writeSpecials(&b)
	r.writeMethod(&b)
	return b.String()
}

// summary is what the paragraph at the head is made of.
type summary struct {
	requests, beyond int
	over             float64 // the largest share admitted beyond one machine
	short            float64
	shortWhere       string
	apart            float64 // the largest difference to the rule's own share of differing decisions
}

func (r *report) summarise() (s summary) {
	for _, t := range r.tables {
		rule := 0.0
		for _, row := range t.rows {
			switch row.subject {
			case machine:
				rule = row.score.differ // the first row of each traffic
				continue
			case sluice1, sluice3:
			default:
				continue
			}
			s.requests += row.score.requests
			s.beyond += row.score.beyond
			s.over = max(s.over, row.score.rule.over)
			s.apart = max(s.apart, row.score.differ-rule, rule-row.score.differ)
			if row.score.short > s.short {
				s.short, s.shortWhere = row.score.short, fmt.Sprintf("%s, %s, %s", t.quota.name, row.traffic, row.subject)
			}
		}
	}
	return s
}

func (r *report) writeSummary(b *strings.Builder) {
	s := r.summarise()
	fmt.Fprintf(b, "**What this says.** Sluice decided %s requests here, on one gateway and on three. It admitted **%d** for which the "+
		"limit's rule had no room (I1), and at most %s more of a traffic than one machine that sees every request. %s "+
		"Beside an exact log it is as good and as bad as the rule itself: their shares of decisions that differ from the log lie at most "+
		"%.2f points apart. ",
		thousands(s.requests), s.beyond, percent(s.over), s.shortfall(), 100*s.apart)
	b.WriteString("A limit of at most 64 over 10 s or more is counted by an exact log (10 a minute, below). The rule for all others is an approximation. Near the limit it often admits another request than the log does, though nearly as many; " +
		"and it can be played: the window-edge attack gets almost twice the limit through in one window's length, and of honest bursts " +
		"it refuses a large part. A token bucket as Traefik's makes another promise: a full bucket of `limit`, and `limit` a window, " +
		"so up to twice the limit in one window's length is no fault of it. The larger differences are that it forgets a key after two seconds " +
		"of silence, that in memory each gateway counts alone, and that with Redis each gateway brings its own clock.\n\n")
}

// promised is the net shortfall of a key that I2 allows, in limits.
const promised = 0.005

// shortfall says whether I2 was kept.
func (s summary) shortfall() string {
	switch {
	case s.short <= 0:
		return "No key was short of what the rule allows."
	case s.short <= promised:
		return fmt.Sprintf("The largest net shortfall of a key was %s of its limit (%s), within the %s that I2 allows.", percent(s.short), s.shortWhere, percent(promised))
	}
	return fmt.Sprintf("The largest net shortfall of a key was **%s** of its limit (%s), more than the %s that I2 allows.", percent(s.short), s.shortWhere, percent(promised))
}

func (t table) write(b *strings.Builder) {
	fmt.Fprintf(b, "## %s\n\n| traffic | subject | differ | rate error | over log | under log | over rule | under rule | most in one window | Redis calls |\n|---|---|---|---|---|---|---|---|---|---|\n",
		strings.ToUpper(t.quota.name[:1])+t.quota.name[1:])
	last := ""
	for _, r := range t.rows {
		name := ""
		if r.traffic != last {
			name = fmt.Sprintf("%s (%d)", r.traffic, r.score.requests)
		}
		last = r.traffic
		s := r.score
		fmt.Fprintf(b, "| %s | %s | %s | %s | %s | %s | %s | %s | %.2f | %.2f |\n", name, r.subject,
			percent(s.differ), percent(s.rateError), percent(s.log.over), percent(s.log.under), percent(s.rule.over), percent(s.rule.under),
			s.worst, float64(r.calls)/float64(s.requests))
	}
	b.WriteString("\n")
}

func (r *report) writeColumns(b *strings.Builder) {
	b.WriteString(`## Columns

In brackets behind a traffic: its requests.` + r.note + `

- **differ**: share of the decisions that are not those of an exact sliding log given the same arrivals. Once two limiters have admitted
  different requests they remember different pasts, so this counts requests exchanged for each other too.
- **rate error**: |admitted within the last window's length - the same of the log| / limit, at each arrival, mean of all arrivals.
- **over log**, **under log**: net difference of each key's admissions over the whole traffic, those with more and those with fewer
  added up apart, as a share of what the log admitted.
- **over rule**, **under rule**: the same against the rule on one machine that sees each request at the instant at which the subject decided it.
- **most in one window**: the most admissions of one key within any stretch of one window's length, in limits. The log's is 1.00 at most.
  (10 a minute: of a window less the slowest reply. A log has the instant at which Redis granted; what is noted here is when the reply was there.)
- **Redis calls**: scripts run a request. With 10 clients, each near its limit, and 10,000 users who mostly come once, a request seldom finds a
  lease; what is denied mostly costs none. A hot key far below its limit costs next to nothing (I4), which no traffic here shows.

`)
}

// bump is by how much the last of a log's permits may be noted after the first, where
// all are granted at once.
const bump = time.Duration(window.MaxExact) * time.Microsecond

func (r *report) writeBounds(b *strings.Builder) {
	b.WriteString("## The worst the rules can do\n\n")
	for _, t := range r.tables {
		q := t.quota
		if window.Exact(q.limit, window.Span(q.window)) {
			least, _ := leastOfHonest(q, q.window+bump)
			fmt.Fprintf(b, "- %s, counted by a log: at most **%d** in any window's length. A client that sends its whole limit at once, once a window's length and %v, "+
				"is admitted **%s** of it: permits of one instant are noted a microsecond apart.\n", q.name, mostInOneWindow(q), bump, percent(least))
			continue
		}
		least, phase := leastOfHonest(q, q.window)
		fmt.Fprintf(b, "- %s: the whole limit in the last microsecond of a window, then one request at each instant at which there is room: "+
			"**%d** admitted in less than one window's length, which is 2 x limit - 1. A client that sends its whole limit at once, once a window's length, "+
			"and so never exceeds an exact log, is admitted **%s** of it where its bursts come %v after a window's begin.\n", q.name, mostInOneWindow(q), percent(least), phase)
	}
	b.WriteString("\nBoth are computed with the rule as shipped (plugin/window). The rows \"window-edge attack\" and \"honest bursts\" show the same on running gateways, " +
		"with bursts that take a hundredth of a window and, in the second, drift by two hundredths each time.\n\n")
}

func (r *report) writeSpecials(b *strings.Builder) {
	b.WriteString("## What only Traefik's token bucket minds\n\nBursts of 150 requests of one key, average 1 a second, burst 100 (Sluice: 100 in 100 s), one gateway:\n\n" +
		"| a burst each | sent | the bucket promises at most | Traefik in memory | Traefik + Redis | Sluice |\n|---|---|---|---|---|---|\n")
	for _, p := range r.specials.paused {
		fmt.Fprintf(b, "| %v | %d | %d | %d | %d | %d |\n", p.pause, p.sent, p.promised, p.memory, p.redis, p.sluice)
	}
	fmt.Fprintf(b, "\nTwo gateways whose clocks differ, one key at 10 x its limit (%s) for %v:\n\n", perSecond.name, skewedSpan)
	b.WriteString("| clocks apart | sent | the bucket promises at most | Traefik + Redis | the rule, one machine | Sluice |\n|---|---|---|---|---|---|\n")
	for _, s := range r.specials.skewed {
		fmt.Fprintf(b, "| %v | %d | %d | %d | %d | %d |\n", s.skew, s.sent, s.promised, s.redis, s.rule, s.sluice)
	}
	b.WriteString("\n")
}

func (r *report) writeMethod(b *strings.Builder) {
	fmt.Fprintf(b, `## What was real and what was not

Real: Sluice's engines (plugin/limit) with their goroutines and timers; the limit script, run by redis-server %s for each of its calls; Traefik
%s's rateLimit middleware, its Go and its Lua as they come from its module, the latter run by a redis-server of its own.

Virtual: time, for all of them (testing/synctest). A reply of Redis takes Sluice 0.1 to 0.4 ms, and one in fifty 8 ms; Traefik gets it at
once. Redis's own clock cannot be virtual, so both scripts run behind a few lines of Lua that hand them the virtual time: Sluice's in place of TIME (keys do not
expire meanwhile), Traefik's for the expiry of its keys. In the table of clocks those lines also add the difference to the time that the second gateway sends.
Sluice takes nothing from a gateway's clock but differences; there the second engine's clock is ahead by as much. HTTP, the
routing of requests and the heartbeats' script are left out: requests call the limiter, and which of three gateways they meet is drawn at random.

Traefik is configured as average = burst = limit, period = window. It delays some requests instead of refusing them (half a second at most); they count as
admitted, at the instant at which they go on.

Nothing here is measured in real time: two runs with one seed give the same file.
`, r.redis, build.Version)
}

func percent(share float64) string { return fmt.Sprintf("%.2f%%", 100*share) }

// thousands is 1,234,567 for 1234567.
func thousands(n int) string {
	text := strconv.Itoa(n)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}
