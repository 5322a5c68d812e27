package redistest

import (
	"strconv"
	"strings"

	"github.com/sluice-gateway/sluice/plugin/window"
)

// ReadAsk reads what the limit script is asked with, for who stands in for Redis.
func ReadAsk(word string) (window.Ask, error) {
	asked, rest, _ := strings.Cut(word, "[")
	told, debts, _ := strings.Cut(rest, "]")
	n, err := integers(asked)
	if err != nil {
		return window.Ask{}, err
	}
	n = append(n, make([]int64, 6)...)
	ask := window.Ask{Window: n[0], Limit: n[1], Cost: n[2], Need: n[3], Extra: n[4], Instances: n[5]}
	var seen window.Grant
	if told != "" {
		if !window.ReadLine("["+told+"]", ask.Window, &seen) {
			return window.Ask{}, strconv.ErrSyntax
		}
		ask.Seen = seen.Counts
	}
	d, err := integers(debts)
	if err != nil || len(d) == 0 {
		return ask, err
	}
	ask.Seen = ask.Seen.At(d[0])
	ask.Owed = window.Settlement{
		Spent: d[1], PreviousSpent: d[2], Returned: d[3], PreviousReturned: d[4],
		SpentAt: d[6 : 6+d[5]], ReturnedAt: d[6+d[5]:],
	}
	return ask, nil
}

// Decide is the limit script, for who stands in for Redis.
func Decide(stored window.Counts, word string, now int64) (line string, kept window.Counts, changed bool) {
	ask, err := ReadAsk(word)
	if err != nil {
		panic(err)
	}
	grant, changed := window.Decide(stored, ask, now)
	if !changed {
		return window.Line(&grant, ask.Window), stored, false
	}
	return window.Line(&grant, ask.Window), grant.Counts, true
}

func integers(text string) ([]int64, error) {
	var all []int64
	for _, field := range strings.Fields(text) {
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return nil, err
		}
		all = append(all, n)
	}
	return all, nil
}
