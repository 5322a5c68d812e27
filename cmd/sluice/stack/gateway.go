package stack

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/sluice-gateway/sluice"
	"github.com/sluice-gateway/sluice/internal/freeport"
)

// The entry points of traefik/traefik.yml and traefik/balancer.yml.
const (
	web               = "web"
	webSecure         = "websecure"
	balancedWeb       = "balancedweb"
	balancedWebSecure = "balancedwebsecure"
	ping              = "ping"
)

// compiledMark is what the compiled plugin, and nothing else, writes to a
// gateway's log when its first middleware is made (traefik/build).
const compiledMark = "sluice: compiled plugin, source "

// ownRoutesTime is how long a user's own routes get to reach our Redis.
const ownRoutesTime = 2 * time.Second

// openGateways starts all gateways and waits until each answers.
func (s *Stack) openGateways(ctx context.Context) error {
	shipped, err := sluice.TraefikFile("traefik.yml")
	if err != nil {
		return err
	}
	before, err := s.presence.members(ctx)
	if err != nil {
		return err
	}
	var gateways []*process
	s.onClose(func() error { return stopAll(gateways) })
	for i := range s.options.Gateways {
		name := fmt.Sprintf("gateway-%d", i+1)
		at := placement{dynamic: s.options.Dynamic, addresses: map[string]string{}, fastProxy: s.options.FastProxy}
		for _, point := range []string{web, webSecure, balancedWeb, balancedWebSecure, ping} {
			if at.addresses[point], err = freeport.Address(); err != nil {
				return err
			}
		}
		if s.options.Gateways == 1 {
			at.addresses[web], at.addresses[webSecure] = s.options.Listen, s.options.ListenTLS
		} else {
			at.balancer = []string{"127.0.0.1/32"}
		}
		dir := filepath.Join(s.work, name)
		if err := sluice.WritePlugin(sluice.LocalPlugin(dir, sluice.Module)); err != nil {
			return err
		}
		gateway, err := s.startTraefik(name, shipped, at, s.childEnv())
		if err != nil {
			return err
		}
		gateways = append(gateways, gateway)
		s.addresses = append(s.addresses, at.addresses)
		s.ready.Gateways = append(s.ready.Gateways, Gateway{
			HTTP: url("http", at.addresses[web]), HTTPS: url("https", at.addresses[webSecure]), PID: gateway.pid(),
		})
	}
	s.ready.HTTP, s.ready.HTTPS = s.ready.Gateways[0].HTTP, s.ready.Gateways[0].HTTPS
	for i, gateway := range gateways {
		if err := s.awaitGateway(ctx, gateway, s.addresses[i]); err != nil {
			return err
		}
	}
	s.watch(gateways)
	if err := s.awaitHeartbeats(ctx, s.presence.joined(before, len(gateways))); err != nil {
		return err
	}
	return s.proveForm(gateways)
}

// awaitGateway waits until a gateway is ready and, where the routes are ours,
// serves them.
func (s *Stack) awaitGateway(ctx context.Context, gateway *process, addresses map[string]string) error {
	if err := await(ctx, gateway.name, gateway, answers(url("http", addresses[ping])+s.asked, http.StatusOK)); err != nil || !s.shipped {
		return err
	}
	return await(ctx, gateway.name, gateway, s.servesShipped("http", addresses[web]))
}

// awaitHeartbeats waits until Redis has heard of every gateway: then each has
// its connection, and none of its first decisions is made without. A user's own
// routes may use another Redis, another prefix or no plugin at all, so they are
// only given a moment.
func (s *Stack) awaitHeartbeats(ctx context.Context, joined func(context.Context) error) error {
	if s.shipped {
		return await(ctx, "the gateways' heartbeats in Redis", nil, joined)
	}
	moment, cancel := context.WithTimeout(ctx, ownRoutesTime)
	defer cancel()
	_ = await(moment, "", nil, joined)
	return ctx.Err()
}

// proveForm reads from the gateways' logs which form of the plugin runs.
func (s *Stack) proveForm(gateways []*process) error {
	s.ready.Plugin = s.options.Plugin
	for _, gateway := range gateways {
		log, err := os.ReadFile(gateway.log)
		if err != nil {
			return err
		}
		compiled := bytes.Contains(log, []byte(compiledMark))
		wrong := compiled != (s.options.Plugin == Compiled)
		if wrong && (s.shipped || compiled) { // a user's own routes may not use it
			return fmt.Errorf("the plugin should run %s and does not: see %s", s.options.Plugin, gateway.log)
		}
	}
	return nil
}

// servesShipped asks whether the shipped routes are installed.
func (s *Stack) servesShipped(scheme, address string) func(context.Context) error {
	want := http.StatusOK
	if s.options.RedirectHTTP && scheme == "http" {
		want = http.StatusPermanentRedirect
	}
	return routes(url(scheme, address)+"/v1/products", want)
}
