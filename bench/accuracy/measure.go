package accuracy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"testing"
)

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
