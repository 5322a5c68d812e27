package config

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"regexp"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/sluice-gateway/sluice/plugin/limit"
	"github.com/sluice-gateway/sluice/plugin/redis"
	"github.com/sluice-gateway/sluice/plugin/window"
)

// Settings is a Config whose every value has been read, checked and given its
// default.
type Settings struct {
	Redis           RedisSettings
	Auth            *AuthSettings
	UserHeader      string
	TrustUserHeader bool
	Address         AddressSettings
	Limits          []*LimitSettings
	ExemptIPs       []netip.Prefix
	ExemptUsers     map[string]bool
	Policy          limit.Policy
	DryRun          bool
	LegacyHeaders   bool
	MaxKeys         int
}

// RedisSettings are what `redis` of the configuration says, read.
type RedisSettings struct {
	Client    redis.Config
	KeyPrefix string
	Timeout   time.Duration
	Identity  string // equal for equal configuration: shared.go's key
}

// Where names the Redis for the log, since a gateway may use several.
func (s *RedisSettings) Where() string {
	text := strings.Join(s.Client.Addresses, ", ")
	if s.Client.Username != "" {
		text += " as user " + s.Client.Username
	}
	return text + ", keyPrefix " + s.KeyPrefix
}

// AuthSettings are what `auth` says, read.
type AuthSettings struct {
	Addresses         []string
	Timeout           time.Duration
	Optional          bool
	ResponseHeaders   []string
	KeepAuthorization bool
	CacheSize         int
	TLS               *tls.Config
	Identity          string
}

// AddressSettings says which address a client is known by (design: client-address). Traefik
// has applied the PROXY protocol to RemoteAddr already, and hands on only what
// trusted peers wrote into X-Forwarded-For; still the header counts here only
// when RemoteAddr itself is one of trustedProxies.
type AddressSettings struct {
	Depth    int            // 0: the peer; n: n-th from the right of X-Forwarded-For
	Excluded []netip.Prefix // with depth 0: the first from the right that is none of these
	Subnet   int            // bits of an IPv6 address that make one client
	Trusted  []netip.Prefix // trustedProxies
}

// LimitSettings is one limit.
type LimitSettings struct {
	Name        string
	Key         string // one of the four above
	KeyHeader   string // of KeyHeader
	Limit       int64
	Window      time.Duration
	Cost        int64
	TierHeader  string
	Tiers       map[string]int64
	Ranked      []string // the tiers' names: who has several is of the first
	LimitHeader string
	OnMissing   string
	Count       *StatusSet // nil: every answer counts
	Refund      *StatusSet // nil: no answer gives the permit back
	CountFrom   string     // whose answer that is, one of the three above
}

// Longest and shortest spans accepted.
const (
	shortestWindow = time.Second
	longestWindow  = time.Duration(window.MaxWindow) * time.Microsecond
	longestTimeout = 10 * time.Second
	busyWait       = 250 * time.Millisecond // redis.maxWait unless configured
)

var limitName = regexp.MustCompile(`^[a-z0-9-]{1,32}$`)

// Problems are all mistakes of the configuration at once, each with its path,
// the value and what is accepted; empty when there is none.
func (c *Config) Problems() []string {
	_, problems := c.Read()
	return problems
}

// reader collects the problems met on the way.
type reader struct{ problems []string }

// Read returns what the configuration means, and its Problems; while there are
// any, the settings are not to be used.
func (c *Config) Read() (*Settings, []string) {
	p := &reader{}
	s := &Settings{
		UserHeader:      p.header("userHeader", c.UserHeader, "X-User-ID"),
		TrustUserHeader: p.boolean("trustUserHeader", c.TrustUserHeader),
		DryRun:          p.boolean("dryRun", c.DryRun),
		LegacyHeaders:   p.boolean("legacyHeaders", c.LegacyHeaders),
		MaxKeys:         int(p.integer("maxKeys", c.MaxKeys, 100000, 1, 100000000)),
		ExemptUsers:     map[string]bool{},
	}
	p.unknown("", c.Unknown, "redis, auth, userHeader, trustUserHeader, ipStrategy, limits, exempt, trustedProxies, minInstances, onRedisFailure, dryRun, legacyHeaders, maxKeys")
	if p.section("exempt", len(c.Exempt)) {
		p.unknown("exempt.", c.Exempt[0].Unknown, "ips, users")
		s.ExemptIPs = p.networks("exempt.ips", c.Exempt[0].IPs)
		for _, user := range c.Exempt[0].Users { // each entry is one, since an id may hold commas
			if user = strings.TrimSpace(user); user != "" {
				s.ExemptUsers[user] = true
			}
		}
	}
	s.Policy.MinInstances = p.integer("minInstances", c.MinInstances, 1, 1, 10000)
	switch p.choice("onRedisFailure", c.OnRedisFailure, "local", "allow", "deny") {
	case "allow":
		s.Policy.OnFailure = limit.Allow
	case "deny":
		s.Policy.OnFailure = limit.Deny
	}
	s.Address = p.addressStrategy(c)
	s.Auth = p.auth(c.Auth, s.UserHeader)
	if s.Auth != nil && s.TrustUserHeader {
		p.add("trustUserHeader", "true", "with auth the plugin decides itself who the user is; set it only behind forwardAuth, without auth")
	}
	s.Limits = p.limits(c, s)
	s.Redis = p.redis(c.Redis, len(s.Limits) > 0 || s.Auth != nil)
	return s, p.problems
}

// add notes a mistake.
func (p *reader) add(path, value, accepted string) {
	p.problems = append(p.problems, path+": "+strconv.Quote(value)+": "+accepted)
}

func (p *reader) missing(path, accepted string) {
	p.problems = append(p.problems, path+": is missing: "+accepted)
}

// section tells whether anything is written in a section of which the list
// holds so many.
func (p *reader) section(path string, written int) bool {
	if written > 1 {
		p.problems = append(p.problems, path+": is a list of "+strconv.Itoa(written)+": write one section")
	}
	return written > 0
}

func longer(a, b time.Duration) time.Duration {
	if a > b {
		return a
	}
	return b
}

// unknown reports keys that no field took; Traefik would drop them in silence.
func (p *reader) unknown(prefix string, rest map[string]interface{}, known string) {
	names := make([]string, 0, len(rest))
	for name := range rest {
		names = append(names, name)
	}
	sort.Strings(names)
	for _, name := range names {
		p.problems = append(p.problems, prefix+name+": unknown key; known here: "+known)
	}
}

func (p *reader) boolean(path, value string) bool {
	switch strings.ToLower(strings.TrimSpace(value)) {
	case "", "false", "0":
		return false
	case "true", "1": // 1 is what Traefik makes of a CRD's true
		return true
	}
	p.add(path, value, "write true or false")
	return false
}

func (p *reader) integer(path, value string, byDefault, least, most int64) int64 {
	value = strings.TrimSpace(value)
	if value == "" {
		return byDefault
	}
	n, err := strconv.ParseInt(value, 10, 64)
	if err != nil || n < least || n > most {
		p.add(path, value, fmt.Sprintf("write a whole number from %d to %d", least, most))
		return byDefault
	}
	return n
}

func (p *reader) duration(path, value string, byDefault, least, most time.Duration) time.Duration {
	value = strings.TrimSpace(value)
	if value == "" {
		return byDefault
	}
	d, err := time.ParseDuration(value)
	if err != nil {
		if _, number := strconv.ParseFloat(value, 64); number == nil {
			accepted := "has no unit; write " + value + "s"
			if least < time.Second {
				accepted += " or " + value + "ms"
			}
			if byDefault > 0 {
				accepted += " (the default is " + byDefault.String() + ")"
			}
			p.add(path, value, accepted)
		} else if days, number := strconv.Atoi(strings.TrimSuffix(value, "d")); number == nil {
			p.add(path, value, "has a unit that durations lack; write "+strconv.Itoa(24*days)+"h")
		} else {
			p.add(path, value, "write a duration such as 500ms, 60s or 1h30m")
		}
		return byDefault
	}
	if d < least || d > most {
		p.add(path, value, fmt.Sprintf("write a duration from %s to %s", least, most))
		return byDefault
	}
	return d
}

// choice returns one of the accepted words, the first when value is empty.
func (p *reader) choice(path, value string, accepted ...string) string {
	value = strings.TrimSpace(value)
	if value == "" {
		return accepted[0]
	}
	for _, word := range accepted {
		if value == word {
			return word
		}
	}
	p.add(path, value, "write "+strings.Join(accepted, ", "))
	return accepted[0]
}

// header returns a header's canonical name.
func (p *reader) header(path, value, byDefault string) string {
	value = strings.TrimSpace(value)
	if value == "" {
		value = byDefault
	}
	name := http.CanonicalHeaderKey(value)
	if value != "" && !token(value) {
		p.add(path, value, "write a header name, such as X-User-ID")
	} else if apart(name) {
		p.add(path, value, "is no header that could tell of a user; write another, such as X-User-ID")
	}
	return name
}

// apart tells which fields Go keeps outside of a request's headers.
func apart(name string) bool {
	return name == HostField || name == "Transfer-Encoding" || name == "Trailer"
}

// token tells whether s is a token of RFC 9110, section 5.6.2.
func token(s string) bool {
	const marks = "!#$%&'*+-.^_`|~"
	for _, c := range s {
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.ContainsRune(marks, c)) {
			return false
		}
	}
	return s != ""
}

// split undoes what a template leaves of a list: elements that still hold
// commas, and blanks. Traefik itself splits a text that stands for a list, so
// only what may hold commas itself must do without.
func split(values []string) []string {
	var all []string
	for _, value := range values {
		for _, part := range strings.Split(value, ",") {
			if part = strings.TrimSpace(part); part != "" {
				all = append(all, part)
			}
		}
	}
	return all
}

func (p *reader) networks(path string, values []string) []netip.Prefix {
	var networks []netip.Prefix
	for _, value := range split(values) {
		if network, err := netip.ParsePrefix(value); err == nil {
			if network.Addr().Is4In6() && network.Bits() >= 96 { // an address is known as IPv4, however it is written
				network = netip.PrefixFrom(network.Addr().Unmap(), network.Bits()-96)
			}
			networks = append(networks, network.Masked())
		} else if address, err := netip.ParseAddr(value); err == nil {
			address = address.Unmap()
			networks = append(networks, netip.PrefixFrom(address, address.BitLen()))
		} else {
			p.add(path, value, "write an address or a network such as 203.0.113.0/24 or 2001:db8::/32")
		}
	}
	return networks
}

func (p *reader) addressStrategy(c *Config) AddressSettings {
	written := IPStrategy{}
	if p.section("ipStrategy", len(c.IPStrategy)) {
		written = c.IPStrategy[0]
	}
	p.unknown("ipStrategy.", written.Unknown, "depth, excludedIPs, ipv6Subnet")
	s := AddressSettings{
		Depth:    int(p.integer("ipStrategy.depth", written.Depth, 0, 0, 100)),
		Excluded: p.networks("ipStrategy.excludedIPs", written.ExcludedIPs),
		Subnet:   int(p.integer("ipStrategy.ipv6Subnet", written.IPv6Subnet, 64, 1, 128)),
		Trusted:  p.networks("trustedProxies", c.TrustedProxies),
	}
	const alone = "reads X-Forwarded-For, which counts from trustedProxies alone, and there are none: all clients behind a proxy would be one. Write into trustedProxies the networks of the proxies that connect to this gateway, such as 10.0.0.0/8, and the same into the entry point's forwardedHeaders.trustedIPs, or Traefik removes the header"
	if nobody := len(split(c.TrustedProxies)) == 0; nobody && s.Depth > 0 {
		p.add("ipStrategy.depth", written.Depth, alone)
	} else if nobody && len(s.Excluded) > 0 {
		p.add("ipStrategy.excludedIPs", strings.Join(written.ExcludedIPs, ", "), alone)
	}
	if s.Depth > 0 && len(s.Excluded) > 0 {
		p.add("ipStrategy.excludedIPs", strings.Join(written.ExcludedIPs, ", "), "is not looked at with a depth: write one of the two")
	}
	return s
}

func (p *reader) redis(written []Redis, needed bool) RedisSettings {
	c := Redis{}
	if p.section("redis", len(written)) {
		c = written[0]
	}
	p.unknown("redis.", c.Unknown, "addresses, username, password, passwordFile, db, masterName, sentinelUsername, sentinelPassword, cluster, tls, timeout, maxWait, dialTimeout, keyPrefix")
	addresses := split(c.Addresses)
	for _, address := range addresses {
		host, port, err := net.SplitHostPort(address)
		number, bad := strconv.Atoi(port)
		if err != nil || bad != nil || host == "" || number < 1 || number > 65535 {
			p.add("redis.addresses", address, "write host:port, such as redis:6379")
		}
	}
	if needed && len(addresses) == 0 {
		p.missing("redis.addresses", "write at least one host:port")
	}
	cluster := p.boolean("redis.cluster", c.Cluster)
	if cluster && c.MasterName != "" {
		p.add("redis.masterName", c.MasterName, "is Sentinel's; leave it out with cluster: true")
	}
	db := p.integer("redis.db", c.DB, 0, 0, 1<<20)
	if cluster && db != 0 {
		p.add("redis.db", c.DB, "a Redis Cluster has only database 0")
	}
	s := RedisSettings{KeyPrefix: c.KeyPrefix, Timeout: p.duration("redis.timeout", c.Timeout, 100*time.Millisecond, time.Millisecond, longestTimeout)}
	if s.KeyPrefix == "" {
		s.KeyPrefix = "sluice"
	}
	if strings.ContainsAny(s.KeyPrefix, "{} \t\r\n*?[]\\") || len(s.KeyPrefix) > 64 {
		p.add("redis.keyPrefix", c.KeyPrefix, "write at most 64 bytes without blanks, braces or glob characters")
	}
	s.Client = redis.Config{
		Addresses:        addresses,
		Username:         c.Username,
		Password:         p.password(&c),
		DB:               int(db),
		MasterName:       c.MasterName,
		SentinelUsername: c.SentinelUsername,
		SentinelPassword: c.SentinelPassword,
		Cluster:          cluster,
		TLS:              p.tls("redis.tls", c.TLS, false),
		Timeout:          s.Timeout,
		MaxWait:          p.duration("redis.maxWait", c.MaxWait, longer(busyWait, s.Timeout), s.Timeout, longestTimeout),
		DialTimeout:      p.duration("redis.dialTimeout", c.DialTimeout, time.Second, time.Millisecond, longestTimeout),
		ClientName:       "sluice-gateway",
	}
	s.Identity = fmt.Sprint(addresses, c.Username, c.Password, c.PasswordFile, db, c.MasterName, c.SentinelUsername, c.SentinelPassword,
		cluster, c.TLS, s.Client.Timeout, s.Client.MaxWait, s.Client.DialTimeout, s.KeyPrefix)
	return s
}

// password returns what asks for the password at each connection, so that a
// changed file needs no restart.
func (p *reader) password(c *Redis) func() (string, error) {
	fixed, file := c.Password, c.PasswordFile
	if file == "" {
		return func() (string, error) { return fixed, nil }
	}
	if fixed != "" {
		p.add("redis.passwordFile", file, "set password or passwordFile, not both")
	}
	ask := func() (string, error) {
		content, err := os.ReadFile(file)
		return strings.TrimRight(string(content), "\r\n"), err
	}
	if _, err := ask(); err != nil {
		p.add("redis.passwordFile", file, "cannot be read: "+err.Error())
	}
	return ask
}

// tls reads how to speak TLS; nil where nobody asked for it. Where addresses have
// a scheme, that decides, and not the key enabled.
func (p *reader) tls(path string, written []TLS, byScheme bool) *tls.Config {
	if !p.section(path, len(written)) {
		return nil
	}
	c, prefix := written[0], path+"."
	p.unknown(prefix, c.Unknown, "enabled, ca, cert, key, serverName, insecureSkipVerify")
	enabled := p.boolean(prefix+"enabled", c.Enabled)
	insecure := p.boolean(prefix+"insecureSkipVerify", c.InsecureSkipVerify)
	if !enabled && !byScheme {
		return nil
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: c.ServerName, InsecureSkipVerify: insecure}
	if c.CA != "" {
		pem, err := os.ReadFile(c.CA)
		if err == nil {
			config.RootCAs = x509.NewCertPool()
			if !config.RootCAs.AppendCertsFromPEM(pem) {
				err = errors.New("holds no PEM certificate")
			}
		}
		if err != nil {
			p.add(prefix+"ca", c.CA, "write a file of PEM certificates: "+err.Error())
		}
	}
	if c.Cert != "" || c.Key != "" {
		pair, err := tls.LoadX509KeyPair(c.Cert, c.Key)
		if err != nil {
			p.add(prefix+"cert", c.Cert, "write the files of a PEM certificate and its key: "+err.Error())
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config
}

func (p *reader) auth(written []Auth, userHeader string) *AuthSettings {
	if written == nil {
		return nil
	}
	c := Auth{} // an empty section is not an absent one, which would let everybody in
	if p.section("auth", len(written)) {
		c = written[0]
	}
	p.unknown("auth.", c.Unknown, "addresses, timeout, optional, responseHeaders, keepAuthorization, cacheSize, tls")
	s := &AuthSettings{
		Addresses:         splitURLs(c.Addresses),
		Timeout:           p.duration("auth.timeout", c.Timeout, time.Second, time.Millisecond, time.Minute),
		Optional:          p.boolean("auth.optional", c.Optional),
		KeepAuthorization: p.boolean("auth.keepAuthorization", c.KeepAuthorization),
		CacheSize:         int(p.integer("auth.cacheSize", c.CacheSize, 100000, 1, 100000000)),
		TLS:               p.tls("auth.tls", c.TLS, true),
	}
	if len(s.Addresses) == 0 {
		p.missing("auth.addresses", "write at least one URL, such as http://authsvc:9000/auth")
	}
	for _, address := range s.Addresses {
		u, err := url.Parse(address)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || u.Fragment != "" {
			p.add("auth.addresses", address, "write a URL such as http://authsvc:9000/auth, without user or fragment")
		}
	}
	names := split(c.ResponseHeaders)
	if len(names) == 0 {
		names = IdentityHeaders
	}
	for _, name := range names {
		header := p.header("auth.responseHeaders", name, "")
		if header == "Authorization" || header == RequestIDHeader {
			p.add("auth.responseHeaders", name, "is this middleware's own: what auth may set is first removed from every request")
		}
		s.ResponseHeaders = append(s.ResponseHeaders, header)
	}
	if !Contains(s.ResponseHeaders, userHeader) {
		p.add("auth.responseHeaders", strings.Join(s.ResponseHeaders, ", "), "must hold userHeader ("+userHeader+"), or nobody would ever have a name")
	}
	s.Identity = fmt.Sprint(s.Addresses, s.Timeout, s.ResponseHeaders, userHeader, s.CacheSize, c.TLS)
	return s
}

// splitURLs is split for addresses: a comma in a query ends none.
func splitURLs(values []string) []string {
	var urls []string
	for _, part := range split(values) {
		if last := len(urls) - 1; last >= 0 && strings.Contains(urls[last], "?") && !strings.Contains(part, "://") {
			urls[last] += "," + part
			continue
		}
		urls = append(urls, part)
	}
	return urls
}

// Contains tells whether a name is among names.
func Contains(names []string, name string) bool {
	for _, n := range names {
		if n == name {
			return true
		}
	}
	return false
}

func (p *reader) limits(c *Config, s *Settings) []*LimitSettings {
	var rules []*LimitSettings
	first := map[string]int{}
	for i := range c.Limits {
		l := &c.Limits[i]
		path := "limits[" + strconv.Itoa(i) + "]."
		p.unknown(path, l.Unknown, "name, key, limit, window, cost, tierHeader, tiers, limitHeader, onMissingKey, countStatus, refundStatus, countFrom")
		rule := &LimitSettings{
			Name:        strings.TrimSpace(l.Name),
			Window:      p.duration(path+"window", l.Window, 0, shortestWindow, longestWindow),
			Limit:       p.integer(path+"limit", l.Limit, 0, 1, window.MaxLimit),
			Cost:        p.integer(path+"cost", l.Cost, 1, 1, window.MaxLimit),
			TierHeader:  p.header(path+"tierHeader", l.TierHeader, ""),
			LimitHeader: p.header(path+"limitHeader", l.LimitHeader, ""),
			OnMissing:   p.choice(path+"onMissingKey", l.OnMissingKey, MissingIP, MissingDeny, MissingSkip),
			Count:       p.statuses(path+"countStatus", l.CountStatus),
			Refund:      p.statuses(path+"refundStatus", l.RefundStatus),
		}
		if strings.TrimSpace(l.CountFrom) != AnyAnswers {
			rule.CountFrom = p.choice(path+"countFrom", l.CountFrom, GatesAnswers, ServicesAnswers)
		}
		if !limitName.MatchString(rule.Name) {
			p.add(path+"name", l.Name, "write 1 to 32 of a-z, 0-9 and -; it is part of the Redis key")
		} else if earlier, twice := first[rule.Name]; twice {
			p.add(path+"name", rule.Name, fmt.Sprintf("is the name of limits[%d] already", earlier))
		} else {
			first[rule.Name] = i
		}
		for _, required := range [][2]string{{"limit", l.Limit}, {"window", l.Window}} {
			if strings.TrimSpace(required[1]) == "" {
				p.missing(path+required[0], "write limit: 100 and window: 60s for a hundred a minute")
			}
		}
		if rule.Window%time.Millisecond != 0 {
			p.add(path+"window", l.Window, "write whole milliseconds")
		}
		p.limitKey(path, l, rule, s)
		p.tiers(path, l, rule)
		p.capacity(path, l, rule)
		p.countFrom(path+"countFrom", rule, s)
		p.vouched(path+"tierHeader", rule.TierHeader, s)
		p.vouched(path+"limitHeader", rule.LimitHeader, s)
		rules = append(rules, rule)
	}
	return rules
}

// countFrom refuses answers that nobody gives, or that are given too early.
func (p *reader) countFrom(path string, rule *LimitSettings, s *Settings) {
	switch {
	case rule.CountFrom == AnyAnswers:
	case rule.Count == nil && rule.Refund == nil:
		p.add(path, rule.CountFrom, "says whose answers countStatus and refundStatus are about: write one of them too")
	case rule.CountFrom == GatesAnswers && s.Auth == nil:
		p.add(path, rule.CountFrom, "without auth the gate judges nobody: configure auth, or leave this out where forwardAuth answers")
	case rule.CountFrom == GatesAnswers && NeedsIdentity(rule, s.Auth):
		p.add(path, rule.CountFrom, "the gate answers before it is known who asks: write key: ip or global, no tierHeader and no limitHeader")
	}
}

func (p *reader) limitKey(path string, l *Limit, rule *LimitSettings, s *Settings) {
	switch key := strings.TrimSpace(l.Key); {
	case key == KeyUser || key == KeyIP || key == KeyGlobal: // with commas Yaegi sees the first alone
		rule.Key = key
	case strings.HasPrefix(key, KeyHeader) && token(key[len(KeyHeader):]):
		rule.Key = KeyHeader
		rule.KeyHeader = http.CanonicalHeaderKey(key[len(KeyHeader):])
		p.keyField(path+"key", l.Key, rule.KeyHeader, s)
	default:
		p.add(path+"key", l.Key, "write user, ip, header:<Name> or global")
	}
}

// keyField refuses a header that tells one client from another on no request.
func (p *reader) keyField(path, value, name string, s *Settings) {
	switch {
	case name == "Transfer-Encoding" || name == "Trailer" || name == "Connection":
		p.add(path, value, "tells how a message is sent, not who sends it; write another header")
	case name == RequestIDHeader:
		p.add(path, value, "is new with each request, so the limit would bind nobody; write another header")
	case s.Auth != nil && Contains(s.Auth.ResponseHeaders, name):
		return
	case Contains(s.Stripped(), name):
		p.add(path, value, "is removed from every request here, since a client could have written it: configure auth with it among auth.responseHeaders, or trustUserHeader behind forwardAuth")
	}
}

// tiers reads a map, or a list of maps. A map has no order by the time it gets
// here, so within one the highest limit goes first.
func (p *reader) tiers(path string, l *Limit, rule *LimitSettings) {
	rule.Tiers = map[string]int64{}
	written := 0
	for _, tiers := range l.Tiers {
		names := make([]string, 0, len(tiers))
		for name := range tiers {
			names = append(names, name)
		}
		sort.Strings(names)
		first := len(rule.Ranked)
		for _, name := range names {
			written++
			if _, twice := rule.Tiers[name]; twice {
				p.add(path+"tiers."+name, tiers[name], "this tier has a limit already")
			} else if strings.TrimSpace(tiers[name]) == "" {
				p.missing(path+"tiers."+name, "write the tier's limit")
			} else {
				rule.Tiers[name] = p.integer(path+"tiers."+name, tiers[name], 1, 1, window.MaxLimit)
				rule.Ranked = append(rule.Ranked, name)
			}
		}
		rank(rule.Ranked[first:], rule.Tiers)
	}
	if written > 0 && l.TierHeader == "" {
		p.missing(path+"tierHeader", "tiers need the header that names a user's tier, such as X-User-Plan")
	}
	if l.TierHeader != "" && written == 0 {
		p.missing(path+"tiers", "tierHeader needs tiers, such as {pro: 1000}")
	}
}

// rank puts the highest limit first, and equal ones by name.
func rank(names []string, limits map[string]int64) {
	sort.SliceStable(names, func(i, j int) bool { return limits[names[i]] > limits[names[j]] })
}

// capacity checks what ties limits and cost together.
func (p *reader) capacity(path string, l *Limit, rule *LimitSettings) {
	if rule.Limit == 0 || rule.Window == 0 {
		return // reported already
	}
	smallest := rule.Limit
	for _, n := range rule.Tiers {
		if n < smallest {
			smallest = n
		}
	}
	if rule.Cost > smallest {
		p.add(path+"cost", l.Cost, fmt.Sprintf("must not exceed the limit or a tier (%d), or no such request would ever pass", smallest))
	}
}

// vouched refuses to read a limit from a header that a client could have sent.
func (p *reader) vouched(path, name string, s *Settings) {
	switch {
	case name == "":
	case s.Auth == nil && !s.TrustUserHeader:
		p.add(path, name, "is read only where the auth step has just written it: configure auth, or trustUserHeader behind forwardAuth")
	case s.Auth != nil && !Contains(s.Auth.ResponseHeaders, name):
		p.add(path, name, "is not among auth.responseHeaders, so nothing would ever set it")
	}
}

// statuses reads 401 and 5xx.
func (p *reader) statuses(path string, values []string) *StatusSet {
	all := split(values)
	if len(all) == 0 {
		return nil
	}
	set := &StatusSet{codes: map[int]bool{}}
	for _, value := range all {
		code, err := strconv.Atoi(value)
		switch {
		case err == nil && code >= 100 && code <= 599:
			set.codes[code] = true
		case len(value) == 3 && value[0] >= '1' && value[0] <= '5' && strings.ToLower(value[1:]) == "xx":
			for c := int(value[0]-'0') * 100; c%100 < 99; c++ {
				set.codes[c] = true
			}
			set.codes[int(value[0]-'0')*100+99] = true
		default:
			p.add(path, value, "write a status such as 401 or a class such as 5xx")
		}
	}
	return set
}

// StatusSet is a set of response statuses.
type StatusSet struct{ codes map[int]bool }

// Has tells whether the set holds a status.
func (s *StatusSet) Has(status int) bool { return s.codes[status] }

// NeedsIdentity tells whether a limit's key or number comes from what the auth
// step says.
func NeedsIdentity(rule *LimitSettings, auth *AuthSettings) bool {
	return rule.Key == KeyUser || rule.TierHeader != "" || rule.LimitHeader != "" ||
		rule.Key == KeyHeader && auth != nil && Contains(auth.ResponseHeaders, rule.KeyHeader)
}

// Stripped are those that no client may set: they are removed from
// every request before anything reads them (design: stripped-headers). A middleware without
// auth, as on a public route, removes the usual ones: the service behind it
// believes them all the same.
func (s *Settings) Stripped() []string {
	names := []string{TokenIDHeader, SessionIDHeader}
	if s.TrustUserHeader {
		return names
	}
	names = append(names, s.UserHeader)
	if s.Auth != nil {
		names = append(names, s.Auth.ResponseHeaders...)
	} else {
		names = append(names, IdentityHeaders...)
	}
	for _, rule := range s.Limits {
		if rule.TierHeader != "" {
			names = append(names, rule.TierHeader)
		}
		if rule.LimitHeader != "" {
			names = append(names, rule.LimitHeader)
		}
	}
	var once []string
	for _, name := range names {
		if !Contains(once, name) {
			once = append(once, name)
		}
	}
	return once
}
