// Package identity says whose a token is and for how long that may be believed.
//
//  1. Verify (verifier.go over package token): the token's form, then its
//     signature by a key of an issuer that the configuration trusts, then its
//     claims. A token whose every byte was verified before is not verified again
//     while the issuers' keys stay as they are.
//  2. What becomes of the claims (claims.go): the user's name with the issuer's
//     prefix, and headers. What cannot be a header is left out.
//  3. CheckStatus (status.go over package store): revoked, session ended, voided
//     with all of the user's tokens? Memory first, Redis only for what memory
//     cannot know.
//  4. Answer (answer.go): the identity as headers, and its Cache-Control.
//
// Explain looks at all of that check by check, for an operator.
package identity

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"

	"github.com/sluice-gateway/sluice/authsvc/config"
	"github.com/sluice-gateway/sluice/authsvc/keys"
	"github.com/sluice-gateway/sluice/authsvc/token"
)

// ErrKeysPending means that the issuer's keys have never been fetched, so that
// nothing can be said about its tokens, neither yes nor no.
var ErrKeysPending = errors.New("the keys of an issuer have never been fetched")

// Issuer is one party whose tokens are believed: its own keys, algorithms and
// audiences, so that none can speak for another.
type Issuer struct {
	Name       string // in logs and metrics
	UserPrefix string
	Own        bool // the tokens are authsvc's
	Source     keys.Source

	policy     token.Policy
	algorithms []string
	userClaim  string
}

// Identity is what a verified token says, in the form it is handed on.
type Identity struct {
	TokenID string
	User    string
	Session string      // claim sid
	Headers [][2]string // name, value: the mapped claims
	Scopes  []string
	Expires time.Time
	Issued  time.Time // zero: the token does not say
	Issuer  *Issuer
	Claims  *token.Claims

	sum string // SHA-256 of the whole compact token, hex
}

// Verifier judges tokens of all issuers and remembers those it has verified.
type Verifier struct {
	config   *config.Config
	issuers  []*Issuer
	claims   []claimHeader
	leftOut  *claimsLeftOut
	verified *lru.Cache[string, verifiedToken]
	version  atomic.Uint64 // grows whenever any issuer's keys change
	hits     atomic.Int64
	misses   atomic.Int64
}

// NewVerifier trusts nobody yet.
func NewVerifier(c *config.Config, log *slog.Logger) (*Verifier, error) {
	verified, err := lru.New[string, verifiedToken](c.Cache.Size)
	return &Verifier{config: c, claims: claimHeaders(c.Claims), leftOut: newClaimsLeftOut(log), verified: verified}, err
}

// TrustOwn adds authsvc itself to the issuers.
func (v *Verifier) TrustOwn(source keys.Source) {
	own := v.config.Own
	v.issuers = append(v.issuers, &Issuer{
		Name: "own", Own: true, UserPrefix: own.UserPrefix, Source: source, userClaim: "sub",
		// Every algorithm, because keys made before a change of own.algorithm
		// live on; each key is bound to its own.
		algorithms: token.Algorithms,
		policy: token.Policy{
			Issuer: own.Issuer, Audiences: []string{own.Audience}, Type: token.AccessTokenType,
			Leeway: v.config.ClockLeeway, MaxLifetime: v.config.Tokens.MaxLifetime, OtherClock: true,
		},
	})
}

// Trust adds an issuer whose keys are source's.
func (v *Verifier) Trust(i config.Issuer, source keys.Source) {
	v.issuers = append(v.issuers, &Issuer{
		Name: i.Name, UserPrefix: i.UserPrefix, Source: source, userClaim: cmp.Or(i.UserClaim, "sub"),
		algorithms: i.Algorithms,
		policy: token.Policy{
			Issuer: i.Issuer, Audiences: i.Audiences, Type: strings.TrimPrefix(strings.ToLower(i.Typ), "application/"),
			Leeway: v.config.ClockLeeway, MaxLifetime: v.config.Tokens.MaxLifetime,
		},
	})
}

// Issuers are those that are trusted; without any every token is refused.
func (v *Verifier) Issuers() []*Issuer { return v.issuers }

// KeysChanged makes the verifier forget what it has verified with the keys of
// before.
func (v *Verifier) KeysChanged() { v.version.Add(1) }

// verifiedToken is this process's own memory of a signature it has checked.
// sum covers the signature, which the token's id does not: whoever presents
// header.payload with another signature meets the whole verification again
// (design: status-only).
type verifiedToken struct {
	sum     [sha256.Size]byte
	version uint64
	who     *Identity
}

// maxAttempts bounds the verifications that one token without kid can cause.
const maxAttempts = 16

// Verify returns who a token speaks for. It says nothing about revocation.
func (v *Verifier) Verify(ctx context.Context, compact string, now time.Time) (*Identity, error) {
	if len(compact) > v.config.Tokens.MaxBytes {
		return nil, fmt.Errorf("%w: %d bytes, at most %d (tokens.maxBytes)", token.ErrTooLarge, len(compact), v.config.Tokens.MaxBytes)
	}
	id, sum, version := token.ID(compact), sha256.Sum256([]byte(compact)), v.version.Load()
	if known, found := v.verified.Get(id); found && known.sum == sum && known.version == version {
		if !now.Before(known.who.Expires.Add(v.config.ClockLeeway)) {
			v.verified.Remove(id)
			return nil, token.ErrExpired
		}
		v.hits.Add(1)
		return known.who, nil
	}
	v.misses.Add(1)
	who, err := v.VerifyAnew(ctx, compact, now)
	if err != nil {
		return nil, err
	}
	who.TokenID, who.sum = id, hex.EncodeToString(sum[:])
	v.verified.Add(id, verifiedToken{sum: sum, version: version, who: who})
	return who, nil
}

// VerifyAnew is Verify without what is remembered.
func (v *Verifier) VerifyAnew(ctx context.Context, compact string, now time.Time) (*Identity, error) {
	c, err := token.ParseWithin(v.config.Tokens.MaxBytes, compact)
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
func (v *Verifier) prove(c *token.Compact) (*token.Claims, *Issuer, error) {
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
		names = append(names, fmt.Sprintf("%s (%s)", issuer.Name, issuer.policy.Issuer))
	}
	for _, issuer := range v.issuers {
		if _, ready := issuer.Source.Keys(); !ready && issuer.policy.Issuer == claims.Issuer {
			return nil, nil, fmt.Errorf("%w: %s", ErrKeysPending, issuer.Name)
		}
	}
	return nil, nil, fmt.Errorf("%w: the token names issuer %.200q, but the key that signed it is of %s; is issuers[].issuer spelt as the token does, to the last slash?",
		token.ErrClaims, claims.Issuer, strings.Join(names, ", "))
}

// Pending names the issuers whose keys have never been there.
func (v *Verifier) Pending() (names []string) {
	for _, issuer := range v.issuers {
		if _, ready := issuer.Source.Keys(); !ready {
			names = append(names, issuer.Name)
		}
	}
	return names
}

// checkSignature tries the keys that may have signed. It returns the payload
// and the issuers that hold the key which did: only they may be the token's
// issuer, and only now is the payload read to see which of them it names.
func (v *Verifier) checkSignature(c *token.Compact) (payload []byte, by []*Issuer, err error) {
	var signer string // thumbprint
	tried := make(map[string]bool)
	var pending []string
	for _, issuer := range v.issuers {
		keys, ready := issuer.Source.Keys()
		if !ready && issuer.accepts(c.Algorithm) {
			pending = append(pending, issuer.Name)
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
		return nil, nil, fmt.Errorf("%w: %s", ErrKeysPending, strings.Join(pending, ", "))
	}
	if err == nil {
		err = fmt.Errorf("%w: alg %q, kid %.40q", token.ErrNoKey, c.Algorithm, c.KeyID)
	}
	return nil, nil, err
}

func (i *Issuer) accepts(algorithm string) bool {
	return slices.Contains(i.algorithms, algorithm)
}

// lookForKey asks the issuers that may have rotated in a key that is not known
// here. What bounds it stands in keys/remote.go (design: key-sets). The answer has to come well
// before a gateway stops waiting: it would hold authsvc to be away, for everybody.
func (v *Verifier) lookForKey(ctx context.Context, c *token.Compact) (looked bool) {
	if c.KeyID == "" {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, keys.RefreshWait)
	defer cancel()
	for _, issuer := range v.issuers {
		if issuer.accepts(c.Algorithm) && issuer.Source.Refresh(ctx, c.KeyID) {
			looked = true
		}
	}
	return looked
}

func (v *Verifier) identify(by *Issuer, claims *token.Claims) (*Identity, error) {
	name, present, err := claims.Header(by.userClaim)
	if err != nil {
		return nil, err
	}
	user := by.UserPrefix + name
	if !present || len(user) > MaxUser {
		return nil, fmt.Errorf("%w: %q does not name a user of 1 to %d bytes", token.ErrClaims, by.userClaim, MaxUser)
	}
	// The user claim must be text: 42 and "42" may be two users elsewhere.
	if raw, _ := claims.Lookup(by.userClaim); fmt.Sprintf("%T", raw) != "string" {
		return nil, fmt.Errorf("%w: %q is not a string", token.ErrClaims, by.userClaim)
	}
	if other := v.Owner(user); other != by {
		return nil, fmt.Errorf("%w: the user's name begins with the prefix of issuer %q", token.ErrClaims, other.Name)
	}
	who := &Identity{
		User: user, Session: claims.Session, Scopes: claims.Scopes(),
		Expires: claims.Expires, Issued: claims.Issued, Issuer: by, Claims: claims,
	}
	// From here on nothing refuses the token any more: what cannot be a header
	// is not handed on, and that is said.
	err = token.CheckHeaderText(who.Session)
	if raw, _ := claims.Lookup("sid"); raw != nil && fmt.Sprintf("%T", raw) != "string" {
		err = errors.New("not a string")
	}
	if err != nil {
		who.Session = ""
		v.leftOut.report(by.Name, "sid", config.HeaderSessionID, err)
	}
	header, left := claims.Header, maxHeaders
	if v.config.ClaimEncoding == "percent" {
		header = claims.PercentHeader
	}
	for _, mapped := range v.claims {
		value, present, err := header(mapped.claim)
		if err == nil && len(value) > left {
			err = fmt.Errorf("%d bytes, with which all claims would exceed %d", len(value), maxHeaders)
		}
		switch {
		case err != nil:
			v.leftOut.report(by.Name, mapped.claim, mapped.header, err)
		case present:
			left -= len(value)
			who.Headers = append(who.Headers, [2]string{mapped.header, value})
		}
	}
	claims.Trim()
	return who, nil
}

// Owner is the issuer whose user a name is; nil: nobody's. With prefixes "" and
// "ext:", a user "ext:42" of the first would be user 42 of the second: a name
// belongs to the longest prefix it begins with.
func (v *Verifier) Owner(user string) (owner *Issuer) {
	for _, issuer := range v.issuers {
		if strings.HasPrefix(user, issuer.UserPrefix) && (owner == nil || len(issuer.UserPrefix) > len(owner.UserPrefix)) {
			owner = issuer
		}
	}
	return owner
}

// Prefixes are those that users' names begin with.
func (v *Verifier) Prefixes() (all []string) {
	for _, issuer := range v.issuers {
		if issuer.UserPrefix != "" {
			all = append(all, issuer.UserPrefix)
		}
	}
	return all
}

// Expired judges a token by the last second of its life: its age is no fault.
func (v *Verifier) Expired(ctx context.Context, compact string) (*Identity, error) {
	c, err := token.ParseWithin(v.config.Tokens.MaxBytes, compact)
	if err != nil {
		return nil, err
	}
	claims, err := c.Unproven()
	if err != nil {
		return nil, err
	}
	return v.VerifyAnew(ctx, compact, claims.Expires.Add(-time.Second))
}

// MaxUser bounds a user's name: it becomes a header, part of a Redis key and
// part of an event of at most 1 KiB.
const MaxUser = 256
