package main

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/sluice-gateway/sluice/internal/selfsigned"
)

const ourName = "Sluice, not trusted by anyone"

// certify sees to it that dir holds cert.pem and key.pem that belong together.
// A certificate that is not ours is never touched; without any, one is made,
// and said so loudly, for no client will trust it.
func certify(dir string, warnings io.Writer) error {
	certificate, key := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	pair, err := tls.LoadX509KeyPair(certificate, key)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if err := alone(certificate, key); err != nil {
			return err
		}
	case err != nil:
		return fmt.Errorf("%s and %s: %w", certificate, key, err)
	case pair.Leaf.Subject.CommonName != ourName:
		if left := time.Until(pair.Leaf.NotAfter); left < selfsigned.Renew {
			fmt.Fprintf(warnings, "secrets: warning: %s ends %s\n", certificate, pair.Leaf.NotAfter.Format(time.DateOnly))
		}
		return nil
	}
	fmt.Fprintln(warnings, "secrets: warning: serving a self-signed certificate; set SLUICE_CERTIFICATES to a folder with cert.pem and key.pem")
	if err == nil && time.Until(pair.Leaf.NotAfter) > selfsigned.Renew {
		return nil
	}
	certificatePEM, keyPEM, err := selfsigned.Make(ourName, []string{"localhost", "lb", "127.0.0.1", "::1"})
	if err != nil {
		return err
	}
	if err := write(key, keyPEM); err != nil {
		return err
	}
	return write(certificate, certificatePEM)
}

// alone refuses to replace half of somebody's pair.
func alone(files ...string) error {
	for _, file := range files {
		if _, err := os.Stat(file); err == nil {
			return fmt.Errorf("%s is there, and its other half is not", file)
		}
	}
	return nil
}
