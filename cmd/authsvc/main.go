// Command authsvc serves the identity of bearer tokens and operates on them.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/sluice-gateway/sluice/authsvc"
	"github.com/sluice-gateway/sluice/authsvc/operator"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	program := &operator.Program{
		Environ: os.Environ(), In: os.Stdin, Out: os.Stdout, Err: os.Stderr,
		Serve: authsvc.Serve,
	}
	status := program.Main(ctx, os.Args[1:])
	stop()
	os.Exit(status)
}
