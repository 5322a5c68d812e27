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

	place      string // in its source: keys[2]
	algorithms []string
	exposed    bool // the set carried the private half as well
	material   any  // *rsa.PublicKey, *ecdsa.PublicKey, ed25519.PublicKey or []byte
}

// Accepts says whether the key may verify signatures of this algorithm.
func (k Key) Accepts(algorithm string) bool { return slices.Contains(k.algorithms, algorithm) }

// Algorithms are all that the key may verify.
func (k Key) Algorithms() []string { return slices.Clone(k.algorithms) }

// Symmetric keys sign as well as verify and are never published.
func (k Key) Symmetric() bool { _, secret := k.material.([]byte); return secret }

// KeySet is an immutable list of keys.
type KeySet struct {
	keys    []Key
	leftOut []LeftOut
}

// LeftOut is a key of a set that will verify nothing, and why.
type LeftOut struct {
	Place  string // where it stands: keys[2]
	ID     string // kid, where it has one
	Reason string
	Weak   bool // sound in form, but others may be able to sign with it

	algorithms []string // that the key was meant for, as far as it says
}

// String names the key and says why, for a line of the log.
func (l LeftOut) String() string {
	return fmt.Sprintf("%s (kid %.40q): %s", l.Place, l.ID, l.Reason)
}

// LeftOut are the keys that stood in the set's source and are not in the set.
func (s KeySet) LeftOut() []LeftOut { return slices.Clone(s.leftOut) }

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
	kept := KeySet{leftOut: s.leftOut}
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

// With has these keys in place of the set's, and remembers what was left out.
func (s KeySet) With(keys ...Key) KeySet {
	return KeySet{keys: slices.Clone(keys), leftOut: s.leftOut}
}

// WithoutWeak leaves out the keys that have a Weakness.
func (s KeySet) WithoutWeak() KeySet {
	sound := KeySet{keys: s.keys, leftOut: s.LeftOut()}
	sound.leaveOut(true, Key.Weakness)
	return sound
}

// ParseKeySet reads a JWK Set (RFC 7517). Keys that say of themselves that they
// are not for verifying signatures (`use`, `key_ops`) are passed over. Of the
// others those that cannot be used are left out, as section 5 asks, and LeftOut
// says why: one key of a kind that is new must not refuse the tokens that all
// the others have signed. A set without one key to use is an error.
func ParseKeySet(jwks []byte) (KeySet, error) {
	var raw []json.RawMessage
	r, err := openObject(jwks)
	if err == nil {
		err = r.members(func(name string) error {
			value := r.raw()
			if name != "keys" {
				return nil
			}
			return json.Unmarshal(value, &raw)
		})
	}
	switch {
	case err != nil:
		return KeySet{}, fmt.Errorf("key set: %w", err)
	case raw == nil:
		return KeySet{}, errors.New(`key set: no array "keys"`)
	}
	var set KeySet
	for i, jwk := range raw {
		place := fmt.Sprintf("keys[%d]", i)
		key, err := parseJWK(jwk)
		switch {
		case errors.Is(err, errNotForSignatures):
		case err != nil:
			set.leftOut = append(set.leftOut, LeftOut{Place: place, ID: key.ID, Reason: err.Error(), algorithms: key.algorithms})
		default:
			key.place = place
			set.keys = append(set.keys, key)
		}
	}
	if n := len(set.keys) + len(set.leftOut); n > maxKeys {
		return KeySet{}, fmt.Errorf("key set: %d keys for signatures, at most %d", n, maxKeys)
	}
	set.leaveOutPublished()
	set.untangle()
	if len(set.keys) == 0 {
		return set, fmt.Errorf("key set: no key that verifies signatures%s", set.reasons())
	}
	return set, nil
}

// reasons lists what was left out, for an error.
func (s KeySet) reasons() string {
	var all strings.Builder
	for _, left := range s.leftOut {
		all.WriteString("; " + left.String())
	}
	return all.String()
}

// leaveOut moves the keys that have a reason for it out of the set.
func (s *KeySet) leaveOut(weak bool, reason func(Key) string) {
	var kept []Key
	for _, key := range s.keys {
		if text := reason(key); text != "" {
			s.leftOut = append(s.leftOut, LeftOut{Place: key.place, ID: key.ID, Reason: text, Weak: weak, algorithms: key.algorithms})
			continue
		}
		kept = append(kept, key)
	}
	s.keys = kept
}

// leaveOutPublished takes secrets out of a set that has public keys as well:
// whoever publishes those has published the secret, and whoever confuses the
// two accepts forgeries.
func (s *KeySet) leaveOutPublished() {
	if !slices.ContainsFunc(s.keys, func(k Key) bool { return !k.Symmetric() }) {
		return
	}
	s.leaveOut(true, func(k Key) string {
		if k.Symmetric() {
			return "a secret beside public keys, which is none once they are published"
		}
		return ""
	})
}

// untangle deals with keys of one name. One key that is listed once an
// algorithm is one key with all of them. Two keys that the same kid and
// algorithm name are both left out: nothing says which of them is meant.
func (s *KeySet) untangle() {
	var joined []Key
	for _, key := range s.keys {
		twin := slices.IndexFunc(joined, func(k Key) bool { return k.ID == key.ID && k.Thumbprint == key.Thumbprint })
		if twin < 0 {
			joined = append(joined, key)
			continue
		}
		for _, algorithm := range key.algorithms {
			if !joined[twin].Accepts(algorithm) {
				joined[twin].algorithms = append(joined[twin].algorithms, algorithm)
			}
		}
		joined[twin].exposed = joined[twin].exposed || key.exposed
	}
	type name struct{ kid, algorithm string }
	places := make(map[name][]string)
	for _, key := range joined {
		for _, algorithm := range key.algorithms {
			places[name{key.ID, algorithm}] = append(places[name{key.ID, algorithm}], key.place)
		}
	}
	for _, left := range s.leftOut {
		for _, algorithm := range left.algorithms {
			places[name{left.ID, algorithm}] = append(places[name{left.ID, algorithm}], left.Place)
		}
	}
	s.keys = joined
	s.leaveOut(false, func(key Key) string {
		for _, algorithm := range key.algorithms {
			if all := places[name{key.ID, algorithm}]; key.ID != "" && len(all) > 1 {
				return fmt.Sprintf("%s have one kid for %s, so that it names none of them", strings.Join(all, " and "), algorithm)
			}
		}
		return ""
	})
}

var errNotForSignatures = errors.New("not a key that verifies signatures")

// curves of each kty that there are algorithms for.
var curves = map[jwkset.KTY][]jwkset.CRV{
	jwkset.KtyRSA: nil, jwkset.KtyOct: nil,
	jwkset.KtyEC:  {jwkset.CrvP256, jwkset.CrvP384, jwkset.CrvP521},
	jwkset.KtyOKP: {jwkset.CrvEd25519},
}

// parseJWK reads one key. Of one that it refuses it returns what the key says
// of itself, for the log.
func parseJWK(raw json.RawMessage) (Key, error) {
	var jwk jwkset.JWKMarshal
	if _, err := parseObject(raw); err != nil {
		return Key{}, err
	}
	err := json.Unmarshal(raw, &jwk)
	named := Key{ID: jwk.KID, algorithms: []string{string(jwk.ALG)}}
	if err != nil {
		return named, err
	}
	if jwk.USE != "" && jwk.USE != jwkset.UseSig {
		return named, errNotForSignatures
	}
	if len(jwk.KEYOPS) > 0 && !slices.Contains(jwk.KEYOPS, jwkset.KeyOpsVerify) {
		return named, errNotForSignatures
	}
	supported, known := curves[jwk.KTY]
	switch {
	case !known:
		return named, fmt.Errorf("kty %.40q is not supported; RSA, EC, OKP and oct are", jwk.KTY)
	case jwk.ALG != "" && methods[string(jwk.ALG)] == nil:
		return named, fmt.Errorf("alg %.40q is not supported", jwk.ALG)
	case supported != nil && !slices.Contains(supported, jwk.CRV):
		return named, fmt.Errorf("crv %.40q is not supported for kty %s", jwk.CRV, jwk.KTY)
	}
	// jwkset forgives padding and loose bits; two spellings of one key are
	// nothing a signature key needs.
	for name, value := range map[string]string{"x": jwk.X, "y": jwk.Y, "n": jwk.N, "e": jwk.E, "k": jwk.K} {
		if _, err := decodeSegment(value); err != nil {
			return named, fmt.Errorf("%q: %w", name, err)
		}
	}
	if len(jwk.E) > 6 { // jwkset would cut a longer exponent to 64 bits
		return named, errors.New(`"e": longer than 32 bits`)
	}
	// Certificates are not part of the decision and would only be parsed.
	jwk.X5C, jwk.X5U, jwk.X5T, jwk.X5TS256 = nil, "", "", ""
	// Only the public half is taken, and jwkset needs permission for secrets.
	options := jwkset.JWKMarshalOptions{Private: jwk.KTY == jwkset.KtyOct}
	parsed, err := jwkset.NewJWKFromMarshal(jwk, options, jwkset.JWKValidateOptions{SkipAll: true})
	if err != nil {
		return named, err
	}
	key, err := newKey(jwk.KID, string(jwk.ALG), parsed.Key())
	if err != nil {
		return named, err
	}
	key.exposed = jwk.D != ""
	return key, nil
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
		key.place = fmt.Sprintf("block %d", len(set.keys)+1)
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
	key.place = "secret"
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
