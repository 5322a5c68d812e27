package attacks

import (
	"sync"
	"testing"
)

// results are what RESULTS.md tells.
var results struct {
	mu      sync.Mutex // protects the rest
	classes []outcome
	bites   map[string][]bitten // by wiring
}

func remember(wiring string, line bitten) {
	results.mu.Lock()
	defer results.mu.Unlock()
	if results.bites == nil {
		results.bites = map[string][]bitten{}
	}
	results.bites[wiring] = append(results.bites[wiring], line)
}

// outcome is how one class did on one wiring.
type outcome struct {
	class, source, wiring string

	tried    int
	reached  int      // of them arrived at the service, as they should
	gained   int      // requests beyond a limit
	findings []string // what must not happen and did
}

// report fails the test with what was found.
func (o *outcome) report(t *testing.T) {
	t.Helper()
	t.Logf("%d tried, %d arrived as they should, %d findings", o.tried, o.reached, len(o.findings))
	for i, finding := range o.findings {
		if i == 40 {
			t.Errorf("and %d more", len(o.findings)-i)
			break
		}
		t.Error(finding)
	}
}
