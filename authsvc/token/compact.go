package token

import (
	"crypto"
	"crypto/rsa"
	"fmt"

	"github.com/golang-jwt/jwt/v5"
)

// methods are the only algorithms there are: whatever is missing here, `none`
// in all its spellings included, is refused before a key is looked for.
var methods = map[string]jwt.SigningMethod{
	"RS256": jwt.SigningMethodRS256,
	"RS384": jwt.SigningMethodRS384,
	"RS512": jwt.SigningMethodRS512,
	"PS256": strictPSS("PS256", crypto.SHA256),
	"PS384": strictPSS("PS384", crypto.SHA384),
	"PS512": strictPSS("PS512", crypto.SHA512),
	"ES256": jwt.SigningMethodES256,
	"ES384": jwt.SigningMethodES384,
	"ES512": jwt.SigningMethodES512,
	"EdDSA": jwt.SigningMethodEdDSA,
	"HS256": jwt.SigningMethodHS256,
	"HS384": jwt.SigningMethodHS384,
	"HS512": jwt.SigningMethodHS512,
}

// Algorithms lists what a configuration may name, in the order it is printed.
var Algorithms = []string{
	"RS256", "RS384", "RS512", "PS256", "PS384", "PS512",
	"ES256", "ES384", "ES512", "EdDSA", "HS256", "HS384", "HS512",
}

// strictPSS demands a salt as long as the hash (RFC 7518 section 3.5);
// golang-jwt's own methods verify with any length.
func strictPSS(name string, hash crypto.Hash) *jwt.SigningMethodRSAPSS {
	options := &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: hash}
	return &jwt.SigningMethodRSAPSS{
		SigningMethodRSA: &jwt.SigningMethodRSA{Name: name, Hash: hash},
		Options:          options,
		VerifyOptions:    options,
	}
}

// VerifyCompact is the layer beneath the claims: it returns the payload of a
// compact JWS that one of keys has signed. The payload may be anything, also
// empty; what it means is the caller's business.
func VerifyCompact(compact string, keys KeySet) (payload []byte, err error) {
	c, err := Parse(compact)
	if err != nil {
		return nil, err
	}
	candidates := keys.Candidates(c.Algorithm, c.KeyID)
	if len(candidates) == 0 {
		return nil, fmt.Errorf("%w: alg %q, kid %.40q", ErrNoKey, c.Algorithm, c.KeyID)
	}
	for _, key := range candidates {
		if payload, err = c.Verify(key); err == nil {
			return payload, nil
		}
	}
	return nil, err
}

// Verify checks the signature with one key and, only if it holds, hands out
// the payload. The key's own binding is checked again here, so that no caller
// can confuse an RSA public key with an HMAC secret (RFC 8725 section 3.1).
func (c *Compact) Verify(key Key) ([]byte, error) {
	if !key.Accepts(c.Algorithm) {
		return nil, fmt.Errorf("%w: the key is not for %q", ErrAlgorithm, c.Algorithm)
	}
	if err := methods[c.Algorithm].Verify(c.signingInput, c.signature, key.material); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSignature, err)
	}
	return c.payload, nil
}
