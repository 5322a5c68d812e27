// Package config is every option of authsvc, where their values come from and
// what is wrong with them.
//
// Load takes the defaults (config.go), lays over them a YAML file, AUTHSVC_*
// variables and flags (load.go), and checks the whole (validate.go). A mistake
// does not stop it: all of them come back at once, each with where it stands and
// what would be accepted (mistakes.go). What an option merely names, a file or a
// server, is opened later by whoever needs it (files.go).
package config

import (
	"time"

	"github.com/sluice-gateway/sluice/authsvc/token"
)

// Config is every option. The description tags and SetDefaults are
// the reference: `authsvc --help` prints them.
//
// Options come from, each over the one before: the defaults, a YAML file,
// AUTHSVC_* variables, flags (load.go). A list in a later source replaces the
// whole list of an earlier one; maps are merged by key. (A description of "-"
// marks a section, which is no option by itself.)
type Config struct {
	ConfigFile string `description:"YAML file with options. Without it: ./authsvc.yml or /etc/sluice/authsvc.yml, if one exists."`

	Listen          string `description:"Address of the public listener: /auth, JWKS, health."`
	AdminListen     string `description:"Address of the admin listener: tokens, users, limits, gateways, metrics. It is plain HTTP, so for this machine alone; :9001 opens it to an inner network."`
	AdminToken      string `description:"Bearer token that may use all of the admin listener. Without it and adminTokenFile one is made in own.keyDir."`
	AdminTokenFile  string `description:"File with the admin token; read again when it changes."`
	IssuerToken     string `description:"Bearer token that may only issue, refresh and revoke tokens. Without it and issuerTokenFile one is made in own.keyDir."`
	IssuerTokenFile string `description:"File with the issuer token; read again when it changes."`

	Redis   Redis             `description:"-"`
	Issuers []Issuer          `description:"-"`
	Own     Own               `description:"-"`
	Claims  map[string]string `description:"Header that a claim becomes, by claim; an empty header drops a default. Dots reach into nested claims."`

	ClaimEncoding string `description:"Claims that cannot be a header as they are: plain leaves them out, percent sends all claims percent-encoded (RFC 3986) and objects as JSON."`

	Cache    Cache    `description:"-"`
	Sessions Sessions `description:"-"`
	Tokens   Tokens   `description:"-"`
	Refresh  Refresh  `description:"-"`

	OnRedisFailure string        `description:"While Redis is away: verify (signature, claims and known revocations decide) or deny (503)."`
	ClockLeeway    time.Duration `description:"How far clocks of issuers may be off."`

	Log     Log     `description:"-"`
	Tracing Tracing `description:"-"`
}

// Redis says where Redis is.
type Redis struct {
	Addresses        []string      `description:"host:port; several with masterName (of the Sentinels) or cluster."`
	Username         string        `description:"ACL user."`
	Password         string        `description:"Password."`
	PasswordFile     string        `description:"File with the password; read at every connection."`
	DB               int           `description:"Database number."`
	MasterName       string        `description:"Name of the master that the Sentinels watch."`
	SentinelUsername string        `description:"ACL user of the Sentinels."`
	SentinelPassword string        `description:"Password of the Sentinels."`
	Cluster          bool          `description:"The addresses are nodes of a Redis Cluster."`
	TLS              TLS           `description:"-"`
	Timeout          time.Duration `description:"Budget of a check; /auth never waits longer for Redis. Issuing and revoking wait up to 1s."`
	DialTimeout      time.Duration `description:"Time for one new connection, in the background."`
	KeyPrefix        string        `description:"First part of every key and of the event channel."`
}

// TLS is a client's side of a TLS connection.
type TLS struct {
	Enabled            bool   `description:"Use TLS."`
	CA                 string `description:"PEM file with the authorities to trust. Without it: the system's."`
	Cert               string `description:"PEM file with the client certificate."`
	Key                string `description:"PEM file with its key."`
	ServerName         string `description:"Name the server must prove. Without it: the host that is dialled."`
	InsecureSkipVerify bool   `description:"Trust any certificate."`
}

// Issuer is one foreign issuer: exactly one of the four key sources.
type Issuer struct {
	Name       string   `description:"Name in logs and metrics."`
	Issuer     string   `description:"Claim iss of its tokens."`
	Audiences  []string `description:"Accepted values of claim aud; one must be there."`
	Algorithms []string `description:"Accepted algorithms: RS256-512, PS256-512, ES256-512, EdDSA, HS256-512."`
	JWKSURL    string   `description:"Key set by HTTPS (HTTP on loopback), refreshed in the background."`
	CA         string   `description:"PEM file with the authorities that the server of jwksURL is trusted by; read at every fetch. Without it: the system's."`
	JWKSFile   string   `description:"Key set in a file; read again when it changes."`
	PEMFile    string   `description:"Public keys or certificates in a PEM file; read again when it changes."`
	SecretFile string   `description:"HMAC secret in a file; read again when it changes."`
	UserClaim  string   `description:"Claim that names the user. Without it: sub."`
	UserPrefix string   `description:"Put before the user's name, so that two issuers' users stay apart."`
	Typ        string   `description:"Required header typ. Without it: none, JWT or at+jwt."`
	Insecure   bool     `description:"Allow jwksURL over plain HTTP beyond loopback."`
}

// Own describes the tokens authsvc issues.
type Own struct {
	Issuer       string        `description:"Claim iss."`
	Audience     string        `description:"Claim aud."`
	Algorithm    string        `description:"Signature algorithm."`
	TTL          time.Duration `description:"Life of an access token."`
	RefreshTTL   time.Duration `description:"Life of a refresh token since the last rotation."`
	KeyDir       string        `description:"Folder of the signing keys, shared by all replicas; keys are made on first start. Empty: no keys, no tokens of its own."`
	PublishAhead time.Duration `description:"How long a new key is published before it signs."`
	UserPrefix   string        `description:"Put before the user's name, as in issuers."`
}

// Cache bounds what is remembered, here and by gateways.
type Cache struct {
	MaxAge       time.Duration `description:"How long a gateway may use an answer (Cache-Control max-age)."`
	StaleIfError time.Duration `description:"How long after the answer a gateway may use it while authsvc is away."`
	Size         int           `description:"Tokens remembered in memory."`
}

// Sessions decides whether Redis must know a token.
type Sessions struct {
	Required bool `description:"Accept only tokens that are present in Redis."`
}

// Tokens holds for tokens of every issuer.
type Tokens struct {
	MaxBytes     int           `description:"Largest token that is looked at. The gateway's entry point must take it, too (maxHeaderBytes)."`
	MaxLifetime  time.Duration `description:"Longest exp - iat that is accepted; revocations are kept that long."`
	IssuerClaims []string      `description:"Claims that the issuer token may set."`
}

// Refresh tunes rotation.
type Refresh struct {
	Grace time.Duration `description:"How long a refresh token that was just replaced may be shown once more (a lost reply)."`
}

// Log tunes the log on standard error.
type Log struct {
	Level  string `description:"debug, info, warn or error."`
	Format string `description:"json or text."`
}

// Tracing names an OpenTelemetry collector.
type Tracing struct {
	Endpoint    string  `description:"OTLP over HTTP, e.g. http://collector:4318. Empty: no traces."`
	ServiceName string  `description:"Resource attribute service.name."`
	SampleRate  float64 `description:"Share of new traces that are recorded; a caller's decision is always followed."`
}

// SetDefaults fills in what needs no decision.
func (c *Config) SetDefaults() {
	*c = Config{
		Listen:      ":9000",
		AdminListen: "127.0.0.1:9001",
		Redis: Redis{
			Addresses:   []string{"127.0.0.1:6379"},
			Timeout:     50 * time.Millisecond,
			DialTimeout: time.Second,
			KeyPrefix:   "sluice",
		},
		Own: Own{
			Issuer:       "sluice",
			Audience:     "sluice",
			Algorithm:    "ES256",
			TTL:          15 * time.Minute,
			RefreshTTL:   30 * 24 * time.Hour,
			KeyDir:       "/var/lib/sluice/keys",
			PublishAhead: 30 * time.Second,
		},
		Claims:         map[string]string{"plan": "X-User-Plan", "scope": "X-User-Scopes"},
		ClaimEncoding:  "plain",
		Cache:          Cache{MaxAge: time.Minute, StaleIfError: 5 * time.Minute, Size: 100_000},
		Tokens:         Tokens{MaxBytes: token.MaxSize, MaxLifetime: 24 * time.Hour, IssuerClaims: []string{"plan", "scope"}},
		Refresh:        Refresh{Grace: 10 * time.Second},
		OnRedisFailure: "verify",
		ClockLeeway:    5 * time.Second,
		Log:            Log{Level: "info", Format: "json"},
		Tracing:        Tracing{ServiceName: "sluice-authsvc", SampleRate: 1},
	}
}

// New returns the defaults.
func New() *Config {
	c := new(Config)
	c.SetDefaults()
	return c
}

// Longest is how long a revocation must be remembered to outlive every access
// token it concerns.
func (c *Config) Longest() time.Duration { return c.Tokens.MaxLifetime + 2*c.ClockLeeway }
