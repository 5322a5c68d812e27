package token

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// Why claims were refused, beside the errors of guard.go.
var (
	ErrExpired = errors.New("token expired")
	ErrClaims  = errors.New("claims not accepted")
)

// registered names mean something to us: a claim that differs from one of
// them in case only is an attempt to be read differently by somebody else.
var registered = []string{"iss", "sub", "aud", "exp", "nbf", "iat", "jti", "sid", "scope"}

var claimNames = foldedNames(registered...)

// Claims are the parsed payload of a token whose signature has been verified.
type Claims struct {
	Issuer    string
	Subject   string // claim sub, may be absent where another claim names the user
	ID        string // claim jti
	Session   string // claim sid
	Audiences []string
	Expires   time.Time
	NotBefore time.Time // zero: no claim nbf
	Issued    time.Time // zero: no claim iat; own tokens carry milliseconds (design: void-before)

	all map[string]any
}

// ParseClaims reads a verified payload. What decides whether the token counts
// has one type: `"exp":"0"`, `"exp":1e308` and `"aud":7` are malformed, not
// "absent". An id of another type is none; whether the user's is there, the
// caller sees.
func ParseClaims(payload []byte) (*Claims, error) {
	object, err := parseObject(payload)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrClaims, err)
	}
	for name := range object {
		if known, imitated := imitates(name, claimNames); imitated {
			return nil, fmt.Errorf("%w: %.40q imitates %q", ErrClaims, name, known)
		}
	}
	c := &Claims{all: object}
	for name, into := range map[string]*string{"iss": &c.Issuer, "sub": &c.Subject, "jti": &c.ID, "sid": &c.Session} {
		value, present := object[name]
		if !present {
			continue
		}
		text, ok := value.(string)
		if !ok && name == "iss" {
			return nil, fmt.Errorf("%w: %q is not a string", ErrClaims, name)
		}
		*into = text
	}
	for name, into := range map[string]*time.Time{"exp": &c.Expires, "nbf": &c.NotBefore, "iat": &c.Issued} {
		value, present := object[name]
		if !present {
			continue
		}
		if *into, err = numericDate(value); err != nil {
			return nil, fmt.Errorf("%w: %q: %w", ErrClaims, name, err)
		}
	}
	if c.Audiences, err = audiences(object["aud"]); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrClaims, err)
	}
	// golang-jwt's validator reads exp 0 as "no expiry".
	if c.Expires.UnixMilli() <= 0 {
		return nil, fmt.Errorf("%w: \"exp\" is missing or not positive", ErrClaims)
	}
	return c, nil
}

// Unproven reads the payload though nobody has verified the signature: to show
// an operator what the token says, never to believe it.
func (c *Compact) Unproven() (*Claims, error) { return ParseClaims(c.payload) }

// numericDate reads RFC 7519 NumericDate with milliseconds, up to year 9999.
func numericDate(value any) (time.Time, error) {
	number, ok := value.(json.Number)
	if !ok {
		return time.Time{}, errors.New("not a number")
	}
	seconds, err := strconv.ParseFloat(number.String(), 64)
	if err != nil || seconds < 0 || seconds > 253402300799 {
		return time.Time{}, errors.New("not a date")
	}
	return time.UnixMilli(int64(math.Round(seconds * 1000))), nil
}

func audiences(value any) ([]string, error) {
	switch value := value.(type) {
	case nil:
		return nil, nil
	case string:
		return []string{value}, nil
	case []any:
		list := make([]string, 0, len(value))
		for _, element := range value {
			text, ok := element.(string)
			if !ok {
				return nil, errors.New(`"aud" holds something that is not a string`)
			}
			list = append(list, text)
		}
		return list, nil
	}
	return nil, errors.New(`"aud" is neither a string nor a list`)
}

// Lookup finds a claim by its name, or, where no claim has that name, by the
// path that the dots in it spell (`realm_access.roles`).
func (c *Claims) Lookup(name string) (any, bool) {
	if value, present := c.all[name]; present {
		return value, true
	}
	object := c.all
	path := strings.Split(name, ".")
	for i, step := range path {
		value, present := object[step]
		if !present || i == len(path)-1 {
			return value, present
		}
		if object, present = value.(map[string]any); !present {
			return nil, false
		}
	}
	return nil, false
}

// Trim drops all claims but those that have a field. What is kept of a token
// for as long as it lives should be small.
func (c *Claims) Trim() { c.all = nil }

// Header renders a claim as a header value: text as it is, numbers and
// booleans in JSON's form, a list of such joined by blanks. ok is false when
// the token lacks the claim.
func (c *Claims) Header(name string) (text string, ok bool, err error) { return c.header(name, false) }

// PercentHeader is Header for every claim there is: bytes that no header
// carries, blanks inside a list's elements and % itself are percent-encoded,
// and objects, and lists inside a list, are JSON before that.
func (c *Claims) PercentHeader(name string) (text string, ok bool, err error) {
	return c.header(name, true)
}

func (c *Claims) header(name string, percent bool) (text string, ok bool, err error) {
	value, present := c.Lookup(name)
	if !present || value == nil {
		return "", false, nil
	}
	if text, err = headerText(value, percent); err == nil {
		err = CheckHeaderText(text)
	}
	if err != nil {
		return "", false, fmt.Errorf("%w: %q: %w", ErrClaims, name, err)
	}
	return text, text != "", nil
}

func headerText(value any, percent bool) (string, error) {
	list, ok := value.([]any)
	if !ok {
		text, err := headerWord(value, percent)
		if percent {
			text = percentEncode(text, strings.Trim(text, " ") != text)
		}
		return text, err
	}
	words := make([]string, 0, len(list))
	for _, element := range list {
		word, err := headerWord(element, percent)
		if err != nil {
			return "", err
		}
		if percent {
			word = percentEncode(word, true)
		}
		// A blank inside one element would make two of it.
		if word == "" || strings.ContainsRune(word, ' ') {
			return "", errors.New("a list whose elements are empty or hold blanks cannot be a header")
		}
		words = append(words, word)
	}
	return strings.Join(words, " "), nil
}

// headerWord is one value, not encoded yet.
func headerWord(value any, asJSON bool) (string, error) {
	switch value := value.(type) {
	case string:
		return value, nil
	case json.Number:
		return value.String(), nil
	case bool:
		return strconv.FormatBool(value), nil
	}
	if !asJSON {
		return "", errors.New("an object or null, or a list inside a list, cannot be a header")
	}
	var text strings.Builder
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false)
	err := encoder.Encode(value)
	return strings.TrimSuffix(text.String(), "\n"), err
}

// percentEncode is RFC 3986 section 2.1 for the bytes that a header cannot
// carry, for % itself, so that decoding gives back every value, and for blanks
// where they would separate or be cut off.
func percentEncode(text string, blanks bool) string {
	var encoded strings.Builder
	for i := range len(text) {
		if c := text[i]; c < 0x20 || c > 0x7e || c == '%' || c == ' ' && blanks {
			fmt.Fprintf(&encoded, "%%%02X", c)
		} else {
			encoded.WriteByte(c)
		}
	}
	return encoded.String()
}

// MaxHeaderText bounds what one claim may put into a header, in bytes.
const MaxHeaderText = 4 << 10

// CheckHeaderText refuses what an HTTP parser would change or split: control
// characters, anything beyond ASCII, surrounding blanks (RFC 9110 section 5.5;
// " 42" would arrive as another user's "42").
func CheckHeaderText(text string) error {
	if len(text) > MaxHeaderText {
		return fmt.Errorf("%d bytes, at most %d", len(text), MaxHeaderText)
	}
	if strings.Trim(text, " ") != text {
		return errors.New("surrounded by blanks")
	}
	for i := range len(text) {
		if text[i] < 0x20 || text[i] > 0x7e {
			return fmt.Errorf("byte %#02x at %d is not printable ASCII", text[i], i)
		}
	}
	return nil
}

// Scopes are the words of claim scope (RFC 8693 section 4.2), or of scp, as
// some issuers call it; both may be a string or a list. An element of a list is
// one scope: with a blank inside it is none.
func (c *Claims) Scopes() (scopes []string) {
	for _, name := range []string{"scope", "scp"} {
		switch value, _ := c.Lookup(name); value := value.(type) {
		case string:
			scopes = strings.Fields(value)
		case []any:
			for _, element := range value {
				if word, ok := element.(string); ok && word != "" && !strings.Contains(word, " ") {
					scopes = append(scopes, word)
				}
			}
		}
		if scopes != nil {
			return scopes
		}
	}
	return nil
}

// GetExpirationTime and the five below make Claims a jwt.Claims, so that
// golang-jwt's validator judges the times, the issuer and the audience.
func (c *Claims) GetExpirationTime() (*jwt.NumericDate, error) { return date(c.Expires), nil }
func (c *Claims) GetIssuedAt() (*jwt.NumericDate, error)       { return date(c.Issued), nil }
func (c *Claims) GetNotBefore() (*jwt.NumericDate, error)      { return date(c.NotBefore), nil }
func (c *Claims) GetIssuer() (string, error)                   { return c.Issuer, nil }
func (c *Claims) GetSubject() (string, error)                  { return c.Subject, nil }
func (c *Claims) GetAudience() (jwt.ClaimStrings, error)       { return c.Audiences, nil }

// date keeps the milliseconds that jwt.NewNumericDate would cut off.
func date(t time.Time) *jwt.NumericDate {
	if t.IsZero() {
		return nil
	}
	return &jwt.NumericDate{Time: t}
}

// Policy is what one issuer's tokens must satisfy.
type Policy struct {
	Issuer      string
	Audiences   []string      // one of them must be among the token's
	Type        string        // header typ; empty: absent, "jwt" or "at+jwt"
	Leeway      time.Duration // of clocks
	MaxLifetime time.Duration // of exp - iat; revocation marks live that long (design: void-before)
	// OtherClock accepts an iat ahead of this clock. Own tokens are stamped by
	// Redis's clock, so that marks and iat can be compared; a replica whose own
	// clock lags must not refuse what it has just issued.
	OtherClock bool
}

// Check judges claims at the instant now.
func (p Policy) Check(c *Claims, typ string, now time.Time) error {
	if p.Type != "" && typ != p.Type || p.Type == "" && !slices.Contains([]string{"", "jwt", "at+jwt"}, typ) {
		return fmt.Errorf("%w: typ %.40q (RFC 8725 section 3.11)", ErrClaims, typ)
	}
	options := []jwt.ParserOption{
		jwt.WithTimeFunc(func() time.Time { return now }),
		jwt.WithLeeway(p.Leeway),
		jwt.WithIssuer(p.Issuer),
		jwt.WithAudience(p.Audiences...),
		jwt.WithExpirationRequired(),
	}
	if !p.OtherClock {
		options = append(options, jwt.WithIssuedAt())
	}
	switch err := jwt.NewValidator(options...).Validate(c); {
	case errors.Is(err, jwt.ErrTokenExpired):
		return fmt.Errorf("%w: %w", ErrExpired, err)
	case err != nil:
		return fmt.Errorf("%w: %w", ErrClaims, err)
	}
	issued := c.Issued
	if issued.IsZero() {
		issued = now
	}
	if lifetime := c.Expires.Sub(issued); lifetime > p.MaxLifetime {
		return fmt.Errorf("%w: lives %s, at most %s", ErrClaims, lifetime, p.MaxLifetime)
	}
	return nil
}
