package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

const (
	certificateLife  = 365 * 24 * time.Hour
	certificateRenew = 30 * 24 * time.Hour // before its end ours is replaced
	ourName          = "Sluice, not trusted by anyone"
)

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
		if left := time.Until(pair.Leaf.NotAfter); left < certificateRenew {
			fmt.Fprintf(warnings, "secrets: warning: %s ends %s\n", certificate, pair.Leaf.NotAfter.Format(time.DateOnly))
		}
		return nil
	}
	fmt.Fprintln(warnings, "secrets: warning: serving a self-signed certificate; set SLUICE_CERTIFICATES to a folder with cert.pem and key.pem")
	if err == nil && time.Until(pair.Leaf.NotAfter) > certificateRenew {
		return nil
	}
	certificatePEM, keyPEM, err := selfSigned()
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

func selfSigned() (certificatePEM, keyPEM []byte, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, nil, err
	}
	template := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: ourName},
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(certificateLife),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
		DNSNames:              []string{"localhost", "lb"},
		IPAddresses:           []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, nil, err
	}
	encoded, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: encoded}), nil
}
