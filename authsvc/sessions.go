package authsvc

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/sluice-gateway/sluice/authsvc/store"
	"github.com/sluice-gateway/sluice/authsvc/token"
)

// sessions makes and checks refresh tokens: `<session>.<secret>.<mac>`. The
// MAC keeps made-up tokens away from Redis, and it is what makes reuse
// detection safe: the session stands readable in every access token, so
// without the MAC anyone who saw one could present garbage for it and have the
// session killed as "reused".
type sessions struct{ key []byte }

func openSessions(d *keyDir) (*sessions, error) {
	text, err := d.secret("refresh.secret", 32)
	return &sessions{key: []byte(text)}, err
}

func (s *sessions) mint(session string) string {
	var random [32]byte
	_, _ = rand.Read(random[:]) // never fails
	body := session + "." + base64.RawURLEncoding.EncodeToString(random[:])
	return body + "." + s.mac(body)
}

func (s *sessions) mac(body string) string {
	h := hmac.New(sha256.New, s.key)
	h.Write([]byte(body))
	return base64.RawURLEncoding.EncodeToString(h.Sum(nil))
}

// session returns the session of a refresh token that was made here.
func (s *sessions) session(refresh string) (string, bool) {
	end := strings.LastIndexByte(refresh, '.')
	if end < 0 || len(refresh) > 256 {
		return "", false
	}
	session, _, found := strings.Cut(refresh[:end], ".")
	return session, found && hmac.Equal([]byte(s.mac(refresh[:end])), []byte(refresh[end+1:]))
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

// pair is what issuing and refreshing answer (RFC 6749 section 5.1).
type pair struct {
	AccessToken  string `json:"access_token"`
	TokenType    string `json:"token_type"`
	ExpiresIn    int64  `json:"expires_in"`
	RefreshToken string `json:"refresh_token"`
}

// issue begins a session: one access token, one refresh token.
func (s *Service) issue(ctx context.Context, user string, claims map[string]any, ttl time.Duration) (*pair, error) {
	text, err := json.Marshal(claims)
	if err != nil {
		return nil, err
	}
	issued, _, err := s.store.Stamp(ctx, s.Config.Own.UserPrefix+user)
	if err != nil {
		return nil, err
	}
	if skew := time.Until(issued).Abs(); skew > s.Config.ClockLeeway {
		s.log.Warn("the clocks of redis and of this machine differ", "by", skew)
	}
	session := newSession()
	answer, access, err := s.mint(user, session, claims, ttl, issued)
	if err != nil {
		return nil, err
	}
	family := store.Family{
		Session: session, User: user, Claims: string(text), TTL: ttl, Issued: issued,
		Current: refreshSum(answer.RefreshToken),
	}
	if err := s.store.CreateFamily(ctx, family); err != nil {
		return nil, err
	}
	return answer, s.store.Register(ctx, access)
}

func newSession() string { id := uuid.New(); return hex.EncodeToString(id[:]) }

// mint makes a pair without telling anybody.
func (s *Service) mint(user, session string, claims map[string]any, ttl time.Duration, issued time.Time) (*pair, store.Question, error) {
	signer, err := s.keyDir.signer(time.Now())
	if err != nil {
		return nil, store.Question{}, err
	}
	access, err := signer.Issue(token.Grant{
		Issuer: s.Config.Own.Issuer, Audience: s.Config.Own.Audience, Subject: user,
		Session: session, ID: uuid.NewString(), Issued: issued, TTL: ttl, Claims: claims,
	})
	if err != nil {
		return nil, store.Question{}, invalidRequest("These claims make no valid token.", err)
	}
	s.metrics.issued.Inc()
	question := store.Question{Expires: issued.Add(ttl + s.Config.ClockLeeway)}
	question.ID, question.Sum = nameOf(access)
	return &pair{
		AccessToken: access, TokenType: "Bearer", ExpiresIn: int64(ttl / time.Second),
		RefreshToken: s.sessions.mint(session),
	}, question, nil
}

func nameOf(compact string) (id, sum string) {
	whole := sha256.Sum256([]byte(compact))
	return token.ID(compact), hex.EncodeToString(whole[:])
}

// refresh turns a refresh token into a new pair (RULES 28).
//
// The new pair is made before the script runs, because the script must hold it
// for the repeat of a lost reply; if the rotation does not happen, nobody ever
// sees it. Its iat is Redis's time from before the rotation, so that a mark set
// while we were at it voids the new pair, too.
func (s *Service) refresh(ctx context.Context, presented string) (*pair, error) {
	session, ours := s.sessions.session(presented)
	if !ours {
		return nil, invalidGrant(errors.New("not a refresh token of ours"))
	}
	family, err := s.store.LoadFamily(ctx, session)
	if errors.Is(err, store.ErrNoSession) {
		return nil, invalidGrant(err)
	}
	if err != nil {
		return nil, err
	}
	issued, mark, err := s.store.Stamp(ctx, s.Config.Own.UserPrefix+family.User)
	if err != nil {
		return nil, err
	}
	if family.Issued.UnixMilli() <= mark {
		return nil, invalidGrant(fmt.Errorf("%w: all tokens of the user", errRevoked))
	}
	var claims map[string]any
	if err := decodeJSON(strings.NewReader(family.Claims), &claims); err != nil {
		return nil, invalidGrant(fmt.Errorf("claims in redis: %w", err))
	}
	answer, access, err := s.mint(family.User, session, claims, family.TTL, issued)
	if err != nil {
		return nil, err
	}
	plain, err := json.Marshal(answer)
	if err != nil {
		return nil, err
	}
	sealed, err := seal(presented, plain)
	if err != nil {
		return nil, err
	}
	outcome, old, err := s.store.Rotate(ctx, store.Rotation{
		Session: session, Presented: refreshSum(presented), Next: refreshSum(answer.RefreshToken),
		Pair: sealed, Issued: issued,
	})
	s.metrics.refreshed.WithLabelValues(string(outcome)).Inc()
	if err != nil {
		return nil, err
	}
	switch outcome {
	case store.Rotated:
		return answer, s.store.Register(ctx, access)
	case store.Repeated:
		plain, err := unseal(presented, old)
		if err != nil {
			return nil, invalidGrant(err)
		}
		if err := json.Unmarshal(plain, answer); err != nil {
			return nil, err
		}
		// The reply may have been lost because registering failed.
		access.ID, access.Sum = nameOf(answer.AccessToken)
		return answer, s.store.Register(ctx, access)
	}
	return nil, invalidGrant(fmt.Errorf("refresh token %s", outcome))
}

// secret is a bearer token of the admin interface. One that stands in a file
// of its own may change without a restart (RULES 41).
type secret struct {
	path string // empty: fixed

	mu    sync.Mutex // protects what follows
	text  string
	stamp time.Time
	asked time.Time
}

func openSecret(d *keyDir, name, text, path string) (*secret, error) {
	s := &secret{path: path, text: text}
	if text != "" {
		return s, nil
	}
	if path == "" {
		var err error
		s.text, err = d.secret(name, 24)
		return s, err
	}
	err := s.read()
	if err == nil && len(s.text) < minSecret {
		err = fmt.Errorf("shorter than %d characters; make one with: openssl rand -hex 24", minSecret)
	}
	return s, err
}

func (s *secret) read() error {
	info, err := os.Stat(s.path)
	if err != nil {
		return err
	}
	s.stamp = info.ModTime()
	data, err := readFile(s.path)
	if err == nil {
		s.text = strings.TrimSpace(string(data))
	}
	return err
}

func (s *secret) value() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.path != "" && time.Since(s.asked) > fileCheck {
		s.asked = time.Now()
		if info, err := os.Stat(s.path); err == nil && !info.ModTime().Equal(s.stamp) {
			before := s.text
			if s.read() != nil || len(s.text) < minSecret {
				s.text = before // half written, or emptied: never let "" in
			}
		}
	}
	return s.text
}

// matches compares in constant time, whatever the lengths.
func (s *secret) matches(presented string) bool {
	want, got := sha256.Sum256([]byte(s.value())), sha256.Sum256([]byte(presented))
	return subtle.ConstantTimeCompare(want[:], got[:]) == 1
}
