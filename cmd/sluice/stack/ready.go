package stack

import (
	"encoding/json"
	"fmt"
)

// Ready tells where a running stack's parts are. Its JSON is the ready file
// (design: ready-file, design: operator-tokens).
type Ready struct {
	HTTP        string    `json:"http"`  // the front door: the balancer's where there is one
	HTTPS       string    `json:"https"` // likewise
	AuthSvc     string    `json:"authsvc"`
	Admin       string    `json:"admin"`
	AdminToken  string    `json:"adminToken"`
	IssuerToken string    `json:"issuerToken"`
	Redis       string    `json:"redis"`  // host:port
	Plugin      string    `json:"plugin"` // what was seen to run, not what was asked for
	Wiring      string    `json:"wiring"`
	Gateways    []Gateway `json:"gateways"`
}

// Gateway is one Traefik, by its own entry points: those that believe no PROXY
// line (design: client-address).
type Gateway struct {
	HTTP  string `json:"http"`
	HTTPS string `json:"https"`
	PID   int    `json:"pid"`
}

// write puts the file in place whole, readable by its owner alone: it holds the
// tokens of operator and issuer.
func (r Ready) write(name string) error {
	content, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("write the ready file: %w", err)
	}
	if err := replace(name, append(content, '\n')); err != nil {
		return fmt.Errorf("write the ready file: %w", err)
	}
	return nil
}
