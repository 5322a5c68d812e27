// Package compiled makes middlewares of the compiled plugin as Traefik v3.7.13
// does. It knows no interpreter, unlike package forms: what is built for a
// test alone, with another clock, would have to compile Yaegi anew.
package compiled

import (
	"context"
	"fmt"
	"net/http"

	"github.com/sluice-gateway/sluice/internal/dynconf"
	"github.com/sluice-gateway/sluice/plugin"
)

// New makes the handler of one middleware: CreateConfig, the configuration
// decoded onto it, New.
func New(ctx context.Context, config map[string]any, next http.Handler, name string) (http.Handler, error) {
	onto := plugin.CreateConfig()
	if err := dynconf.Decode(config, onto); err != nil {
		return nil, fmt.Errorf("decode: %w", err)
	}
	handler, err := plugin.New(ctx, next, onto, name)
	if err != nil {
		return nil, fmt.Errorf("New: %w", err)
	}
	return handler, nil
}
