// Package admin is the inner listener: it issues tokens and takes them back,
// explains them, shows and resets limits, and has the metrics. It is never
// reachable from outside.
//
// A request to /v1 bears one of two secrets (guard). Who that makes the caller,
// what the request is aimed at and how it ended stands in the log (action.go).
// Tokens are issued and refreshed by package session, judged by package identity
// and taken back in the store (tokens.go); a token is explained with the limits
// that gateways would apply to its user (explain.go, applied.go). Limits and
// gateways are what the gateways' heartbeats say (limits.go).
package admin

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/sluice-gateway/sluice/authsvc/config"
	"github.com/sluice-gateway/sluice/authsvc/identity"
	"github.com/sluice-gateway/sluice/authsvc/internal/task"
	"github.com/sluice-gateway/sluice/authsvc/keys"
	"github.com/sluice-gateway/sluice/authsvc/session"
	"github.com/sluice-gateway/sluice/authsvc/store"
)

// Interface is all that the listener acts upon. Set the fields, then Handler.
type Interface struct {
	Config   *config.Config
	Keys     *keys.Dir
	Judge    *identity.Judge
	Sessions *session.Sessions
	Store    *store.Store
	Tasks    *task.Group // whose panics are counted

	// Admin opens everything, Issuing what a login service needs.
	Admin, Issuing *keys.Secret

	revoked *prometheus.CounterVec
}
