// Command upstream runs one of the three upstream services in its own process,
// for a container:
//
//	upstream --service=users|products|orders [--listen=:8000]
//
// Every flag has an environment variable for its default; UPSTREAM_ISSUER_TOKEN
// has no flag, because a command line can be read by every process beside it.
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/sluice-gateway/sluice/services/orders"
	"github.com/sluice-gateway/sluice/services/products"
	"github.com/sluice-gateway/sluice/services/users"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Getenv, os.Stdout); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "upstream:", err)
		os.Exit(1)
	}
}

// options are what flags and environment say.
type options struct {
	service, listen string
	admin, products string
	issuerTokenFile string
	issuerToken     string
	healthcheck     bool
}

func run(ctx context.Context, arguments []string, getenv func(string) string, stdout io.Writer) error {
	var o options
	flags := flag.NewFlagSet("upstream", flag.ContinueOnError)
	flags.StringVar(&o.service, "service", getenv("UPSTREAM_SERVICE"), "users, products or orders (UPSTREAM_SERVICE)")
	flags.StringVar(&o.listen, "listen", cmp.Or(getenv("UPSTREAM_LISTEN"), ":8000"), "address to listen on (UPSTREAM_LISTEN)")
	flags.StringVar(&o.admin, "admin", getenv("UPSTREAM_ADMIN"), "users: base URL of authsvc's admin listener (UPSTREAM_ADMIN)")
	flags.StringVar(&o.issuerTokenFile, "issuerTokenFile", getenv("UPSTREAM_ISSUER_TOKEN_FILE"), "users: file with the issuer token, instead of UPSTREAM_ISSUER_TOKEN (UPSTREAM_ISSUER_TOKEN_FILE)")
	flags.StringVar(&o.products, "products", getenv("UPSTREAM_PRODUCTS"), "orders: base URL of the product service (UPSTREAM_PRODUCTS)")
	flags.BoolVar(&o.healthcheck, "healthcheck", false, "ask the service that listens here how it is, and exit 0 or 1")
	if err := flags.Parse(arguments); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q; options begin with --", flags.Arg(0))
	}
	if o.healthcheck {
		return healthcheck(ctx, o.listen)
	}
	o.issuerToken = getenv("UPSTREAM_ISSUER_TOKEN")
	if o.issuerTokenFile != "" {
		content, err := os.ReadFile(o.issuerTokenFile)
		if err != nil {
			return fmt.Errorf("issuer token: %w", err)
		}
		o.issuerToken = strings.TrimSpace(string(content))
	}
	log := slog.New(slog.NewJSONHandler(stdout, nil))
	service, err := open(ctx, o, log)
	if err != nil {
		return err
	}
	log.Info("listening", "service", o.service, "address", service.Addr())
	<-ctx.Done()
	return service.Close()
}

// service is what the three have in common.
type service interface {
	Addr() string
	Close() error
}

func open(ctx context.Context, o options, log *slog.Logger) (service, error) {
	switch o.service {
	case "users":
		return users.Open(ctx, users.Config{Listen: o.listen, Admin: o.admin, IssuerToken: o.issuerToken, Log: log})
	case "products":
		return products.Open(ctx, products.Config{Listen: o.listen, Log: log})
	case "orders":
		return orders.Open(ctx, orders.Config{Listen: o.listen, Products: o.products, Log: log})
	}
	return nil, fmt.Errorf("--service=%q: write users, products or orders", o.service)
}

// healthcheck is for containers without a shell.
func healthcheck(ctx context.Context, listen string) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	address := listen
	if strings.HasPrefix(address, ":") {
		address = "127.0.0.1" + address
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/healthz", nil)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("the service answered %s", response.Status)
	}
	return nil
}
