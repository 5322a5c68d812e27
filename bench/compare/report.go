package main

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sluice-gateway/sluice/traefik/build"
)

// facts are where and how the figures came about.
type facts struct {
	machine, kernel, versions   string
	rounds, openRounds, seconds int
	seed                        uint64
	took                        time.Duration
	allocations                 map[string]float64 // by case of the Go benchmarks, without the benchmark's own
}

func (b *bed) facts(ctx context.Context) (facts, error) {
	var f facts
	if text, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		if model := regexp.MustCompile(`model name\s*: (.*)`).FindSubmatch(text); model != nil {
			f.machine = string(model[1]) + ", "
		}
	}
	f.machine += fmt.Sprintf("%d cores", runtime.NumCPU())
	if text, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		f.kernel = strings.TrimSpace(string(text))
	}
	info, err := b.redis.client.Info(ctx, "server").Result()
	if err != nil {
		return f, err
	}
	versions := []string{"Traefik " + build.Version, runtime.Version()}
	if version := regexp.MustCompile(`redis_version:(\S+)`).FindStringSubmatch(info); version != nil {
		versions = append(versions, "Redis "+version[1])
	}
	for _, program := range [][]string{{"/usr/sbin/nginx", "-v"}, {"wrk", "--version"}} {
		said, _ := exec.CommandContext(ctx, program[0], program[1:]...).CombinedOutput() // wrk --version ends with 1
		if version := regexp.MustCompile(`(nginx|wrk)[/ ]\S*?(\d+(?:\.\d+)+)`).FindSubmatch(said); version != nil {
			versions = append(versions, string(version[1])+" "+string(version[2]))
		}
	}
	f.versions = strings.Join(append(versions, "vegeta 12.13.0"), ", ")
	f.allocations = allocations(ctx)
	return f, nil
}

// weighKey asks Redis how much a counter takes that the Zipf chain has just
// made: it lives for two windows.
func (b *bed) weighKey(ctx context.Context, r *results, form string) error {
	keys, _, err := b.redis.client.Scan(ctx, 0, fmt.Sprintf("sluice:lim:*:%s:*", form[:1]), 100_000).Result()
	if err != nil || len(keys) == 0 {
		return err
	}
	for _, key := range keys { // the largest, so that no lucky one is shown
		bytes, err := b.redis.client.MemoryUsage(ctx, key).Result()
		if err != nil {
			continue // it has expired since
		}
		if bytes > r.keyBytes[form] {
			r.keyBytes[form], r.key = bytes, key
		}
	}
	return nil
}

// allocations runs the Go benchmarks of one request through the plugin alone, in
// both forms, and takes off what they allocate themselves. What they did not
// tell is missing. Each has a process of its own: what one leaves behind goes on
// with its heartbeats.
func allocations(ctx context.Context) map[string]float64 {
	var all strings.Builder
	for _, name := range []string{"HotPath", "ColdPath"} {
		command := exec.CommandContext(ctx, "go", "test", "./forms", "-run", "^$", "-bench", name, "-benchtime", "10000x", "-benchmem")
		command.Dir = filepath.Join("..", "..", "test")
		said, _ := command.Output() // whatever failed is missing
		all.Write(said)
	}
	return withoutOwn(all.String())
}

var benchmarkLine = regexp.MustCompile(`(?m)^Benchmark(\S+?)(?:-\d+)?\s.*\s(\d+) allocs/op`)

// withoutOwn reads the figures of benchmarks, named such as HotPath/compiled/auth,
// and takes off those of HotPath/no-op or ColdPath/no-op/new_key.
func withoutOwn(said string) map[string]float64 {
	found := map[string]float64{}
	for _, line := range benchmarkLine.FindAllStringSubmatch(said, -1) {
		found[line[1]], _ = strconv.ParseFloat(line[2], 64)
	}
	net := map[string]float64{}
	for name, n := range found {
		parts := strings.Split(name, "/")
		if len(parts) != 3 || parts[1] == "no-op" {
			continue
		}
		own, ok := found[parts[0]+"/no-op"]
		if !ok {
			own, ok = found[parts[0]+"/no-op/"+parts[2]]
		}
		if ok {
			net[name] = n - own
		}
	}
	return net
}

// target is one row of what was promised.
type target struct {
	name   string
	ask    string // "at least 0.95"
	got    interval
	met    bool
	known  bool
	doubt  string // why got says nothing
	digits int
	unit   string
}

// cells are what was asked, got, and whether that is met.
func (t target) cells() string {
	got, met := "not measured", "-"
	if t.known {
		got = fmt.Sprintf("%.*f%s", t.digits, t.got.middle, t.unit)
		if t.got.low != t.got.high {
			got += fmt.Sprintf(" (%.*f to %.*f)", t.digits, t.got.low, t.digits, t.got.high)
		}
		switch {
		case t.ask == "":
		case t.doubt != "":
			met = t.doubt
		case t.met:
			met = "yes"
		default:
			met = "no"
		}
	}
	return fmt.Sprintf("%s | %s | %s", cmp.Or(t.ask, "-"), got, met)
}

// targets lists every promise for one form, in the same order for both; of what
// is not promised in that form only what was measured.
func targets(r *results, f facts, form string) []target {
	of := func(compiledWant, interpretedWant float64) float64 {
		if form == compiled {
			return compiledWant
		}
		return interpretedWant
	}
	ratio := func(name, chain, by string, want float64) target {
		values := ratios(r.closed[chain+"-"+form], r.closed[by], rate)
		got := bootstrap(values, geometric)
		return target{name: name, ask: fmt.Sprintf("at least %.2f", want), got: got, met: got.middle >= want, known: len(values) > 0, digits: 2}
	}
	scripts := []float64{}
	for _, s := range r.closed["fast-"+form] {
		scripts = append(scripts, s.scripts)
	}
	exact := func(v float64) interval { return interval{v, v, v} }
	allocated := func(name, benchmark string, want float64) target {
		n, known := f.allocations[fmt.Sprintf(benchmark, form)]
		ask := ""
		if want > 0 {
			ask = fmt.Sprintf("at most %.0f", want)
		}
		return target{name: "allocations (Go benchmark): " + name, ask: ask, got: exact(n), met: n <= want, known: known}
	}
	added, wantAdded := addedP99(r, "fast-"+form), of(0.1, 0.3)
	list := []target{
		ratio("neither auth nor limits, against bare", "id", "bare", of(0.97, 0.88)),
		ratio("fast, hot, one limit, against bare", "fast", "bare", of(0.97, 0.80)),
		ratio("fast, three limits as shipped, against bare", "fast-three", "bare", of(0.95, 0.75)),
		ratio("the same behind a proxy, with exempt lists and legacy headers, against bare", "fast-proxied", "bare", of(0.93, 0.65)),
		ratio("fast, Zipf users, against bare", "fast-zipf", "bare", of(0.90, 0.60)),
		ratio("limits only, hot, against Traefik's rateLimit in Redis", "limits", "traefik-redis", of(1.33, 1.15)),
		ratio("limits only, every request a new key, against the same", "limits-new", "traefik-redis-new", of(1.15, 0.90)),
		ratio("fast, every request a new token and key, against forwardAuth + rateLimit in Redis", "fast-new", "forwardauth-redis-new", of(1.4, 1.0)),
		ratio("fast, all denied, against bare", "fast-denied", "bare", of(3.0, 1.6)),
		ratio("classic, against forwardAuth + rateLimit in Redis", "classic", "forwardauth-redis", of(1.05, 0.95)),
		ratio("fast, Redis down, against the healthy run", "fast-down", "fast-"+form, 0.98),
		allocated("hot, one limit", "HotPath/%s/auth_and_limits", of(6, 170)),
		allocated("hot, three limits as shipped", "HotPath/%s/shipped_limits", of(8, 230)),
		allocated("a new key", "ColdPath/%s/new_key", of(40, 450)),
		allocated("a new token and key", "ColdPath/%s/new_token_and_key", of(0, 1200)),
		{name: "added p99 at 50% of bare capacity, hot", ask: fmt.Sprintf("at most %.1f ms", wantAdded), got: bootstrap(added, median), known: len(added) > 0, digits: 2, unit: " ms"},
		{name: "scripts sent to Redis a request, hot", ask: "at most 0.05", got: bootstrap(scripts, mean), known: len(scripts) > 0, digits: 3},
		{name: "Redis memory of a tracked key, its name included", ask: "at most 120 bytes", got: exact(float64(r.keyBytes[form])), met: r.keyBytes[form] <= 120, known: r.keyBytes[form] > 0, unit: " bytes"},
	}
	n := len(list)
	list[n-3].met = list[n-3].got.middle <= wantAdded
	if noise := addedP99(r, "bare-again"); len(noise) > 0 && math.Abs(median(noise)) > wantAdded {
		list[n-3].doubt = fmt.Sprintf("cannot be told: bare Traefik again adds %.2f ms", median(noise))
	}
	list[n-2].met = list[n-2].got.middle <= 0.05
	return list
}

// addedP99 is how much later than through bare Traefik the slowest hundredth of a
// chain's answers came at half of bare Traefik's capacity, in milliseconds, for
// each round in which both kept up.
func addedP99(r *results, chain string) []float64 {
	var added []float64
	bare, ours := r.open["bare"][50], r.open[chain][50]
	for i := range min(len(bare), len(ours)) {
		if bare[i].late+ours[i].late == 0 {
			added = append(added, (ours[i].p99-bare[i].p99).Seconds()*1e3)
		}
	}
	return added
}

func report(b *bed, r *results, f facts) string {
	var t strings.Builder
	p := func(format string, args ...any) { fmt.Fprintf(&t, format, args...) }
	p("# What the policy costs, beside what it replaces\n\n")
	p("Written by `make bench` (%d rounds of %d s a chain, %d rounds of latency, seed %d, %.0f minutes). Only ratios of one run mean anything: on another machine the numbers differ, and so does any of them when load generator, gateway, authsvc, Redis and upstream share their cores otherwise, as all of them share these.\n\n", f.rounds, f.seconds, f.openRounds, f.seed, f.took.Minutes())
	p("Machine: %s, Linux %s. %s.\n\n", f.machine, f.kernel, f.versions)
	p("![throughput against bare Traefik](RESULTS.svg)\n\n")

	p("## Targets\n\nRatios of throughput, geometric mean over the rounds with the 95%% interval of a bootstrap over paired rounds.\n\n")
	p("The machine is quiet enough where the interval of bare Traefik again lies within 0.93 to 1.07; here it is %s.\n\n", span(bootstrap(ratios(r.closed["bare-again"], r.closed["bare"], rate), geometric)))
	p("| | compiled: target | got | met | interpreted: target | got | met |\n|---|---|---|---|---|---|---|\n")
	other := targets(r, f, interpreted)
	for i, row := range targets(r, f, compiled) {
		p("| %s | %s | %s |\n", row.name, row.cells(), other[i].cells())
	}
	if r.key != "" {
		p("\nA tracked key is such as `%s`, the largest of its kind by MEMORY USAGE.\n", r.key)
	}

	p("\n## Throughput\n\n%d connections, closed loop (wrk). CPU is processor time a request in microseconds, as the operating system accounts it to each process: gateway (Traefik or nginx), authsvc and Redis; the upstream and the load generator, which no chain can save, stand in the last columns. Against bare: throughput, and the processor time of gateway, authsvc and Redis together. Allocations are those of the whole Traefik a request, bare's included.\n\n", connections)
	p("| chain | requests/s | against bare | CPU against bare | gateway | authsvc | Redis | scripts | commands | allocations | 429 | upstream | generator |\n|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n")
	for _, c := range b.chains {
		samples := r.closed[c.name]
		if len(samples) == 0 {
			continue
		}
		average := func(value func(sample) float64) float64 {
			var all []float64
			for _, s := range samples {
				all = append(all, value(s))
			}
			return mean(all)
		}
		against := bootstrap(ratios(samples, r.closed["bare"], rate), geometric)
		cost := bootstrap(ratios(samples, r.closed["bare"], sample.policy), geometric)
		allocations := "-"
		if n := average(func(s sample) float64 { return s.mallocs }); n > 0 {
			allocations = fmt.Sprintf("%.0f", n)
		}
		p("| %s | %.0f | %s | %.2f | %.1f | %.1f | %.1f | %.3f | %.2f | %s | %.0f%% | %.1f | %.1f |\n", c.title, average(rate), span(against), cost.middle,
			average(func(s sample) float64 { return s.gateway }), average(func(s sample) float64 { return s.auth }), average(func(s sample) float64 { return s.redis }),
			average(func(s sample) float64 { return s.scripts }), average(func(s sample) float64 { return s.commands }), allocations,
			100*average(func(s sample) float64 { return s.refused }),
			average(func(s sample) float64 { return s.upstream }), average(func(s sample) float64 { return s.generator }))
	}

	if fast := r.closed["bare-fastproxy"]; len(fast) > 0 {
		against := func(of, by string) string {
			return span(bootstrap(ratios(r.closed[of], r.closed[by], rate), geometric))
		}
		p("\nTraefik's experimental.fastProxy makes bare Traefik %s times as fast, and the compiled plugin with hot tokens %s times; against bare Traefik with fastProxy that is %s.\n", against("bare-fastproxy", "bare"), against("fast-fastproxy", "fast-compiled"), against("fast-fastproxy", "bare-fastproxy"))
	}

	if len(r.open) > 0 {
		p("\n## Latency\n\nOpen loop (vegeta), from the instant at which a request was due, in milliseconds: median of the rounds. The rates are shares of the %d requests a second that the same generator gets through bare Traefik in a closed loop. A dash: the chain's own throughput is less than that rate, or it could not keep up beside this generator, which takes more of the processors than wrk: some requests had no answer within %v, or an error for one.\n\n", r.capacity, longestAnswer)
		p("| chain |")
		for _, percent := range loads {
			p(" %d%%: p50 | p99 | p99.9 |", percent)
		}
		p("\n|---|%s\n", strings.Repeat("--:|", 3*len(loads)))
		for _, c := range b.chains {
			if !c.latency {
				continue
			}
			p("| %s |", c.title)
			for _, percent := range loads {
				tails := r.open[c.name][percent]
				for _, value := range []func(tail) time.Duration{
					func(t tail) time.Duration { return t.p50 }, func(t tail) time.Duration { return t.p99 }, func(t tail) time.Duration { return t.p999 },
				} {
					if len(tails) == 0 || slices.ContainsFunc(tails, func(t tail) bool { return t.late > 0 }) {
						p(" - |")
						continue
					}
					var all []float64
					for _, t := range tails {
						all = append(all, value(t).Seconds()*1e3)
					}
					p(" %.2f |", median(all))
				}
			}
			p("\n")
		}
	}

	p("\n## Method\n\n")
	p("Every process is real: three Traefiks of the same binary (one interprets the plugin, one has fastProxy), authsvc, redis-server, nginx and the upstream, each a process of its own. Every chain has an entry point with one router, so that none pays for another's. All requests carry the same headers: a token, names that the upstream compares, and an address of each user's own in X-Forwarded-For, which only the chain behind a proxy believes. In each round the chains run in a new random order, each after a warm-up; bare Traefik runs twice, and how far the second is from the first is the noise.\n\n")
	p("Every answer counts: statuses are counted by the generator, and the upstream counts, for every request, whether X-User-ID is the user whom the token names, whether a credential arrived, and whether there is an X-Request-ID. A run in which one answer is wrong ends the program. Before the first round a few hundred answers of each chain are read whole, RateLimit headers and bodies included.\n\n")
	p("Hot: %d tokens, again and again. Zipf: %d users with a limit of 100 a minute each, drawn with exponent %.1f, every token known from the minute before; those who draw more get 429. New: no user, token or key occurs twice. Denied: a limit used up before. Redis down: the plugin's Redis was killed before the first round (authsvc keeps its own), and each Traefik decides by its share. nginx looks the token up with GET and counts with EVALSHA, over a pool of connections; it verifies nothing.\n\n", hotUsers, zipfUsers, zipfSkew)
	p("Scripts are the EVALSHA that were sent to Redis; commands also count what those scripts ran inside.\n")
	return t.String()
}

func span(i interval) string {
	if math.IsNaN(i.middle) {
		return "-"
	}
	return fmt.Sprintf("%.2f (%.2f to %.2f)", i.middle, i.low, i.high)
}
