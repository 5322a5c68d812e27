package authsvc

import (
	"context"

	"github.com/sluice-gateway/sluice/authsvc/config"
)

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
