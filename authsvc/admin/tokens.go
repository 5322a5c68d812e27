package admin

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/sluice-gateway/sluice/authsvc/identity"
	"github.com/sluice-gateway/sluice/authsvc/refusal"
	"github.com/sluice-gateway/sluice/authsvc/session"
	"github.com/sluice-gateway/sluice/authsvc/token"
)

// postTokens is POST /v1/tokens {"user_id", "claims", "ttl"}.
func (i *Interface) postTokens(c echo.Context) error {
	var request struct {
		UserID string         `json:"user_id"`
		Claims map[string]any `json:"claims"`
		TTL    string         `json:"ttl"`
	}
	if err := readJSON(c, &request); err != nil {
		return err
	}
	i.target(c, "user "+i.loggable(request.UserID))
	if err := i.checkUser(request.UserID); err != nil {
		return err
	}
	ttl := i.Config.Own.TTL
	if request.TTL != "" {
		var err error
		ttl, err = time.ParseDuration(request.TTL)
		if err != nil || ttl < time.Second || ttl > i.Config.Tokens.MaxLifetime {
			return refusal.InvalidRequest(fmt.Sprintf("ttl: write a duration from 1s to %s.", i.Config.Tokens.MaxLifetime), err)
		}
	}
	fromIssuer, _ := c.Get(issuingKey).(bool)
	for claim := range request.Claims {
		if token.ReservedClaim(claim) {
			return refusal.InvalidRequest(fmt.Sprintf("claims: %q is set by authsvc itself.", claim), nil)
		}
		if fromIssuer && !slices.Contains(i.Config.Tokens.IssuerClaims, claim) {
			return refusal.InvalidRequest(fmt.Sprintf("claims: %q is not among tokens.issuerClaims.", claim), nil)
		}
	}
	answer, err := i.Sessions.Issue(c.Request().Context(), request.UserID, request.Claims, ttl)
	if err != nil {
		return err
	}
	return sendPair(c, answer)
}

func (i *Interface) checkUser(user string) error {
	if user == "" || len(i.Config.Own.UserPrefix+user) > identity.MaxUser {
		return refusal.InvalidRequest(fmt.Sprintf("user_id: write 1 to %d bytes.", identity.MaxUser), nil)
	}
	if err := token.CheckHeaderText(user); err != nil {
		return refusal.InvalidRequest("user_id: "+err.Error()+".", nil)
	}
	if owner := i.Judge.Owner(i.Config.Own.UserPrefix + user); owner != nil && !owner.Own {
		return refusal.InvalidRequest(fmt.Sprintf("user_id: users called \"%s...\" are those of issuer %q; a token of ours for one is refused everywhere.", owner.UserPrefix, owner.Name), nil)
	}
	return nil
}

func sendPair(c echo.Context, answer *session.Pair) error {
	c.Response().Header().Set("Cache-Control", "no-store") // RFC 6749 section 5.1
	return c.JSON(http.StatusOK, answer)
}

// postRefresh is POST /v1/tokens/refresh, as JSON or as the form of RFC 6749
// section 6.
func (i *Interface) postRefresh(c echo.Context) error {
	fields, err := readFields(c)
	if err != nil {
		return err
	}
	if grant := fields["grant_type"]; grant != "" && grant != "refresh_token" {
		return &refusal.Refusal{Status: http.StatusBadRequest, Code: "unsupported_grant_type", Detail: "Only refresh_token is supported."}
	}
	if fields["refresh_token"] == "" {
		return refusal.InvalidRequest("refresh_token is missing.", nil)
	}
	i.target(c, i.nameToken(fields["refresh_token"], "session"))
	answer, err := i.Sessions.Refresh(c.Request().Context(), fields["refresh_token"])
	if err != nil {
		return err
	}
	return sendPair(c, answer)
}

// TokenRevoked answers POST /v1/tokens/revoke. RFC 7009 lets clients ignore it.
type TokenRevoked struct {
	Revoked []string `json:"revoked"`          // "token", "session"
	Reason  string   `json:"reason,omitempty"` // why nothing was; for the admin token
}

// postRevoke is RFC 7009. A token that is no good needs no revocation and gets
// 200 as well, which says so; one that could not be written down gets 503,
// because a revocation must never be lost in silence.
//
// Whoever throws away an access token of ours means the session: its refresh
// token goes with it (section 2.1), or "log out" would last until the next
// refresh.
func (i *Interface) postRevoke(c echo.Context) error {
	fields, err := readFields(c)
	if err != nil {
		return err
	}
	presented := fields["token"]
	if presented == "" {
		return refusal.InvalidRequest("token is missing.", nil)
	}
	i.target(c, i.nameToken(presented, "token"))
	ctx := c.Request().Context()
	if session, ours := i.Sessions.Session(presented); ours {
		return i.revokeSession(c, session)
	}
	who, err := i.Judge.Bearer(ctx, presented, time.Now())
	if errors.Is(err, token.ErrExpired) {
		// The token is over, its session need not be.
		if old, fault := i.Judge.Expired(ctx, presented); fault == nil && old.Issuer.Own && old.Session != "" {
			return i.revokeSession(c, old.Session)
		}
	}
	if errors.Is(err, identity.ErrKeysPending) {
		return err
	}
	if err != nil {
		answer := TokenRevoked{Revoked: []string{}}
		if fromIssuer, _ := c.Get(issuingKey).(bool); !fromIssuer {
			answer.Reason = err.Error()
		}
		outcome(c, "nothing revoked: "+err.Error())
		return c.JSON(http.StatusOK, answer)
	}
	if err := i.Store.RevokeToken(ctx, who.TokenID, who.Expires.Add(i.Config.ClockLeeway)); err != nil {
		return err
	}
	i.revoked.WithLabelValues("token").Inc()
	if who.Issuer.Own && who.Session != "" {
		return i.revokeSession(c, who.Session, "token")
	}
	return sendRevoked(c, "token")
}

// revokeSession ends a session, after what the request has revoked already.
func (i *Interface) revokeSession(c echo.Context, session string, already ...string) error {
	if err := i.Store.RevokeSession(c.Request().Context(), session); err != nil {
		return err
	}
	i.revoked.WithLabelValues("session").Inc()
	return sendRevoked(c, append(already, "session")...)
}

func sendRevoked(c echo.Context, what ...string) error {
	outcome(c, "revoked "+strings.Join(what, ", "))
	return c.JSON(http.StatusOK, TokenRevoked{Revoked: what})
}

// introspection is RFC 7662 section 2.2.
type introspection struct {
	Active    bool     `json:"active"`
	Scope     string   `json:"scope,omitempty"`
	TokenType string   `json:"token_type,omitempty"`
	Username  string   `json:"username,omitempty"` // as services see it: with the issuer's prefix
	Subject   string   `json:"sub,omitempty"`
	Issuer    string   `json:"iss,omitempty"`
	Audience  []string `json:"aud,omitempty"`
	ID        string   `json:"jti,omitempty"`
	Session   string   `json:"sid,omitempty"`
	Expires   int64    `json:"exp,omitempty"`
	Issued    int64    `json:"iat,omitempty"`
	NotBefore int64    `json:"nbf,omitempty"`
	TokenID   string   `json:"token_id,omitempty"`
}

// postIntrospect is RFC 7662. Every reason for a token not to be good is the
// same answer, so that the interface cannot be used to learn which it is.
func (i *Interface) postIntrospect(c echo.Context) error {
	fields, err := readFields(c)
	if err != nil {
		return err
	}
	if fields["token"] == "" {
		return refusal.InvalidRequest("token is missing.", nil)
	}
	i.target(c, i.nameToken(fields["token"], "token"))
	answer, err := i.introspect(c, fields["token"])
	if err != nil {
		return err
	}
	c.Response().Header().Set("Cache-Control", "no-store")
	return c.JSON(http.StatusOK, answer)
}

func (i *Interface) introspect(c echo.Context, presented string) (introspection, error) {
	ctx, now := c.Request().Context(), time.Now()
	if session, ours := i.Sessions.Session(presented); ours {
		family, active, err := i.Sessions.Active(ctx, session, presented)
		if err != nil || !active {
			return introspection{}, err
		}
		return introspection{
			Active: true, TokenType: "refresh_token", Subject: family.User, Session: session,
			Username: i.Config.Own.UserPrefix + family.User, Issuer: i.Config.Own.Issuer, Issued: family.Issued.Unix(),
		}, nil
	}
	who, err := i.Judge.Bearer(ctx, presented, now)
	if err == nil {
		_, err = i.Judge.CheckStatus(ctx, who)
	}
	if err != nil {
		if refusal.Of(err).Status == http.StatusUnauthorized {
			err = nil
		}
		return introspection{}, err
	}
	answer := introspection{
		Active: true, Scope: strings.Join(who.Scopes, " "), TokenType: "Bearer", Username: who.User,
		Subject: who.Claims.Subject, Issuer: who.Claims.Issuer, Audience: who.Claims.Audiences,
		ID: who.Claims.ID, Session: who.Session, Expires: who.Expires.Unix(), TokenID: who.TokenID,
	}
	if !who.Issued.IsZero() {
		answer.Issued = who.Issued.Unix()
	}
	if !who.Claims.NotBefore.IsZero() {
		answer.NotBefore = who.Claims.NotBefore.Unix()
	}
	return answer, nil
}
