// Command compare measures Sluice beside what it replaces, and bare Traefik
// beside both: throughput in a closed loop, latency in an open one, processor
// time and Redis commands a request.
//
//	make bench           the whole program; writes bench/RESULTS.md and RESULTS.svg
//	make bench-short     only whether every chain answers right
//
// chains.go lists what is compared, bed.go starts it, load.go makes users and
// requests, closedloop.go and openloop.go send them, check.go judges the
// answers, account.go reads what it cost, measure.go goes through the rounds,
// report.go and chart.go write it down. collector.go compares settings of Go's
// garbage collector instead of chains.
//
// The closed loop is wrk: it costs a tenth of what a generator in Go costs, and
// on two cores whatever the generator takes is missing from the gateway. The
// open loop is vegeta, which paces requests on its own and, unlike wrk, starts
// one whether others were answered or not. Both are kept by others, and vegeta
// is why this is a module of its own: neither the product nor its plugin should
// have to require a load generator.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"syscall"
	"time"
)

// upstreamMark in the environment makes this program the upstream.
const upstreamMark = "SLUICE_BENCH_UPSTREAM"

func main() {
	if os.Getenv(upstreamMark) != "" {
		fmt.Fprintln(os.Stderr, upstream())
		os.Exit(1)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := compare(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil {
		if !errors.Is(err, flag.ErrHelp) {
			fmt.Fprintln(os.Stderr, "compare:", err)
		}
		stop()
		os.Exit(1)
	}
}

// down tells whether the chain has lost its Redis.
func (c chain) down() bool { return c.name == "fast-down-"+c.gateway }

func compare(ctx context.Context, args []string, out, progress io.Writer) error {
	flags := flag.NewFlagSet("compare", flag.ContinueOnError)
	flags.SetOutput(progress)
	rounds := flags.Int("rounds", 5, "rounds of the closed loop")
	openRounds := flags.Int("latency-rounds", 3, "rounds of the open loop")
	seconds := flags.Int("seconds", 2, "length of one run")
	only := flags.String("chains", "", "regular expression: only chains of such names; nothing is written then")
	seed := flags.Uint64("seed", 1, "of the order of runs and of the users")
	output := flags.String("output", filepath.Join("..", "RESULTS.md"), "report; the chart lies beside it")
	profile := flags.Duration("profile", 0, "instead of measuring, profile Traefik for so long under each chain's load; files <chain>.prof")
	collector := flags.Bool("collector", false, "instead of comparing chains, compare GOGC settings; nothing is written")
	if err := flags.Parse(args); err != nil {
		return err
	}
	filter, err := regexp.Compile(*only)
	if err != nil {
		return err
	}
	if *collector {
		return compareCollectors(ctx, *rounds, *seconds, *seed, out, progress)
	}
	b, err := openBed(ctx, *seed, compared, func(b *bed) []chain {
		return slices.DeleteFunc(chains(b), func(c chain) bool { return !filter.MatchString(c.name) })
	}, progress)
	if err != nil {
		return err
	}
	defer b.close()
	if err := b.ready(ctx); err != nil {
		return err
	}
	if *profile > 0 {
		return b.profile(ctx, *profile, progress)
	}
	began := time.Now()
	r, wrong := b.measure(ctx, *rounds, *openRounds, *seconds, *seed, progress)
	if r == nil {
		return wrong
	}
	facts, err := b.facts(ctx)
	if err != nil {
		return err
	}
	facts.rounds, facts.openRounds, facts.seconds, facts.seed, facts.took = *rounds, *openRounds, *seconds, *seed, time.Since(began)
	text := report(b, r, facts)
	if *only == "" {
		if err := os.WriteFile(*output, []byte(text), 0o644); err != nil {
			return err
		}
		svg := (*output)[:len(*output)-len(filepath.Ext(*output))] + ".svg"
		if err := os.WriteFile(svg, []byte(chart(b, r)), 0o644); err != nil {
			return err
		}
	}
	_, err = io.WriteString(out, text)
	return errors.Join(wrong, err)
}
