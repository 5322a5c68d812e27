package authsvc

import (
	"context"
	"runtime/debug"

	"github.com/sluice-gateway/sluice/authsvc/config"
)

// Version is what `authsvc version` and traces say.
func Version() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "unknown"
}

// Serve loads the configuration and runs until the process is told to end.
func Serve(ctx context.Context, args, environ []string) error {
	options, err := config.Load(args, environ)
	if err != nil {
		return err
	}
	service := &Service{Config: options}
	if err := service.Open(ctx); err != nil {
		return err
	}
	<-ctx.Done()
	return service.Close()
}
