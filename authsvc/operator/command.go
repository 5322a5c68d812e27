// Package operator is the command line of authsvc: it runs the service, and it is
// a client of a running one's admin listener.
//
// The words of the command line lead to a command (command.go). One for operators
// takes its options from where the service on this machine has them, its
// configuration and its key folder, then from flags, asks the admin listener and
// prints what it answers (client.go). An answer that nothing was there to be done
// is an error of the command. Only keys secret asks nobody (secret.go).
package operator

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"

	"github.com/traefik/paerser/cli"

	"github.com/sluice-gateway/sluice/authsvc/config"
	"github.com/sluice-gateway/sluice/internal/version"
)

// command is one word of the command line: `token`, and below it `issue`.
type command struct {
	cli.Command        // name, description and options, for paerser's help
	word        string // by which its parent calls it
	arguments   string
	run         func(ctx context.Context, args []string) error
	version     func(ctx context.Context, args []string) error // of --version; nil: no such flag
	children    []*command
}

// Main runs the command with its arguments and returns the exit status.
func (p *Program) Main(ctx context.Context, args []string) int {
	if err := p.root().execute(ctx, args, p.Out); err != nil {
		fmt.Fprintln(p.Err, "authsvc:", err)
		return 1
	}
	return 0
}

func (p *Program) root() *command {
	root := newCommand("authsvc", "serves the identity of bearer tokens; without a command it serves.", "", config.New(), func(ctx context.Context, args []string) error { return p.Serve(ctx, args, p.Environ) },
		newCommand("token", "issue, inspect, explain and revoke tokens", "", nil, nil,
			newCommand("issue", "issue a token pair: authsvc token issue --claims.plan=pro USER", "USER", newTokenOptions(p), p.tokenIssue),
			newCommand("inspect", "say what a token is worth; - reads it from standard input", "TOKEN|-", newOptions(p), p.tokenInspect),
			newCommand("explain", "say why a token is accepted or not, check by check; - reads it from standard input", "TOKEN|-", newOptions(p), p.tokenExplain),
			newCommand("revoke", "revoke an access or refresh token; - reads it from standard input", "TOKEN|-", newOptions(p), p.tokenRevoke),
		),
		newCommand("user", "act on all tokens of a user", "", nil, nil,
			newCommand("revoke", "revoke every token the user was issued until now", "USER", newOptions(p), p.userRevoke),
		),
		newCommand("limit", "look at and reset limits", "", nil, nil,
			newCommand("show", "show what a key has used: authsvc limit show per-user user:42", "NAME KEY", newOptions(p), p.limitShow),
			newCommand("reset", "give a key its whole limit back; KEY is user:ID, ip:ADDRESS, header:VALUE or global", "NAME KEY", newOptions(p), p.limitReset),
		),
		newCommand("keys", "signing keys", "", nil, nil,
			newCommand("rotate", "add a signing key and schedule the retirement of the others", "", newOptions(p), p.keysRotate),
			newCommand("secret", "print the Kubernetes Secret that own.keyDir is to be mounted from next: the keys rotated", "", newSecretOptions(), p.keysSecret),
		),
		newCommand("healthcheck", "exit 0 if a running authsvc can decide", "", newOptions(p), p.healthcheck),
		newCommand("version", "print version and commit, as --version does", "", nil, p.version),
	)
	root.version = p.version
	return root
}

func newCommand(name, description, arguments string, options any, run func(context.Context, []string) error, children ...*command) *command {
	c := &command{
		Command: cli.Command{Description: description, Configuration: options},
		word:    name, arguments: arguments, run: run, children: children,
	}
	c.underParent("")
	return c
}

// underParent gives help texts the whole command line: `authsvc token issue`.
func (c *command) underParent(parent string) {
	c.Command = cli.Command{Name: parent + c.word, Description: c.Description, Configuration: c.Configuration}
	for _, child := range c.children {
		child.underParent(c.Name + " ")
		_ = c.AddCommand(&child.Command) // fails for a child with its parent's name only
	}
}

// execute follows the words of the command line down to the command they name.
func (c *command) execute(ctx context.Context, args []string, out io.Writer) error {
	if len(args) > 0 && !strings.HasPrefix(args[0], "-") && c.arguments == "" {
		for _, child := range c.children {
			if child.word == args[0] {
				return child.execute(ctx, args[1:], out)
			}
		}
		return fmt.Errorf("%s has no command %q; see %s --help", c.Name, args[0], c.Name)
	}
	for _, arg := range args {
		if arg == "--help" || arg == "-h" || arg == "-help" {
			return c.PrintHelp(out)
		}
	}
	if c.version != nil && slices.Contains(args, "--version") {
		return c.version(ctx, nil)
	}
	if c.run == nil {
		_ = c.PrintHelp(out)
		return errors.New(c.Name + " needs a command")
	}
	return c.run(ctx, args)
}

func (p *Program) version(context.Context, []string) error {
	_, err := fmt.Fprintf(p.Out, "authsvc %s (commit %s, %s %s/%s)\n", version.Version(), version.Commit(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
	return err
}
