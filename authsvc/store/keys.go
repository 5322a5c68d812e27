package store

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
)

// The keys authsvc owns or reads. <prefix> keeps several installations apart
// in one Redis; none of them shares a hash tag, so that Redis Cluster spreads
// them, and no script touches two.
//
//	<prefix>:tok:<token id>    "active <sum>" or "revoked"      until exp
//	<prefix>:usr:<user>        void-before mark, unix ms         longest token
//	<prefix>:who:<user>        headers of his last token, JSON   his session or token
//	<prefix>:ref:<session>     hash, see refresh.go              refresh TTL
//	<prefix>:key:<kid>         public key and schedule, JSON     a minute, repeated
//	<prefix>:evt               hash epoch, seq                   for ever
//	<prefix>:events            channel
//	<prefix>:gw:live           zset of gateways                  (read)
//	<prefix>:gw:<instance>     heartbeat, JSON                   (read)
//	<prefix>:lim:1:<name>:<window ms>:{<t><v>}   see limits.go   (reset only)

func (s *Store) tokenKey(id string) string    { return s.Prefix + ":tok:" + id }
func (s *Store) userKey(user string) string   { return s.Prefix + ":usr:" + escape(user) }
func (s *Store) noteKey(user string) string   { return s.Prefix + ":who:" + escape(user) }
func (s *Store) sessionKey(sid string) string { return s.Prefix + ":ref:" + escape(sid) }
func (s *Store) signingKey(kid string) string { return s.Prefix + ":key:" + kid }
func (s *Store) eventKey() string             { return s.Prefix + ":evt" }
func (s *Store) channel() string              { return s.Prefix + ":events" }
func (s *Store) liveKey() string              { return s.Prefix + ":gw:live" }

func (s *Store) gatewayKey(instance string) string { return s.Prefix + ":gw:" + instance }

func (s *Store) limitKey(name string, windowMS int64, value string) string {
	return fmt.Sprintf("%s:lim:1:%s:%d:{%s}", s.Prefix, name, windowMS, value)
}

// escape makes a value safe inside a key (design: redis-keys): bytes other than
// [A-Za-z0-9._-] as %XX, and what grows longer than 64 bytes as ~ and half its
// SHA-256. Neither a delimiter nor a Cluster hash tag survives it.
func escape(value string) string {
	var b strings.Builder
	for i := range len(value) {
		c := value[i]
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '.', c == '_', c == '-':
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	if b.Len() > 64 {
		sum := sha256.Sum256([]byte(value))
		return "~" + hex.EncodeToString(sum[:16])
	}
	return b.String()
}
