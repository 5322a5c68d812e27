package authsvc

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"strings"

	"github.com/sluice-gateway/sluice/authsvc/store"
)

// store turns the configuration into the store's options.
func (c *Config) store(log *slog.Logger) (store.Options, error) {
	r := c.Redis
	secure, err := r.TLS.config()
	if err != nil {
		return store.Options{}, fmt.Errorf("redis.tls: %w", err)
	}
	return store.Options{
		Addresses: r.Addresses, Username: r.Username, Password: r.password, DB: r.DB,
		MasterName: r.MasterName, SentinelUsername: r.SentinelUsername, SentinelPassword: r.SentinelPassword,
		Cluster: r.Cluster, TLS: secure, Timeout: r.Timeout, DialTimeout: r.DialTimeout, Prefix: r.KeyPrefix,
		CacheSize: c.Cache.Size, Session: c.Own.RefreshTTL, Token: c.longest(), Grace: c.Refresh.Grace,
		Bare: c.Sessions.Required, Log: log,
	}, nil
}

func (r RedisConfig) password() (string, error) {
	if r.PasswordFile == "" {
		return r.Password, nil
	}
	data, err := readFile(r.PasswordFile)
	return strings.TrimSpace(string(data)), err
}

func (t TLSConfig) config() (*tls.Config, error) {
	if !t.Enabled {
		return nil, nil
	}
	trust, err := authorities(t.CA)
	if err != nil {
		return nil, err
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: trust, ServerName: t.ServerName, InsecureSkipVerify: t.InsecureSkipVerify}
	if t.Cert != "" {
		certificate, err := tls.LoadX509KeyPair(t.Cert, t.Key)
		if err != nil {
			return nil, err
		}
		config.Certificates = []tls.Certificate{certificate}
	}
	return config, nil
}

// authorities reads the certificates of a PEM file; without a path it is nil,
// which means the system's.
func authorities(path string) (*x509.CertPool, error) {
	if path == "" {
		return nil, nil
	}
	data, err := readFile(path)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(data) {
		return nil, fmt.Errorf("%s: no certificate in PEM", path)
	}
	return pool, nil
}
