package authsvc

import (
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/sluice-gateway/sluice/authsvc/token"
)

// ConfigError is every mistake of a configuration at once.
type ConfigError struct{ Mistakes []string }

func (e *ConfigError) Error() string {
	if len(e.Mistakes) == 1 {
		return "configuration: " + e.Mistakes[0]
	}
	return fmt.Sprintf("configuration: %d mistakes\n  %s", len(e.Mistakes), strings.Join(e.Mistakes, "\n  "))
}

// mistakes collects lines of the form `path: "value": what is accepted`.
type mistakes []string

func (m *mistakes) add(path string, value any, accepted string) {
	if text, ok := value.(string); ok {
		value = fmt.Sprintf("%q", text)
	}
	*m = append(*m, fmt.Sprintf("%s: %v: %s", path, value, accepted))
}

// unknown does not show the value: behind a misspelt `pasword` stands a secret.
func (m *mistakes) unknown(path, accepted string) { *m = append(*m, path+": "+accepted) }

func (m mistakes) err() error {
	if len(m) == 0 {
		return nil
	}
	return &ConfigError{Mistakes: m}
}

// Validate checks everything that can be known without opening a file or a
// connection.
func (c *Config) Validate() error {
	var m mistakes
	c.validateListeners(&m)
	c.Redis.validate(&m)
	c.validateIssuers(&m)
	c.validateOwn(&m)
	c.validateClaims(&m)
	c.validateDurations(&m)
	if c.Cache.Size < 1 {
		m.add("cache.size", c.Cache.Size, "write a positive number")
	}
	if c.Tokens.MaxBytes < 1<<10 || c.Tokens.MaxBytes > maxTokenBytes {
		m.add("tokens.maxBytes", c.Tokens.MaxBytes, fmt.Sprintf("write a number of bytes from %d to %d", 1<<10, maxTokenBytes))
	}
	oneOf(&m, "claimEncoding", c.ClaimEncoding, "plain", "percent")
	oneOf(&m, "onRedisFailure", c.OnRedisFailure, "verify", "deny")
	oneOf(&m, "log.level", c.Log.Level, "debug", "info", "warn", "error")
	oneOf(&m, "log.format", c.Log.Format, "json", "text")
	if c.Tracing.Endpoint != "" {
		if u, err := url.Parse(c.Tracing.Endpoint); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
			m.add("tracing.endpoint", c.Tracing.Endpoint, "write a URL such as http://collector:4318")
		}
	}
	if !(c.Tracing.SampleRate >= 0 && c.Tracing.SampleRate <= 1) {
		m.add("tracing.sampleRate", c.Tracing.SampleRate, "write a number from 0 to 1")
	}
	return m.err()
}

func (c *Config) validateListeners(m *mistakes) {
	for path, address := range map[string]string{"listen": c.Listen, "adminListen": c.AdminListen} {
		if _, _, err := net.SplitHostPort(address); err != nil {
			m.add(path, address, "write host:port or :port")
		}
	}
	for path, secret := range map[string][2]string{
		"adminToken":  {c.AdminToken, c.AdminTokenFile},
		"issuerToken": {c.IssuerToken, c.IssuerTokenFile},
	} {
		if secret[0] != "" && secret[1] != "" {
			m.add(path, "(set)", "set this or "+path+"File, not both")
		}
		if secret[0] != "" && len(secret[0]) < minSecret {
			m.add(path, "(not shown)", fmt.Sprintf("at least %d characters; make one with: openssl rand -hex 24", minSecret))
		}
	}
	if c.AdminToken != "" && c.AdminToken == c.IssuerToken {
		m.add("issuerToken", "(not shown)", "must differ from adminToken, or whoever issues tokens owns everything")
	}
}

// maxTokenBytes bounds tokens.maxBytes: what a forged token costs grows with
// its size (BenchmarkAuth), and admin requests hold one within maxBody.
const maxTokenBytes = 60 << 10

var prefixPattern = regexp.MustCompile(`^[A-Za-z0-9._-]{1,32}$`)

func (r *RedisConfig) validate(m *mistakes) {
	if len(r.Addresses) == 0 {
		m.add("redis.addresses", "[]", "write at least one host:port")
	}
	for i, address := range r.Addresses {
		if host, port, err := net.SplitHostPort(address); err != nil || host == "" || port == "" {
			m.add(fmt.Sprintf("redis.addresses[%d]", i), address, "write host:port")
		}
	}
	if len(r.Addresses) > 1 && r.MasterName == "" && !r.Cluster {
		m.add("redis.addresses", strings.Join(r.Addresses, ","), "several addresses need redis.masterName or redis.cluster")
	}
	if r.MasterName != "" && r.Cluster {
		m.add("redis.cluster", true, "set this or redis.masterName, not both")
	}
	if r.DB < 0 || r.Cluster && r.DB != 0 {
		m.add("redis.db", r.DB, "write 0 or more; a cluster has only 0")
	}
	if r.Password != "" && r.PasswordFile != "" {
		m.add("redis.passwordFile", r.PasswordFile, "set this or redis.password, not both")
	}
	if !prefixPattern.MatchString(r.KeyPrefix) {
		m.add("redis.keyPrefix", r.KeyPrefix, "write 1 to 32 of A-Z a-z 0-9 . _ -")
	}
	if (r.TLS.Cert == "") != (r.TLS.Key == "") {
		m.add("redis.tls.cert", r.TLS.Cert, "redis.tls.cert and redis.tls.key go together")
	}
}

func (c *Config) validateIssuers(m *mistakes) {
	names := map[string]bool{"own": true}
	prefixes := map[string]string{c.Own.UserPrefix: "own.userPrefix"}
	for i, issuer := range c.Issuers {
		path := fmt.Sprintf("issuers[%d].", i)
		if !regexp.MustCompile(`^[a-z0-9-]{1,32}$`).MatchString(issuer.Name) || names[issuer.Name] {
			m.add(path+"name", issuer.Name, "write a name of its own, 1 to 32 of a-z 0-9 - (own is taken)")
		}
		names[issuer.Name] = true
		if issuer.Issuer == "" {
			m.add(path+"issuer", issuer.Issuer, "write the claim iss of its tokens")
		}
		if len(issuer.Audiences) == 0 || slices.Contains(issuer.Audiences, "") {
			m.add(path+"audiences", fmt.Sprint(issuer.Audiences), "write at least one, or tokens made for others are accepted")
		}
		issuer.validateKeys(m, path)
		if taken, twice := prefixes[issuer.UserPrefix]; twice {
			m.add(path+"userPrefix", issuer.UserPrefix, "same as "+taken+": user 42 of one would be user 42 of the other (RFC 8725 section 3.8)")
		}
		prefixes[issuer.UserPrefix] = path + "userPrefix"
		if err := token.CheckHeaderText(issuer.UserPrefix); err != nil {
			m.add(path+"userPrefix", issuer.UserPrefix, err.Error())
		}
	}
}

func (i IssuerConfig) validateKeys(m *mistakes, path string) {
	if len(i.Algorithms) == 0 {
		m.add(path+"algorithms", "[]", "write at least one of "+strings.Join(token.Algorithms, " "))
	}
	secrets := 0
	for j, algorithm := range i.Algorithms {
		if !slices.Contains(token.Algorithms, algorithm) {
			m.add(fmt.Sprintf("%salgorithms[%d]", path, j), algorithm, "write one of "+strings.Join(token.Algorithms, " "))
		}
		if strings.HasPrefix(algorithm, "HS") {
			secrets++
		}
	}
	secret := secrets > 0
	if secret && secrets < len(i.Algorithms) {
		m.add(path+"algorithms", strings.Join(i.Algorithms, ","), "HS* and public-key algorithms cannot share an issuer (RFC 8725 section 3.1)")
	}
	var sources []string
	for name, value := range map[string]string{"jwksURL": i.JWKSURL, "jwksFile": i.JWKSFile, "pemFile": i.PEMFile, "secretFile": i.SecretFile} {
		if value != "" {
			sources = append(sources, name)
		}
	}
	if len(sources) != 1 {
		slices.Sort(sources)
		m.add(path+"jwksURL", strings.Join(sources, ","), "set exactly one of jwksURL, jwksFile, pemFile, secretFile")
	}
	if i.SecretFile != "" && !secret && len(i.Algorithms) > 0 {
		m.add(path+"secretFile", i.SecretFile, "a secret needs HS256, HS384 or HS512 in algorithms")
	}
	if i.JWKSURL == "" {
		if i.CA != "" {
			m.add(path+"ca", i.CA, "is for jwksURL, which is not set")
		}
		return
	}
	u, err := url.Parse(i.JWKSURL)
	switch {
	case err != nil || u.Host == "" || u.User != nil || u.Scheme != "https" && u.Scheme != "http":
		m.add(path+"jwksURL", i.JWKSURL, "write an https URL")
	case u.Scheme == "http" && i.CA != "":
		m.add(path+"ca", i.CA, "has no use with plain HTTP; write an https URL into jwksURL")
	case u.Scheme == "http" && !i.Insecure && !loopback(u.Hostname()):
		m.add(path+"jwksURL", i.JWKSURL, "plain HTTP lets anybody on the way replace the keys; use https, or set insecure")
	}
	if secret {
		m.add(path+"jwksURL", i.JWKSURL, "secrets are not fetched; use secretFile or jwksFile")
	}
}

func loopback(host string) bool {
	addr, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && addr.IsLoopback()
}

func (c *Config) validateOwn(m *mistakes) {
	for path, value := range map[string]string{"own.issuer": c.Own.Issuer, "own.audience": c.Own.Audience} {
		if value == "" || token.CheckHeaderText(value) != nil {
			m.add(path, value, "write printable ASCII")
		}
	}
	oneOf(m, "own.algorithm", c.Own.Algorithm, token.Algorithms...)
	if c.Own.KeyDir == "" && c.AdminToken == "" && c.AdminTokenFile == "" {
		m.add("own.keyDir", c.Own.KeyDir, "write the folder where signing keys are kept; without one set adminToken or adminTokenFile, because none can be made")
	}
	if c.Own.TTL > c.Tokens.MaxLifetime {
		m.add("own.ttl", c.Own.TTL, fmt.Sprintf("at most tokens.maxLifetime (%s)", c.Tokens.MaxLifetime))
	}
	for i, issuer := range c.Issuers {
		if issuer.Issuer == c.Own.Issuer {
			m.add(fmt.Sprintf("issuers[%d].issuer", i), issuer.Issuer, "is own.issuer; two sets of keys would speak for one name")
		}
	}
}

var headerPattern = regexp.MustCompile(`^[Xx]-[A-Za-z0-9-]{1,62}$`)

func (c *Config) validateClaims(m *mistakes) {
	seen := map[string]string{}
	for _, header := range []string{headerUserID, headerTokenID, headerSessionID, headerRequestID} {
		seen[header] = "authsvc itself"
	}
	for _, claim := range slices.Sorted(maps.Keys(c.Claims)) {
		header := c.Claims[claim]
		if header == "" {
			continue
		}
		path := "claims." + claim
		if !headerPattern.MatchString(header) {
			m.add(path, header, "write a header name that begins with X-")
			continue
		}
		canonical := http.CanonicalHeaderKey(header)
		if owner, taken := seen[canonical]; taken {
			m.add(path, header, "is written by "+owner+" already")
		}
		seen[canonical] = path
	}
	for i, claim := range c.Tokens.IssuerClaims {
		if claim == "" || token.ReservedClaim(claim) {
			m.add(fmt.Sprintf("tokens.issuerClaims[%d]", i), claim, "only the issuer itself sets this claim")
		}
	}
}

func (c *Config) validateDurations(m *mistakes) {
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
			m.add(d.path, d.value, fmt.Sprintf("write a duration from %s to %s", d.least, d.max))
		}
	}
}

func oneOf(m *mistakes, path, value string, accepted ...string) {
	if !slices.Contains(accepted, value) {
		m.add(path, value, "write one of "+strings.Join(accepted, " "))
	}
}

// readFile reads a small file that an option names.
func readFile(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Size() > 1<<20 {
		return nil, fmt.Errorf("%s: larger than 1 MiB", path)
	}
	return os.ReadFile(path)
}
