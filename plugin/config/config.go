// Package config is what the middleware may be told, and what is made of it.
//
// Config holds texts, as Traefik decodes a configuration (config.go). Read makes
// Settings of them: every value read, checked and given its default, and every
// mistake said at once (settings.go).
package config

// Config is the middleware's configuration as Traefik decodes it: mapstructure
// with weak types, comma-separated strings to slices and no duration hook.
//
// Every scalar is a string that Read parses itself, for three reasons. Absent
// and zero stay apart (a missing `optional` must never read as an explicit
// false, nor a missing `cost` as 0). A wrong type is reported with its path by
// settings.go, together with every other mistake, instead of failing alone
// inside mapstructure under a Go name. And file, labels and CRDs, which hand
// over strings, numbers and "1" for true, arrive alike. The maps tagged
// `,remain` catch unknown keys, which Traefik would drop in silence (design: closed-on-mistake).
//
// A section but for tiers, which may be several, is a list that holds one: of an empty section, `{}`, the file
// provider makes "", which mapstructure takes for an empty list but not for an
// empty struct or map. It would fail, and Traefik leave the router out.
//
// An empty string means the default that stands in the comment.
type Config struct {
	Redis           []Redis      `json:"redis"`
	Auth            []Auth       `json:"auth,omitempty"`            // absent: identity comes from userHeader
	UserHeader      string       `json:"userHeader,omitempty"`      // X-User-ID
	TrustUserHeader string       `json:"trustUserHeader,omitempty"` // false; true where forwardAuth before us has just set it
	IPStrategy      []IPStrategy `json:"ipStrategy"`
	Limits          []Limit      `json:"limits,omitempty"`
	Exempt          []Exempt     `json:"exempt"`
	TrustedProxies  []string     `json:"trustedProxies,omitempty"` // none; CIDRs whose X-Forwarded-For and X-Request-ID count
	MinInstances    string       `json:"minInstances,omitempty"`   // 1; the fallback's share is never larger than limit / this
	OnRedisFailure  string       `json:"onRedisFailure,omitempty"` // local | allow | deny
	DryRun          string       `json:"dryRun,omitempty"`         // false; true: each limit decides, counts and sets headers by itself, and none refuses
	LegacyHeaders   string       `json:"legacyHeaders,omitempty"`  // false; true adds X-RateLimit-Limit, -Remaining and -Reset
	MaxKeys         string       `json:"maxKeys,omitempty"`        // 100000; keys tracked in memory per limit

	Unknown map[string]interface{} `mapstructure:",remain" json:"-"`
}

// Redis says where the counters live.
type Redis struct {
	Addresses        []string `json:"addresses,omitempty"`        // required: host:port; several with masterName or cluster
	Username         string   `json:"username,omitempty"`         // ACL user
	Password         string   `json:"password,omitempty"`         // or passwordFile
	PasswordFile     string   `json:"passwordFile,omitempty"`     // read again at every connection, so a changed secret needs no restart
	DB               string   `json:"db,omitempty"`               // 0
	MasterName       string   `json:"masterName,omitempty"`       // Sentinel: addresses are the sentinels'
	SentinelUsername string   `json:"sentinelUsername,omitempty"` // the sentinels' own ACL user
	SentinelPassword string   `json:"sentinelPassword,omitempty"` // and password
	Cluster          string   `json:"cluster,omitempty"`          // false
	TLS              []TLS    `json:"tls"`
	Timeout          string   `json:"timeout,omitempty"`     // 100ms: a Redis that answers nothing for so long is away
	MaxWait          string   `json:"maxWait,omitempty"`     // 250ms: the longest that a request waits for one that is at work
	DialTimeout      string   `json:"dialTimeout,omitempty"` // 1s
	KeyPrefix        string   `json:"keyPrefix,omitempty"`   // sluice

	Unknown map[string]interface{} `mapstructure:",remain" json:"-"`
}

// TLS describes a client's side of a TLS connection; the three files are PEM.
type TLS struct {
	Enabled            string `json:"enabled,omitempty"` // false
	CA                 string `json:"ca,omitempty"`      // the system's roots
	Cert               string `json:"cert,omitempty"`
	Key                string `json:"key,omitempty"`
	ServerName         string `json:"serverName,omitempty"`         // the host that is dialled
	InsecureSkipVerify string `json:"insecureSkipVerify,omitempty"` // false

	Unknown map[string]interface{} `mapstructure:",remain" json:"-"`
}

// Auth names the service that judges credentials.
type Auth struct {
	Addresses         []string `json:"addresses,omitempty"`         // required: URLs; the next one when one is away
	Timeout           string   `json:"timeout,omitempty"`           // 1s
	Optional          string   `json:"optional,omitempty"`          // false; true: no token is anonymous, a bad one still 401
	ResponseHeaders   []string `json:"responseHeaders,omitempty"`   // X-User-ID, X-User-Plan, X-User-Scopes
	KeepAuthorization string   `json:"keepAuthorization,omitempty"` // false
	CacheSize         string   `json:"cacheSize,omitempty"`         // 100000 decisions
	TLS               []TLS    `json:"tls"`

	Unknown map[string]interface{} `mapstructure:",remain" json:"-"`
}

// IPStrategy says which address a client is known by.
type IPStrategy struct {
	Depth       string   `json:"depth,omitempty"`       // 0: the peer; n: n-th from the right of X-Forwarded-For. Needs trustedProxies
	ExcludedIPs []string `json:"excludedIPs,omitempty"` // with depth 0: the first from the right that is none of these
	IPv6Subnet  string   `json:"ipv6Subnet,omitempty"`  // 64: one household, one key

	Unknown map[string]interface{} `mapstructure:",remain" json:"-"`
}

// Limit is one sliding-window limit.
type Limit struct {
	Name         string              `json:"name,omitempty"` // required, [a-z0-9-]{1,32}: part of the Redis key
	Key          string              `json:"key,omitempty"`  // user | ip | header:<Name> | global
	Limit        string              `json:"limit,omitempty"`
	Window       string              `json:"window,omitempty"` // 1s to 31d
	Cost         string              `json:"cost,omitempty"`   // 1
	TierHeader   string              `json:"tierHeader,omitempty"`
	Tiers        []map[string]string `json:"tiers,omitempty"`        // of several roles the first of a list, or the highest of a map
	LimitHeader  string              `json:"limitHeader,omitempty"`  // identity header that carries the limit itself: a whole number, or unlimited
	OnMissingKey string              `json:"onMissingKey,omitempty"` // ip | deny | skip
	CountStatus  []string            `json:"countStatus,omitempty"`  // all; else only such answers count
	RefundStatus []string            `json:"refundStatus,omitempty"` // none; such answers give the permit back
	CountFrom    string              `json:"countFrom,omitempty"`    // gate | service: whose answers the two are about; anybody's

	Unknown map[string]interface{} `mapstructure:",remain" json:"-"`
}

// Exempt lists those whom no limit binds.
type Exempt struct {
	IPs   []string `json:"ips,omitempty"`
	Users []string `json:"users,omitempty"` // each entry is one, commas and all

	Unknown map[string]interface{} `mapstructure:",remain" json:"-"`
}
