// Package accuracy measures how far limiters are from an exact one, and how
// far Sluice is from the rule it promises.
//
// Every subject is given the same arrivals (traffic.go, clf.go):
//
//	exact      a sliding log of each admission                  reference.go
//	the rule   plugin/window on one machine that sees them all  reference.go
//	Sluice     real engines of plugin/limit, one and three,     fleet.go
//	           whose script a real redis-server runs
//	Traefik    its own rateLimit middleware, in memory and      traefik.go
//	           with a real redis-server
//
// score.go compares their decisions, bounds.go works out the worst the rule can
// do, special.go holds what only token buckets mind, report.go writes it down.
//
// Time is virtual. Engines and middleware run in a bubble of testing/synctest,
// whose clock moves on only when every goroutine in it waits; reading a socket
// is no such waiting, so a real Redis takes part and no virtual time passes
// while it works. Its scripts are told that time. All delays are drawn from
// seeded numbers and no two events share an instant, so that two runs give the
// same file.
package accuracy

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// quotas are the shipped ones (DESIGN section 10): every traffic meets both.
var quotas = []quota{
	{name: "100 a minute", limit: 100, window: time.Minute, windows: 20},
	perSecond,
}

// Main runs the command and ends the process. A bubble of virtual time needs a
// *testing.T, which testing.Main makes in a program as well.
func Main(args []string) {
	os.Args = os.Args[:1] // testing would look for flags of its own
	testing.Main(func(string, string) (bool, error) { return true, nil }, []testing.InternalTest{{Name: "accuracy", F: func(t *testing.T) {
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		err := command(ctx, t, args, os.Stdout, os.Stderr)
		stop()
		switch {
		case errors.Is(err, flag.ErrHelp):
			os.Exit(2)
		case err != nil:
			fmt.Fprintln(os.Stderr, "accuracy:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}}}, nil, nil)
}

func command(ctx context.Context, test *testing.T, args []string, out, progress io.Writer) error {
	flags := flag.NewFlagSet("accuracy", flag.ContinueOnError)
	flags.SetOutput(progress)
	seed := flags.Uint64("seed", 1, "of all random numbers")
	output := flags.String("output", filepath.Join("bench", "ACCURACY.md"), "file to write; empty: none")
	trace := flags.String("trace", "", "web log in Common Log Format to replay: the address is the key")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("%q is not a flag; try --help", flags.Arg(0))
	}
	tables, note, err := prepare(*seed, *trace)
	if err != nil {
		return err
	}
	r := &report{seed: *seed, note: note, tables: tables}
	if err := r.measure(ctx, test, progress); err != nil {
		return err
	}
	text := r.String()
	if *output != "" {
		if err := os.WriteFile(*output, []byte(text), 0o644); err != nil {
			return err
		}
	}
	_, err = io.WriteString(out, text)
	return err
}

// prepare makes the traffics of both quotas, and of the log if one is named.
func prepare(seed uint64, trace string) (tables []table, note string, err error) {
	var hits []hit
	if trace != "" {
		file, err := os.Open(trace)
		if err != nil {
			return nil, "", err
		}
		defer file.Close()
		skipped := 0
		if hits, skipped, err = readCLF(file); err != nil {
			return nil, "", fmt.Errorf("%s: %w", trace, err)
		}
		note = fmt.Sprintf(" The web log is %s: %d requests, and %d lines that are not in Common Log Format.", filepath.Base(trace), len(hits), skipped)
	}
	for _, q := range quotas {
		all := traffics(q, seed)
		if hits != nil {
			all = append(all, fromLog("web log", hits, q, seed))
		}
		tables = append(tables, table{quota: q, traffics: all})
	}
	return tables, note, nil
}

// subject is who decides about a traffic.
type subject struct {
	name   string
	decide func(test *testing.T, t traffic, q quota) (outcome, error)
	job    func(t traffic, q quota) job // instead of decide: Traefik does it
}

func subjects(s *store, redis string, seed uint64) []subject {
	sluice := func(gates int) func(*testing.T, traffic, quota) (outcome, error) {
		return func(test *testing.T, t traffic, q quota) (outcome, error) {
			return s.sluice(test, t, q, gates, 0, seed)
		}
	}
	traefik := func(redis string, gates int) func(traffic, quota) job {
		return func(t traffic, q quota) job { return newJob(t, q, redis, gates) }
	}
	return []subject{
		{name: machine, decide: func(_ *testing.T, t traffic, q quota) (outcome, error) {
			return outcome{decisions: byTheRule(t, q)}, nil
		}},
		{name: sluice1, decide: sluice(1)},
		{name: sluice3, decide: sluice(gateways)},
		{name: "Traefik in memory, 1", job: traefik("", 1)},
		{name: "Traefik in memory, 3", job: traefik("", gateways)},
		{name: "Traefik + Redis, 3", job: traefik(redis, gateways)},
	}
}

const (
	machine = "the rule, one machine"
	sluice1 = "Sluice, 1 gateway"
	sluice3 = "Sluice, 3 gateways"
)

// measure fills the report. Traefik's part runs in a process of its own
// meanwhile.
func (r *report) measure(ctx context.Context, test *testing.T, progress io.Writer) error {
	binary, err := driver(ctx, progress)
	if err != nil {
		return err
	}
	ours, err := startServer()
	if err != nil {
		return err
	}
	defer ours.stop()
	theirs, err := startServer()
	if err != nil {
		return err
	}
	defer theirs.stop()
	store, err := newStore(ours)
	if err != nil {
		return err
	}
	meter, err := theirs.dial()
	if err != nil {
		return err
	}
	if r.redis, err = meter.version(); err != nil {
		return err
	}

	all := subjects(store, theirs.socket, r.seed)
	jobs := r.jobs(all)
	extra := len(jobs)
	jobs = append(jobs, specialJobs(theirs.socket, r.seed)...)
	done := make(chan error, 1)
	var results []result
	go func() {
		var err error
		results, err = drive(ctx, binary, jobs)
		done <- err
	}()
	outcomes, err := r.decide(ctx, test, all, progress)
	if err := errors.Join(err, <-done); err != nil {
		return err
	}
	if err := checkCalls(meter, jobs); err != nil {
		return err
	}
	r.judge(all, outcomes, results[:extra])
	r.specials, err = store.special(test, results[extra:], r.seed)
	return err
}

// jobs are Traefik's, in the order in which judge takes their results.
func (r *report) jobs(all []subject) (jobs []job) {
	r.each(all, func(t traffic, q quota, s subject) {
		if s.job != nil {
			jobs = append(jobs, s.job(t, q))
		}
	})
	return jobs
}

// decide has the others decide, in that order too.
func (r *report) decide(ctx context.Context, test *testing.T, all []subject, progress io.Writer) (outcomes []outcome, err error) {
	r.each(all, func(t traffic, q quota, s subject) {
		if s.decide == nil || err != nil {
			return
		}
		if err = ctx.Err(); err != nil {
			return
		}
		var o outcome
		if o, err = s.decide(test, t, q); err != nil {
			err = fmt.Errorf("%s, %s, %s: %w", q.name, t.name, s.name, err)
		}
		if s.name == sluice3 {
			fmt.Fprintf(progress, "%s: %s\n", q.name, t.name)
		}
		outcomes = append(outcomes, o)
	})
	return outcomes, err
}

// judge fills the tables with what the decisions are worth.
func (r *report) judge(all []subject, outcomes []outcome, results []result) {
	for i := range r.tables {
		table := &r.tables[i]
		for _, t := range table.traffics {
			exact := exactly(t, table.quota)
			for _, s := range all {
				var o outcome
				if s.job == nil {
					o, outcomes = outcomes[0], outcomes[1:]
				} else {
					o, results = outcome{decisions: results[0].decisions()}, results[1:]
					if s.job(t, table.quota).Redis != "" {
						o.calls = len(o.decisions) // checkCalls
					}
				}
				table.rows = append(table.rows, row{traffic: t.name, subject: s.name, calls: o.calls, score: judge(t, table.quota, exact, o.decisions)})
			}
		}
	}
}

func (r *report) each(all []subject, do func(traffic, quota, subject)) {
	for _, table := range r.tables {
		for _, t := range table.traffics {
			for _, s := range all {
				do(t, table.quota, s)
			}
		}
	}
}

// checkCalls demands that Redis ran Traefik's script once for each request of
// the jobs that use it, which is what the tables then say. The first call of
// each gateway may come twice: Redis does not know the script yet.
func checkCalls(meter *wire, jobs []job) error {
	requests, gates := 0, 0
	for _, j := range jobs {
		if j.Redis != "" {
			requests, gates = requests+len(j.At), gates+j.Gates
		}
	}
	calls, err := meter.scriptCalls()
	if err == nil && (calls < requests || calls > requests+gates) {
		err = fmt.Errorf("of Traefik's script Redis counted %d calls for %d requests, not one for each", calls, requests)
	}
	return err
}
