package faults

import (
	"bufio"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"
)

// Results are all that RESULTS.md tells.
type Results struct {
	Pace      Pace
	Slowly    Pace // of the interpreted plugin
	Cells     []*Outcome
	Parallel  []*Parallel
	Overloads []*Overload
	Comebacks []*Comeback
	Flood     *FloodOutcome
	HotKeys   []*HotKey
	Reloads   []*Reloads
}

const head = `# What faults of Redis do to the gateways' clients

Written by ` + "`make faults`" + ` (cd test && go test ./faults -run '^TestCampaign$' -timeout 90m -campaign).

%s

## Fault x state

Three gateway processes with the compiled plugin, a redis-server, and in the way of each gateway a proxy that makes the fault.
redis.timeout is %v; every fault lasts %v (Sentinel and Cluster: until they are done). Each gateway gets %d requests a second
with a key of their own each (so each one is a call) and %d a second of one key that all share, limit %d, minInstances 3; with the
interpreted plugin it is %d. Cold gateways start into the fault; warm ones have used %d of the shared key's limit and are at rest until the fault is there; under
load they have used as much and never rest.

- **lost**: requests without answer, or with 5xx.
- **added**: the longest any request took from the fault's beginning until after recovery, over the median of those that met no
  fault, less what the machine stalled that gateway process meanwhile (a goroutine that wants to run every 2 ms sees it; the longest
  stall is in the last column). At most one redis.timeout is due, and where something arrives all the time, or nonsense reaches the
  interpreted plugin, redis.maxWait (%v); %v are allowed for a timer, and the longest stall where that is
  longer, because stalls of a single thread are not seen.
- **paid**: requests that waited for a timeout: at most three a gateway and those that were under way when the third had timed out
  (where a fault leaves some calls answered, as many more for each second); **late**: those of them that arrived after the third timed-out call, though nothing had told their gateway since that
  Redis is well: no new connection, no answer in time. None is due (design: three-timeouts).
- **executed**: runs in Redis a reservation, over so many reservations. In brackets: reservations that ran while their gateway could
  not learn of it; the request was decided alone and is counted twice, never too little.
- **admitted**: of the shared key's limit of %d, until the fault ended / until all had recovered; **due** is the bound of design: fallback-share:
  the limit where every gateway knew the key (and %d permits taken after a gateway asked last) and Redis granted nothing meanwhile,
  or where Redis granted all the time (and as many as were decided without it after all, and %d where it forgot what the gateways then
  told it); else limit by Redis and limit by shares. At least the limit is due too, less %d where shares were computed from what was
  known. In brackets: admitted, and not counted in Redis even afterwards; possible where an error does not tell whether a call ran.
- **recovery**: from the end of the fault until every gateway reserves at Redis again; at most %v are due. Afterwards all that was admitted without Redis
  was found counted there, and a fresh key admitted exactly its limit over the three gateways.
- **memory**: bytes that one request and its hostile reply made a gateway allocate; at most %d are due.

| fault | made by | state | lost | added | paid | late | executed | admitted | due | recovery | memory | stall |
|---|---|---|---|---|---|---|---|---|---|---|---|---|
`

// Write writes RESULTS.md.
func (r *Results) Write(to io.Writer) error {
	w := bufio.NewWriter(to)
	fmt.Fprintf(w, head, machine(), r.Pace.Timeout, r.Pace.Lasts, r.Pace.Rate, r.Pace.Hot, hotLimit, r.Slowly.Rate, warmth*gateways+gateways, longestWait, jitter, hotLimit, unseen, lag, 2*gateways, longestRecovery, memoryBound)
	for _, o := range r.Cells {
		o.row(w)
	}
	fmt.Fprintf(w, "\n%d cells. Promises broken: %s\n%s", len(r.Cells), r.broken(), r.again())
	fmt.Fprintf(w, "\n## A stampede on a fresh key\n\n50 x limit requests at once over three gateways, straight to Redis, at the shipped timeouts; each round on a key of its own, in the\nfirst hundredth of a window of ten hours (design: window-edges).\n\n| plugin | limit | requests a round | rounds | exactly the limit admitted | decisions without Redis | rounds that differ |\n|---|---|---|---|---|---|---|\n")
	for _, p := range r.Parallel {
		fmt.Fprintf(w, "| %s | %d | %d | %d | %d | %d | %s |\n", p.Form, p.Limit, p.Requests, p.Rounds, p.Exact, p.Degraded, strings.Join(p.Wrong, ", "))
	}
	if len(r.Overloads) > 0 {
		r.overloads(w)
	}
	if len(r.Comebacks) > 0 {
		r.comebacks(w)
	}
	if f := r.Flood; f != nil {
		fmt.Fprintf(w, "\n## A flood of distinct keys while Redis is away\n\nOne gateway, maxKeys %d, limit 10. One victim used its limit up before the outage, one its share during it; both were asked\nafter each tenth of the flood.\n\n", f.MaxKeys)
		fmt.Fprintf(w, "| distinct keys | heap before | heap, table full | heap after | bytes a tracked key | victims' requests admitted | requests/s |\n|---|---|---|---|---|---|---|\n")
		fmt.Fprintf(w, "| %d | %s | %s | %s | %.0f | %d of %d | %.0f |\n", f.Keys, size(f.Empty), size(f.Full), size(f.After), f.PerKey(), f.Victims, f.Asked, float64(f.Keys)/f.Took.Seconds())
		fmt.Fprintf(w, "\nThe bound is maxKeys x bytes a key = %s a limit; keys beyond it share 256 buckets.\n", size(uint64(f.PerKey()*float64(f.MaxKeys))))
	}
	fmt.Fprintf(w, "\n## One hot key at full speed (I4)\n\nThree gateways, each with two clients that never wait; calls counted by INFO commandstats, heartbeats left out.\n\n| case | limit | requests | admitted | Redis calls | calls a request | calls a second and gateway | bound |\n|---|---|---|---|---|---|---|---|\n")
	for _, h := range r.HotKeys {
		fmt.Fprintf(w, "| %s | %d in %v | %d | %d | %d | %.6f | %.1f | %.0f: %s |\n", h.Name, h.Limit, h.Window, h.Requests, h.Admitted, h.Calls, h.PerRequest(), h.PerSecond(), h.Bound, h.BoundText)
	}
	fmt.Fprintf(w, "\n## Reloads under traffic\n\nOne gateway with 200 requests a second takes up so many configurations, one after the other, and is looked at before, at the last one\nand once what nobody uses has been closed (a minute). The heap left after the last row is the Go runtime's own: it keeps the\ndescriptors of ended goroutines.\n\n| edited each time | reloads | goroutines | connections | heap | heartbeat afterwards | lost |\n|---|---|---|---|---|---|---|\n")
	for _, l := range r.Reloads {
		fmt.Fprintf(w, "| %s | %d | %d, %d, %d | %d, %d, %d | %s, %s, %s | %s | %d of %d |\n", l.Edit, l.Times,
			l.Before.Goroutines, l.Peak.Goroutines, l.After.Goroutines, l.Links[0], l.Links[1], l.Links[2],
			size(l.Before.Heap), size(l.Peak.Heap), size(l.After.Heap), size(uint64(l.Heartbeat)), l.Lost, l.Requests)
	}
	return w.Flush()
}

// overloads are the table of Overload.
func (r *Results) overloads(w io.Writer) {
	o := r.Overloads[0]
	fmt.Fprintf(w, `
## More clients than the machine can serve

%d clients over HTTP, who wait for nothing, against three gateways on this machine, at the shipped timeouts. All share a key with
%d permits in %v; every %dth request of a client has a key that nobody used before. Admitted are those of the shared key in each whole
window of Redis's clock, less those who straddle its edge. While Redis is well, before the fault and after it, no decision may be made
without it, and no window admit more than the limit: the machine is late then, and Redis is not. Windows that the fault touches may
admit the limit by Redis's count and the limit by the shares (design: fallback-share), and where Redis goes on granting %d more than the limit.

| plugin | fault | requests/s | before: admitted | without Redis | during: admitted | without Redis | after: admitted | without Redis | lost | longest answer | recovery |
|---|---|---|---|---|---|---|---|---|---|---|---|
`, o.Clients, o.Limit, o.Window, freshEvery, lag)
	for _, o := range r.Overloads {
		fmt.Fprintf(w, "| %s | %s | %.0f | %s | %d | %s | %d | %s | %d | %d | %s | %s |\n", o.Form, o.Fault, float64(o.Before.Requests)/o.Before.Took.Seconds(),
			numbers(o.Before.Windows), o.Before.Degraded, numbers(o.During.Windows), o.During.Degraded, numbers(o.After.Windows), o.After.Degraded,
			o.Before.Lost+o.During.Lost+o.After.Lost, ms(max(o.Before.Longest, o.During.Longest, o.After.Longest)), ms(o.Recovery))
	}
}

// comebacks are the table of Comeback.
func (r *Results) comebacks(w io.Writer) {
	fmt.Fprintf(w, `
## Redis comes back, and there is much to report

Redis is killed, so many keys are used meanwhile, each once, and it is started again, empty. All the time each gateway gets %d requests
a second with a key that nobody used before, as many of one hot key, and as many with %d known tokens. **Added** is the longest that
any of these took, answered after Redis was back, over the median before it was killed; redis.maxWait (%v) is due, and what the machine
made the slowest take before. **Medians** are those of each second since. **Counted**: until Redis had that many keys again; in the
end it has to have counted every use of every key.

| plugin | gateways | keys | away | added | due | medians | lost | keys not counted | counted after |
|---|---|---|---|---|---|---|---|---|---|
`, calmRate, tokens, longestWait)
	for _, c := range r.Comebacks {
		var medians []string
		for _, m := range c.Medians {
			medians = append(medians, fmt.Sprintf("%.1f", float64(m)/float64(time.Millisecond)))
		}
		fmt.Fprintf(w, "| %s | %d | %d | %s | %s | %s | %s ms | %d of %d | %d | %s |\n", c.Form, c.Gateways, c.Keys, ms(c.Away), ms(c.Added()), ms(c.Due()),
			strings.Join(medians, ", "), c.Lost, c.Requests, c.Uncounted, ms(c.Counted))
	}
}

func numbers(all []int) string { return strings.Trim(fmt.Sprint(all), "[]") }

func (o *Outcome) row(w io.Writer) {
	outage, total := o.MostAdmitted()
	executed := fmt.Sprintf("%d.000 / %d", o.Most, o.Needs)
	if o.Kind.Over == overSentinel {
		executed = fmt.Sprintf("- / %d", o.Needs) // the counters of the lost master are lost too
	}
	if o.Unaccepted > 0 {
		executed += fmt.Sprintf(" (%d)", o.Unaccepted)
	}
	late := fmt.Sprint(o.Late)
	if !o.told() {
		late = "-"
	}
	admitted := fmt.Sprintf("%d / %d", o.Outage, o.Admitted)
	if o.Short > 0 {
		admitted += fmt.Sprintf(" (%d)", o.Short)
	}
	memory := ""
	if o.Memory > 0 {
		memory = fmt.Sprint(o.Memory)
	}
	recovery := "never"
	if o.Recovery >= 0 {
		recovery = ms(o.Recovery)
	}
	state := string(o.State)
	if o.Pace.Form == asInterpreted {
		state += ", interpreted"
	}
	fmt.Fprintf(w, "| %s | %s | %s | %d of %d | %s | %d | %s | %s | %s | %d / %d | %s | %s | %s |\n", o.Kind.Name, o.Kind.How, state,
		o.Lost, o.Requests, ms(o.Added()), o.Paid, late, executed, admitted, outage, total, recovery, memory, ms(o.Stall))
}

// broken lists the cells that kept less than was promised.
func (r *Results) broken() string {
	var all []string
	for _, o := range r.Cells {
		for _, promise := range append(o.Broken(), o.slow()...) {
			all = append(all, fmt.Sprintf("%s: %s", o.name(), promise))
		}
	}
	if len(all) == 0 {
		return "none."
	}
	return "\n\n- " + strings.Join(all, "\n- ")
}

// again lists the cells that were measured a second time, and why.
func (r *Results) again() string {
	var all strings.Builder
	for _, o := range r.Cells {
		for _, promise := range o.Before {
			fmt.Fprintf(&all, "- %s: %s\n", o.name(), promise)
		}
	}
	if all.Len() == 0 {
		return ""
	}
	return "\nTwo cells are measured at a time. These were measured again, alone, because the first time\n\n" + all.String()
}

// slow lists the promises that a busy machine can break: one redis.timeout and
// no more, to few requests of a gateway, all the permits there are, and a Redis
// that is back is used at once. Where the machine stalled a gateway for longer
// than a timer is late anyway, the longest stall is allowed for: the meter sees
// stalls of the process and not those of a single thread.
func (o *Outcome) slow() []string {
	var broken []string
	allowed := o.longest() + jitter
	if o.Stall > jitter {
		allowed += o.Stall
	}
	if o.Added() > allowed {
		broken = append(broken, fmt.Sprintf("a request took %v longer than usual; %v are allowed", o.Added(), allowed))
	}
	if most := o.mostPaid(); o.Dearest > most && !o.speaks() {
		broken = append(broken, fmt.Sprintf("%d requests of one gateway waited for a timeout; %d are allowed", o.Dearest, most))
	}
	if o.Outage < o.LeastAdmitted() {
		broken = append(broken, fmt.Sprintf("%d admitted during the fault, at least %d are due", o.Outage, o.LeastAdmitted()))
	}
	if o.Recovery > longestRecovery {
		broken = append(broken, fmt.Sprintf("Redis was used again after %v; %v are allowed", o.Recovery, longestRecovery))
	}
	return broken
}

// longestRecovery is the longest pause of the backoff, and the time that a
// connection may take which was begun while the fault lasted: a second each.
const longestRecovery = 2 * time.Second

// tolerated is how many calls may time out before a breaker opens (design: three-timeouts).
const tolerated = 3

// mostPaid is how many requests of one gateway may wait for a timeout while a
// fault lasts: three, and those that are under way when the third has timed out,
// which arrived within one timeout (design: three-timeouts); as many again for each second, in
// which a heartbeat may have been answered, where only some calls are.
func (o *Outcome) mostPaid() int {
	p := &o.Pace
	most := tolerated + int(math.Ceil(float64(p.Rate)*p.Timeout.Seconds()))
	if !o.Kind.Partial {
		return most
	}
	return most * (1 + int((p.Lasts+time.Second-1)/time.Second))
}

// shipped is redis.timeout unless configured, and longestWait redis.maxWait.
const (
	shipped     = 100 * time.Millisecond
	longestWait = 250 * time.Millisecond
)

// speaks tells whether something arrives all the time: then a request may wait
// until it is clear that this is no Redis.
func (o *Outcome) speaks() bool {
	return o.Kind.Speaks || o.Kind.Hostile && o.Pace.Form == asInterpreted
}

// longest is how long a request may wait.
func (o *Outcome) longest() time.Duration {
	if o.speaks() {
		return longestWait
	}
	return o.Pace.Timeout
}

// jitter is what a timer may be late on a machine at rest.
const jitter = 5 * time.Millisecond

func ms(d time.Duration) string { return fmt.Sprintf("%.1f ms", float64(d)/float64(time.Millisecond)) }

func size(n uint64) string {
	if n < 1<<20 {
		return fmt.Sprintf("%.1f KiB", float64(n)/(1<<10))
	}
	return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
}

// machine says where the figures come from.
func machine() string {
	model := "unknown processor"
	if info, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(info)) {
			if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
				model = strings.TrimSpace(value)
				break
			}
		}
	}
	server := "redis-server of unknown version"
	if out, err := exec.Command("redis-server", "--version").Output(); err == nil {
		for _, field := range strings.Fields(string(out)) {
			if version, ok := strings.CutPrefix(field, "v="); ok {
				server = "Redis " + version
			}
		}
	}
	return fmt.Sprintf("Machine: %s, %d CPUs, %s/%s, %s, %s, all on loopback.", model, runtime.NumCPU(), runtime.GOOS, runtime.GOARCH, runtime.Version(), server)
}
