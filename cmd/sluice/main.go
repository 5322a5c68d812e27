// Command sluice runs, tries and checks the Sluice gateway: `sluice up` starts
// the whole of it on one machine, `sluice demo` shows what it promises, `sluice
// check` finds errors in a configuration before Traefik drops them in silence,
// and `sluice traefik build` makes the Traefik that has the plugin compiled in.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends at once
	err := rootCommand().ExecuteContext(ctx)
	if errors.Is(err, context.Canceled) {
		err = errors.New("interrupted")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "sluice:", err)
		os.Exit(1)
	}
}
