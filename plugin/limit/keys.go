package limit

import (
	"crypto/sha256"
	"encoding/hex"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// The grammar of every Redis key a gateway touches (design: redis-keys); authsvc states
// it too, and a test holds both sides together.
//
//	<prefix>:lim:1:<name>:<window ms>:{<t><v>}   counters; 1 is the value's format (window/lua.go)
//	<prefix>:gw:live                             sorted set of live instances (heartbeat.go)
//	<prefix>:gw:<instance>                       heartbeat JSON
//
// t is the type, v the value: every byte but letters, digits, '.', '_' and '-'
// percent-encoded, so that no user id can hold a delimiter or a hash tag of its
// own; when that is longer than maxValue, '~' and half the value's SHA-256, so
// that no client decides how much memory its key takes. The braces make <t><v>
// the Cluster's hash tag.

// What a key limits.
const (
	UserKey   = "u"
	IPKey     = "i"
	HeaderKey = "h"
	GlobalKey = "g"
)

const maxValue = 64

// QueryEscape leaves exactly the bytes above and '~' as they are, but writes a
// space as '+'. It runs natively where a loop over bytes would be interpreted.
var beyondQueryEscape = strings.NewReplacer("+", "%20", "~", "%7E")

// Key is <t><v> for a type and a raw value.
func Key(t, value string) string {
	v := beyondQueryEscape.Replace(url.QueryEscape(value))
	if len(v) > maxValue {
		return t + digest(value)
	}
	return t + v
}

func digest(value string) string {
	sum := sha256.Sum256([]byte(value))
	return "~" + hex.EncodeToString(sum[:16])
}

func limitPrefix(prefix, name string, span time.Duration) string {
	return prefix + ":lim:1:" + name + ":" + strconv.FormatInt(int64(span/time.Millisecond), 10) + ":{"
}

func (l *Limiter) redisKey(key string) string { return l.prefix + key + "}" }

func liveKey(prefix string) string { return prefix + ":gw:live" }

func heartbeatKey(prefix, instance string) string { return prefix + ":gw:" + instance }
