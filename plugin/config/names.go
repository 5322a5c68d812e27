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

// HostField is the name of the one field that may be a key and that Go keeps
// outside of the headers, together with HTTP/2's :authority.
const HostField = "Host"

// RequestIDHeader names a request on its way in and on its way out.
const RequestIDHeader = "X-Request-Id"

// What authsvc tells the gateway of a token: its jti, and the family of its refresh
// tokens.
const (
	TokenIDHeader   = "X-Token-Id"
	SessionIDHeader = "X-Session-Id"
)

// IdentityHeaders are what authsvc tells of a user unless configured otherwise.
var IdentityHeaders = []string{"X-User-Id", "X-User-Plan", "X-User-Scopes"}
