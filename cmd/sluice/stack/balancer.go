package stack

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"github.com/sluice-gateway/sluice"
	"github.com/sluice-gateway/sluice/cmd/sluice/check"
	"github.com/sluice-gateway/sluice/internal/freeport"
)

// openBalancer puts a balancer in front of several gateways.
func (s *Stack) openBalancer(ctx context.Context) error {
	if s.options.Gateways == 1 {
		return s.awaitFront(ctx, nil)
	}
	shipped, err := sluice.TraefikFile("balancer.yml")
	if err != nil {
		return err
	}
	dynamic, err := sluice.TraefikFile("balancer-dynamic.yml")
	if err != nil {
		return err
	}
	file := filepath.Join(s.work, "balancer-dynamic.yml")
	if err := os.WriteFile(file, dynamic, 0o600); err != nil {
		return err
	}
	pingAddress, err := freeport.Address()
	if err != nil {
		return err
	}
	at := placement{dynamic: file, addresses: map[string]string{
		web: s.options.Listen, webSecure: s.options.ListenTLS, ping: pingAddress,
	}}
	balancer, err := s.startTraefik("balancer", shipped, at, s.childEnv(
		"SLUICE_GATEWAYS_HTTP="+s.list(balancedWeb),
		"SLUICE_GATEWAYS_HTTPS="+s.list(balancedWebSecure),
		"SLUICE_GATEWAYS_PING="+s.list(ping),
		"SLUICE_GATEWAYS_READY="+s.asked,
	))
	if err != nil {
		return err
	}
	s.onClose(func() error { return stopAll([]*process{balancer}) })
	// Until its routes are there it answers 404, or ends TLS, itself.
	if err := await(ctx, balancer.name, balancer, answers(url("http", pingAddress)+check.ReadyPath, http.StatusOK)); err != nil {
		return err
	}
	s.ready.HTTP, s.ready.HTTPS = url("http", s.options.Listen), url("https", s.options.ListenTLS)
	if err := s.awaitFront(ctx, balancer); err != nil {
		return err
	}
	s.watch([]*process{balancer})
	return nil
}

// awaitFront waits until the front door serves over both schemes.
func (s *Stack) awaitFront(ctx context.Context, p *process) error {
	if !s.shipped {
		return nil
	}
	for scheme, address := range map[string]string{"http": s.options.Listen, "https": s.options.ListenTLS} {
		if err := await(ctx, "the front door at "+address, p, s.servesShipped(scheme, address)); err != nil {
			return err
		}
	}
	return nil
}

// Balanced are the addresses at which the gateways expect the balancer, and
// believe its PROXY line, for HTTP; empty with one gateway, which has no balancer.
func (s *Stack) Balanced() (addresses []string) {
	for _, at := range s.addresses {
		if s.options.Gateways > 1 {
			addresses = append(addresses, at[balancedWeb])
		}
	}
	return addresses
}

// list names one entry point of every gateway, as the balancer wants it.
func (s *Stack) list(point string) string {
	var all []string
	for _, addresses := range s.addresses {
		all = append(all, addresses[point])
	}
	return strings.Join(all, ",")
}
