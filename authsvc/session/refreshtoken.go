package session

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/sluice-gateway/sluice/authsvc/keys"
	"github.com/sluice-gateway/sluice/authsvc/store"
)

// RefreshTokens makes and checks refresh tokens: `<session>.<secret>.<mac>`. The
// MAC keeps made-up tokens away from Redis, and it is what makes reuse
// detection safe: the session stands readable in every access token, so
// without the MAC anyone who saw one could present garbage for it and have the
// session killed as "reused".
type RefreshTokens struct{ key []byte }

// OpenRefreshTokens takes the key from the folder. Without a folder no refresh
// token is good.
func OpenRefreshTokens(d *keys.Dir) (*RefreshTokens, error) {
	if d.None() {
		key := make([]byte, 32)
		_, _ = rand.Read(key) // never fails; no refresh token is ever made with it
		return &RefreshTokens{key: key}, nil
	}
	text, err := d.SecretFile(keys.RefreshSecret, keys.RefreshSecretSize)
	return &RefreshTokens{key: []byte(text)}, err
}

func (t *RefreshTokens) mint(session string) string {
	var random [32]byte
	_, _ = rand.Read(random[:]) // never fails
	body := session + "." + base64.RawURLEncoding.EncodeToString(random[:])
	return body + "." + t.mac(body)
}

func (t *RefreshTokens) mac(body string) string {
	h := hmac.New(sha256.New, t.key)
	h.Write([]byte(body))
	return base64.RawURLEncoding.EncodeToString(h.Sum(nil))
}

// macFamily binds what the access tokens of a session say to the session. A
// rotation signs what it reads from Redis, so without it whoever can write there
// and has an account could rewrite his own session and be issued a good token
// for anybody (design: status-only). Lengths keep one field from reaching into the next, and
// the label keeps this MAC apart from that of a refresh token.
func (t *RefreshTokens) macFamily(f store.Family) string {
	h := hmac.New(sha256.New, t.key)
	for _, field := range []string{"sluice: session in redis", f.Session, f.User, f.Claims, strconv.FormatInt(f.TTL.Milliseconds(), 10)} {
		fmt.Fprintf(h, "%d:%s", len(field), field)
	}
	return base64.RawURLEncoding.EncodeToString(h.Sum(nil))
}

// wrote tells whether a session in Redis says what authsvc wrote there.
func (t *RefreshTokens) wrote(f store.Family) bool {
	return hmac.Equal([]byte(f.MAC), []byte(t.macFamily(f)))
}

// session returns the session of a refresh token that was made here.
func (t *RefreshTokens) session(refresh string) (string, bool) {
	end := strings.LastIndexByte(refresh, '.')
	if end < 0 || len(refresh) > 256 {
		return "", false
	}
	session, _, found := strings.Cut(refresh[:end], ".")
	return session, found && hmac.Equal([]byte(t.mac(refresh[:end])), []byte(refresh[end+1:]))
}

func refreshSum(refresh string) string {
	sum := sha256.Sum256([]byte(refresh))
	return hex.EncodeToString(sum[:])
}

// seal hides the answer of a rotation from everybody but the holder of the
// token that was rotated: Redis keeps it for the grace period, and readers of
// Redis must not find tokens there.
func seal(refresh string, plain []byte) (string, error) {
	aead, err := sealer(refresh)
	if err != nil {
		return "", err
	}
	nonce := make([]byte, aead.NonceSize())
	_, _ = rand.Read(nonce) // never fails
	return string(aead.Seal(nonce, nonce, plain, nil)), nil
}

func unseal(refresh, sealed string) ([]byte, error) {
	aead, err := sealer(refresh)
	if err != nil {
		return nil, err
	}
	if len(sealed) < aead.NonceSize() {
		return nil, errors.New("sealed pair is too short")
	}
	return aead.Open(nil, []byte(sealed[:aead.NonceSize()]), []byte(sealed[aead.NonceSize():]), nil)
}

func sealer(refresh string) (cipher.AEAD, error) {
	key, err := hkdf.Key(sha256.New, []byte(refresh), nil, "sluice: pair of the last rotation", 32)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}
