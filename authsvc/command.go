package authsvc

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
)

// Version is what `authsvc version` and traces say.
func Version() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "unknown"
}

// Main runs the command and returns its exit status.
func Main(args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	config, err := Load(args, os.Environ())
	if err == nil {
		service := &Service{Config: config}
		if err = service.Open(ctx); err == nil {
			<-ctx.Done()
			err = service.Close()
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "authsvc:", err)
		return 1
	}
	return 0
}
