package stack

import (
	"context"
	"fmt"
	"net/http"

	"github.com/sluice-gateway/sluice/services/orders"
	"github.com/sluice-gateway/sluice/services/products"
	"github.com/sluice-gateway/sluice/services/users"
)

// anyLoopback lets the kernel choose the port of a part that is reached by its
// address in the ready file or in a child's environment.
const anyLoopback = "127.0.0.1:0"

// openServices starts the three services in this process. They trust whoever
// reaches them for who the user is, so they listen on loopback alone.
func (s *Stack) openServices(ctx context.Context) error {
	catalogue, err := products.Open(ctx, products.Config{Listen: anyLoopback, Log: s.log})
	if err != nil {
		return err
	}
	s.onClose(catalogue.Close)
	people, err := users.Open(ctx, users.Config{Listen: anyLoopback, Admin: s.ready.Admin, IssuerToken: s.ready.IssuerToken, Log: s.log})
	if err != nil {
		return err
	}
	s.onClose(people.Close)
	buying, err := orders.Open(ctx, orders.Config{Listen: anyLoopback, Products: url("http", catalogue.Addr()), Log: s.log})
	if err != nil {
		return err
	}
	s.onClose(buying.Close)
	for name, address := range map[string]string{
		"SLUICE_USERS": people.Addr(), "SLUICE_PRODUCTS": catalogue.Addr(), "SLUICE_ORDERS": buying.Addr(),
	} {
		if err := await(ctx, name, nil, answers(url("http", address)+"/healthz", http.StatusOK)); err != nil {
			return err
		}
		s.env = append(s.env, fmt.Sprintf("%s=%s", name, url("http", address)))
	}
	return nil
}

// announce writes the ready file, last of all.
func (s *Stack) announce(context.Context) error {
	if s.options.ReadyFile == "" {
		return nil
	}
	return s.ready.write(s.options.ReadyFile)
}
