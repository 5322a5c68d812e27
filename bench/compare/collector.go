package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
)

// collector is one setting of Go's garbage collector. The limit is what a
// container with a limit of 1 GiB would be given.
type collector struct {
	name string
	env  []string
}

// collectors begin with the default, and with it again: what the second differs
// from the first is the noise.
var collectors = []collector{
	{"100", []string{"GOGC=100", "GOMEMLIMIT=off"}},
	{"100 again", []string{"GOGC=100", "GOMEMLIMIT=off"}},
	{"200", []string{"GOGC=200", "GOMEMLIMIT=800MiB"}},
	{"400", []string{"GOGC=400", "GOMEMLIMIT=800MiB"}},
}

// collected are the chains that tell: what most requests are, and what
// allocates most.
var collected = []string{"bare", "fast-three", "fast-new"}

// compareCollectors runs each form's chains on a gateway for each setting, in
// pairs with the default's of the same round.
func compareCollectors(ctx context.Context, rounds, seconds int, seed uint64, out, progress io.Writer) error {
	of := func(form, chain, setting string) string {
		return strings.ReplaceAll(fmt.Sprintf("%s-%s-%s", chain, form, setting), " ", "-")
	}
	var gateways []traefik
	for _, form := range []string{compiled, interpreted} {
		for _, s := range collectors {
			gateways = append(gateways, traefik{name: of(form, "gateway", s.name), form: form, env: s.env})
		}
	}
	b, err := openBed(ctx, seed, gateways, func(b *bed) (all []chain) {
		for _, c := range chains(b) {
			name := strings.TrimSuffix(c.name, "-"+c.gateway)
			if !slices.Contains(collected, name) {
				continue
			}
			for _, s := range collectors {
				one := c
				one.name, one.gateway = of(c.gateway, name, s.name), of(c.gateway, "gateway", s.name)
				all = append(all, one)
			}
		}
		return all
	}, progress)
	if err != nil {
		return err
	}
	defer b.close()
	if err := b.ready(ctx); err != nil {
		return err
	}
	r, err := b.measure(ctx, rounds, 0, seconds, seed, progress)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "%d rounds of %d s, pairs with GOGC=100 of the same round; memory is the gateway's resident set at the end of a run.\n\n", rounds, seconds)
	fmt.Fprintf(out, "| chain | GOGC | throughput | processor time | memory |\n|---|---|--:|--:|--:|\n")
	for _, form := range []string{compiled, interpreted} {
		for _, name := range collected {
			first := r.closed[of(form, name, collectors[0].name)]
			for _, s := range collectors {
				samples := r.closed[of(form, name, s.name)]
				if len(samples) == 0 {
					continue // bare Traefik has one form
				}
				var memory []float64
				for _, sample := range samples {
					memory = append(memory, sample.resident/(1<<20))
				}
				fmt.Fprintf(out, "| %s, %s | %s | %s | %s | %.0f MiB |\n", name, form, s.name,
					span(bootstrap(ratios(samples, first, rate), geometric)), span(bootstrap(ratios(samples, first, gatewayTime), geometric)), median(memory))
			}
		}
	}
	return nil
}

func gatewayTime(s sample) float64 { return s.gateway }
