package forms_test

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/internal/redistest"
	"github.com/sluice-gateway/sluice/test/forms"
	"github.com/sluice-gateway/sluice/test/harness"
)

// lies are what a Redis may answer to a reservation, in the right shape: the
// numbers, from what was asked and the time.
var lies = []struct {
	name  string
	reply func(a asked) [9]int64
}{
	{"more than was asked", func(a asked) [9]int64 {
		return [9]int64{a.need + 1000, 0, a.now, a.generation, a.index, a.need + 1000, 0, 0, 0}
	}},
	{"extra without end", func(a asked) [9]int64 {
		return [9]int64{a.need, 1 << 40, a.now, a.generation, a.index, a.need, 0, 0, 0}
	}},
	{"granted and never counted", func(a asked) [9]int64 { return [9]int64{a.need, 0, a.now, a.generation, a.index, 0, 0, 0, 0} }},
	{"granted and counted once for all", func(a asked) [9]int64 {
		return [9]int64{a.need, 0, a.now, a.generation, a.index, max(a.need, a.granted), 0, 0, 0}
	}},
	{"counts below zero", func(a asked) [9]int64 { return [9]int64{a.need, 0, a.now, a.generation, a.index, -1000, 0, -1000, 0} }},
	{"all of it returned", func(a asked) [9]int64 { return [9]int64{a.need, 0, a.now, a.generation, a.index, 1000, 1001, 0, 0} }},
	{"over the limit", func(a asked) [9]int64 { return [9]int64{a.need, 0, a.now, a.generation, a.index, 1000, 0, 0, 0} }},
	{"as many as 64 bits hold", func(a asked) [9]int64 {
		const most = 1<<63 - 1
		return [9]int64{most, most, most, most, most, most, most, most, most}
	}},
	{"another window", func(a asked) [9]int64 { return [9]int64{a.need, 0, a.now, a.generation, a.index + 3, a.need, 0, 0, 0} }},
	{"the year 1970", func(a asked) [9]int64 { return [9]int64{a.need, 0, 5, a.generation, 0, a.need, 0, 0, 0} }},
	{"another day each time", func(a asked) [9]int64 {
		at := a.now + a.turn*86400e6
		return [9]int64{a.need, 0, at, a.generation, at / a.window, a.need, 0, 0, 0}
	}},
	{"zeros", func(asked) [9]int64 { return [9]int64{} }},
}

type asked struct{ window, need, generation, granted, now, index, turn int64 }

// TestRedisThatLies: two gateways, one of each form, share a limit of 70. While
// Redis answers numbers that make no sense each decides alone, by its half, and
// says so; what they admit together is never more than 70.
func TestRedisThatLies(t *testing.T) {
	said := bothForms(t)
	b := newBed(t, forms.Compiled{})
	proxy := redistest.Interpose(t, b.redis.Addr)
	config := forms.FromFile(t, fmt.Sprintf(`
redis: {addresses: [%q], keyPrefix: %s, timeout: 2s}
limits: [{name: all, key: "header:X-Case", limit: 70, window: 1h}]`, proxy.Addr, b.prefix))
	gates := []http.Handler{forms.Compiled{}.New(t, config, b.up), forms.Interpreted{}.New(t, config, b.up)}
	b.redis.AwaitGateways(b.prefix, 2)
	b.redis.Gateways(b.prefix) // each has heard of the other
	b.redis.RoomIn(hour, time.Minute)
	for _, lie := range lies {
		t.Run(lie.name, func(t *testing.T) {
			var turn atomic.Int64
			proxy.Reply(func(words []string) (string, bool) {
				if words[0] != "evalsha" || len(words) < 5 || !strings.Contains(words[3], ":lim:") {
					return "", false
				}
				a := asked{now: time.Now().UnixMicro(), turn: turn.Add(1)}
				asked, err := redistest.ReadAsk(words[4])
				if err != nil {
					return "-ERR " + err.Error() + "\r\n", true
				}
				a.window, a.need, a.generation, a.granted = asked.Window, asked.Need, asked.Seen.Generation, asked.Seen.Granted
				a.index = a.now / a.window
				return "+" + strings.ReplaceAll(fmt.Sprint(lie.reply(a)), " ", ",") + "\r\n", true
			})
			admitted := 0
			for range 100 {
				for _, gate := range gates {
					switch w := ask(gate, with("X-Case", lie.name)); w.Code {
					case http.StatusOK:
						admitted++
					case http.StatusTooManyRequests:
					default:
						t.Fatalf("answered %d", w.Code)
					}
				}
			}
			if admitted > 70 || admitted == 0 {
				t.Errorf("%d of 70 admitted", admitted)
			}
			proxy.Pass()
			for i, gate := range gates {
				harness.Eventually(t, 15*time.Second, "the gateway asks Redis again", func() error {
					probe := fmt.Sprintf("probe-%d-%d", i, b.redis.Now().UnixNano())
					ask(gate, with("X-Case", probe))
					for _, key := range b.keys() {
						if strings.Contains(key, probe) {
							return nil
						}
					}
					return errors.New("it does not")
				})
			}
		})
	}
	if told := said.matching(`ERR sluice: Redis does not count the limits: .*make no sense.*decides alone by its share, 1/2`); len(told) != 2 {
		t.Errorf("said %d times: %q", len(told), told)
	}
}
