package token

import (
	"cmp"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/MicahParks/jwkset"
	"github.com/golang-jwt/jwt/v5"
)

// AccessTokenType is the header typ of own tokens (RFC 9068 section 2.1): no
// other kind of JWT can be mistaken for one of them.
const AccessTokenType = "at+jwt"

// Signer is a private key with its name and its one algorithm.
type Signer struct {
	KeyID     string
	Algorithm string
	private   any // *rsa.PrivateKey, *ecdsa.PrivateKey, ed25519.PrivateKey or []byte
	public    Key
}

// NewSigner binds private material to an algorithm. The key is named by its
// RFC 7638 thumbprint, so that replicas agree without talking to each other.
func NewSigner(algorithm string, private any) (Signer, error) {
	public := private
	if key, ok := private.(crypto.Signer); ok {
		public = key.Public()
	}
	key, err := newKey("", algorithm, public)
	if err != nil {
		return Signer{}, err
	}
	key.ID = key.Thumbprint[:32]
	return Signer{KeyID: key.ID, Algorithm: algorithm, private: private, public: key}, nil
}

// GenerateKey makes private material that NewSigner accepts for algorithm.
func GenerateKey(algorithm string) (any, error) {
	switch algorithm {
	case "ES256":
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "ES384":
		return ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case "ES512":
		return ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	case "EdDSA":
		_, private, err := ed25519.GenerateKey(rand.Reader)
		return private, err
	case "RS256", "RS384", "RS512", "PS256", "PS384", "PS512":
		return rsa.GenerateKey(rand.Reader, 3072)
	case "HS256", "HS384", "HS512":
		secret := make([]byte, 64)
		_, err := rand.Read(secret)
		return secret, err
	}
	return nil, fmt.Errorf("%w: %q", ErrAlgorithm, algorithm)
}

// Key is the verifying half.
func (s Signer) Key() Key { return s.public }

// Private is the material that GenerateKey made, for writing it to a file.
func (s Signer) Private() any { return s.private }

// PublicJWK describes the verifying half for others. ok is false for secrets,
// which are never published (design: signing-keys).
func (s Signer) PublicJWK() (jwk json.RawMessage, ok bool, err error) {
	if s.public.Symmetric() {
		return nil, false, nil
	}
	described, err := jwkset.NewJWKFromKey(s.public.material, jwkset.JWKOptions{
		Metadata: jwkset.JWKMetadataOptions{ALG: jwkset.ALG(s.Algorithm), KID: s.KeyID, USE: jwkset.UseSig},
	})
	if err != nil {
		return nil, false, err
	}
	jwk, err = json.Marshal(described.Marshal())
	return jwk, err == nil, err
}

// Grant is what an access token shall say.
type Grant struct {
	Issuer, Audience string
	Subject          string
	Session          string // claim sid
	ID               string // claim jti
	Issued           time.Time
	TTL              time.Duration
	Claims           map[string]any // beside the ones above
	MaxBytes         int            // of the whole token; 0: MaxSize
}

// ReservedClaim says whether only the issuer itself may set a claim.
func ReservedClaim(name string) bool {
	return slices.ContainsFunc(registered, func(known string) bool {
		return known != "scope" && foldName(known) == foldName(name)
	})
}

// Issue signs a grant. iat carries milliseconds, so that a login in the same
// second as a revocation of all the user's tokens is told apart from what it
// revoked (design: void-before); exp is whole seconds and never later than promised.
func (s Signer) Issue(g Grant) (string, error) {
	claims := jwt.MapClaims{}
	for name, value := range g.Claims {
		if ReservedClaim(name) {
			return "", fmt.Errorf("%w: %q is set by the issuer", ErrClaims, name)
		}
		claims[name] = value
	}
	claims["iss"], claims["aud"], claims["sub"] = g.Issuer, g.Audience, g.Subject
	claims["jti"], claims["sid"] = g.ID, g.Session
	claims["iat"] = json.Number(fmt.Sprintf("%d.%03d", g.Issued.Unix(), g.Issued.UnixMilli()%1000))
	claims["exp"] = g.Issued.Add(g.TTL).Unix()

	unsigned := jwt.NewWithClaims(methods[s.Algorithm], claims)
	unsigned.Header["typ"] = AccessTokenType
	unsigned.Header["kid"] = s.KeyID
	compact, err := unsigned.SignedString(s.private)
	if err != nil {
		return "", err
	}
	// What we could not read back, nobody shall be given.
	c, err := ParseWithin(cmp.Or(g.MaxBytes, MaxSize), compact)
	if err != nil {
		return "", err
	}
	if _, err := ParseClaims(c.payload); err != nil {
		return "", err
	}
	return compact, nil
}
