// Package session begins sessions and carries them on: a session is one login, a
// pair of an access token, which verifies without Redis, and a refresh token,
// which is good once.
//
// Issue makes the pair (mint), stores the session under authsvc's own MAC and
// registers the access token. Refresh checks the refresh token's MAC
// (refreshtoken.go), the stored session's, and the user's mark, mints the next
// pair, and has Redis swap the two at once: what is shown a second time ends the
// session, unless it is the repeat of a reply that was lost.
package session

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/sluice-gateway/sluice/authsvc/config"
	"github.com/sluice-gateway/sluice/authsvc/identity"
	"github.com/sluice-gateway/sluice/authsvc/internal/strictjson"
	"github.com/sluice-gateway/sluice/authsvc/keys"
	"github.com/sluice-gateway/sluice/authsvc/refusal"
	"github.com/sluice-gateway/sluice/authsvc/store"
	"github.com/sluice-gateway/sluice/authsvc/token"
)

// Pair is what issuing and refreshing answer (RFC 6749 section 5.1).
type Pair struct {
	AccessToken  string `json:"access_token"`
	TokenType    string `json:"token_type"`
	ExpiresIn    int64  `json:"expires_in"` // seconds; of the access token
	RefreshToken string `json:"refresh_token"`
}

// Sessions issues and refreshes tokens.
type Sessions struct {
	config *config.Config
	tokens *RefreshTokens
	keys   *keys.Dir
	judge  *identity.Judge
	store  *store.Store
	log    *slog.Logger

	issued    prometheus.Counter
	refreshed *prometheus.CounterVec
}

// New signs with the keys of a folder what judge would let pass.
func New(c *config.Config, tokens *RefreshTokens, dir *keys.Dir, judge *identity.Judge, s *store.Store, log *slog.Logger) *Sessions {
	return &Sessions{
		config: c, tokens: tokens, keys: dir, judge: judge, store: s, log: log,
		issued: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "authsvc_tokens_issued_total", Help: "Access tokens signed.",
		}),
		refreshed: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "authsvc_refreshes_total", Help: "Refresh tokens presented, by outcome.",
		}, []string{"outcome"}),
	}
}

// Collectors are the figures of issuing.
func (s *Sessions) Collectors() []prometheus.Collector {
	return []prometheus.Collector{s.issued, s.refreshed}
}

// Issue begins a session: one access token, one refresh token.
func (s *Sessions) Issue(ctx context.Context, user string, claims map[string]any, ttl time.Duration) (*Pair, error) {
	text, err := json.Marshal(claims)
	if err != nil {
		return nil, err
	}
	issued, _, err := s.store.Stamp(ctx, s.config.Own.UserPrefix+user)
	if err != nil {
		return nil, err
	}
	if skew := time.Until(issued).Abs(); skew > s.config.ClockLeeway {
		s.log.Warn("the clocks of redis and of this machine differ", "by", skew)
	}
	session := newSession()
	answer, access, err := s.mint(ctx, user, session, claims, ttl, issued)
	if err != nil {
		return nil, err
	}
	family := store.Family{
		Session: session, User: user, Claims: string(text), TTL: ttl, Issued: issued,
		Current: refreshSum(answer.RefreshToken),
	}
	family.MAC = s.tokens.macFamily(family)
	if err := s.store.CreateFamily(ctx, family); err != nil {
		return nil, err
	}
	return answer, s.store.Register(ctx, access)
}

func newSession() string { id := uuid.New(); return hex.EncodeToString(id[:]) }

// mint makes a pair without telling anybody.
func (s *Sessions) mint(ctx context.Context, user, session string, claims map[string]any, ttl time.Duration, issued time.Time) (*Pair, store.Question, error) {
	signer, err := s.keys.Signer(time.Now())
	if err != nil {
		return nil, store.Question{}, err
	}
	access, err := signer.Issue(token.Grant{
		Issuer: s.config.Own.Issuer, Audience: s.config.Own.Audience, Subject: user,
		Session: session, ID: uuid.NewString(), Issued: issued, TTL: ttl, Claims: claims,
		MaxBytes: s.config.Tokens.MaxBytes,
	})
	if err != nil {
		return nil, store.Question{}, refusal.InvalidRequest("These claims make no valid token.", err)
	}
	// What is issued is judged as it will be: nobody is given a token that is
	// refused everywhere.
	who, err := s.judge.VerifyAnew(ctx, access, issued)
	if err != nil {
		return nil, store.Question{}, refusal.InvalidRequest("A token that says this would be refused: "+err.Error()+".", err)
	}
	s.issued.Inc()
	question := s.judge.Question(who)
	question.ID, question.Sum = nameOf(access)
	return &Pair{
		AccessToken: access, TokenType: "Bearer", ExpiresIn: int64(ttl / time.Second),
		RefreshToken: s.tokens.mint(session),
	}, question, nil
}

func nameOf(compact string) (id, sum string) {
	whole := sha256.Sum256([]byte(compact))
	return token.ID(compact), hex.EncodeToString(whole[:])
}

// Refresh turns a refresh token into a new pair (design: refresh-tokens).
//
// The new pair is made before the script runs, because the script must hold it
// for the repeat of a lost reply; if the rotation does not happen, nobody ever
// sees it. Its iat is Redis's time from before the rotation, so that a mark set
// while we were at it voids the new pair, too.
func (s *Sessions) Refresh(ctx context.Context, presented string) (*Pair, error) {
	session, ours := s.tokens.session(presented)
	if !ours {
		return nil, refusal.InvalidGrant(errors.New("not a refresh token of ours"))
	}
	family, err := s.store.LoadFamily(ctx, session)
	if errors.Is(err, store.ErrNoSession) {
		return nil, refusal.InvalidGrant(err)
	}
	if err != nil {
		return nil, err
	}
	if !s.tokens.wrote(family) {
		return nil, refusal.InvalidGrant(errors.New("somebody else has written this session to redis"))
	}
	issued, mark, err := s.store.Stamp(ctx, s.config.Own.UserPrefix+family.User)
	if err != nil {
		return nil, err
	}
	if family.Issued.UnixMilli() <= mark {
		return nil, refusal.InvalidGrant(fmt.Errorf("%w: all tokens of the user", identity.ErrRevoked))
	}
	var claims map[string]any
	if err := strictjson.Decode(strings.NewReader(family.Claims), &claims); err != nil {
		return nil, refusal.InvalidGrant(fmt.Errorf("claims in redis: %w", err))
	}
	answer, access, err := s.mint(ctx, family.User, session, claims, family.TTL, issued)
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
	s.refreshed.WithLabelValues(string(outcome)).Inc()
	if err != nil {
		return nil, err
	}
	switch outcome {
	case store.Rotated:
		return answer, s.store.Register(ctx, access)
	case store.Repeated:
		plain, err := unseal(presented, old)
		if err != nil {
			return nil, refusal.InvalidGrant(err)
		}
		if err := json.Unmarshal(plain, answer); err != nil {
			return nil, err
		}
		// The reply may have been lost because registering failed.
		access.ID, access.Sum = nameOf(answer.AccessToken)
		return answer, s.store.Register(ctx, access)
	}
	return nil, refusal.InvalidGrant(fmt.Errorf("refresh token %s", outcome))
}
