package config

// What a limit's key may be; KeyHeader is followed by a header's name.
const (
	KeyUser   = "user"
	KeyIP     = "ip"
	KeyHeader = "header:"
	KeyGlobal = "global"
)

// What to do with a request that has no such key: onMissingKey.
const (
	MissingIP   = "ip"
	MissingDeny = "deny"
	MissingSkip = "skip"
)

// Whose answer count and refund speak of, where that is not anybody's: the gate's,
// when it judges the credential, or the service's. What counts the gate's answers
// alone is asked only where the gate has to judge, and comes back at once where it
// finds the credential good.
const (
	AnyAnswers      = ""
	GatesAnswers    = "gate"
	ServicesAnswers = "service"
)

// NeedsIdentity tells whether a limit's key or number comes from what the auth
// step says.
func NeedsIdentity(rule *LimitSettings, auth *AuthSettings) bool {
	return rule.Key == KeyUser || rule.TierHeader != "" || rule.LimitHeader != "" ||
		rule.Key == KeyHeader && auth != nil && Contains(auth.ResponseHeaders, rule.KeyHeader)
}

// HostField is the name of the one field that may be a key and that Go keeps
// outside of the headers, together with HTTP/2's :authority.
const HostField = "Host"

// RequestIDHeader names a request on its way in and on its way out.
const RequestIDHeader = "X-Request-Id"

const (
	TokenIDHeader   = "X-Token-Id"
	SessionIDHeader = "X-Session-Id"
)

// IdentityHeaders are what authsvc tells of a user unless configured otherwise.
var IdentityHeaders = []string{"X-User-Id", "X-User-Plan", "X-User-Scopes"}

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
