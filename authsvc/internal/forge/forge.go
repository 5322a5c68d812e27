// Package forge makes the tokens that nobody may accept: one list of attacks
// for every kind of key, tried beneath HTTP by the tests of package token and
// through /auth by those of authsvc.
//
// The list follows RFC 8725, class by class. An attack that needs a valid
// signature is signed with the victim's own key: only the guard it is meant for
// can refuse it then.
package forge

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"maps"
	"math/big"
	"slices"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// Victim is an issuer whose tokens are to be forged.
type Victim struct {
	Algorithm string
	KeyID     string
	Named     bool           // the verifier knows its key by KeyID, and no other key fits
	Private   any            // as golang-jwt takes it
	JWK       string         // the public half; empty for a secret
	Claims    map[string]any // of a good token, exp left out
	Bait      string         // URL that nobody may connect to
}

// Attack is one forged token.
type Attack struct{ Class, Compact string }

// Classes are the classes of attacks, in the order of the list.
var Classes = []string{
	"none", "confusion", "weak secret", "another key", "signature", "base64", "form", "kid", "key from the token",
	"extension", "nested or encrypted", "typ", "times", "issuer and audience", "identity", "names", "JSON", "size",
}

type list struct {
	Victim
	good             string
	head, body, tail string
	attacks          []Attack
}

// Good is a token that has to be accepted.
func (v Victim) Good() string { return v.sign(v.header(""), v.claims(nil)) }

// Attacks lists what has to be refused.
func (v Victim) Attacks() []Attack {
	l := &list{Victim: v, good: v.Good()}
	parts := strings.Split(l.good, ".")
	l.head, l.body, l.tail = parts[0], parts[1], parts[2]
	l.none()
	l.confusion()
	l.weakSecrets()
	l.anotherKey()
	l.signatures()
	l.base64()
	l.form()
	l.kids()
	l.keysFromTheToken()
	l.extensions()
	l.nested()
	l.types()
	l.times()
	l.parties()
	l.identities()
	l.names()
	l.json()
	l.sizes()
	return l.attacks
}

func (l *list) add(class string, compact ...string) {
	for _, c := range compact {
		if c != l.good {
			l.attacks = append(l.attacks, Attack{class, c})
		}
	}
}

func b64(data []byte) string { return base64.RawURLEncoding.EncodeToString(data) }

// header is a good one with further members.
func (v Victim) header(members string) string {
	return fmt.Sprintf(`{"alg":%q,"kid":%q,"typ":"JWT"%s}`, v.Algorithm, v.KeyID, members)
}

// claims are those of a good token with changes over them; leave takes one out.
func (v Victim) claims(changes map[string]any) string {
	all := maps.Clone(v.Claims)
	all["exp"] = time.Now().Add(10 * time.Minute).Unix()
	for name, value := range changes {
		if value == leave {
			delete(all, name)
		} else {
			all[name] = value
		}
	}
	text, err := json.Marshal(all)
	if err != nil {
		panic(err)
	}
	return string(text)
}

// leave is the value of a claim that is to be absent.
var leave any = new(int)

// raw is a number as JSON spells it.
func raw(number string) json.RawMessage { return json.RawMessage(number) }

func (v Victim) sign(header, payload string) string {
	return signed(v.Algorithm, b64([]byte(header))+"."+b64([]byte(payload)), v.Private)
}

func signed(algorithm, input string, key any) string {
	signature, err := jwt.GetSigningMethod(algorithm).Sign(input, key)
	if err != nil {
		panic(err)
	}
	return input + "." + b64(signature)
}

// none: no spelling of no algorithm is an algorithm (RFC 8725 section 2.1).
func (l *list) none() {
	for _, alg := range []string{
		`"none"`, `"None"`, `"NONE"`, `"nOnE"`, `"none "`, `" none"`, `"n\u006fne"`, `"none\u0000"`, `"\u0000none"`, `""`, `null`, `0`, `false`, `[]`, `["none"]`, `{}`,
		`["` + l.Algorithm + `"]`, `{"alg":"` + l.Algorithm + `"}`, `"` + strings.ToLower(l.Algorithm) + `x"`, `"` + l.Algorithm + ` "`, `"HS1"`, `"RS1"`, `"ES256K"`, `"ES521"`, `"dir"`, `"RSA-OAEP"`, `"EDDSA"`, `"Ed25519"`,
	} {
		head := b64(fmt.Appendf(nil, `{"alg":%s,"kid":%q}`, alg, l.KeyID))
		l.add("none", head+"."+l.body+".", head+"."+l.body, head+"."+l.body+".AA", head+"."+l.body+"."+l.tail,
			l.sign(fmt.Sprintf(`{"alg":%s,"kid":%q}`, alg, l.KeyID), l.claims(nil)))
	}
	l.add("none", l.sign(fmt.Sprintf(`{"kid":%q}`, l.KeyID), l.claims(nil)))
}

var hmacs = []string{"HS256", "HS384", "HS512"}

// confusion: a public key, in whatever form an attacker finds it, is no secret,
// and a key of one algorithm verifies no other (section 2.1).
func (l *list) confusion() {
	for _, secret := range l.publicForms() {
		for _, hmac := range hmacs {
			input := b64(fmt.Appendf(nil, `{"alg":%q,"kid":%q}`, hmac, l.KeyID)) + "." + l.body
			l.add("confusion", signed(hmac, input, secret))
		}
	}
	for _, other := range []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "HS256", "HS384", "HS512"} {
		if other != l.Algorithm {
			l.add("confusion", l.sign(fmt.Sprintf(`{"alg":%q,"kid":%q}`, other, l.KeyID), l.claims(nil)))
		}
	}
}

func (l *list) publicForms() (forms [][]byte) {
	private, asymmetric := l.Private.(crypto.Signer)
	if !asymmetric {
		return nil
	}
	public := private.Public()
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		panic(err)
	}
	inPEM := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	forms = [][]byte{
		der, inPEM, bytes.TrimSpace(inPEM), bytes.ReplaceAll(inPEM, []byte("\n"), []byte("\r\n")), []byte(base64.StdEncoding.EncodeToString(der)),
		[]byte(l.JWK), []byte(`{"keys":[` + l.JWK + `]}`), []byte(l.KeyID), {},
	}
	switch key := public.(type) {
	case *rsa.PublicKey:
		pkcs1 := x509.MarshalPKCS1PublicKey(key)
		forms = append(forms, key.N.Bytes(), []byte(key.N.Text(16)), []byte(key.N.String()), []byte(b64(key.N.Bytes())), pkcs1,
			pem.EncodeToMemory(&pem.Block{Type: "RSA PUBLIC KEY", Bytes: pkcs1}))
	case *ecdsa.PublicKey:
		point, err := key.Bytes()
		if err != nil {
			panic(err)
		}
		forms = append(forms, point, point[1:], []byte(b64(point[1:])))
	case ed25519.PublicKey:
		forms = append(forms, key, []byte(b64(key)))
	}
	return forms
}

// weakSecrets: what everybody tries first (section 3.5).
func (l *list) weakSecrets() {
	secrets := []string{
		"", "\x00", "secret", "password", "changeme", "your-256-bit-secret", "your-secret-key", "jwt-secret", "qwerty", l.KeyID,
		strings.Repeat("\x00", 32), strings.Repeat("\x00", 64), strings.Repeat("a", 32), fmt.Sprint(l.Claims["iss"]),
	}
	if secret, symmetric := l.Private.([]byte); symmetric {
		// HMAC fills a key up with zeros (RFC 2104, section 2): one that ends with
		// a zero is the same without it.
		short := strings.TrimRight(string(secret), "\x00")
		secrets = append(secrets, short[:len(short)-1], string(secret)+"\n", b64(secret), strings.ToUpper(string(secret)))
	}
	for _, secret := range secrets {
		for _, hmac := range hmacs {
			input := b64(fmt.Appendf(nil, `{"alg":%q,"kid":%q}`, hmac, l.KeyID)) + "." + l.body
			l.add("weak secret", signed(hmac, input, []byte(secret)))
		}
	}
}

// anotherKey: sound tokens of a key that nobody trusts.
func (l *list) anotherKey() {
	own := l.stranger()
	for _, header := range []string{l.header(""), fmt.Sprintf(`{"alg":%q}`, l.Algorithm), fmt.Sprintf(`{"alg":%q,"kid":""}`, l.Algorithm), fmt.Sprintf(`{"alg":%q,"kid":"theirs"}`, l.Algorithm)} {
		l.add("another key", signed(l.Algorithm, b64([]byte(header))+"."+l.body, own))
	}
}

// stranger makes a key of the victim's kind.
func (l *list) stranger() any {
	var key any
	var err error
	switch private := l.Private.(type) {
	case *rsa.PrivateKey:
		key, err = rsa.GenerateKey(rand.Reader, 2048)
	case *ecdsa.PrivateKey:
		key, err = ecdsa.GenerateKey(private.Curve, rand.Reader)
	case ed25519.PrivateKey:
		_, key, err = ed25519.GenerateKey(rand.Reader)
	case []byte:
		secret := make([]byte, 64)
		_, err = rand.Read(secret)
		key = secret
	default:
		err = fmt.Errorf("no key of type %T", private)
	}
	if err != nil {
		panic(err)
	}
	return key
}

// signatures: one flipped bit in each byte, every length, what stands for
// nothing, and the signature's other encodings.
func (l *list) signatures() {
	signature, err := base64.RawURLEncoding.DecodeString(l.tail)
	if err != nil {
		panic(err)
	}
	var all [][]byte
	for i := range signature {
		flipped := bytes.Clone(signature)
		flipped[i] ^= 1 << (i % 8)
		all = append(all, flipped, signature[:i], signature[i+1:])
	}
	size := len(signature)
	all = append(all, append(bytes.Clone(signature), 0), append([]byte{0}, signature...), append(bytes.Clone(signature), signature...),
		make([]byte, size), bytes.Repeat([]byte{0xff}, size), append(make([]byte, size-1), 1), bytes.Repeat(signature, 16))
	all = append(all, l.otherEncodings(signature)...)
	for _, other := range all {
		l.add("signature", l.head+"."+l.body+"."+b64(other))
	}
	// Another token's signature, and another signing input's.
	other := strings.Split(l.sign(l.header(""), l.claims(map[string]any{"sub": "other"})), ".")
	l.add("signature", l.head+"."+l.body+"."+other[2], l.head+"."+other[1]+"."+l.tail, other[0]+"."+other[1]+"."+l.tail)
}

func (l *list) otherEncodings(signature []byte) (all [][]byte) {
	switch key := l.Private.(type) {
	case *ecdsa.PrivateKey: // P1363 is the one that JWS has
		half := len(signature) / 2
		r, s := new(big.Int).SetBytes(signature[:half]), new(big.Int).SetBytes(signature[half:])
		der, err := asn1.Marshal(struct{ R, S *big.Int }{r, s})
		if err != nil {
			panic(err)
		}
		n, zero := key.Params().N, new(big.Int)
		all = append(all, der)
		for _, pair := range [][2]*big.Int{{zero, s}, {r, zero}, {n, s}, {r, n}, {n, n}, {big.NewInt(1), big.NewInt(1)}, {s, r}, {r, new(big.Int).Add(s, n)}, {new(big.Int).Add(r, n), s}} {
			if bits := (key.Curve.Params().BitSize + 7) / 8 * 8; pair[0].BitLen() <= bits && pair[1].BitLen() <= bits {
				all = append(all, append(pair[0].FillBytes(make([]byte, half)), pair[1].FillBytes(make([]byte, half))...))
			}
		}
	case *rsa.PrivateKey: // s + n is the same number modulo n
		if more := new(big.Int).Add(new(big.Int).SetBytes(signature), key.N); more.BitLen() <= 8*len(signature) {
			all = append(all, more.FillBytes(make([]byte, len(signature))))
		}
		all = append(all, new(big.Int).Sub(key.N, new(big.Int).SetBytes(signature)).FillBytes(make([]byte, len(signature))))
	case ed25519.PrivateKey: // RFC 8032 section 5.1.7: S below the group's order
		order, _ := new(big.Int).SetString("7237005577332262213973186563042994240857116359379907606001950938285454250989", 10)
		s := bytes.Clone(signature[32:])
		slices.Reverse(s)
		more := new(big.Int).Add(new(big.Int).SetBytes(s), order).FillBytes(make([]byte, 32))
		slices.Reverse(more)
		all = append(all, append(bytes.Clone(signature[:32]), more...))
	}
	return all
}

// base64: one token has one spelling. At each place a character is left out,
// another put in, and one replaced.
func (l *list) base64() {
	for i := range l.good {
		if l.good[i] == '.' {
			continue
		}
		other := "A"
		if l.good[i] == 'A' {
			other = "B"
		}
		l.add("base64", l.good[:i]+l.good[i+1:], l.good[:i]+"="+l.good[i:], l.good[:i]+other+l.good[i+1:])
	}
	for _, strange := range []string{"+", "/", "~", "%3D", "%41", "*", ":", "@", "!"} {
		l.add("base64", l.good+strange, l.head+strange+"."+l.body+"."+l.tail, l.head+"."+strange+l.body+"."+l.tail)
	}
	for _, part := range []*string{&l.head, &l.body, &l.tail} {
		kept := *part
		for _, changed := range []string{kept + "=", kept + "==", kept + "A", "A" + kept, looseBits(kept), base64.StdEncoding.EncodeToString([]byte(kept))} {
			if *part = changed; changed != kept {
				l.add("base64", l.head+"."+l.body+"."+l.tail)
			}
		}
		*part = kept
	}
	l.add("base64", strings.ToUpper(l.good), strings.ToLower(l.good))
}

// looseBits sets a bit of the last character that no byte needs.
func looseBits(segment string) string {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	if len(segment)%4 == 0 {
		return segment // every bit is needed
	}
	last := len(segment) - 1
	return segment[:last] + string(alphabet[strings.IndexByte(alphabet, segment[last])|1])
}

// form: what is not three segments.
func (l *list) form() {
	l.add("form", ".", "..", "...", "a.b.c", "a.b.c.d.e", l.head, l.head+"."+l.body, l.head+"."+l.body+".", l.head+".."+l.tail, "."+l.body+"."+l.tail,
		l.body+"."+l.head+"."+l.tail, l.good+".", "."+l.good, l.good+"."+l.tail, l.good+"."+l.tail+"."+l.tail, l.good+l.good, l.good[1:], l.good[:len(l.good)-1],
		b64([]byte(l.good)), l.tail+"."+l.body+"."+l.head)
	flat, err := json.Marshal(map[string]string{"protected": l.head, "payload": l.body, "signature": l.tail})
	if err != nil {
		panic(err)
	}
	l.add("form", string(flat), b64(flat))
}

// kids: a kid names a key of the set, and is nothing else (section 3.10).
func (l *list) kids() {
	for _, kid := range []string{`1`, `null`, `true`, `["a"]`, `{"a":1}`} {
		l.add("kid", l.sign(fmt.Sprintf(`{"alg":%q,"kid":%s}`, l.Algorithm, kid), l.claims(nil)))
	}
	if !l.Named { // a key without a name verifies under any
		return
	}
	for _, kid := range []string{
		"../../../../../../dev/null", "../../etc/passwd", "/dev/null", "' OR 1=1 --", "x' UNION SELECT 'key'; --", "$(id)", "| id", "\x00", l.KeyID + "\x00", l.KeyID + " ", strings.ToUpper(l.KeyID) + "X",
		l.Bait, "file:///dev/null", strings.Repeat("k", 4096), "other", "*", "%2e%2e",
	} {
		text, err := json.Marshal(kid)
		if err != nil {
			panic(err)
		}
		l.add("kid", l.sign(fmt.Sprintf(`{"alg":%q,"kid":%s}`, l.Algorithm, text), l.claims(nil)))
	}
}

// keysFromTheToken: no key is fetched or taken from where a token points, be
// the token signed with the attacker's key or with the right one.
func (l *list) keysFromTheToken() {
	jwk := `{"kty":"oct","k":"` + b64(bytes.Repeat([]byte("k"), 64)) + `"}`
	if l.JWK != "" {
		jwk = l.JWK
	}
	own := l.stranger()
	theirs := jwk
	switch key := own.(type) {
	case *ecdsa.PrivateKey:
		point, err := key.PublicKey.Bytes()
		if err != nil {
			panic(err)
		}
		half := (len(point) - 1) / 2
		theirs = fmt.Sprintf(`{"kty":"EC","crv":%q,"x":%q,"y":%q}`, key.Params().Name, b64(point[1:1+half]), b64(point[1+half:]))
	case *rsa.PrivateKey:
		theirs = fmt.Sprintf(`{"kty":"RSA","e":"AQAB","n":%q}`, b64(key.N.Bytes()))
	case ed25519.PrivateKey:
		theirs = fmt.Sprintf(`{"kty":"OKP","crv":"Ed25519","x":%q}`, b64(key.Public().(ed25519.PublicKey)))
	case []byte:
		theirs = fmt.Sprintf(`{"kty":"oct","k":%q}`, b64(key))
	}
	members := []string{`,"jwk":` + jwk, `,"jwk":` + theirs, `,"jwk":null`, `,"jwk":{}`, `,"x5c":["AAAA"]`, `,"x5c":[]`, `,"JKU":"` + l.Bait + `"`, `,"Jwk":` + theirs}
	for _, url := range []string{l.Bait, l.Bait + "/.well-known/jwks.json", "//" + strings.TrimPrefix(l.Bait, "http://"), "file:///dev/null", ""} {
		members = append(members, `,"jku":"`+url+`"`, `,"x5u":"`+url+`"`, `,"jku":"`+url+`","jwk":`+theirs)
	}
	for _, member := range members {
		l.add("key from the token", l.sign(l.header(member), l.claims(nil)), signed(l.Algorithm, b64([]byte(l.header(member)))+"."+l.body, own))
	}
}

// extensions: crit, b64 and zip (RFC 7515 section 4.1.11, RFC 7797).
func (l *list) extensions() {
	for _, member := range []string{
		`,"crit":["exp"],"exp":1`, `,"crit":["b64"]`, `,"crit":[]`, `,"crit":null`, `,"crit":"exp"`, `,"crit":["alg"]`, `,"crit":["x"],"x":1`, `,"CRIT":["exp"]`, `,"cr\u0069t":["exp"]`,
		`,"b64":false,"crit":["b64"]`, `,"b64":false`, `,"b64":true`, `,"b64":true,"crit":["b64"]`, `,"b64":"false"`, `,"zip":"DEF"`, `,"zip":""`, `,"zip":null`,
	} {
		l.add("extension", l.sign(l.header(member), l.claims(nil)))
	}
	// An unencoded payload under b64, and one that means something else decoded.
	plain := b64([]byte(l.header(`,"b64":false,"crit":["b64"]`))) + "." + l.body
	l.add("extension", signed(l.Algorithm, plain, l.Private))
}

// nested: a token in a token, and tokens that are encrypted (section 2.4).
func (l *list) nested() {
	l.add("nested or encrypted",
		l.sign(l.header(`,"cty":"JWT"`), l.good), l.sign(l.header(""), l.good), l.sign(l.header(""), `"`+l.good+`"`),
		l.sign(l.header(`,"enc":"A128GCM"`), l.claims(nil)), l.sign(l.header(`,"enc":null`), l.claims(nil)), l.sign(l.header(`,"epk":{}`), l.claims(nil)))
	for _, header := range []string{`{"alg":"RSA-OAEP","enc":"A256GCM"}`, `{"alg":"dir","enc":"A128CBC-HS256"}`, `{"alg":"PBES2-HS256+A128KW","enc":"A128GCM","p2c":2147483647,"p2s":"AAAA"}`, `{"alg":"ECDH-ES","enc":"A128GCM","epk":{}}`, l.header(`,"enc":"A128GCM"`)} {
		l.add("nested or encrypted", b64([]byte(header))+"."+l.body+"."+l.body+"."+l.tail+"."+l.tail, b64([]byte(header))+".."+l.body+"."+l.tail+"."+l.tail, b64([]byte(header))+"."+l.body+"."+l.tail)
	}
}

// types: a JWT made for another purpose (section 3.11).
func (l *list) types() {
	for _, typ := range []string{`"logout+jwt"`, `"id+jwt"`, `"secevent+jwt"`, `"dpop+jwt"`, `"JWE"`, `"JWT "`, `"none"`, `"application/json"`, `1`, `["JWT"]`, `null`, `{}`} {
		l.add("typ", l.sign(fmt.Sprintf(`{"alg":%q,"kid":%q,"typ":%s}`, l.Algorithm, l.KeyID, typ), l.claims(nil)))
	}
}

func (l *list) claim(class, name string, values ...any) {
	for _, value := range values {
		l.add(class, l.sign(l.header(""), l.claims(map[string]any{name: value})))
	}
}

// times: exp, nbf and iat at their edges.
func (l *list) times() {
	now := time.Now()
	l.claim("times", "exp", leave, 0, raw("-0"), "0", fmt.Sprint(now.Unix()+600), raw("1e308"), raw("1e999999999"), -1, nil, true, []any{now.Unix() + 600}, map[string]any{"a": 1}, raw("0.0001"),
		now.Add(-time.Minute).Unix(), now.Add(100*365*24*time.Hour).Unix(), raw("9223372036854775807"), raw("18446744073709551616"))
	l.claim("times", "nbf", now.Add(time.Hour).Unix(), "0", raw("1e308"), -1, nil, false, []any{0})
	l.claim("times", "iat", now.Add(time.Hour).Unix(), "0", "now", raw("1e308"), -1, nil, false, []any{0}, 0)
}

// parties: iss and aud of every type (sections 3.8 and 3.9).
func (l *list) parties() {
	issuer, audience := fmt.Sprint(l.Claims["iss"]), fmt.Sprint(l.Claims["aud"])
	l.claim("issuer and audience", "iss", leave, "", nil, 1, true, []string{issuer}, map[string]any{issuer: 1}, issuer+"/", issuer+" ", strings.ToUpper(issuer), "sluice", issuer+"\x00")
	l.claim("issuer and audience", "aud", leave, "", nil, 1, true, []any{}, []any{audience, 1}, []any{[]any{audience}}, map[string]any{audience: 1}, audience+" ", strings.ToUpper(audience), audience+",other", []any{nil}, []any{"other"})
}

// noHeader are texts that must not become a header (RFC 9110 section 5.5).
var noHeader = []any{"x\r\nX-User-Plan: pro", "x\n", "\r", "x\x00", "\x7f", " 42", "42 ", "\t42", "ü", "\u2028", "４２", raw(`"\ud800"`), strings.Repeat("a", 5000)}

// identities: what must not become a user.
func (l *list) identities() {
	l.claim("identity", "sub", noHeader...)
	l.claim("identity", "sub", leave, "", nil, 42, raw("4.2e1"), true, []any{"42"}, map[string]any{"a": 1}, strings.Repeat("u", 300), strings.Repeat("u", 64<<10))
}

// Unfit lists good tokens with one claim that must not become a header. It
// becomes none, and the token counts without it.
func (v Victim) Unfit() []Attack {
	l := &list{Victim: v}
	for _, name := range []string{"plan", "scope"} {
		l.claim(name, name, noHeader...)
		l.claim(name, name, map[string]any{"a": 1}, []any{"a b"}, []any{[]any{"a"}})
	}
	l.claim("sid", "sid", noHeader...)
	l.claim("sid", "sid", 1, nil, []any{"s"}, map[string]any{"a": 1})
	l.claim("jti", "jti", 1, nil, []any{"j"}, map[string]any{"a": 1})
	return l.attacks
}

// names: one name twice, in whatever spelling, means two things to two readers.
func (l *list) names() {
	object := strings.TrimSuffix(l.claims(nil), "}")
	for _, member := range []string{
		`"sub":"admin"`, `"SUB":"admin"`, `"Sub":"admin"`, "\"\u017fub\":\"admin\"", `"s\u0075b":"admin"`, `"exp":4102444800`, `"EXP":1`, `"iss":"x"`, `"Aud":"api"`, `"scope":"a","SCOPE":"b"`,
		`"x":1,"x":2`, `"x":{"a":1,"a":2}`, `"x":{"a":1,"A":2}`, "\"k\":1,\"\u212a\":2", `"x":[{"a":1,"A":2}]`,
	} {
		l.add("names", l.sign(l.header(""), object+","+member+"}"), l.sign(l.header(""), "{"+member+","+object[1:]+"}"))
	}
	for _, member := range []string{`,"alg":"none"`, `,"ALG":"none"`, `,"Kid":"x"`, `,"kid":"x"`, `,"TYP":"x"`, `,"typ":"JWT"`, ",\"\u212aid\":\"x\"", `,"x":1,"x":1`, `,"x":1,"X":2`} {
		l.add("names", l.sign(l.header(member), l.claims(nil)))
	}
	l.add("names", l.sign(fmt.Sprintf(`{"alg":"none","alg":%q,"kid":%q}`, l.Algorithm, l.KeyID), l.claims(nil)), l.sign(fmt.Sprintf(`{"Alg":%q,"kid":%q}`, l.Algorithm, l.KeyID), l.claims(nil)))
}

// json: what is not one plain object, in the header and in the payload.
func (l *list) json() {
	for _, around := range [][2]string{
		{"", "{}"}, {"", "x"}, {"", "]"}, {"", "\x00"}, {"", ",{}"}, {"\ufeff", ""}, {"[", "]"}, {"x", ""}, {"/**/", ""}, {"", "//"}, {"(", ")"},
	} {
		l.add("JSON", l.sign(l.header(""), around[0]+l.claims(nil)+around[1]), l.sign(around[0]+l.header("")+around[1], l.claims(nil)))
	}
	object := strings.TrimSuffix(l.claims(nil), "}")
	for _, member := range []string{
		"\"x\":\"\xff\"", "\"\xff\":1", "\"x\":\"\xc0\xaf\"", "\"x\":\"\xed\xa0\x80\"", "\"x\":\"\x01\"", `"x":NaN`, `"x":Infinity`, `"x":0x10`, `"x":01`, `"x":'a'`, `x:1`, `"x":1,`, `"x":"\x41"`, `"x"`, `"x":`,
		`"x":` + strings.Repeat("[", 17) + strings.Repeat("]", 17), `"x":` + strings.Repeat("[", 2000) + strings.Repeat("]", 2000), `"x":` + strings.Repeat(`{"a":`, 300) + "1" + strings.Repeat("}", 300),
	} {
		l.add("JSON", l.sign(l.header(""), object+","+member+"}"), l.sign(l.header(","+member), l.claims(nil)))
	}
	for _, text := range []string{"", "{", "}", "null", "[]", "1", `"x"`, "true", object, strings.Repeat("[", 5000), "\xff\xfe{\x00}\x00", "\x1f\x8b\x08"} {
		l.add("JSON", l.sign(l.header(""), text), l.sign(text, l.claims(nil)))
	}
	deep := strings.Repeat("[", 10_000) + strings.Repeat("]", 10_000)
	l.add("JSON", l.sign(l.header(""), object+`,"x":`+deep+"}"), l.sign(l.header(`,"x":`+deep), l.claims(nil)))
}

// sizes: up to 1 MiB, in each segment, signed where that is possible.
func (l *list) sizes() {
	for _, size := range []int{8 << 10, 16 << 10, 48 << 10, 256 << 10, 1 << 20} {
		l.add("size", strings.Repeat("A", size), strings.Repeat("A.", size/2), strings.Repeat(".", size), l.head+"."+strings.Repeat("A", size)+"."+l.tail, l.head+"."+l.body+"."+strings.Repeat("A", size),
			l.sign(l.header(""), l.claims(map[string]any{"x": strings.Repeat("a", size*3/4)})), l.sign(l.header(`,"x":"`+strings.Repeat("a", size*3/4)+`"`), l.claims(nil)))
	}
}

// Twin is the other signature that ECDSA itself accepts for a token, (r, n-s);
// ok is false for algorithms that leave no choice.
func (v Victim) Twin(compact string) (twin string, ok bool) {
	key, ok := v.Private.(*ecdsa.PrivateKey)
	if !ok {
		return "", false
	}
	end := strings.LastIndexByte(compact, '.') + 1
	signature, err := base64.RawURLEncoding.DecodeString(compact[end:])
	if err != nil {
		panic(err)
	}
	half := len(signature) / 2
	s := new(big.Int).SetBytes(signature[half:])
	new(big.Int).Sub(key.Params().N, s).FillBytes(signature[half:])
	return compact[:end] + b64(signature), true
}
