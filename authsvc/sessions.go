package authsvc

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/sluice-gateway/sluice/authsvc/store"
	"github.com/sluice-gateway/sluice/authsvc/token"
)

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
	answer, access, err := s.mint(ctx, user, session, claims, ttl, issued)
	if err != nil {
		return nil, err
	}
	family := store.Family{
		Session: session, User: user, Claims: string(text), TTL: ttl, Issued: issued,
		Current: refreshSum(answer.RefreshToken),
	}
	family.MAC = s.sessions.macFamily(family)
	if err := s.store.CreateFamily(ctx, family); err != nil {
		return nil, err
	}
	return answer, s.store.Register(ctx, access)
}

func newSession() string { id := uuid.New(); return hex.EncodeToString(id[:]) }

// mint makes a pair without telling anybody.
func (s *Service) mint(ctx context.Context, user, session string, claims map[string]any, ttl time.Duration, issued time.Time) (*pair, store.Question, error) {
	signer, err := s.keyDir.signer(time.Now())
	if err != nil {
		return nil, store.Question{}, err
	}
	access, err := signer.Issue(token.Grant{
		Issuer: s.Config.Own.Issuer, Audience: s.Config.Own.Audience, Subject: user,
		Session: session, ID: uuid.NewString(), Issued: issued, TTL: ttl, Claims: claims,
		MaxBytes: s.Config.Tokens.MaxBytes,
	})
	if err != nil {
		return nil, store.Question{}, invalidRequest("These claims make no valid token.", err)
	}
	// What is issued is judged as it will be: nobody is given a token that is
	// refused everywhere.
	who, err := s.verifier.verifyAnew(ctx, access, issued)
	if err != nil {
		return nil, store.Question{}, invalidRequest("A token that says this would be refused: "+err.Error()+".", err)
	}
	s.metrics.issued.Inc()
	question := s.question(who)
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
	if !s.sessions.wrote(family) {
		return nil, invalidGrant(errors.New("somebody else has written this session to redis"))
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
