// Package token judges JSON Web Tokens without knowing HTTP or Redis.
//
// A compact token passes four gates, and each sees only what the one before
// it let through:
//
//  1. Parse (guard.go) checks form: size, three strict base64url segments, a
//     header that is one plain JSON object and asks for nothing we do not do.
//  2. KeySet (keyset.go) picks the keys that are bound to the header's
//     algorithm. No key ever comes from the token.
//  3. Verify (compact.go) checks the signature with golang-jwt's methods.
//  4. ParseClaims and Policy (claims.go) read the payload, only now, and
//     check issuer, audience, times and type.
//
// Issuing (issue.go) is the way back: it signs what the four gates accept.
package token

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
)

// MaxSize bounds a compact token, in bytes, before anything is decoded, where
// nothing else is configured: golang-jwt alone parses the JSON of a forged 1 MiB
// token for 80 ms before it looks at the signature.
const MaxSize = 8 << 10

// maxHeader bounds the first segment, the one part whose JSON is parsed for
// whoever sends it: filled with names up to MaxSize it would cost ten times
// what refusing the signature does. Headers of real issuers stay below 300.
const maxHeader = 1 << 10

// Why a token was refused. Callers tell them apart with errors.Is; the wrapped
// text is for the operator's log, not for the client.
var (
	ErrMalformed = errors.New("malformed token")
	ErrAlgorithm = errors.New("algorithm not accepted")
	ErrNoKey     = errors.New("no key for this token")
	ErrSignature = errors.New("signature does not match")
	ErrTooLarge  = fmt.Errorf("%w: too large", ErrMalformed)
)

// Compact is a token whose form is sound; nothing about it is proven yet.
type Compact struct {
	Algorithm string
	KeyID     string
	Type      string // header typ, lower case, without "application/"

	signingInput string
	payload      []byte // raw bytes; parsed only after the signature held
	signature    []byte
}

// ID names a token: 64 hex digits of SHA-256 over `header.payload`. The
// signature has no part in it, because an ES256 token has two valid ones, and
// a revoked token must be refused in every spelling. For the same reason an id
// proves nothing (design: status-only).
func ID(compact string) string {
	end := strings.LastIndexByte(compact, '.')
	sum := sha256.Sum256([]byte(compact[:max(end, 0)]))
	return hex.EncodeToString(sum[:])
}

// refusedParameters would make the header's author choose the key or the rules
// of verification (RFC 8725 section 3.10; RFC 7515 section 4.1.11).
var refusedParameters = map[string]string{
	"jku":  "a key named by the token is never fetched",
	"x5u":  "a key named by the token is never fetched",
	"jwk":  "a key carried by the token is never trusted",
	"x5c":  "a key carried by the token is never trusted",
	"crit": "no critical extension is understood",
	"b64":  "unencoded payloads (RFC 7797) are not accepted",
	"zip":  "compressed tokens are not accepted",
	"enc":  "encrypted tokens are not accepted",
	"epk":  "encrypted tokens are not accepted",
}

// Parse checks the form of a compact token of at most MaxSize bytes.
func Parse(compact string) (*Compact, error) { return ParseWithin(MaxSize, compact) }

// ParseWithin checks the form of a compact token of at most maxBytes.
func ParseWithin(maxBytes int, compact string) (*Compact, error) {
	if len(compact) > maxBytes {
		return nil, fmt.Errorf("%w: %d bytes, at most %d", ErrTooLarge, len(compact), maxBytes)
	}
	if strings.Count(compact, ".") != 2 {
		return nil, fmt.Errorf("%w: not three segments", ErrMalformed)
	}
	end := strings.LastIndexByte(compact, '.')
	header, payload, _ := strings.Cut(compact[:end], ".")
	if len(header) > maxHeader {
		return nil, fmt.Errorf("%w: header of %d bytes, at most %d", ErrMalformed, len(header), maxHeader)
	}

	rawHeader, err := decodeSegment(header)
	if err != nil {
		return nil, fmt.Errorf("%w: header: %w", ErrMalformed, err)
	}
	c := &Compact{signingInput: compact[:end]}
	if c.payload, err = decodeSegment(payload); err != nil {
		return nil, fmt.Errorf("%w: payload: %w", ErrMalformed, err)
	}
	if c.signature, err = decodeSegment(compact[end+1:]); err != nil {
		return nil, fmt.Errorf("%w: signature: %w", ErrMalformed, err)
	}
	if len(c.signature) == 0 {
		return nil, fmt.Errorf("%w: empty signature", ErrMalformed)
	}
	if err := c.readHeader(rawHeader); err != nil {
		return nil, err
	}
	return c, nil
}

// headerNames are the parameters that mean something to us or to others.
var headerNames = foldedNames("alg", "kid", "typ", "crit", "jwk", "jku")

func (c *Compact) readHeader(raw []byte) error {
	header, err := parseObject(raw)
	if err != nil {
		return fmt.Errorf("%w: header: %w", ErrMalformed, err)
	}
	for name := range header {
		if reason, refused := refusedParameters[name]; refused {
			return fmt.Errorf("%w: header %q: %s", ErrMalformed, name, reason)
		}
		if known, imitated := imitates(name, headerNames); imitated {
			return fmt.Errorf("%w: header name %.40q imitates %q", ErrMalformed, name, known)
		}
	}
	for name, into := range map[string]*string{"alg": &c.Algorithm, "kid": &c.KeyID, "typ": &c.Type} {
		value, present := header[name]
		if !present {
			continue
		}
		text, ok := value.(string)
		if !ok {
			return fmt.Errorf("%w: header %q is not a string", ErrMalformed, name)
		}
		*into = text
	}
	// RFC 7515 section 4.1.9: the prefix may be left out, and media types do
	// not care about case.
	c.Type = strings.TrimPrefix(strings.ToLower(c.Type), "application/")
	if _, known := methods[c.Algorithm]; !known {
		return fmt.Errorf("%w: %.40q", ErrAlgorithm, c.Algorithm)
	}
	return nil
}

// decodeSegment is base64url without padding, white space or loose trailing
// bits. Go's decoder skips CR and LF and, unless strict, ignores the unused
// bits of the last character: both would give one token many spellings.
func decodeSegment(segment string) ([]byte, error) {
	if strings.ContainsAny(segment, "\r\n") {
		return nil, errors.New("line break inside base64url")
	}
	return base64.RawURLEncoding.Strict().DecodeString(segment)
}
