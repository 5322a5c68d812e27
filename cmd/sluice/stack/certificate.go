package stack

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/sluice-gateway/sluice/internal/selfsigned"
)

// selfSigned returns the file of a certificate, with its key, for this machine's
// own names. It is made on first use and kept in dir, so that a client may be
// told to trust it once; certificate and key share a file, so that two stacks
// that start at the same moment never pair one's key with the other's
// certificate.
func selfSigned(dir string, hosts []string) (file string, err error) {
	file = filepath.Join(dir, "tls.pem")
	if stillServes(file, hosts) {
		return file, nil
	}
	certificate, key, err := selfsigned.Make("Sluice on this machine", hosts)
	if err == nil {
		err = os.MkdirAll(dir, 0o700)
	}
	if err == nil {
		err = replace(file, append(certificate, key...))
	}
	if err != nil {
		return "", fmt.Errorf("make a certificate: %w", err)
	}
	return file, nil
}

// stillServes says whether a file of selfSigned is there, lasts for a while and
// names every host.
func stillServes(file string, hosts []string) bool {
	content, err := os.ReadFile(file)
	if err != nil {
		return false
	}
	block, _ := pem.Decode(content)
	if block == nil {
		return false
	}
	certificate, err := x509.ParseCertificate(block.Bytes)
	if err != nil || time.Until(certificate.NotAfter) < selfsigned.Renew {
		return false
	}
	for _, host := range hosts {
		if host != "" && certificate.VerifyHostname(host) != nil {
			return false
		}
	}
	return true
}
