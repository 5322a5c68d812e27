package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"time"
)

// sample is one chain in one round.
type sample struct {
	rate    float64 // requests a second
	refused float64 // share

	// Processor time a request, in microseconds.
	gateway, auth, redis, upstream, generator float64

	scripts, commands float64 // of Redis, a request
	mallocs           float64 // of Traefik, a request
	resident          float64 // bytes of the gateway, at the end
}

// policy is what the answer to "who and may they" costs: everything but the
// upstream and the load generator.
func (s sample) policy() float64 { return s.gateway + s.auth + s.redis }

// results are the samples of every chain by round, so that those of one round
// can be compared.
type results struct {
	closed   map[string][]sample
	open     map[string]map[int][]tail // chain -> percent of capacity -> by round
	capacity int                       // bare's, requests a second, as the open loop's generator reaches it
	keyBytes map[string]int64          // by form: MEMORY USAGE of one key of a limit, with its name
	key      string                    // such a key
}

// tail is the latencies of one open loop run.
type tail struct {
	p50, p99, p999 time.Duration
	late           int // not answered within longestAnswer, or with an error: the chain could not keep up
	offered, rate  float64
}

// loads of the open loop, in percent of bare Traefik's capacity.
var loads = []int{25, 50, 75}

// freshRate is how many requests a second are prepared for loads that may not
// repeat one: more than any chain answers of that kind.
const freshRate = 20_000

// measure is what all rounds came to. With an error that came after the closed
// loops there are results still.
func (b *bed) measure(ctx context.Context, rounds, openRounds, seconds int, seed uint64, progress io.Writer) (*results, error) {
	r := &results{closed: map[string][]sample{}, open: map[string]map[int][]tail{}, keyBytes: map[string]int64{}}
	random := rand.New(rand.NewPCG(seed, 2))
	for round := range rounds {
		for _, at := range random.Perm(len(b.chains)) {
			c := b.chains[at]
			s, err := b.closedLoop(ctx, c, seconds)
			if err != nil {
				return nil, err
			}
			r.closed[c.name] = append(r.closed[c.name], s)
			if c.load == zipf {
				if err := b.weighKey(ctx, r, c.gateway); err != nil {
					return nil, err
				}
			}
			fmt.Fprintf(progress, "round %d of %d: %-28s %7.0f a second\n", round+1, rounds, c.name, s.rate)
		}
	}
	if openRounds == 0 {
		return r, nil
	}
	return r, b.openLoops(ctx, r, openRounds, seconds, random, progress)
}

// closedLoop is one run of wrk with all that it cost.
func (b *bed) closedLoop(ctx context.Context, c chain, seconds int) (sample, error) {
	lines, err := b.crowd.requests(c.load, seconds*freshRate)
	if err != nil {
		return sample{}, err
	}
	if err := b.prepare(ctx, c, true); err != nil {
		return sample{}, err
	}
	if c.load != zipf { // whose state is made already, and would change
		warm, err := b.crowd.requests(hot, 0)
		if err != nil {
			return sample{}, err
		}
		if _, err := drive(ctx, b.dir, b.url(c), c.path(), warm, 1); err != nil {
			return sample{}, err
		}
	}
	if err := b.settled(c); err != nil {
		return sample{}, err
	}
	before, err := b.account(ctx, c)
	if err != nil {
		return sample{}, err
	}
	o, err := drive(ctx, b.dir, b.url(c), c.path(), lines, seconds)
	if err != nil {
		return sample{}, err
	}
	after, err := b.account(ctx, c)
	if err != nil {
		return sample{}, err
	}
	if (c.load == newKeys || c.load == newAll) && o.Wrapped > 0 {
		return sample{}, fmt.Errorf("%s: %d new requests a second were too few: %+v", c.name, freshRate, o)
	}
	if err := c.judge(o, after.seen.minus(before.seen)); err != nil {
		return sample{}, err
	}
	n := float64(o.Requests)
	each := func(after, before time.Duration) float64 { return float64((after - before).Microseconds()) / n }
	return sample{
		rate:      o.rate(),
		refused:   float64(o.Refused) / n,
		gateway:   each(after.gateway, before.gateway),
		auth:      each(after.auth, before.auth),
		redis:     each(after.redis, before.redis),
		upstream:  each(after.upstream, before.upstream),
		generator: each(o.cpu, 0),
		scripts:   float64(after.commands.scripts-before.commands.scripts) / n,
		commands:  float64(after.commands.all-before.commands.all) / n,
		mallocs:   (after.mallocs - before.mallocs) / n,
		resident:  after.resident,
	}, nil
}

// settled waits until nothing that the warm-up left under way reaches the
// upstream any more.
func (b *bed) settled(c chain) error {
	last := int64(-1)
	for range 100 {
		all, err := b.counters()
		if err != nil || all[c.name].Total == last {
			return err
		}
		last = all[c.name].Total
		time.Sleep(50 * time.Millisecond)
	}
	return fmt.Errorf("%s: requests of the warm-up still arrive", c.name)
}

// account is the state of every counter.
type account struct {
	gateway, auth, redis, upstream time.Duration

	commands commands
	mallocs  float64
	resident float64
	seen     seen
}

func (b *bed) account(ctx context.Context, c chain) (a account, err error) {
	for _, of := range []struct {
		pids []int
		to   *time.Duration
	}{
		{b.gatewayPIDs(c), &a.gateway},
		{[]int{b.pids["authsvc"]}, &a.auth},
		{[]int{b.pids["redis"]}, &a.redis},
		{[]int{b.pids["upstream"]}, &a.upstream},
	} {
		if *of.to, err = cpuOf(of.pids...); err != nil {
			return a, err
		}
	}
	if a.resident, err = residentOf(b.gatewayPIDs(c)...); err != nil {
		return a, err
	}
	if a.commands, err = redisCommands(ctx, b.redis.client); err != nil {
		return a, err
	}
	if c.gateway != nginx {
		if a.mallocs, err = mallocs(ctx, b.metrics[c.gateway]+"/metrics"); err != nil {
			return a, err
		}
	}
	all, err := b.counters()
	a.seen = all[c.name]
	return a, err
}

// openLoops measures latencies at rates that every chain shares: shares of what
// the same generator gets through bare Traefik.
func (b *bed) openLoops(ctx context.Context, r *results, rounds, seconds int, random *rand.Rand, progress io.Writer) error {
	at := slices.IndexFunc(b.chains, func(c chain) bool { return c.name == "bare" })
	if at < 0 {
		return nil // the filter left out what all is compared with
	}
	bare := b.chains[at]
	lines, err := b.crowd.requests(hot, 0)
	if err != nil {
		return err
	}
	if err := b.prepare(ctx, bare, true); err != nil {
		return err
	}
	r.capacity = unpaced(ctx, b.url(bare)+bare.path(), lines, time.Duration(seconds)*time.Second)
	type run struct {
		chain   chain
		percent int
	}
	var runs []run
	for _, c := range b.chains {
		for _, percent := range loads {
			if c.latency {
				runs = append(runs, run{c, percent})
			}
		}
	}
	var problems []error // of our own chains; what is measured is told all the same
	for round := range rounds {
		for _, i := range random.Perm(len(runs)) {
			c, percent := runs[i].chain, runs[i].percent
			if err := b.prepare(ctx, c, true); err != nil {
				return err
			}
			rate := r.capacity * percent / 100
			// A chain that cannot keep up would only queue: what its closed loop
			// reaches is its end.
			if closed := r.closed[c.name]; len(closed) > 0 && float64(rate) > 0.95*meanRate(closed) {
				continue
			}
			began := time.Now()
			latencies, late, wrong := paced(ctx, b.url(c)+c.path(), lines, rate, time.Duration(seconds)*time.Second)
			if r.open[c.name] == nil {
				r.open[c.name] = map[int][]tail{}
			}
			slices.Sort(latencies)
			t := tail{p50: quantile(latencies, 0.50), p99: quantile(latencies, 0.99), p999: quantile(latencies, 0.999), late: late + wrong,
				offered: float64(rate), rate: float64(len(latencies)) / time.Since(began).Seconds()}
			r.open[c.name][percent] = append(r.open[c.name][percent], t)
			fmt.Fprintf(progress, "latency %d of %d: %-28s at %d%%: %v %v %v\n", round+1, rounds, c.name, percent, t.p50, t.p99, t.p999)
			if wrong > 0 && c.ours {
				problems = append(problems, fmt.Errorf("%s: %d of %d were answered wrong at %d a second", c.name, wrong, len(latencies), rate))
			}
		}
	}
	return errors.Join(problems...)
}

func meanRate(samples []sample) float64 {
	sum := 0.0
	for _, s := range samples {
		sum += s.rate
	}
	return sum / float64(len(samples))
}
