package main

import (
	"math"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

func TestMain(m *testing.M) {
	if os.Getenv(upstreamMark) != "" {
		if err := upstream(); err != nil {
			panic(err)
		}
	}
	os.Exit(m.Run())
}

// Every chain, over real processes, lets pass and refuses what it should, and
// hands the upstream what it should. Nothing is timed.
func TestEveryChainAnswersRight(t *testing.T) {
	if _, err := exec.LookPath("redis-server"); err != nil {
		t.Skip("redis-server is not installed; on Debian: apt-get install redis-server")
	}
	b, err := openBed(t.Context(), 1, compared, chains, os.Stderr)
	if err != nil {
		t.Fatal(err)
	}
	defer b.close()
	if err := b.ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !nginxInstalled() {
		t.Log("nginx with Lua is not installed: make bench-tools")
	}
}

// A run whose answers are not what the chain promises ends the program.
func TestJudge(t *testing.T) {
	pass := chain{name: "fast", answers: allPass, identity: true, ours: true}
	good := seen{Total: 103, RightUser: 103, RequestIDs: 103}
	for _, test := range []struct {
		name  string
		chain chain
		o     outcome
		s     seen
		wrong string
	}{
		{"all right", pass, outcome{Requests: 100}, good, ""},
		{"nothing sent", pass, outcome{}, seen{}, "0 requests"},
		{"one refused", pass, outcome{Requests: 104, Refused: 1}, good, "1 of 104 were refused"},
		{"one lost", pass, outcome{Requests: 104}, good, "104 passed and 103 reached"},
		{"more than were sent", pass, outcome{Requests: 3}, good, "3 passed and 103 reached"},
		{"another's identity", pass, outcome{Requests: 100}, seen{Total: 103, RightUser: 102, RequestIDs: 103}, "102 named the right user"},
		{"a credential", pass, outcome{Requests: 100}, seen{Total: 103, RightUser: 103, RequestIDs: 103, Credentials: 1}, "1 carried a credential"},
		{"no request id", pass, outcome{Requests: 100}, seen{Total: 103, RightUser: 103}, "0 had an X-Request-ID"},
		{"a broken connection", pass, outcome{Requests: 100, Broken: 1}, good, "1 broken"},
		{"denied", chain{answers: allDeny}, outcome{Requests: 9, Refused: 9}, seen{}, ""},
		{"denied and let through", chain{answers: allDeny}, outcome{Requests: 9, Refused: 9}, seen{Total: 1}, "1 reached the upstream"},
		{"one user above the limit", chain{answers: mixed}, outcome{Requests: 9, Refused: 2}, seen{Total: 7, BusiestUser: zipfLimit + 1}, "of one user passed"},
		{"a mix without refusals", chain{answers: mixed}, outcome{Requests: 9}, seen{Total: 9}, "0 of 9 were refused"},
	} {
		err := test.chain.judge(test.o, test.s)
		if (err == nil) != (test.wrong == "") || err != nil && !strings.Contains(err.Error(), test.wrong) {
			t.Errorf("%s: %v", test.name, err)
		}
	}
}

func TestQuantile(t *testing.T) {
	var all []time.Duration
	for i := range 1000 {
		all = append(all, time.Duration(i+1))
	}
	for q, want := range map[float64]time.Duration{0.5: 500, 0.99: 990, 0.999: 999, 1: 1000} {
		if got := quantile(all, q); got != want {
			t.Errorf("%v: %d, want %d", q, got, want)
		}
	}
	if quantile(nil, 0.5) != 0 {
		t.Error("nothing has a median")
	}
}

func TestBootstrap(t *testing.T) {
	even := bootstrap([]float64{2, 2, 2}, geometric)
	if math.Abs(even.middle-2) > 1e-12 || even.low != even.high {
		t.Errorf("three equal rounds: %+v", even)
	}
	spread := bootstrap([]float64{0.8, 1, 1.25}, geometric)
	if math.Abs(spread.middle-1) > 1e-12 || spread.low >= 1 || spread.high <= 1 || spread.low < 0.8 || spread.high > 1.25 {
		t.Errorf("%+v", spread)
	}
}

// Rounds are compared pairwise, not by their means.
func TestRatios(t *testing.T) {
	got := ratios([]sample{{rate: 10}, {rate: 40}}, []sample{{rate: 20}, {rate: 80}, {rate: 1}}, rate)
	if len(got) != 2 || got[0] != 0.5 || got[1] != 0.5 {
		t.Errorf("%v", got)
	}
}

// What a chain adds to the slowest hundredth is told only if bare Traefik itself
// comes out equal twice, and of rounds in which both kept up.
func TestAddedP99(t *testing.T) {
	at := func(times ...time.Duration) map[int][]tail {
		var tails []tail
		for _, p99 := range times {
			tails = append(tails, tail{p99: p99})
		}
		return map[int][]tail{50: tails}
	}
	const ms = time.Millisecond
	for _, test := range []struct {
		again map[int][]tail
		ours  map[int][]tail
		want  string
	}{
		{at(2*ms, 2*ms), at(2*ms, 2*ms), "| 0.00 ms | yes |"},
		{at(2*ms, 2*ms), at(3*ms, 3*ms), "| 1.00 ms | no |"},
		{at(5*ms, 5*ms), at(1*ms, 1*ms), "| -1.00 ms | cannot be told: bare Traefik again adds 3.00 ms |"},
		{at(2*ms, 2*ms), map[int][]tail{50: {{p99: 9 * ms, late: 1}, {p99: 2 * ms}}}, "| 0.00 ms | yes |"},
		{at(2*ms, 2*ms), nil, "| not measured | - |"},
	} {
		r := &results{closed: map[string][]sample{}, open: map[string]map[int][]tail{
			"bare": at(2*ms, 2*ms), "bare-again": test.again, "fast-compiled": test.ours,
		}}
		got := ""
		for _, row := range targets(r, facts{}, compiled) {
			if strings.HasPrefix(row.name, "added p99") {
				got = "| " + row.cells() + " |"
			}
		}
		if !strings.Contains(got, test.want) {
			t.Errorf("%s, want %s", got, test.want)
		}
	}
}

// The report and the chart come out whole from samples of the right shape.
func TestReport(t *testing.T) {
	b := &bed{redis: &server{}, doomed: &server{}}
	b.chains = chains(b)
	r := &results{closed: map[string][]sample{}, open: map[string]map[int][]tail{}}
	for _, c := range b.chains {
		r.closed[c.name] = []sample{{rate: 100}, {rate: 110}}
	}
	r.closed["fast-compiled"] = []sample{{rate: 98}, {rate: 107.8}}
	r.closed["fast-interpreted"] = []sample{{rate: 70}, {rate: 77}}
	r.closed["bare-fastproxy"] = []sample{{rate: 118}, {rate: 129.8}}
	text := report(b, r, facts{rounds: 2, allocations: map[string]float64{"ColdPath/compiled/new_token_and_key": 80, "ColdPath/interpreted/new_token_and_key": 1201}})
	for _, want := range []string{
		"| fast, hot, one limit, against bare | at least 0.97 | 0.98 | yes | at least 0.80 | 0.70 | no |",
		"| allocations (Go benchmark): a new token and key | - | 80 | - | at most 1200 | 1201 | no |",
		"| allocations (Go benchmark): a new key | at most 40 | not measured | - | at most 450 | not measured | - |",
		"bare Traefik 1.18 (1.18 to 1.18) times as fast",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	if svg := chart(b, r); !strings.HasPrefix(svg, "<svg") || !strings.Contains(svg, ">0.98<") {
		t.Errorf("%s", svg)
	}
}

// Of what a Go benchmark allocates its own is not the plugin's.
func TestWithoutOwn(t *testing.T) {
	got := withoutOwn(`goos: linux
BenchmarkHotPath/compiled/auth_and_limits-2         	    2000	      5084 ns/op	    6485 B/op	      20 allocs/op
BenchmarkHotPath/no-op-2                            	    2000	      1384 ns/op	    5632 B/op	      16 allocs/op
BenchmarkColdPath/interpreted/new_key               	    2000	    568111 ns/op	  237967 B/op	    5289 allocs/op
BenchmarkColdPath/interpreted/new_token_and_key     	    2000	    568111 ns/op	  237967 B/op	    6000 allocs/op
BenchmarkColdPath/no-op/new_key                     	    2000	      1384 ns/op	    5632 B/op	      17 allocs/op
`)
	if len(got) != 2 || got["HotPath/compiled/auth_and_limits"] != 4 || got["ColdPath/interpreted/new_key"] != 5272 {
		t.Errorf("%v", got)
	}
}
