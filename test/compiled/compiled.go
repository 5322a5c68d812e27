// Package compiled makes middlewares of the compiled plugin as Traefik v3.7.13
// does. It knows no interpreter, unlike package forms: what is built for a
// test alone, with another clock, would have to compile Yaegi anew.
package compiled

import (
	"context"
	"fmt"
	"net/http"

	"github.com/mitchellh/mapstructure"

	"github.com/sluice-gateway/sluice/plugin"
)

// New makes the handler of one middleware: CreateConfig, the configuration
// decoded onto it, New.
func New(ctx context.Context, config map[string]any, next http.Handler, name string) (http.Handler, error) {
	onto := plugin.CreateConfig()
	if err := Decode(config, onto); err != nil {
		return nil, fmt.Errorf("decode: %w", err)
	}
	handler, err := plugin.New(ctx, next, onto, name)
	if err != nil {
		return nil, fmt.Errorf("New: %w", err)
	}
	return handler, nil
}

// Decode fills a configuration as Traefik does.
func Decode(config map[string]any, onto any) error {
	if len(config) == 0 {
		return nil
	}
	decoder, err := mapstructure.NewDecoder(&mapstructure.DecoderConfig{
		DecodeHook:       mapstructure.StringToSliceHookFunc(","),
		WeaklyTypedInput: true,
		Result:           onto,
	})
	if err != nil {
		return err
	}
	return decoder.Decode(config)
}
