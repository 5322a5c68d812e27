package operator

import (
	"context"
	"fmt"
	"time"

	"github.com/sluice-gateway/sluice/authsvc/config"
	"github.com/sluice-gateway/sluice/authsvc/keys"
)

type secretOptions struct {
	Name   string `description:"Name of the Secret."`
	Forget bool   `description:"Keep no key: every token signed so far is refused."`
}

func newSecretOptions() *secretOptions { return &secretOptions{Name: "signing-keys"} }

// keysSecret works on the folder itself, by the configuration that the service
// beside it has.
func (p *Program) keysSecret(_ context.Context, args []string) error {
	o := newSecretOptions()
	if _, err := p.parse(args, o, 0); err != nil {
		return err
	}
	c, err := config.Load(nil, p.Environ)
	if err != nil {
		return err
	}
	secret, err := keys.NextSecret(c, o.Name, o.Forget, time.Now())
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(p.Out, "%s\n", secret)
	return err
}
