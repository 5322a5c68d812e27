package faults

import (
	"fmt"
	"net/http"
	"sort"
	"strings"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/test/harness"
)

// State is what the gateways are doing when the fault begins.
type State string

// Cold gateways start into the fault. Warm ones have served, know the hot key
// and are at rest; requests come once the fault is there. Under load they
// never stop.
const (
	Cold  State = "cold"
	Warm  State = "warm"
	Under State = "under load"
)

// States are all three.
var States = []State{Cold, Warm, Under}

// Pace is how long a cell's phases last and how much traffic there is.
type Pace struct {
	Form    string        // of the plugin: compiled (the default) or interpreted
	Timeout time.Duration // redis.timeout
	Before  time.Duration // load before the fault (under load)
	Lasts   time.Duration // the fault
	After   time.Duration // load after everything has recovered
	Rate    int           // requests a second and gateway with a key each
	Hot     int           // and of the hot key
}

// warmth is how often each gateway uses the hot key before a fault that finds
// it warm: a little more than half of the limit in all.
const warmth = 11

// Outcome is what one cell showed.
type Outcome struct {
	Kind  *Kind
	State State
	Pace  Pace

	Requests int
	Lost     int // without answer, or 5xx

	Usual time.Duration // median of the requests before the fault and after recovery
	Worst time.Duration // longest of all since the fault began, less what the machine stalled
	Stall time.Duration // the longest stall of the machine in any gateway

	Paid    int // requests that waited for a timeout
	Dearest int // of those, at the gateway that made most pay
	Late    int // of those, who arrived after the third timed-out call of the trial (judgePayers)

	Needs      int // reservations that Redis ran
	Most       int // for one and the same request, at most
	Unaccepted int // ran, and their gateway did not learn of it in time: counted twice, never too little

	Outage   int // admitted of the hot key's limit until the fault ended
	Admitted int // and until everything had recovered
	Alone    int // decisions without Redis, where a fault leaves it granting

	Memory uint64 // allocated by a gateway for one request and its hostile reply

	Recovery time.Duration // until every gateway reserves at Redis again
	Reported bool          // all that was admitted counts in Redis
	Short    int           // permits of the hot key that do not count, of those admitted
	Exact    bool          // a fresh key admits exactly its limit
	Remarks  []string

	Before []string // promises about time that it broke when it was measured beside another cell
}

// String is the outcome in one line.
func (o *Outcome) String() string {
	return fmt.Sprintf("%s: lost %d of %d, worst %v over %v, stall %v; paid %d, late %d; %d needs, executed at most %d times, %d unaccepted; hot key %d, then %d, %d not counted; memory %d; recovery %v",
		o.name(), o.Lost, o.Requests, o.Worst, o.Usual, o.Stall, o.Paid, o.Late, o.Needs, o.Most, o.Unaccepted, o.Outage, o.Admitted, o.Short, o.Memory, o.Recovery)
}

// name is the cell's.
func (o *Outcome) name() string {
	name := o.Kind.Name + ", " + string(o.State)
	if o.Pace.Form == asInterpreted {
		name += ", interpreted"
	}
	return name
}

// Added is the worst that the fault added to a request.
func (o *Outcome) Added() time.Duration { return max(0, o.Worst-o.Usual) }

// MostAdmitted is what may be admitted of the hot key's limit (design: fallback-share): the
// limit by Redis's count and the limit by the shares, whatever happens; and
// the limit alone while the fault lasts, where every gateway knew the key and
// Redis grants nothing beside the shares.
//
// Where Redis goes on granting, the limit alone is due (I1), but for decisions
// that were made without it after all. A Redis that forgets meanwhile is told
// again by one gateway after the other; what it grants until the best informed
// has spoken is absorbed by that one's larger number (design: merge-by-maximum). In a failover
// there is a time at which nobody grants, and one at which some gateways have
// reported and others have not: the general bound is all that is promised.
func (o *Outcome) MostAdmitted() (outage, total int) {
	outage, total = 2*hotLimit, 2*hotLimit
	switch {
	case o.Kind.grants():
		most := hotLimit + o.Alone
		if o.Kind.Forgets {
			most += lag
		}
		outage = min(outage, most)
		total = outage
	case o.State == Warm && !o.Kind.Serves:
		outage = hotLimit + unseen
	}
	return outage, total
}

// LeastAdmitted is what has to be admitted until the fault ends: a gateway that
// refused everything would keep every upper bound. There are far more requests
// than permits. Each gateway rounds its part of the usage it knows up, and takes
// for used what another held in a lease that died.
//
// A busy machine can break it: what a gateway admits without Redis before the
// fault counts against its share in full, and a grant that comes after its
// request was decided alone counts twice.
func (o *Outcome) LeastAdmitted() int {
	if o.State == Cold || o.Kind.Serves {
		return hotLimit
	}
	return hotLimit - 2*gateways
}

// unseen is what warm leaves unknown to a gateway: the permits that the others
// took after it asked last.
const unseen = gateways - 1

// lag is what a Redis that forgot may grant twice: for each gateway but the best
// informed, what the others took since it asked last, of 50 ms a lease of four
// permits each at the hot key's rate.
const lag = (gateways - 1) * (gateways - 1) * 4

// memoryBound is what one hostile reply may cost, where the plugin is compiled:
// Yaegi takes more for any request.
const memoryBound = 64 << 10

// Broken lists the promises that do not depend on the machine and that this
// cell broke.
func (o *Outcome) Broken() []string {
	var broken []string
	demand := func(holds bool, format string, args ...any) {
		if !holds {
			broken = append(broken, fmt.Sprintf(format, args...))
		}
	}
	outage, total := o.MostAdmitted()
	demand(o.Lost == 0, "%d of %d requests lost", o.Lost, o.Requests)
	demand(o.Late == 0, "%d requests waited that arrived after the third timed-out call", o.Late)
	demand(o.Needs > 0 && (o.Most == 1 || o.Kind.Over == overSentinel), "a reservation was executed %d times", o.Most)
	demand(o.Outage <= outage, "%d admitted during the fault, at most %d are due", o.Outage, outage)
	demand(o.Admitted <= total, "%d admitted in all, at most %d are due", o.Admitted, total)
	demand(o.Recovery >= 0, "no recovery")
	demand(o.Reported || o.Kind.Forgets, "what was admitted is not counted")
	demand(o.Exact, "limits are not exact again")
	demand(o.Memory <= memoryBound || o.Pace.Form == asInterpreted, "a hostile reply made the gateway allocate %d bytes", o.Memory)
	if len(broken) > 0 {
		broken = append(broken, o.Remarks...)
	}
	return broken
}

func (o *Outcome) remark(format string, args ...any) {
	o.Remarks = append(o.Remarks, fmt.Sprintf(format, args...))
}

// run is one fault in one state.
func run(t testing.TB, kind *Kind, state State, pace Pace) *Outcome {
	b := newBed(t, pace.Timeout, kind)
	b.lasts = pace.Lasts
	b.setup.Form = pace.Form
	o := &Outcome{Kind: kind, State: state, Pace: pace}

	load := func() {
		for i, g := range b.gateways {
			hot := Stream{Route: routeHot, Key: hotKey, Rate: pace.Hot}
			if state == Under { // the limit is to be near, not reached, when the fault begins
				hot.Delay = pace.Before * 4 / 5
			}
			g.Start(Stream{Route: routeOwn, Key: fmt.Sprintf("g%d-", i), EachOwn: true, Rate: pace.Rate}, hot)
		}
	}
	warmed := 0
	alone := int64(0) // before the fault, when nobody was connected yet
	if state != Cold {
		b.open()
		b.connected()
		warmed = b.warm()
		if kind.grants() {
			alone = b.degraded()
		}
	}
	if state == Under {
		load()
		time.Sleep(pace.Before)
	}
	began := time.Now()
	kind.start(b)
	if state == Cold {
		b.open()
	}
	if kind.Hostile && state == Warm {
		// Alone, so that what is allocated is this one reply's doing.
		o.Memory = b.gateways[0].Fire(Volley{Route: routeOwn, Key: "hostile", Count: 1}).Allocated
	}
	if state != Under {
		load()
	}
	time.Sleep(pace.Lasts)
	ended := time.Now()
	b.ledger.awaitFirst()
	if b.topology != nil {
		b.topology.settle()
		ended = time.Now()
	}
	kind.stop(b)
	b.recover(o, ended)
	time.Sleep(pace.After)

	var all []Record
	for i, g := range b.gateways {
		traffic := g.End()
		o.Stall = max(o.Stall, traffic.Longest)
		o.Lost += traffic.Pending
		o.judgePayers(b.ledger.trialsOf(i), traffic.Records, pace.Timeout, began)
		all = append(all, traffic.Records...)
	}
	if kind.grants() {
		o.Alone = int(b.degraded() - alone)
	}
	o.judge(all, began, ended, pace, warmed)
	b.reported(o, all, warmed)
	b.exact(o)
	return o
}

// warm has every gateway use the hot key in turn, and returns how often. At the
// end nothing lies in leases any more, and each gateway knows of all uses but
// those after its own last one.
func (b *bed) warm() int {
	used := 0
	rest := func() {
		harness.Eventually(b.t, 5*time.Second, "the hot key at rest", func() error {
			if counted := b.counters()[b.redisKey(routeHot, hotKey)].used(); counted != int64(used) {
				return fmt.Errorf("%d count, %d were used", counted, used)
			}
			return nil
		})
	}
	for range warmth {
		for i, g := range b.gateways {
			if h := g.Fire(Volley{Route: routeHot, Key: hotKey, Count: 1}); h.Admitted != 1 {
				b.t.Errorf("gateway %d while warming: %+v", i, h)
			}
			used++
		}
	}
	rest()
	for _, g := range b.gateways { // from nothing, so that each has to ask
		used += g.Fire(Volley{Route: routeHot, Key: hotKey, Count: 1}).Admitted
	}
	rest()
	return used
}

// recover measures how long it takes until every gateway decides with Redis.
func (b *bed) recover(o *Outcome, ended time.Time) {
	deadline := ended.Add(30 * time.Second)
	for time.Now().Before(deadline) {
		if b.proxies == nil {
			if b.settled() {
				o.Recovery = time.Since(ended)
				return
			}
		} else if took, ok := b.ledger.recovered(); ok {
			o.Recovery = took
			return
		}
		time.Sleep(2 * time.Millisecond)
	}
	o.Recovery = -1
	o.remark("not every gateway recovered within 30 s")
}

// settled asks each gateway for a request with a key of its own and looks
// whether Redis has counted it at once, as a reservation would.
func (b *bed) settled() bool {
	at := time.Now().UnixNano()
	for i, g := range b.gateways {
		g.Fire(Volley{Route: routeOwn, Key: fmt.Sprintf("settled%d-%d", i, at), Count: 1})
	}
	counters := b.counters()
	for i := range b.gateways {
		if counters[b.redisKey(routeOwn, fmt.Sprintf("settled%d-%d", i, at))].granted == 0 {
			return false
		}
	}
	beats, err := b.beats()
	return err == nil && len(beats) == len(b.gateways)
}

// judgePayers counts who of one gateway waited for a timeout, and who of those
// did though three calls had timed out before and nothing had told the gateway
// since that Redis is well. Every request of the own keys is a call of its own.
//
// A new connection and an answer in time both begin the count anew, since both
// do so for a breaker: where a heartbeat is answered between reservations that
// are not, nobody can tell a sick Redis from a busy one. What that may cost in
// all is bounded by mostPaid.
func (o *Outcome) judgePayers(trials []time.Time, records []Record, timeout time.Duration, began time.Time) {
	var payers []Record
	for _, r := range records {
		if r.Stream == 0 && r.End().After(began) && r.Net >= timeout*9/10 {
			payers = append(payers, r)
		}
	}
	o.Paid += len(payers)
	o.Dearest = max(o.Dearest, len(payers))
	sort.Slice(payers, func(i, k int) bool { return payers[i].End().Before(payers[k].End()) })
	for i := range payers {
		ended := 0 // before this one arrived, in the same trial
		for k := 0; k < i; k++ {
			if payers[k].End().Before(payers[i].Start) && !anyBetween(trials, payers[k].Start, payers[i].Start) {
				ended++
			}
		}
		if ended >= 3 && o.told() {
			o.Late++
		}
	}
}

// told tells whether the ledger knows all that the gateways were told, and when:
// over Sentinel and Cluster there is no proxy, what a fault says of its own accord
// may be taken for an answer, and the interpreter takes a timeout by itself now and
// then.
func (o *Outcome) told() bool {
	return o.Kind.Over == overOne && !o.Kind.Speaks && o.Pace.Form != asInterpreted
}

func anyBetween(all []time.Time, from, to time.Time) bool {
	for _, at := range all {
		if at.After(from) && at.Before(to) {
			return true
		}
	}
	return false
}

// judge adds up what the clients saw.
func (o *Outcome) judge(all []Record, began, ended time.Time, pace Pace, warmed int) {
	var usual []time.Duration
	o.Requests = len(all)
	o.Outage, o.Admitted = warmed, warmed
	for _, r := range all {
		if r.Status == 0 || r.Status >= 500 {
			o.Lost++
		}
		if r.Stream == 0 && r.Status == http.StatusTooManyRequests {
			o.remark("a key's first request was denied")
		}
		if r.Stream == 1 && r.Status == http.StatusOK {
			o.Admitted++
			if r.Start.Before(ended) {
				o.Outage++
			}
		}
		if !r.End().Before(began) { // what recovery costs is the fault's doing too
			o.Worst = max(o.Worst, r.Net)
		}
		if r.End().Before(began) || r.Start.After(ended.Add(max(o.Recovery, 0))) {
			usual = append(usual, r.Took)
		}
	}
	if len(usual) > 0 {
		sort.Slice(usual, func(i, k int) bool { return usual[i] < usual[k] })
		o.Usual = usual[len(usual)/2]
	}
	if len(o.Remarks) > 3 {
		o.Remarks = append(o.Remarks[:3], fmt.Sprintf("and %d more", len(o.Remarks)-3))
	}
}

// patience is how long reports may take. A key whose report failed is tried again
// a second later, and on a busy machine that may fail too; what has not arrived
// by then is lost.
const patience = time.Minute

// forgotten is how long they may take where Redis forgets: what it has forgotten
// and no gateway has reason to tell it again never comes.
const forgotten = 5 * time.Second

// reported waits until Redis has counted what the gateways admitted, and
// compares the executions of every request.
func (b *bed) reported(o *Outcome, all []Record, warmed int) {
	hot := b.redisKey(routeHot, hotKey)
	admitted := map[string]int64{}
	for _, r := range all {
		if r.Status == http.StatusOK {
			route := routeOwn
			if r.Stream == 1 {
				route = routeHot
			}
			admitted[b.redisKey(route, r.Key)]++
		}
	}
	admitted[hot] += int64(warmed)
	var counters map[string]counter
	began := time.Now()
	deadline := began.Add(patience)
	if o.Kind.Forgets {
		deadline = began.Add(forgotten)
	}
	for {
		counters = b.counters()
		missing, example := 0, ""
		for key, n := range admitted {
			// Where nothing proves whether a call has run, a gateway tells what
			// it knows, again, and Redis takes the larger number: of a key
			// that others use meanwhile some may be lost that way.
			if counters[key].used() < n && (key != hot || !o.Kind.doubtful(o.State)) {
				missing++
				example = fmt.Sprintf("%s: %d of %d", key, counters[key].used(), n)
			}
		}
		o.Short = int(max(0, admitted[hot]-counters[hot].used()))
		if missing == 0 {
			o.Reported = true
			break
		}
		if time.Now().After(deadline) {
			o.remark("%d keys do not count in full after %v, such as %s", missing, time.Since(began).Round(time.Second), example)
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	for key, n := range admitted {
		if strings.Contains(key, ":"+routeOwn+":") && counters[key].used() > n {
			o.Unaccepted++
		}
	}
	b.ledger.mu.Lock()
	defer b.ledger.mu.Unlock()
	if b.proxies == nil {
		o.Needs = len(admitted) - 1
		for key, n := range admitted {
			if strings.Contains(key, ":"+routeOwn+":") {
				o.Most = max(o.Most, int(counters[key].used()/n))
			}
		}
		return
	}
	for call, n := range b.ledger.executions {
		if strings.Contains(call, ":"+routeOwn+":") {
			o.Needs++
			o.Most = max(o.Most, n)
		}
	}
}

// exact has all gateways fight for a fresh key: exactly its limit is admitted,
// unless the machine is so busy that a decision was made without Redis.
func (b *bed) exact(o *Outcome) {
	o.Exact = b.volley(Volley{Route: routeExact, Key: "fresh", Count: hotLimit}) == hotLimit
	const tries = 4
	for try := 0; try < tries && !o.Exact; try++ {
		key := fmt.Sprintf("fresh%d", try)
		before := b.degraded()
		admitted := b.volley(Volley{Route: routeExact, Key: key, Count: hotLimit})
		if o.Exact = admitted == hotLimit; o.Exact {
			return
		}
		if after := b.degraded(); after == before {
			o.remark("a fresh key admitted %d of %d with no decision degraded", admitted, hotLimit)
			return
		}
	}
	if !o.Exact {
		o.remark("a fresh key was never counted without a degraded decision")
	}
}

// volley sends the same volley from every gateway at once and adds up who was
// admitted.
func (b *bed) volley(v Volley) int {
	hits := make(chan Hits, gateways)
	for _, g := range b.gateways {
		go func() {
			var h Hits
			if err := g.try("Fire", v, &h); err != nil {
				b.t.Error(err)
			}
			hits <- h
		}()
	}
	admitted := 0
	for range b.gateways {
		admitted += (<-hits).Admitted
	}
	return admitted
}
