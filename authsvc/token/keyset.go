package token

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/MicahParks/jwkset"
)

// maxKeys bounds a set: without kid every key of the algorithm is tried, and
// an issuer's answer must not turn one request into thousands of verifications.
const maxKeys = 64

// Key verifies signatures of the algorithms it is bound to, and of no others.
type Key struct {
	ID         string // kid, may be empty
	Thumbprint string // RFC 7638, SHA-256, hex: the same for every spelling of a key

	algorithms []string
	exposed    bool // the set carried the private half as well
	material   any  // *rsa.PublicKey, *ecdsa.PublicKey, ed25519.PublicKey or []byte
}

// Accepts says whether the key may verify signatures of this algorithm.
func (k Key) Accepts(algorithm string) bool { return slices.Contains(k.algorithms, algorithm) }

// Symmetric keys sign as well as verify and are never published.
func (k Key) Symmetric() bool { _, secret := k.material.([]byte); return secret }

// KeySet is an immutable list of keys.
type KeySet struct{ keys []Key }

// Keys returns all keys of the set.
func (s KeySet) Keys() []Key { return slices.Clone(s.keys) }

// Len counts the keys.
func (s KeySet) Len() int { return len(s.keys) }

// Candidates are the keys that may have made a signature of this algorithm. A
// kid narrows the choice; a key without one (PEM, secret file) stays eligible,
// since nothing but its algorithm binds it.
func (s KeySet) Candidates(algorithm, kid string) []Key {
	var found []Key
	for _, key := range s.keys {
		if key.Accepts(algorithm) && (kid == "" || key.ID == "" || key.ID == kid) {
			found = append(found, key)
		}
	}
	return found
}

// Restrict keeps of every key the algorithms that allowed names, and drops
// keys that are left with none.
func (s KeySet) Restrict(allowed []string) KeySet {
	var kept KeySet
	for _, key := range s.keys {
		bound := slices.DeleteFunc(slices.Clone(key.algorithms), func(name string) bool {
			return !slices.Contains(allowed, name)
		})
		if len(bound) > 0 {
			key.algorithms = bound
			kept.keys = append(kept.keys, key)
		}
	}
	return kept
}

// Join makes one set of several.
func Join(sets ...KeySet) KeySet {
	var joined KeySet
	for _, set := range sets {
		joined.keys = append(joined.keys, set.keys...)
	}
	return joined
}

// ParseKeySet reads a JWK Set (RFC 7517). Keys that are not for verifying
// signatures (`use`, `key_ops`, an unknown `kty` or `alg`) are passed over, as
// section 5 asks; a key that claims to be one and is malformed or weak makes
// the whole set an error, because an operator must hear of it. A set that
// mixes secrets with public keys is refused: whoever publishes it has published
// the secret, and whoever confuses the two accepts forgeries.
func ParseKeySet(jwks []byte) (KeySet, error) {
	document, err := parseObject(jwks)
	if err != nil {
		return KeySet{}, fmt.Errorf("key set: %w", err)
	}
	if _, present := document["keys"].([]any); !present {
		return KeySet{}, errors.New(`key set: no array "keys"`)
	}
	var raw struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(jwks, &raw); err != nil {
		return KeySet{}, fmt.Errorf("key set: %w", err)
	}
	if len(raw.Keys) > maxKeys {
		return KeySet{}, fmt.Errorf("key set: %d keys, at most %d", len(raw.Keys), maxKeys)
	}
	var set KeySet
	for i, jwk := range raw.Keys {
		key, err := parseJWK(jwk)
		if errors.Is(err, errNotForSignatures) {
			continue
		}
		if err != nil {
			return KeySet{}, fmt.Errorf("key set: keys[%d]: %w", i, err)
		}
		set.keys = append(set.keys, key)
	}
	return set, set.consistent()
}

func (s KeySet) consistent() error {
	if len(s.keys) == 0 {
		return errors.New("key set: no key that verifies signatures")
	}
	named := make(map[string]bool)
	for _, key := range s.keys {
		if key.Symmetric() != s.keys[0].Symmetric() {
			return errors.New("key set: holds a secret beside public keys")
		}
		if key.ID != "" && named[key.ID] {
			return fmt.Errorf("key set: two keys are called %q", key.ID)
		}
		named[key.ID] = true
	}
	return nil
}

var errNotForSignatures = errors.New("not a key that verifies signatures")

func parseJWK(raw json.RawMessage) (Key, error) {
	var jwk jwkset.JWKMarshal
	if err := json.Unmarshal(raw, &jwk); err != nil {
		return Key{}, err
	}
	if jwk.USE != "" && jwk.USE != jwkset.UseSig {
		return Key{}, errNotForSignatures
	}
	if len(jwk.KEYOPS) > 0 && !slices.Contains(jwk.KEYOPS, jwkset.KeyOpsVerify) {
		return Key{}, errNotForSignatures
	}
	if !slices.Contains([]jwkset.KTY{jwkset.KtyEC, jwkset.KtyOKP, jwkset.KtyRSA, jwkset.KtyOct}, jwk.KTY) {
		return Key{}, errNotForSignatures
	}
	if jwk.ALG != "" && methods[string(jwk.ALG)] == nil {
		return Key{}, errNotForSignatures
	}
	// jwkset forgives padding and loose bits; two spellings of one key are
	// nothing a signature key needs.
	for name, value := range map[string]string{"x": jwk.X, "y": jwk.Y, "n": jwk.N, "e": jwk.E, "k": jwk.K} {
		if _, err := decodeSegment(value); err != nil {
			return Key{}, fmt.Errorf("%q: %w", name, err)
		}
	}
	if len(jwk.E) > 6 { // jwkset would cut a longer exponent to 64 bits
		return Key{}, errors.New(`"e": longer than 32 bits`)
	}
	// Certificates are not part of the decision and would only be parsed.
	jwk.X5C, jwk.X5U, jwk.X5T, jwk.X5TS256 = nil, "", "", ""
	// Only the public half is taken, and jwkset needs permission for secrets.
	options := jwkset.JWKMarshalOptions{Private: jwk.KTY == jwkset.KtyOct}
	parsed, err := jwkset.NewJWKFromMarshal(jwk, options, jwkset.JWKValidateOptions{SkipAll: true})
	if err != nil {
		return Key{}, err
	}
	key, err := newKey(jwk.KID, string(jwk.ALG), parsed.Key())
	key.exposed = jwk.D != ""
	return key, err
}

// ParsePEM reads public keys and certificates from PEM blocks. A private key
// is refused: a verifier that can sign is a second issuer nobody knows of.
func ParsePEM(data []byte) (KeySet, error) {
	var set KeySet
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		if strings.Contains(block.Type, "PRIVATE") {
			return KeySet{}, errors.New("PEM: holds a private key; give the public key or the certificate")
		}
		var material any
		var err error
		if block.Type == "CERTIFICATE" {
			material, err = certificateKey(block)
		} else {
			material, err = jwkset.LoadX509KeyInfer(block)
		}
		if err != nil {
			return KeySet{}, fmt.Errorf("PEM: %w", err)
		}
		key, err := newKey("", "", material)
		if err != nil {
			return KeySet{}, fmt.Errorf("PEM: %w", err)
		}
		set.keys = append(set.keys, key)
	}
	if len(set.keys) == 0 {
		return KeySet{}, errors.New("PEM: no public key or certificate")
	}
	return set, nil
}

func certificateKey(block *pem.Block) (any, error) {
	certificate, err := jwkset.LoadCertificate(pem.EncodeToMemory(block))
	if err != nil {
		return nil, err
	}
	return certificate.PublicKey, nil
}

// SecretKeySet makes a set of one HMAC secret, bound to algorithms its length
// allows. White space around text is the editor's, not the secret's; among
// random bytes it is as good as any.
func SecretKeySet(secret []byte) (KeySet, error) {
	if text := bytes.TrimSpace(secret); bytes.IndexFunc(text, func(r rune) bool { return !unicode.IsPrint(r) && !unicode.IsSpace(r) || r == utf8.RuneError }) < 0 {
		secret = text
	}
	key, err := newKey("", "", secret)
	return KeySet{keys: []Key{key}}, err
}

// newKey binds material to algorithms and refuses what is too weak for them.
// algorithm is the JWK's `alg`; without it the type of the key decides.
func newKey(kid, algorithm string, material any) (Key, error) {
	key := Key{ID: kid, material: material}
	switch material := material.(type) {
	case *rsa.PublicKey:
		if err := checkRSA(material); err != nil {
			return Key{}, err
		}
		key.algorithms = []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}
		key.Thumbprint = thumbprint(`{"e":%q,"kty":"RSA","n":%q}`, big.NewInt(int64(material.E)).Bytes(), material.N.Bytes())
	case *ecdsa.PublicKey:
		curve := material.Curve.Params().Name
		name, supported := map[string]string{"P-256": "ES256", "P-384": "ES384", "P-521": "ES512"}[curve]
		point, err := material.Bytes() // checks that the point is on the curve
		if !supported || err != nil {
			return Key{}, fmt.Errorf("no supported key on curve %s", curve)
		}
		key.algorithms = []string{name}
		half := (len(point) - 1) / 2
		key.Thumbprint = thumbprint(`{"crv":"`+curve+`","kty":"EC","x":%q,"y":%q}`, point[1:1+half], point[1+half:])
	case ed25519.PublicKey:
		key.algorithms = []string{"EdDSA"}
		key.Thumbprint = thumbprint(`{"crv":"Ed25519","kty":"OKP","x":%q}`, material)
	case []byte:
		key.algorithms = hmacAlgorithms(len(material))
		if len(key.algorithms) == 0 {
			return Key{}, fmt.Errorf("secret of %d bytes: HS256 needs at least 32 (RFC 7518 section 3.2)", len(material))
		}
		key.Thumbprint = thumbprint(`{"k":%q,"kty":"oct"}`, material)
	default:
		return Key{}, errNotForSignatures
	}
	if algorithm != "" {
		if !key.Accepts(algorithm) {
			return Key{}, fmt.Errorf("the key cannot be used with its alg %q", algorithm)
		}
		key.algorithms = []string{algorithm}
	}
	return key, nil
}

// hmacAlgorithms are those whose hash is not longer than the secret.
func hmacAlgorithms(size int) []string {
	switch {
	case size >= 64:
		return []string{"HS256", "HS384", "HS512"}
	case size >= 48:
		return []string{"HS256", "HS384"}
	case size >= 32:
		return []string{"HS256"}
	}
	return nil
}

func thumbprint(template string, parts ...[]byte) string {
	encoded := make([]any, len(parts))
	for i, part := range parts {
		encoded[i] = base64.RawURLEncoding.EncodeToString(part)
	}
	sum := sha256.Sum256(fmt.Appendf(nil, template, encoded...))
	return hex.EncodeToString(sum[:])
}

// NewKeySet makes a set of keys that are at hand already.
func NewKeySet(keys ...Key) KeySet { return KeySet{keys: slices.Clone(keys)} }
