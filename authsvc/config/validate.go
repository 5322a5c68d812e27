package config

import (
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/sluice-gateway/sluice/authsvc/token"
)

// Validate checks everything that can be known without opening a file or a
// connection.
func (c *Config) Validate() error {
	var m Mistakes
	c.validateListeners(&m)
	c.Redis.validate(&m)
	c.validateIssuers(&m)
	c.validateOwn(&m)
	c.validateClaims(&m)
	c.validateDurations(&m)
	if c.Cache.Size < 1 {
		m.Add("cache.size", c.Cache.Size, "write a positive number")
	}
	if c.Tokens.MaxBytes < 1<<10 || c.Tokens.MaxBytes > MaxTokenBytes {
		m.Add("tokens.maxBytes", c.Tokens.MaxBytes, fmt.Sprintf("write a number of bytes from %d to %d", 1<<10, MaxTokenBytes))
	}
	oneOf(&m, "claimEncoding", c.ClaimEncoding, "plain", "percent")
	oneOf(&m, "onRedisFailure", c.OnRedisFailure, "verify", "deny")
	oneOf(&m, "log.level", c.Log.Level, "debug", "info", "warn", "error")
	oneOf(&m, "log.format", c.Log.Format, "json", "text")
	if c.Tracing.Endpoint != "" {
		if u, err := url.Parse(c.Tracing.Endpoint); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
			m.Add("tracing.endpoint", c.Tracing.Endpoint, "write a URL such as http://collector:4318")
		}
	}
	if !(c.Tracing.SampleRate >= 0 && c.Tracing.SampleRate <= 1) {
		m.Add("tracing.sampleRate", c.Tracing.SampleRate, "write a number from 0 to 1")
	}
	return m.Err()
}

// MinSecret is the length of the shortest bearer secret that guessing cannot
// reach.
const MinSecret = 16

func (c *Config) validateListeners(m *Mistakes) {
	for path, address := range map[string]string{"listen": c.Listen, "adminListen": c.AdminListen} {
		if _, _, err := net.SplitHostPort(address); err != nil {
			m.Add(path, address, "write host:port or :port")
		}
	}
	for path, secret := range map[string][2]string{
		"adminToken":  {c.AdminToken, c.AdminTokenFile},
		"issuerToken": {c.IssuerToken, c.IssuerTokenFile},
	} {
		if secret[0] != "" && secret[1] != "" {
			m.Add(path, "(set)", "set this or "+path+"File, not both")
		}
		if secret[0] != "" && len(secret[0]) < MinSecret {
			m.Add(path, "(not shown)", fmt.Sprintf("at least %d characters; make one with: openssl rand -hex 24", MinSecret))
		}
	}
	if c.AdminToken != "" && c.AdminToken == c.IssuerToken {
		m.Add("issuerToken", "(not shown)", "must differ from adminToken, or whoever issues tokens owns everything")
	}
}

// MaxTokenBytes bounds tokens.maxBytes: what a forged token costs grows with
// its size (BenchmarkAuth), and a request's body to the admin listener, of at
// most 64 KiB, holds one.
const MaxTokenBytes = 60 << 10

var prefixPattern = regexp.MustCompile(`^[A-Za-z0-9._-]{1,32}$`)

func (r *Redis) validate(m *Mistakes) {
	if len(r.Addresses) == 0 {
		m.Add("redis.addresses", "[]", "write at least one host:port")
	}
	for i, address := range r.Addresses {
		if host, port, err := net.SplitHostPort(address); err != nil || host == "" || port == "" {
			m.Add(fmt.Sprintf("redis.addresses[%d]", i), address, "write host:port")
		}
	}
	if len(r.Addresses) > 1 && r.MasterName == "" && !r.Cluster {
		m.Add("redis.addresses", strings.Join(r.Addresses, ","), "several addresses need redis.masterName or redis.cluster")
	}
	if r.MasterName != "" && r.Cluster {
		m.Add("redis.cluster", true, "set this or redis.masterName, not both")
	}
	if r.DB < 0 || r.Cluster && r.DB != 0 {
		m.Add("redis.db", r.DB, "write 0 or more; a cluster has only 0")
	}
	if r.Password != "" && r.PasswordFile != "" {
		m.Add("redis.passwordFile", r.PasswordFile, "set this or redis.password, not both")
	}
	if !prefixPattern.MatchString(r.KeyPrefix) {
		m.Add("redis.keyPrefix", r.KeyPrefix, "write 1 to 32 of A-Z a-z 0-9 . _ -")
	}
	if (r.TLS.Cert == "") != (r.TLS.Key == "") {
		m.Add("redis.tls.cert", r.TLS.Cert, "redis.tls.cert and redis.tls.key go together")
	}
}

func (c *Config) validateIssuers(m *Mistakes) {
	names := map[string]bool{"own": true}
	prefixes := map[string]string{c.Own.UserPrefix: "own.userPrefix"}
	for i, issuer := range c.Issuers {
		path := fmt.Sprintf("issuers[%d].", i)
		if !regexp.MustCompile(`^[a-z0-9-]{1,32}$`).MatchString(issuer.Name) || names[issuer.Name] {
			m.Add(path+"name", issuer.Name, "write a name of its own, 1 to 32 of a-z 0-9 - (own is taken)")
		}
		names[issuer.Name] = true
		if issuer.Issuer == "" {
			m.Add(path+"issuer", issuer.Issuer, "write the claim iss of its tokens")
		}
		if len(issuer.Audiences) == 0 || slices.Contains(issuer.Audiences, "") {
			m.Add(path+"audiences", fmt.Sprint(issuer.Audiences), "write at least one, or tokens made for others are accepted")
		}
		issuer.validateKeys(m, path)
		if taken, twice := prefixes[issuer.UserPrefix]; twice {
			m.Add(path+"userPrefix", issuer.UserPrefix, "same as "+taken+": user 42 of one would be user 42 of the other (RFC 8725 section 3.8)")
		}
		prefixes[issuer.UserPrefix] = path + "userPrefix"
		if err := token.CheckHeaderText(issuer.UserPrefix); err != nil {
			m.Add(path+"userPrefix", issuer.UserPrefix, err.Error())
		}
	}
}

func (i Issuer) validateKeys(m *Mistakes, path string) {
	if len(i.Algorithms) == 0 {
		m.Add(path+"algorithms", "[]", "write at least one of "+strings.Join(token.Algorithms, " "))
	}
	secrets := 0
	for j, algorithm := range i.Algorithms {
		if !slices.Contains(token.Algorithms, algorithm) {
			m.Add(fmt.Sprintf("%salgorithms[%d]", path, j), algorithm, "write one of "+strings.Join(token.Algorithms, " "))
		}
		if strings.HasPrefix(algorithm, "HS") {
			secrets++
		}
	}
	secret := secrets > 0
	if secret && secrets < len(i.Algorithms) {
		m.Add(path+"algorithms", strings.Join(i.Algorithms, ","), "HS* and public-key algorithms cannot share an issuer (RFC 8725 section 3.1)")
	}
	var sources []string
	for name, value := range map[string]string{"jwksURL": i.JWKSURL, "jwksFile": i.JWKSFile, "pemFile": i.PEMFile, "secretFile": i.SecretFile} {
		if value != "" {
			sources = append(sources, name)
		}
	}
	if len(sources) != 1 {
		slices.Sort(sources)
		m.Add(path+"jwksURL", strings.Join(sources, ","), "set exactly one of jwksURL, jwksFile, pemFile, secretFile")
	}
	if i.SecretFile != "" && !secret && len(i.Algorithms) > 0 {
		m.Add(path+"secretFile", i.SecretFile, "a secret needs HS256, HS384 or HS512 in algorithms")
	}
	if i.JWKSURL == "" {
		if i.CA != "" {
			m.Add(path+"ca", i.CA, "is for jwksURL, which is not set")
		}
		return
	}
	u, err := url.Parse(i.JWKSURL)
	switch {
	case err != nil || u.Host == "" || u.User != nil || u.Scheme != "https" && u.Scheme != "http":
		m.Add(path+"jwksURL", i.JWKSURL, "write an https URL")
	case u.Scheme == "http" && i.CA != "":
		m.Add(path+"ca", i.CA, "has no use with plain HTTP; write an https URL into jwksURL")
	case u.Scheme == "http" && !i.Insecure && !loopback(u.Hostname()):
		m.Add(path+"jwksURL", i.JWKSURL, "plain HTTP lets anybody on the way replace the keys; use https, or set insecure")
	}
	if secret {
		m.Add(path+"jwksURL", i.JWKSURL, "secrets are not fetched; use secretFile or jwksFile")
	}
}

func loopback(host string) bool {
	addr, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && addr.IsLoopback()
}

func (c *Config) validateOwn(m *Mistakes) {
	for path, value := range map[string]string{"own.issuer": c.Own.Issuer, "own.audience": c.Own.Audience} {
		if value == "" || token.CheckHeaderText(value) != nil {
			m.Add(path, value, "write printable ASCII")
		}
	}
	oneOf(m, "own.algorithm", c.Own.Algorithm, token.Algorithms...)
	if c.Own.KeyDir == "" && c.AdminToken == "" && c.AdminTokenFile == "" {
		m.Add("own.keyDir", c.Own.KeyDir, "write the folder where signing keys are kept; without one set adminToken or adminTokenFile, because none can be made")
	}
	if c.Own.TTL > c.Tokens.MaxLifetime {
		m.Add("own.ttl", c.Own.TTL, fmt.Sprintf("at most tokens.maxLifetime (%s)", c.Tokens.MaxLifetime))
	}
	for i, issuer := range c.Issuers {
		if issuer.Issuer == c.Own.Issuer {
			m.Add(fmt.Sprintf("issuers[%d].issuer", i), issuer.Issuer, "is own.issuer; two sets of keys would speak for one name")
		}
	}
}

var headerPattern = regexp.MustCompile(`^[Xx]-[A-Za-z0-9-]{1,62}$`)

// The headers that an answer to /auth carries beside those that claims become.
const (
	HeaderUserID    = "X-User-Id"    // -> gateway -> service: the validated user
	HeaderTokenID   = "X-Token-Id"   // -> gateway only: names the token in events
	HeaderSessionID = "X-Session-Id" // -> gateway only: names its session in events
	HeaderRequestID = "X-Request-Id" // <- gateway
)

func (c *Config) validateClaims(m *Mistakes) {
	seen := map[string]string{}
	for _, header := range []string{HeaderUserID, HeaderTokenID, HeaderSessionID, HeaderRequestID} {
		seen[header] = "authsvc itself"
	}
	for _, claim := range slices.Sorted(maps.Keys(c.Claims)) {
		header := c.Claims[claim]
		if header == "" {
			continue
		}
		path := "claims." + claim
		if !headerPattern.MatchString(header) {
			m.Add(path, header, "write a header name that begins with X-")
			continue
		}
		canonical := http.CanonicalHeaderKey(header)
		if owner, taken := seen[canonical]; taken {
			m.Add(path, header, "is written by "+owner+" already")
		}
		seen[canonical] = path
	}
	for i, claim := range c.Tokens.IssuerClaims {
		if claim == "" || token.ReservedClaim(claim) {
			m.Add(fmt.Sprintf("tokens.issuerClaims[%d]", i), claim, "only the issuer itself sets this claim")
		}
	}
}

func (c *Config) validateDurations(m *Mistakes) {
	for _, d := range []struct {
		path       string
		value      time.Duration
		least, max time.Duration
	}{
		{"redis.timeout", c.Redis.Timeout, time.Millisecond, 10 * time.Second},
		{"redis.dialTimeout", c.Redis.DialTimeout, time.Millisecond, time.Minute},
		{"own.ttl", c.Own.TTL, time.Second, 31 * 24 * time.Hour},
		{"own.refreshTTL", c.Own.RefreshTTL, time.Second, 10 * 365 * 24 * time.Hour},
		{"own.publishAhead", c.Own.PublishAhead, 0, 24 * time.Hour},
		{"cache.maxAge", c.Cache.MaxAge, 0, 24 * time.Hour},
		{"cache.staleIfError", c.Cache.StaleIfError, 0, 7 * 24 * time.Hour},
		{"tokens.maxLifetime", c.Tokens.MaxLifetime, time.Second, 366 * 24 * time.Hour},
		{"refresh.grace", c.Refresh.Grace, 0, 10 * time.Minute},
		{"clockLeeway", c.ClockLeeway, 0, 5 * time.Minute},
	} {
		if d.value < d.least || d.value > d.max {
			m.Add(d.path, d.value, fmt.Sprintf("write a duration from %s to %s", d.least, d.max))
		}
	}
}

func oneOf(m *Mistakes, path, value string, accepted ...string) {
	if !slices.Contains(accepted, value) {
		m.Add(path, value, "write one of "+strings.Join(accepted, " "))
	}
}
