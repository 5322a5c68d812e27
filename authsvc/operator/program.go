package operator

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"time"

	"github.com/traefik/paerser/flag"
	"github.com/traefik/paerser/parser"

	"github.com/sluice-gateway/sluice/authsvc/config"
)

// Program is the command with what it touches of the outside world.
type Program struct {
	Environ  []string
	In       io.Reader
	Out, Err io.Writer
	// Serve runs the service until ctx ends.
	Serve func(ctx context.Context, args, environ []string) error

	service *config.Config // of the service on this machine, once it was looked for
}

// The operator's commands are a client of a running authsvc's admin listener.
// Beside or inside the service's container they need no option: address and
// secret are found where the service itself finds them, in its configuration
// file, its AUTHSVC_* variables and its key folder.

// Operator are the options of every operator command. Exported, because
// paerser passes over what is not.
type Operator struct {
	Server         string        `description:"URL of the admin listener. Without it: adminListen of the service's configuration on this machine."`
	AdminToken     string        `description:"Admin token. Without it: that of the service's configuration."`
	AdminTokenFile string        `description:"File with the admin token."`
	Output         string        `description:"text or json."`
	Timeout        time.Duration `description:"Time for the answer."`
}

// tokenOptions are those of `token issue`.
type tokenOptions struct {
	Operator
	TTL    string            `description:"Life of the access token, such as 15m. Without it: own.ttl."`
	Claims map[string]string `description:"Further claims, by name."`
}

func newOptions(p *Program) *Operator { o := p.defaults(); return &o }

func newTokenOptions(p *Program) *tokenOptions { return &tokenOptions{Operator: p.defaults()} }

// defaults looks into the service's configuration, which may be elsewhere, or
// not be ours to judge: without it the usual port is tried. An admin token
// that stands in the configuration itself is kept apart, or --help would print
// it as a default.
func (p *Program) defaults() Operator {
	o := Operator{Output: "text", Timeout: 5 * time.Second, Server: "http://127.0.0.1:9001"}
	if p.service == nil {
		p.service, _ = config.Load(nil, p.Environ)
		p.service = cmp.Or(p.service, config.New())
	}
	if host, port, err := net.SplitHostPort(p.service.AdminListen); err == nil {
		if address := net.ParseIP(host); host == "" || address.IsUnspecified() {
			host = "127.0.0.1"
		}
		o.Server = "http://" + net.JoinHostPort(host, port)
	}
	if p.service.AdminToken == "" && p.service.Own.KeyDir != "" {
		o.AdminTokenFile = filepath.Join(p.service.Own.KeyDir, "admin.token")
	}
	o.AdminTokenFile = cmp.Or(p.service.AdminTokenFile, o.AdminTokenFile)
	return o
}

// parse takes the options out of args wherever they stand, and returns the
// arguments that remain, want of them.
func (p *Program) parse(args []string, into any, want int) ([]string, error) {
	var flags, rest []string
	for i := 0; i < len(args); i++ {
		switch {
		case !strings.HasPrefix(args[i], "-") || args[i] == "-":
			rest = append(rest, args[i])
		case strings.Contains(args[i], "=") || i+1 == len(args):
			flags = append(flags, args[i])
		default:
			flags = append(flags, args[i], args[i+1])
			i++
		}
	}
	labels, err := flag.Parse(flags, into)
	if err == nil && len(labels) > 0 {
		err = parser.Decode(labels, into, parser.DefaultRootName)
	}
	if err != nil {
		return nil, fmt.Errorf("%w; --help lists the options", err)
	}
	if len(rest) != want {
		return nil, fmt.Errorf("%d arguments given, %d needed; see --help", len(rest), want)
	}
	for i, argument := range rest {
		if argument == "-" { // keeps a token out of the process list
			text, err := io.ReadAll(io.LimitReader(p.In, 64<<10))
			if err != nil {
				return nil, err
			}
			rest[i] = strings.TrimSpace(string(text))
		}
	}
	return rest, nil
}
