package authsvc

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"

	"github.com/sluice-gateway/sluice/authsvc/config"
	"github.com/sluice-gateway/sluice/authsvc/token"
)

// errKeysPending: the issuer's keys have never been fetched, so that nothing
// can be said about its tokens, neither yes nor no.
var errKeysPending = errors.New("the keys of an issuer have never been fetched")

// keySource hands out an issuer's current keys.
type keySource interface {
	// keys is false until the first set has arrived.
	keys() (token.KeySet, bool)
	// refresh looks for a key that keys lacks. It reports whether it looked.
	refresh(ctx context.Context, kid string) bool
}

// issuer is one party whose tokens are believed: its own keys, algorithms and
// audiences, so that none can speak for another.
type issuer struct {
	name       string
	policy     token.Policy
	algorithms []string
	source     keySource
	userClaim  string
	userPrefix string
	own        bool
}

// identity is what a verified token says, in the form it is handed on.
type identity struct {
	tokenID string
	sum     string // SHA-256 of the whole compact token, hex
	user    string
	session string      // claim sid
	headers [][2]string // name, value: the mapped claims
	scopes  []string
	expires time.Time
	issued  time.Time // zero: the token does not say
	issuer  *issuer
	claims  *token.Claims
}

// voidedBy applies a user's mark (RULES 9). Own tokens carry iat in
// milliseconds of the clock the mark was made with; a foreign iat is whole
// seconds of another clock. A token without iat cannot prove that it is
// younger: its zero time is before every mark.
func (i *identity) voidedBy(mark int64, leeway time.Duration) bool {
	switch {
	case mark == 0:
		return false
	case i.issuer.own:
		return i.issued.UnixMilli() <= mark
	}
	return i.issued.Unix()*1000 <= mark+leeway.Milliseconds()
}

// verifier judges tokens of all issuers and remembers those it has verified.
type verifier struct {
	issuers  []*issuer
	claims   []claimHeader
	percent  bool // claimEncoding
	maxBytes int  // tokens.maxBytes
	leftOut  func(by *issuer, claim, header string, reason error)
	leeway   time.Duration
	verified *lru.Cache[string, verifiedToken]
	version  *atomic.Uint64 // grows whenever any issuer's keys change
	hits     atomic.Int64
	misses   atomic.Int64
}

// verifiedToken is this process's own memory of a signature it has checked.
// sum covers the signature, which the token's id does not: whoever presents
// header.payload with another signature meets the whole verification again
// (RULES 1).
type verifiedToken struct {
	sum     [sha256.Size]byte
	version uint64
	who     *identity
}

// maxAttempts bounds the verifications that one token without kid can cause.
const maxAttempts = 16

// verify returns who a token speaks for. It says nothing about revocation.
func (v *verifier) verify(ctx context.Context, compact string, now time.Time) (*identity, error) {
	if len(compact) > v.maxBytes {
		return nil, fmt.Errorf("%w: %d bytes, at most %d (tokens.maxBytes)", token.ErrTooLarge, len(compact), v.maxBytes)
	}
	id, sum, version := token.ID(compact), sha256.Sum256([]byte(compact)), v.version.Load()
	if known, found := v.verified.Get(id); found && known.sum == sum && known.version == version {
		if !now.Before(known.who.expires.Add(v.leeway)) {
			v.verified.Remove(id)
			return nil, token.ErrExpired
		}
		v.hits.Add(1)
		return known.who, nil
	}
	v.misses.Add(1)
	who, err := v.verifyAnew(ctx, compact, now)
	if err != nil {
		return nil, err
	}
	who.tokenID, who.sum = id, hex.EncodeToString(sum[:])
	v.verified.Add(id, verifiedToken{sum: sum, version: version, who: who})
	return who, nil
}

func (v *verifier) verifyAnew(ctx context.Context, compact string, now time.Time) (*identity, error) {
	c, err := token.ParseWithin(v.maxBytes, compact)
	if err != nil {
		return nil, err
	}
	claims, by, err := v.prove(c)
	if err != nil && v.lookForKey(ctx, c) {
		claims, by, err = v.prove(c)
	}
	if err != nil {
		return nil, err
	}
	if err := by.policy.Check(claims, c.Type, now); err != nil {
		return nil, err
	}
	return v.identify(by, claims)
}

// prove finds the issuer that both signed a token and is named in it. Issuers
// may share keys, as the tenants of one provider do, and fetch them at their
// own times: what the key of one proves counts for another once that has it.
func (v *verifier) prove(c *token.Compact) (*token.Claims, *issuer, error) {
	payload, by, err := v.checkSignature(c)
	if err != nil {
		return nil, nil, err
	}
	claims, err := token.ParseClaims(payload)
	if err != nil {
		return nil, nil, err
	}
	var names []string
	for _, issuer := range by {
		if issuer.policy.Issuer == claims.Issuer {
			return claims, issuer, nil
		}
		names = append(names, fmt.Sprintf("%s (%s)", issuer.name, issuer.policy.Issuer))
	}
	for _, issuer := range v.issuers {
		if _, ready := issuer.source.keys(); !ready && issuer.policy.Issuer == claims.Issuer {
			return nil, nil, fmt.Errorf("%w: %s", errKeysPending, issuer.name)
		}
	}
	return nil, nil, fmt.Errorf("%w: the token names issuer %.200q, but the key that signed it is of %s; is issuers[].issuer spelt as the token does, to the last slash?",
		token.ErrClaims, claims.Issuer, strings.Join(names, ", "))
}

// pending names the issuers whose keys have never been there.
func (v *verifier) pending() (names []string) {
	for _, issuer := range v.issuers {
		if _, ready := issuer.source.keys(); !ready {
			names = append(names, issuer.name)
		}
	}
	return names
}

// checkSignature tries the keys that may have signed. It returns the payload
// and the issuers that hold the key which did: only they may be the token's
// issuer, and only now is the payload read to see which of them it names.
func (v *verifier) checkSignature(c *token.Compact) (payload []byte, by []*issuer, err error) {
	var signer string // thumbprint
	tried := make(map[string]bool)
	var pending []string
	for _, issuer := range v.issuers {
		keys, ready := issuer.source.keys()
		if !ready && issuer.accepts(c.Algorithm) {
			pending = append(pending, issuer.name)
		}
		for _, key := range keys.Candidates(c.Algorithm, c.KeyID) {
			if key.Thumbprint == signer {
				by = append(by, issuer)
				break
			}
			if signer != "" || tried[key.Thumbprint] || len(tried) == maxAttempts {
				continue
			}
			tried[key.Thumbprint] = true
			verified, failure := c.Verify(key)
			if failure != nil {
				err = failure
				continue
			}
			signer, payload, by = key.Thumbprint, verified, append(by, issuer)
			break
		}
	}
	if signer != "" {
		return payload, by, nil
	}
	if pending != nil {
		return nil, nil, fmt.Errorf("%w: %s", errKeysPending, strings.Join(pending, ", "))
	}
	if err == nil {
		err = fmt.Errorf("%w: alg %q, kid %.40q", token.ErrNoKey, c.Algorithm, c.KeyID)
	}
	return nil, nil, err
}

func (i *issuer) accepts(algorithm string) bool {
	return slices.Contains(i.algorithms, algorithm)
}

// lookForKey asks the issuers that may have rotated in a key that is not known
// here. What bounds it stands in jwks.go (RULES 45). The answer has to come well
// before a gateway stops waiting: it would hold authsvc to be away, for everybody.
func (v *verifier) lookForKey(ctx context.Context, c *token.Compact) (looked bool) {
	if c.KeyID == "" {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, jwksWait)
	defer cancel()
	for _, issuer := range v.issuers {
		if issuer.accepts(c.Algorithm) && issuer.source.refresh(ctx, c.KeyID) {
			looked = true
		}
	}
	return looked
}

func (v *verifier) identify(by *issuer, claims *token.Claims) (*identity, error) {
	name, present, err := claims.Header(by.userClaim)
	if err != nil {
		return nil, err
	}
	user := by.userPrefix + name
	if !present || len(user) > maxUser {
		return nil, fmt.Errorf("%w: %q does not name a user of 1 to %d bytes", token.ErrClaims, by.userClaim, maxUser)
	}
	// The user claim must be text: 42 and "42" may be two users elsewhere.
	if raw, _ := claims.Lookup(by.userClaim); fmt.Sprintf("%T", raw) != "string" {
		return nil, fmt.Errorf("%w: %q is not a string", token.ErrClaims, by.userClaim)
	}
	if other := v.owner(user); other != by {
		return nil, fmt.Errorf("%w: the user's name begins with the prefix of issuer %q", token.ErrClaims, other.name)
	}
	who := &identity{
		user: user, session: claims.Session, scopes: claims.Scopes(),
		expires: claims.Expires, issued: claims.Issued, issuer: by, claims: claims,
	}
	// From here on nothing refuses the token any more: what cannot be a header
	// is not handed on, and that is said.
	err = token.CheckHeaderText(who.session)
	if raw, _ := claims.Lookup("sid"); raw != nil && fmt.Sprintf("%T", raw) != "string" {
		err = errors.New("not a string")
	}
	if err != nil {
		who.session = ""
		v.leftOut(by, "sid", config.HeaderSessionID, err)
	}
	header, left := claims.Header, maxHeaders
	if v.percent {
		header = claims.PercentHeader
	}
	for _, mapped := range v.claims {
		value, present, err := header(mapped.claim)
		if err == nil && len(value) > left {
			err = fmt.Errorf("%d bytes, with which all claims would exceed %d", len(value), maxHeaders)
		}
		switch {
		case err != nil:
			v.leftOut(by, mapped.claim, mapped.header, err)
		case present:
			left -= len(value)
			who.headers = append(who.headers, [2]string{mapped.header, value})
		}
	}
	claims.Trim()
	return who, nil
}

// owner is the issuer whose user a name is; nil: nobody's. With prefixes "" and
// "ext:", a user "ext:42" of the first would be user 42 of the second: a name
// belongs to the longest prefix it begins with.
func (v *verifier) owner(user string) (owner *issuer) {
	for _, issuer := range v.issuers {
		if strings.HasPrefix(user, issuer.userPrefix) && (owner == nil || len(issuer.userPrefix) > len(owner.userPrefix)) {
			owner = issuer
		}
	}
	return owner
}

// prefixes are those that users' names begin with.
func (v *verifier) prefixes() (all []string) {
	for _, issuer := range v.issuers {
		if issuer.userPrefix != "" {
			all = append(all, issuer.userPrefix)
		}
	}
	return all
}

// expired judges a token by the last second of its life: its age is no fault.
func (v *verifier) expired(ctx context.Context, compact string) (*identity, error) {
	c, err := token.ParseWithin(v.maxBytes, compact)
	if err != nil {
		return nil, err
	}
	claims, err := c.Unproven()
	if err != nil {
		return nil, err
	}
	return v.verifyAnew(ctx, compact, claims.Expires.Add(-time.Second))
}

// maxUser bounds a user's name: it becomes a header, part of a Redis key and
// part of an event of at most 1 KiB.
const maxUser = 256

func normalType(typ string) string {
	return strings.TrimPrefix(strings.ToLower(typ), "application/")
}
