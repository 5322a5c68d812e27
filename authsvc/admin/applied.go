package admin

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"math"
	"net/textproto"
	"slices"
	"strconv"
	"strings"

	"github.com/sluice-gateway/sluice/authsvc/store"
	"github.com/sluice-gateway/sluice/plugin/window"
)

// applied is the limit as gateways apply it to a user whose token became these
// headers (plugin/limits.go, permitted), and why it is that one. known is false
// where nothing is known of him.
func applied(l store.Limit, headers map[string]string, known bool) (limit store.Limit, because string) {
	canonical := make(map[string]string)
	for name, value := range headers {
		canonical[textproto.CanonicalMIMEHeaderKey(name)] = value
	}
	if l.LimitHeader == "" && l.TierHeader == "" {
		return l, ""
	}
	if !known {
		return l, "the plain limit: no token of this user is known, so what he has instead is not" + tiersOf(l)
	}
	if text := canonical[textproto.CanonicalMIMEHeaderKey(l.LimitHeader)]; l.LimitHeader != "" && text != "" {
		if n, ok := ownLimit(text); ok {
			l.Limit = n
			return l, fmt.Sprintf("%s: %s", l.LimitHeader, text)
		}
	}
	if l.TierHeader == "" {
		return l, "the plain limit: his tokens carry none in " + l.LimitHeader
	}
	text := canonical[textproto.CanonicalMIMEHeaderKey(l.TierHeader)]
	if tier, ok := tierOf(l, text); ok {
		l.Limit = l.Tiers[tier]
		return l, fmt.Sprintf("tier %s, by %s: %s", tier, l.TierHeader, text)
	}
	return l, fmt.Sprintf("the plain limit: %s is %q%s", l.TierHeader, text, tiersOf(l))
}

// ownLimit reads a limit that a header carries: a whole number in any spelling,
// or unlimited.
func ownLimit(text string) (int64, bool) {
	const most = window.MaxLimit
	text = strings.TrimSpace(text)
	if strings.EqualFold(text, "unlimited") {
		return most, true
	}
	n, err := strconv.ParseFloat(text, 64)
	if err != nil || strings.Trim(text, "0123456789+-.eE") != "" || n < 0 || n != math.Trunc(n) {
		return 0, false
	}
	return int64(min(n, float64(most))), true
}

// tierOf finds the tier that a header names. Of several, as roles are, the one
// that the gateways rank first counts.
func tierOf(l store.Limit, text string) (string, bool) {
	if _, ok := l.Tiers[text]; ok {
		return text, true
	}
	roles := strings.FieldsFunc(text, func(c rune) bool { return c == ' ' || c == '\t' || c == ',' })
	for _, tier := range l.Ranked {
		if slices.Contains(roles, tier) {
			_, ok := l.Tiers[tier]
			return tier, ok
		}
	}
	return "", false
}

func tiersOf(l store.Limit) string {
	if len(l.Tiers) == 0 {
		return ""
	}
	names := slices.SortedFunc(maps.Keys(l.Tiers), func(a, b string) int { return cmp.Compare(l.Tiers[a], l.Tiers[b]) })
	for i, name := range names {
		names[i] = fmt.Sprintf("%s %d", name, l.Tiers[name])
	}
	return "; tiers: " + strings.Join(names, ", ")
}

// usage is the state of a key under the limit that applies to it.
func (i *Interface) usage(ctx context.Context, l store.Limit, key string) (store.Usage, error) {
	user, ofUser := strings.CutPrefix(key, "user:")
	because := ""
	switch {
	case ofUser:
		headers, known, err := i.Store.User(ctx, user)
		if err != nil {
			return store.Usage{}, err
		}
		l, because = applied(l, headers, known)
	case l.Key != "user" && len(l.Tiers) > 0:
		because = "the plain limit: what applies depends on who asks" + tiersOf(l)
	}
	usage, err := i.Store.Usage(ctx, l, key)
	usage.Because = because
	return usage, err
}
