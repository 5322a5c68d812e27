package accuracy

import (
	"cmp"
	"slices"
	"sort"
	"time"

	"github.com/sluice-gateway/sluice/plugin/window"
)

// score is what a subject's decisions are worth. Shares are of 1.
type score struct {
	requests  int
	differ    float64 // decisions other than the exact log's
	rateError float64 // mean of |admitted in the last window - by the log| / limit, at each arrival
	log       balance // admissions against the log's
	rule      balance // and against those of the rule, at the instants at which the subject decided
	worst     float64 // the most admitted within one window's length, in limits

	beyond int     // admissions for which the rule had no room, given the subject's own (I1)
	short  float64 // the largest net shortfall of a key against the rule, in limits a window (I2)
}

// balance is the net difference of each key's admissions over the whole
// traffic, added up apart for those with more and those with fewer, as a share
// of what the reference admitted.
type balance struct{ over, under float64 }

func (b *balance) add(net int) {
	if net > 0 {
		b.over += float64(net)
	} else {
		b.under -= float64(net)
	}
}

func (b *balance) share(total int) {
	if total > 0 {
		b.over /= float64(total)
		b.under /= float64(total)
	}
}

func judge(t traffic, q quota, exact, got []decision) score {
	s := score{requests: len(got)}
	differing, byLog, byRule := 0, 0, 0
	distance := 0.0
	for _, indices := range t.byKey {
		if len(indices) == 0 {
			continue
		}
		reference, own := admissions(indices, exact), admissions(indices, got)
		arrived := arrivalsAdmitted(t, indices, got)
		for _, i := range indices {
			if got[i].admitted != exact[i].admitted {
				differing++
			}
			at := t.arrivals[i].at
			distance += float64(abs(within(arrived, at, q.window)-within(reference, at, q.window))) / float64(q.limit)
		}
		for _, at := range own {
			s.worst = max(s.worst, float64(within(own, at, q.window-q.slack()))/float64(q.limit))
		}
		s.beyond += beyondTheRule(own, q)

		allowed := ruleAt(indices, got, q)
		byLog, byRule = byLog+len(reference), byRule+allowed
		s.log.add(len(own) - len(reference))
		s.rule.add(len(own) - allowed)
		s.short = max(s.short, float64(allowed-len(own))/(float64(q.limit)*float64(t.span/q.window)))
	}
	s.differ = float64(differing) / float64(max(1, len(got)))
	s.rateError = distance / float64(max(1, len(got)))
	s.log.share(byLog)
	s.rule.share(byRule)
	return s
}

// admissions are the instants at which those of the given requests were
// admitted that were, in order.
func admissions(indices []int, decisions []decision) []time.Duration {
	var all []time.Duration
	for _, i := range indices {
		if decisions[i].admitted {
			all = append(all, decisions[i].at)
		}
	}
	slices.Sort(all)
	return all
}

// arrivalsAdmitted are the arrivals of those that were admitted: the rate error
// compares decisions and leaves latency out.
func arrivalsAdmitted(t traffic, indices []int, decisions []decision) []time.Duration {
	var all []time.Duration
	for _, i := range indices {
		if decisions[i].admitted {
			all = append(all, t.arrivals[i].at)
		}
	}
	return all
}

// within counts the instants in (at-span, at].
func within(instants []time.Duration, at, span time.Duration) int {
	after := func(limit time.Duration) int {
		return sort.Search(len(instants), func(i int) bool { return instants[i] > limit })
	}
	return after(at) - after(at-span)
}

// slack is by how much two admissions may seem closer than their permits are. What
// is noted of a permit is when its reply was there; a log has the script's instant,
// and is exact to the microsecond in that.
func (q quota) slack() time.Duration {
	if window.Exact(q.limit, window.Span(q.window)) {
		return slowestReply
	}
	return 0
}

// beyondTheRule applies the rule to admissions alone and counts those it had
// no room for.
func beyondTheRule(admitted []time.Duration, q quota) int {
	beyond, w := 0, window.Span(q.window)
	if window.Exact(q.limit, w) {
		for i, at := range admitted[min(len(admitted), int(q.limit)):] {
			if at-admitted[i] < q.window-q.slack() {
				beyond++
			}
		}
		return beyond
	}
	var c window.Counts
	for _, at := range admitted {
		now := q.micros(at)
		c = c.At(now / w)
		if window.Room(c, w, q.limit, now) < 1 {
			beyond++
		}
		c.Granted++
	}
	return beyond
}

// ruleAt is how many of the given requests one machine admits that sees each
// of them at the instant at which it was decided. A request that waited 8 ms
// for Redis may have arrived in another window than it was decided in; that is
// latency and not a decision.
func ruleAt(indices []int, decisions []decision, q quota) int {
	order := slices.Clone(indices)
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(decisions[a].at, decisions[b].at) })
	machine, admitted := counter{quota: q}, 0
	for _, i := range order {
		if machine.admit(decisions[i].at) {
			admitted++
		}
	}
	return admitted
}

func abs(n int) int {
	if n < 0 {
		return -n
	}
	return n
}
