package identity

import (
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sluice-gateway/sluice/authsvc/token"
)

// claimHeader is a claim that becomes a header.
type claimHeader struct{ claim, header string }

// claimHeaders are the mapped claims in the order of their names, so that the
// same ones are left out every time when not all fit.
func claimHeaders(mapped map[string]string) (all []claimHeader) {
	for _, claim := range slices.Sorted(maps.Keys(mapped)) {
		if header := mapped[claim]; header != "" {
			all = append(all, claimHeader{claim, header})
		}
	}
	return all
}

// maxHeaders bounds all headers of one token that claims become: gateways keep
// them in memory for each token, and many a service takes no more than 8 KiB
// of headers altogether.
const maxHeaders = 2 * token.MaxHeaderText

// claimsLeftOut counts claims that could not become headers, and says so once
// a minute for each claim of each issuer. Neither shows a value: it is
// somebody's name.
type claimsLeftOut struct {
	log   *slog.Logger
	total *prometheus.CounterVec

	mu     sync.Mutex // protects what follows
	recent map[[2]string]*sayings
}

// sayings is when the log spoke of one claim last, and of how many since.
type sayings struct {
	last  time.Time
	since int
}

const claimsSay = time.Minute

func newClaimsLeftOut(log *slog.Logger) *claimsLeftOut {
	return &claimsLeftOut{
		log: log, recent: make(map[[2]string]*sayings),
		total: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "authsvc_claims_left_out_total", Help: "Tokens with a claim that cannot be a header and was left out, by issuer and claim.",
		}, []string{"issuer", "claim"}),
	}
}

func (l *claimsLeftOut) report(issuer, claim, header string, reason error) {
	l.total.WithLabelValues(issuer, claim).Inc()
	l.mu.Lock()
	defer l.mu.Unlock()
	said := l.recent[[2]string{issuer, claim}]
	if said == nil {
		said = new(sayings)
		l.recent[[2]string{issuer, claim}] = said
	}
	said.since++
	if time.Since(said.last) < claimsSay {
		return
	}
	l.log.Warn("claim left out: it cannot be a header as it is; the token counts without it (claimEncoding: percent encodes it, claims: drops it)",
		"issuer", issuer, "claim", claim, "header", header, "reason", reason, "tokens", said.since)
	said.last, said.since = time.Now(), 0
}
