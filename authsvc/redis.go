package authsvc

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"strings"

	"github.com/sluice-gateway/sluice/authsvc/config"
	"github.com/sluice-gateway/sluice/authsvc/store"
)

// storeOptions are the store's, as the configuration has them.
func storeOptions(c *config.Config, log *slog.Logger) (store.Options, error) {
	r := c.Redis
	secure, err := clientTLS(r.TLS)
	if err != nil {
		return store.Options{}, fmt.Errorf("redis.tls: %w", err)
	}
	return store.Options{
		Addresses: r.Addresses, Username: r.Username, Password: func() (string, error) { return password(r) }, DB: r.DB,
		MasterName: r.MasterName, SentinelUsername: r.SentinelUsername, SentinelPassword: r.SentinelPassword,
		Cluster: r.Cluster, TLS: secure, Timeout: r.Timeout, DialTimeout: r.DialTimeout, Prefix: r.KeyPrefix,
		CacheSize: c.Cache.Size, Session: c.Own.RefreshTTL, Token: c.Longest(), Grace: c.Refresh.Grace,
		Bare: c.Sessions.Required, Log: log,
	}, nil
}

func password(r config.Redis) (string, error) {
	if r.PasswordFile == "" {
		return r.Password, nil
	}
	data, err := config.ReadFile(r.PasswordFile)
	return strings.TrimSpace(string(data)), err
}

func clientTLS(t config.TLS) (*tls.Config, error) {
	if !t.Enabled {
		return nil, nil
	}
	trust, err := config.Authorities(t.CA)
	if err != nil {
		return nil, err
	}
	options := &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: trust, ServerName: t.ServerName, InsecureSkipVerify: t.InsecureSkipVerify}
	if t.Cert != "" {
		certificate, err := tls.LoadX509KeyPair(t.Cert, t.Key)
		if err != nil {
			return nil, err
		}
		options.Certificates = []tls.Certificate{certificate}
	}
	return options, nil
}
