package accuracy

import (
	"strings"
	"testing"
	"time"
)

func rowsOf(sluice score) []row {
	sluice.requests = 1000
	return []row{
		{traffic: "x", subject: machine, score: score{requests: 1000, differ: 0.10}},
		{traffic: "x", subject: sluice1, calls: 500, score: sluice},
		{traffic: "x", subject: "Traefik in memory, 1", score: score{requests: 1000, beyond: 77, short: 0.5}},
	}
}

// The paragraph at the head says what the tables say, good or bad.
func TestSummaryTellsTheTruth(t *testing.T) {
	for _, c := range []struct {
		name   string
		sluice score
		says   []string
	}{
		{"all well", score{differ: 0.10}, []string{"decided 1,000 requests", "admitted **0**", "at most 0.00% more", "No key was short", "at most 0.00 points apart"}},
		{"within", score{differ: 0.11, short: 0.004}, []string{"0.40% of its limit (20 a second, x, Sluice, 1 gateway), within the 0.50% that I2 allows", "at most 1.00 points"}},
		{"short", score{differ: 0.09, short: 0.0065}, []string{"**0.65%** of its limit (20 a second, x, Sluice, 1 gateway), more than the 0.50% that I2 allows", "at most 1.00 points"}},
		{"over", score{differ: 0.10, beyond: 3, rule: balance{over: 0.0123}}, []string{"admitted **3**", "at most 1.23% more"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := report{seed: 1, tables: []table{{quota: perSecond, rows: rowsOf(c.sluice)}}}
			text := r.String()
			for _, part := range c.says {
				if !strings.Contains(text, part) {
					t.Errorf("does not say %q:\n%s", part, text[:min(len(text), 1500)])
				}
			}
		})
	}
}

func TestReportHoldsEveryRow(t *testing.T) {
	r := report{seed: 9, redis: "7.0.0", note: " A log of 12 requests.", tables: []table{{quota: perSecond, rows: rowsOf(score{worst: 1.05})}},
		specials: specials{
			paused: []pausedRow{{pause: 2200 * time.Millisecond, sent: 1500, promised: 122, memory: 1000, redis: 999, sluice: 100}},
			skewed: []skewedRow{{skew: time.Millisecond, sent: 6000, promised: 620, redis: 640, rule: 600, sluice: 598}},
		}}
	text := r.String()
	for _, line := range []string{
		"(seed 9)", "## 20 a second", "| x (1000) | " + machine + " |", "|  | Sluice, 1 gateway | 0.00% | 0.00% | 0.00% | 0.00% | 0.00% | 0.00% | 1.05 | 0.50 |",
		"its requests. A log of 12 requests.", "| 2.2s | 1500 | 122 | 1000 | 999 | 100 |", "| 1ms | 6000 | 620 | 640 | 600 | 598 |", "redis-server 7.0.0", "**39** admitted",
	} {
		if !strings.Contains(text, line) {
			t.Errorf("no %q in\n%s", line, text)
		}
	}
}

func TestCommandRefusesWhatItDoesNotKnow(t *testing.T) {
	for _, c := range []struct {
		args []string
		says string
	}{
		{[]string{"--sede=1"}, "-sede"},
		{[]string{"--seed=x"}, "seed"},
		{[]string{"everything"}, `"everything" is not a flag`},
		{[]string{"--trace=testdata/none.log"}, "none.log"},
	} {
		var out strings.Builder
		err := command(t.Context(), t, c.args, &out, &out)
		if err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%v: %v", c.args, err)
		}
	}
}
