package limit

import (
	"errors"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/sluice-gateway/sluice/internal/redistest"
	"github.com/sluice-gateway/sluice/plugin/redis"
	"github.com/sluice-gateway/sluice/plugin/window"
)

const minute = int64(60e6)

// judged is what hear makes of a line that answers ask.
func judged(ask window.Ask, line string) (window.Grant, error) {
	f := &flight{
		limit: ask.Limit, cost: ask.Cost, need: ask.Need, exact: window.Exact(ask.Limit, ask.Window),
		ask: ask, brings: !ask.Owed.Empty(),
	}
	call := &redis.Call{Line: line, Tag: f}
	replies, inbox := make(chan interface{}, 1), make(chan interface{}, 1)
	replies <- call
	close(replies)
	hear(replies, inbox)
	return f.grant, call.Err
}

// spoilt answers make no sense, and are known as such.
func spoilt(t *testing.T, ask window.Ask, now int64, spoils map[string]func(g *window.Grant)) {
	t.Helper()
	good, _ := window.Decide(window.Counts{}, ask, now)
	if _, err := judged(ask, window.Line(&good, ask.Window)); err != nil {
		t.Fatalf("%+v makes no sense", good)
	}
	for name, spoil := range spoils {
		g := good
		g.Counts.Instants = slices.Clone(good.Counts.Instants)
		spoil(&g)
		if _, err := judged(ask, window.Line(&g, ask.Window)); !errors.Is(err, redis.ErrProtocol) {
			t.Errorf("%s: %+v is believed", name, g)
		}
	}
}

func TestAnswersThatMakeNoSense(t *testing.T) {
	ask := window.Ask{
		Window: minute, Limit: 90, Cost: 2, Need: 4, Extra: 10, Instances: 2,
		Seen: window.Counts{Generation: 1, Index: 1000, Granted: 20, Returned: 4, PreviousGranted: 8},
		Owed: window.Settlement{Spent: 2},
	}
	spoilt(t, ask, 1000*minute+5, map[string]func(g *window.Grant){
		"more than was needed":        func(g *window.Grant) { g.Need = 6 },
		"no whole request":            func(g *window.Grant) { g.Need = 3 },
		"more than was wanted":        func(g *window.Grant) { g.Extra = 1000 },
		"less than there is room":     func(g *window.Grant) { g.Need, g.Extra = 0, 0 },
		"negative":                    func(g *window.Grant) { g.Need = -2 },
		"counts below zero":           func(g *window.Grant) { g.Counts.PreviousReturned = -1 },
		"returned what never was":     func(g *window.Grant) { g.Counts.Returned = g.Counts.Granted + 1 },
		"beyond any counter":          func(g *window.Grant) { g.Counts.Granted = 1 << 62 },
		"granted over the limit":      func(g *window.Grant) { g.Counts.Granted = 1000 },
		"forgot what it was told":     func(g *window.Grant) { g.Counts.Granted = 10 },
		"an older generation":         func(g *window.Grant) { g.Counts.Generation = 0 },
		"the window of another time":  func(g *window.Grant) { g.Now += minute },
		"another window":              func(g *window.Grant) { g.Counts.Index++ },
		"before all time":             func(g *window.Grant) { g.Now, g.Counts.Index = -minute, -1 },
		"told again as the last time": func(g *window.Grant) { g.Counts.Granted = ask.Seen.Granted },
		"forgot what it was owed": func(g *window.Grant) {
			g.Counts.Granted -= ask.Owed.Spent
			g.Extra = (90 - g.Counts.Current() - 8 + g.Extra) / 4 / 2 * 2
		},
		"forgot the window before": func(g *window.Grant) { g.Counts.PreviousGranted = 0; g.Need, g.Extra, g.Counts.Granted = 0, 0, 1000 },
		"the log rule's answer":    func(g *window.Grant) { g.Counts.History, g.Counts.Instants = 5, []int64{g.Now} },
		"a log of no history":      func(g *window.Grant) { g.Counts.History = 5 },
		"zeros":                    func(g *window.Grant) { *g = window.Grant{} },
	})
	for _, line := range []string{"", "[]", "[1]", "OK", "1,2,3,4,5,6,7,8,9", "[1,2,3,4,5,6,7,8]", `["1",2,3,4,5,6,7,8,9]`, "[1,2,3,4,5,6,7,8,9", "[1e99,2,3,4,5,6,7,8,9]"} {
		if _, err := judged(ask, line); !errors.Is(err, redis.ErrProtocol) {
			t.Errorf("%q is believed", line)
		}
	}
}

func TestLogsThatMakeNoSense(t *testing.T) {
	now := 1000*minute + 5
	ask := window.Ask{
		Window: minute, Limit: 10, Cost: 2, Need: 4, Instances: 2,
		Seen: window.Counts{
			Generation: 1, Index: 1000, Granted: 2, PreviousGranted: 2,
			History: 7, Instants: []int64{now - 100, now - 50, now - 2, now - 1},
		},
		Owed: window.Settlement{SpentAt: []int64{now - 3}},
	}
	spoilt(t, ask, now, map[string]func(g *window.Grant){
		"more than was needed":      func(g *window.Grant) { g.Need = 6 },
		"no whole request":          func(g *window.Grant) { g.Need = 3 },
		"something set aside":       func(g *window.Grant) { g.Extra = 2; g.Counts.Granted += 2 },
		"less than there is room":   func(g *window.Grant) { g.Need, g.Counts.Granted, g.Counts.Instants = 0, 3, g.Counts.Instants[:5] },
		"the counter rule's answer": func(g *window.Grant) { g.Counts.History, g.Counts.Instants = 0, nil },
		"a history that none has":   func(g *window.Grant) { g.Counts.History = 1e6 + 1 },
		"an instant is missing":     func(g *window.Grant) { g.Counts.Instants = g.Counts.Instants[6:] },
		"all instants are":          func(g *window.Grant) { g.Counts.Instants = nil },
		"granted over the limit":    func(g *window.Grant) { g.Counts.Instants = append([]int64{now - 200, now - 150}, g.Counts.Instants...) },
		"more than any log holds":   func(g *window.Grant) { g.Counts.Instants = append(many(60, now-1000), g.Counts.Instants...) },
		"one counts no more": func(g *window.Grant) {
			g.Now += minute - 100
			g.Counts.Instants = append(g.Counts.Instants[:5], many(4, g.Now)...)
		},
		"out of order":               func(g *window.Grant) { i := g.Counts.Instants; i[0], i[1] = i[1], i[0] },
		"twice the same":             func(g *window.Grant) { g.Counts.Instants[1] = g.Counts.Instants[0] },
		"granted in the past":        func(g *window.Grant) { g.Now += 10 },
		"granted in the far future":  func(g *window.Grant) { copy(g.Counts.Instants[5:], many(4, now+2*minute)) },
		"not granted in one":         func(g *window.Grant) { g.Counts.Instants[8]++ },
		"forgot what it was told":    func(g *window.Grant) { g.Counts.Granted = 5 },
		"forgot what it was owed":    func(g *window.Grant) { g.Counts.PreviousGranted-- },
		"an older generation":        func(g *window.Grant) { g.Counts.Generation = 0 },
		"the window of another time": func(g *window.Grant) { g.Now += minute },
		"zeros":                      func(g *window.Grant) { *g = window.Grant{} },
	})
}

// many are n instants, one after the other.
func many(n int, first int64) (instants []int64) {
	for range n {
		instants = append(instants, first)
		first++
	}
	return instants
}

// Whatever a gateway remembers and owes, and however the limit changes meanwhile,
// what the rule answers makes sense, and is heard as it was meant.
func TestTheRuleIsBelieved(t *testing.T) {
	exact, counted := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		w := rapid.SampledFrom([]int64{1e6, 10e6, 60e6, 31 * 86400e6}).Draw(t, "window")
		now := rapid.Int64Range(1_700_000_000e6, 2_100_000_000e6).Draw(t, "start")
		var stored window.Counts
		ledgers := make([]ledger, 3)
		few := func(name string) int64 { return rapid.Int64Range(0, 5).Draw(t, name) }
		for step := rapid.IntRange(1, 40).Draw(t, "steps"); step > 0; step-- {
			now += rapid.OneOf(rapid.Int64Range(0, 3), rapid.Int64Range(0, w/10), rapid.Int64Range(0, 3*w), rapid.Int64Range(-w/2, 0)).Draw(t, "passed")
			limit := rapid.OneOf(rapid.Int64Range(1, 20), rapid.Int64Range(60, 70), rapid.Int64Range(1, 1000), rapid.Int64Range(1, window.MaxLimit)).Draw(t, "limit")
			cost := rapid.Int64Range(1, min(limit, 5)).Draw(t, "cost")
			l := &ledgers[rapid.IntRange(0, 2).Draw(t, "gateway")]
			for n := few("alone"); n > 0; n-- {
				l.advance(now / w)
				instant := int64(0)
				if window.Exact(limit, w) {
					instant = window.After(l.local.SpentAt, now)
				}
				l.spend(1, instant)
			}
			ask := window.Ask{
				Window: w, Limit: limit, Cost: cost, Need: cost * few("need"), Extra: 0, Instances: 3, Seen: l.seen, Owed: l.owed,
			}
			if !window.Exact(limit, w) {
				ask.Extra = cost * rapid.OneOf(rapid.Int64Range(0, 5), rapid.Int64Range(0, limit/cost)).Draw(t, "extra")
			}
			d := l.depart(w)
			line, kept, _ := redistest.Decide(stored, ask.Word(), now)
			stored = kept
			grant, err := judged(ask, line)
			if err != nil {
				t.Fatalf("%v\nan answer to %+v", err, ask)
			}
			if text := window.Line(&grant, w); text != line {
				t.Fatalf("heard %s of %s", text, line)
			}
			if window.Exact(limit, w) {
				exact++
			} else {
				counted++
			}
			switch rapid.IntRange(0, 3).Draw(t, "end") {
			case 0:
				l.undo(d, w)
			case 1:
				l.uncertain(d)
			default:
				learn(l, &grant.Counts, &d)
				if grant.Need > 0 && rapid.Bool().Draw(t, "goes back") {
					instant := int64(0)
					if n := len(grant.Counts.Instants); n > 0 {
						instant = grant.Counts.Instants[n-1]
					}
					l.owe(grant.Counts.Generation, grant.Counts.Index, 1, instant)
				}
			}
			if rapid.IntRange(0, 15).Draw(t, "forgets") == 0 {
				stored = window.Counts{}
			}
		}
	})
	if exact == 0 || counted == 0 {
		t.Errorf("%d answers by the log, %d by the counter", exact, counted)
	}
}
