//go:build !compiledalone

package faults

import (
	"context"
	"net/http"

	"github.com/sluice-gateway/sluice/test/forms"
)

// The binary with another clock (clock_test.go) does without: it would compile
// Yaegi for that clock, which takes a minute.
func init() {
	interpret = func(ctx context.Context, config map[string]any, next http.Handler, name string) (http.Handler, error) {
		loaded, err := forms.LoadOnce()
		if err != nil {
			return nil, err
		}
		return loaded.New(ctx, config, next, name)
	}
}
