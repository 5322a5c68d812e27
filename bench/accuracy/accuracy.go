// Package accuracy measures how far limiters are from an exact one, and how
// far Sluice is from the rule it promises.
//
// Every subject is given the same arrivals (traffic.go, clf.go):
//
//	exact      a sliding log of each admission                  reference.go
//	the rule   plugin/window on one machine that sees them all  reference.go
//	Sluice     real engines of plugin/limit, one and three,     fleet.go
//	           whose script a real redis-server runs
//	Traefik    its own rateLimit middleware, in memory and      traefik.go
//	           with a real redis-server
//
// measure.go has them decide, score.go compares what they decided, bounds.go
// works out the worst the rule can do, special.go holds what only token buckets
// mind, report.go writes it down.
//
// Time is virtual. Engines and middleware run in a bubble of testing/synctest,
// whose clock moves on only when every goroutine in it waits; reading a socket
// is no such waiting, so a real Redis takes part and no virtual time passes
// while it works. Its scripts are told that time. All delays are drawn from
// seeded numbers and no two events share an instant, so that two runs give the
// same file.
package accuracy

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// quotas are the shipped ones (design: shipped-limits), and one that is small enough to be
// counted by a log: every traffic meets each.
var quotas = []quota{
	{name: "100 a minute", limit: 100, window: time.Minute, windows: 20},
	perSecond,
	{name: "10 a minute", limit: 10, window: time.Minute, windows: 100},
}

// Main runs the command and ends the process. A bubble of virtual time needs a
// *testing.T, which testing.Main makes in a program as well.
func Main(args []string) {
	os.Args = os.Args[:1] // testing would look for flags of its own
	testing.Main(func(string, string) (bool, error) { return true, nil }, []testing.InternalTest{{Name: "accuracy", F: func(t *testing.T) {
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		err := command(ctx, t, args, os.Stdout, os.Stderr)
		stop()
		switch {
		case errors.Is(err, flag.ErrHelp):
			os.Exit(2)
		case err != nil:
			fmt.Fprintln(os.Stderr, "accuracy:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}}}, nil, nil)
}

func command(ctx context.Context, test *testing.T, args []string, out, progress io.Writer) error {
	flags := flag.NewFlagSet("accuracy", flag.ContinueOnError)
	flags.SetOutput(progress)
	seed := flags.Uint64("seed", 1, "of all random numbers")
	output := flags.String("output", filepath.Join("bench", "ACCURACY.md"), "file to write; empty: none")
	trace := flags.String("trace", "", "web log in Common Log Format to replay: the address is the key")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("%q is not a flag; try --help", flags.Arg(0))
	}
	tables, note, err := prepare(*seed, *trace)
	if err != nil {
		return err
	}
	r := &report{seed: *seed, note: note, tables: tables}
	if err := r.measure(ctx, test, progress); err != nil {
		return err
	}
	text := r.String()
	if *output != "" {
		if err := os.WriteFile(*output, []byte(text), 0o644); err != nil {
			return err
		}
	}
	_, err = io.WriteString(out, text)
	return err
}

// prepare makes the traffics of all quotas, and of the log if one is named.
func prepare(seed uint64, trace string) (tables []table, note string, err error) {
	var hits []hit
	if trace != "" {
		file, err := os.Open(trace)
		if err != nil {
			return nil, "", err
		}
		defer file.Close()
		var skipped int
		if hits, skipped, err = readCLF(file); err != nil {
			return nil, "", fmt.Errorf("%s: %w", trace, err)
		}
		note = fmt.Sprintf(" The web log is %s: %d requests; lines not in Common Log Format: %d.", filepath.Base(trace), len(hits), skipped)
	}
	for _, q := range quotas {
		all := traffics(q, seed)
		if hits != nil {
			all = append(all, fromLog("web log", hits, q, seed))
		}
		tables = append(tables, table{quota: q, traffics: all})
	}
	return tables, note, nil
}
