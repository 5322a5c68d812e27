package stack

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

const (
	certificateLife  = 365 * 24 * time.Hour
	certificateRenew = 30 * 24 * time.Hour // before its end a new one is made
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
	content, err := newCertificate(hosts)
	if err == nil {
		err = os.MkdirAll(dir, 0o700)
	}
	if err == nil {
		err = replace(file, content)
	}
	if err != nil {
		return "", fmt.Errorf("make a certificate: %w", err)
	}
	return file, nil
}

func newCertificate(hosts []string) ([]byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: "Sluice on this machine"},
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(certificateLife),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
	}
	for _, host := range hosts {
		if ip := net.ParseIP(host); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else if host != "" {
			template.DNSNames = append(template.DNSNames, host)
		}
	}
	certificate, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	encoded, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return append(
		pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: encoded})...), nil
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
	if err != nil || time.Until(certificate.NotAfter) < certificateRenew {
		return false
	}
	for _, host := range hosts {
		if host != "" && certificate.VerifyHostname(host) != nil {
			return false
		}
	}
	return true
}
