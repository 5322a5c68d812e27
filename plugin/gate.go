package plugin

import (
	"net/http"
	"net/netip"
	"sync/atomic"

	"github.com/sluice-gateway/sluice/plugin/config"
	"github.com/sluice-gateway/sluice/plugin/limit"
)

// gate is the middleware on one router. It holds no state of its own: what
// changes lives in shared.go, once for all routers.
type gate struct {
	next http.Handler

	stripped        []string
	address         config.AddressSettings
	auth            *config.AuthSettings
	userHeader      string
	trustUserHeader bool
	decisions       *decisions

	backend       *backend
	engine        *limit.Engine
	policy        limit.Policy
	rules         []*limitRule // in configured order, those that are asked whoever comes
	clientLimits  []*limitRule // of them those that need no identity, and are asked before it
	unknownLimits []*limitRule // clientLimits, and those that count the gate's judgement alone
	exemptIPs     []netip.Prefix
	exemptUsers   map[string]bool

	dryRun        bool
	legacyHeaders bool
	vouched       bool // trusted proxies may name a request
	disarms       bool // the credential stays here

	// By what passes are found (pass.go).
	open      *pass    // of all requests, where there is nothing to find out
	kind      string   // of the passes; then by the credential,
	byAddress bool     // the client's address
	inputs    []string // and other headers
	memory    *memory

	judges   bool          // it has to be found out who asks
	allowed  *atomic.Int64 // requests that got through, but for those of decisions.passed
	quiet    atomic.Int64  // answers that left our headers alone (response.go)
	uncalled atomic.Int64  // requests that nobody limits nor judges
}
