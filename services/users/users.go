// Package users is the service that knows who somebody is: it registers people,
// checks their passwords and fetches their tokens from authsvc.
//
// It holds accounts and open sessions in memory and signs nothing itself. A
// token pair comes from authsvc's admin listener, for which the service has the
// issuer token: that one issues, refreshes and revokes and can do nothing else
// (design: operator-tokens). Whoever arrives with a token has been recognised by the gateway,
// and what comes here is X-User-ID; the token itself never does, so logout ends
// the sessions that this service has begun for that user.
package users

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"

	"github.com/labstack/echo/v4"

	"github.com/sluice-gateway/sluice/services/internal/web"
)

// Config is what the service has to be told.
type Config struct {
	Listen      string       // host:port; port 0 takes a free one
	Listener    net.Listener // a ready one wins over Listen
	Admin       string       // base URL of authsvc's admin listener
	IssuerToken string       // bearer token for it
	Log         *slog.Logger // nil: slog's default
}

// Service is a running user service.
type Service struct {
	*web.Server
	accounts *accounts
	hasher   *hasher
	tokens   *tokens
	sessions *sessions
	log      *slog.Logger
}

// Open starts the service; Close ends it.
func Open(ctx context.Context, cfg Config) (*Service, error) {
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	tokens, err := newTokens(cfg.Admin, cfg.IssuerToken)
	if err != nil {
		return nil, fmt.Errorf("users: %w", err)
	}
	s := &Service{
		accounts: newAccounts(),
		hasher:   newHasher(),
		tokens:   tokens,
		sessions: newSessions(),
		log:      cfg.Log.With("service", "users"),
	}
	if s.Server, err = web.Open(ctx, cfg.Listen, cfg.Listener, s.log, s.routes); err != nil {
		return nil, fmt.Errorf("users: %w", err)
	}
	return s, nil
}

// Close ends the service and gives back its connections to authsvc.
func (s *Service) Close() error {
	err := s.Server.Close()
	s.tokens.close()
	return err
}

func (s *Service) routes(e *echo.Echo) {
	e.POST("/v1/users/register", s.register)
	e.POST("/v1/users/login", s.login)
	e.POST("/v1/users/refresh", s.refresh)
	e.POST("/v1/users/logout", s.logout, web.Protect)
	web.Get(e, "/v1/users/:id", s.show, web.Protect)
}

// welcome answers register and login: who you are, and your tokens.
type welcome struct {
	User account `json:"user"`
	pair
}

// register holds the address from the first look until the tokens are there, so
// that of two who register it at once one is told 409 and none is half made.
func (s *Service) register(c echo.Context) error {
	body, err := web.ReadObject(c)
	if err != nil {
		return err
	}
	email, password, name := readEmail(body), body.String("password", 8, maxPassword), readName(body)
	if err := body.Err(); err != nil {
		return err
	}
	ctx := c.Request().Context()
	claim, err := s.accounts.claim(email)
	if err != nil {
		return err
	}
	defer claim.release()
	hash, err := s.hasher.hash(ctx, password)
	if err != nil {
		return err
	}
	created := newAccount(email, name, hash)
	pair, err := s.begin(ctx, created)
	if err != nil {
		return err
	}
	claim.keep(created)
	return answer(c, http.StatusCreated, welcome{User: created, pair: pair})
}

// login says the same, after the same work, to a wrong password and to an
// unknown address: the answer must not tell who has an account here.
func (s *Service) login(c echo.Context) error {
	body, err := web.ReadObject(c)
	if err != nil {
		return err
	}
	email, password := normalise(body.String("email", 1, maxEmail)), body.String("password", 1, maxPassword)
	if err := body.Err(); err != nil {
		return err
	}
	ctx := c.Request().Context()
	known, found := s.accounts.byEmail(email)
	if !found {
		known.hash = s.hasher.decoy
	}
	matches, err := s.hasher.matches(ctx, known.hash, password)
	if err != nil {
		return err
	}
	if !found || !matches {
		return web.Refuse(http.StatusUnauthorized, "email or password is wrong")
	}
	pair, err := s.begin(ctx, known)
	if err != nil {
		return err
	}
	return answer(c, http.StatusOK, welcome{User: known, pair: pair})
}

// begin opens a session. One more than a user may have ends the oldest, at
// authsvc too.
func (s *Service) begin(ctx context.Context, who account) (pair, error) {
	fresh, err := s.tokens.issue(ctx, who.ID)
	if err != nil {
		return pair{}, err
	}
	if oldest := s.sessions.add(who.ID, fresh.RefreshToken); oldest != "" {
		if err := s.tokens.revoke(ctx, oldest); err != nil {
			s.log.WarnContext(ctx, "oldest session not ended; it ends with its refresh token", "error", err)
		}
	}
	return fresh, nil
}

func (s *Service) refresh(c echo.Context) error {
	body, err := web.ReadObject(c)
	if err != nil {
		return err
	}
	old := body.String("refresh_token", 1, maxToken)
	if err := body.Err(); err != nil {
		return err
	}
	fresh, err := s.tokens.refresh(c.Request().Context(), old)
	if err != nil {
		return err
	}
	s.sessions.rotate(old, fresh.RefreshToken)
	return answer(c, http.StatusOK, fresh)
}

// logout ends the session whose refresh token the body names, or, where it
// names none, every session of the caller.
func (s *Service) logout(c echo.Context) error {
	ending := s.sessions.of(web.UserID(c))
	if c.Request().ContentLength != 0 {
		body, err := web.ReadObject(c)
		if err != nil {
			return err
		}
		if token := body.OptionalString("refresh_token", 1, maxToken); token != "" {
			ending = []string{token}
		}
		if err := body.Err(); err != nil {
			return err
		}
	}
	for _, token := range ending {
		if err := s.tokens.revoke(c.Request().Context(), token); err != nil {
			return err
		}
		s.sessions.remove(token)
	}
	return c.NoContent(http.StatusNoContent)
}

// show answers a stranger's id and an unknown one alike.
func (s *Service) show(c echo.Context) error {
	found, ok := s.accounts.byID(c.Param("id"))
	if !ok || found.ID != web.UserID(c) {
		return web.Refuse(http.StatusNotFound, "there is no such user")
	}
	return c.JSON(http.StatusOK, found)
}

// answer sends what holds tokens: never to be stored (RFC 6749 section 5.1).
func answer(c echo.Context, status int, body any) error {
	c.Response().Header().Set(echo.HeaderCacheControl, "no-store")
	return c.JSON(status, body)
}
