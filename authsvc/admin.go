package authsvc

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/sluice-gateway/sluice/authsvc/store"
	"github.com/sluice-gateway/sluice/authsvc/token"
)

// maxBody bounds every request body of the admin interface.
const maxBody = 64 << 10

// adminRoutes is the inner interface. Two secrets open it (RULES 29): the
// admin token everything, the issuer token only what a login service needs, so
// that a break-in there cannot reset limits or revoke the rest of the world.
func (s *Service) adminRoutes() http.Handler {
	e := s.newEcho()
	s.healthRoutes(e)
	e.GET("/metrics", echo.WrapHandler(s.metrics.handler()))

	login := e.Group("/v1/tokens", s.guard(s.admin, s.issuing))
	login.POST("", s.postTokens)
	login.POST("/refresh", s.postRefresh)
	login.POST("/revoke", s.postRevoke)

	admin := e.Group("/v1", s.guard(s.admin))
	admin.POST("/tokens/introspect", s.postIntrospect)
	admin.POST("/users/:id/revoke", s.postUserRevoke)
	admin.GET("/limits/:name/:key", s.getLimit)
	admin.DELETE("/limits/:name/:key", s.deleteLimit)
	admin.GET("/gateways", s.getGateways)
	admin.POST("/keys/rotate", s.postKeysRotate)
	return e
}

// guard lets a request pass that bears one of the secrets.
func (s *Service) guard(accepted ...*secret) echo.MiddlewareFunc {
	return func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) error {
			values := c.Request().Header.Values("Authorization")
			if len(values) > 1 {
				return invalidRequest("There is more than one Authorization header.", nil)
			}
			if len(values) == 0 {
				return noCredential
			}
			scheme, presented, _ := strings.Cut(values[0], " ")
			for _, secret := range accepted {
				if strings.EqualFold(scheme, "Bearer") && secret.matches(presented) {
					c.Set(issuingKey, secret == s.issuing)
					c.Request().Body = http.MaxBytesReader(c.Response(), c.Request().Body, maxBody)
					return next(c)
				}
			}
			if strings.EqualFold(scheme, "Bearer") && s.issuing.matches(presented) {
				return &refusal{status: http.StatusForbidden, code: "insufficient_scope", challenge: true, detail: "This needs the admin token."}
			}
			return invalidToken("The admin token is not valid.", nil)
		}
	}
}

// postTokens is POST /v1/tokens {"user_id", "claims", "ttl"}.
func (s *Service) postTokens(c echo.Context) error {
	var request struct {
		UserID string         `json:"user_id"`
		Claims map[string]any `json:"claims"`
		TTL    string         `json:"ttl"`
	}
	if err := readJSON(c, &request); err != nil {
		return err
	}
	if err := s.checkUser(request.UserID); err != nil {
		return err
	}
	ttl := s.Config.Own.TTL
	if request.TTL != "" {
		var err error
		ttl, err = time.ParseDuration(request.TTL)
		if err != nil || ttl < time.Second || ttl > s.Config.Tokens.MaxLifetime {
			return invalidRequest(fmt.Sprintf("ttl: write a duration from 1s to %s.", s.Config.Tokens.MaxLifetime), err)
		}
	}
	fromIssuer, _ := c.Get(issuingKey).(bool)
	for claim := range request.Claims {
		if token.ReservedClaim(claim) {
			return invalidRequest(fmt.Sprintf("claims: %q is set by authsvc itself.", claim), nil)
		}
		if fromIssuer && !slices.Contains(s.Config.Tokens.IssuerClaims, claim) {
			return invalidRequest(fmt.Sprintf("claims: %q is not among tokens.issuerClaims.", claim), nil)
		}
	}
	answer, err := s.issue(c.Request().Context(), request.UserID, request.Claims, ttl)
	if err != nil {
		return err
	}
	return sendPair(c, answer)
}

func (s *Service) checkUser(user string) error {
	if user == "" || len(s.Config.Own.UserPrefix+user) > maxUser {
		return invalidRequest(fmt.Sprintf("user_id: write 1 to %d bytes.", maxUser), nil)
	}
	if err := token.CheckHeaderText(user); err != nil {
		return invalidRequest("user_id: "+err.Error()+".", nil)
	}
	return nil
}

func sendPair(c echo.Context, answer *pair) error {
	c.Response().Header().Set("Cache-Control", "no-store") // RFC 6749 section 5.1
	return c.JSON(http.StatusOK, answer)
}

// postRefresh is POST /v1/tokens/refresh, as JSON or as the form of RFC 6749
// section 6.
func (s *Service) postRefresh(c echo.Context) error {
	fields, err := readFields(c)
	if err != nil {
		return err
	}
	if grant := fields["grant_type"]; grant != "" && grant != "refresh_token" {
		return &refusal{status: http.StatusBadRequest, code: "unsupported_grant_type", detail: "Only refresh_token is supported."}
	}
	if fields["refresh_token"] == "" {
		return invalidRequest("refresh_token is missing.", nil)
	}
	answer, err := s.refresh(c.Request().Context(), fields["refresh_token"])
	if err != nil {
		return err
	}
	return sendPair(c, answer)
}

// postRevoke is RFC 7009. A token that is no good needs no revocation and gets
// 200 as well; one that could not be written down gets 503, because a
// revocation must never be lost in silence.
//
// Whoever throws away an access token of ours means the session: its refresh
// token goes with it (section 2.1), or "log out" would last until the next
// refresh.
func (s *Service) postRevoke(c echo.Context) error {
	fields, err := readFields(c)
	if err != nil {
		return err
	}
	presented := fields["token"]
	if presented == "" {
		return invalidRequest("token is missing.", nil)
	}
	ctx := c.Request().Context()
	if session, ours := s.sessions.session(presented); ours {
		if err := s.store.RevokeSession(ctx, session); err != nil {
			return err
		}
		s.metrics.revoked.WithLabelValues("session").Inc()
		return c.NoContent(http.StatusOK)
	}
	who, err := s.bearer(ctx, presented, time.Now())
	if errors.Is(err, errKeysPending) {
		return err
	}
	if err != nil {
		return c.NoContent(http.StatusOK)
	}
	if err := s.store.RevokeToken(ctx, who.tokenID, who.expires.Add(s.Config.ClockLeeway)); err != nil {
		return err
	}
	s.metrics.revoked.WithLabelValues("token").Inc()
	if who.issuer.own && who.session != "" {
		if err := s.store.RevokeSession(ctx, who.session); err != nil {
			return err
		}
	}
	return c.NoContent(http.StatusOK)
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
func (s *Service) postIntrospect(c echo.Context) error {
	fields, err := readFields(c)
	if err != nil {
		return err
	}
	if fields["token"] == "" {
		return invalidRequest("token is missing.", nil)
	}
	answer, err := s.introspect(c, fields["token"])
	if err != nil {
		return err
	}
	c.Response().Header().Set("Cache-Control", "no-store")
	return c.JSON(http.StatusOK, answer)
}

func (s *Service) introspect(c echo.Context, presented string) (introspection, error) {
	ctx, now := c.Request().Context(), time.Now()
	if session, ours := s.sessions.session(presented); ours {
		family, err := s.store.LoadFamily(ctx, session)
		if errors.Is(err, store.ErrNoSession) {
			return introspection{}, nil
		}
		active := err == nil && family.Current == refreshSum(presented)
		if !active {
			return introspection{}, err
		}
		_, mark, err := s.store.Stamp(ctx, s.Config.Own.UserPrefix+family.User)
		if err != nil || family.Issued.UnixMilli() <= mark {
			return introspection{}, err
		}
		return introspection{
			Active: true, TokenType: "refresh_token", Subject: family.User, Session: session,
			Username: s.Config.Own.UserPrefix + family.User, Issuer: s.Config.Own.Issuer, Issued: family.Issued.Unix(),
		}, nil
	}
	who, err := s.bearer(ctx, presented, now)
	if err == nil {
		err = s.checkStatus(ctx, who)
	}
	if no := refuse(err); err != nil && no.status != http.StatusUnauthorized {
		return introspection{}, err
	}
	if err != nil {
		return introspection{}, nil
	}
	answer := introspection{
		Active: true, Scope: strings.Join(who.scopes, " "), TokenType: "Bearer", Username: who.user,
		Subject: who.claims.Subject, Issuer: who.claims.Issuer, Audience: who.claims.Audiences,
		ID: who.claims.ID, Session: who.session, Expires: who.expires.Unix(), TokenID: who.tokenID,
	}
	if !who.issued.IsZero() {
		answer.Issued = who.issued.Unix()
	}
	if !who.claims.NotBefore.IsZero() {
		answer.NotBefore = who.claims.NotBefore.Unix()
	}
	return answer, nil
}

// postUserRevoke is POST /v1/users/:id/revoke; id is the user as services see
// it in X-User-ID.
func (s *Service) postUserRevoke(c echo.Context) error {
	user, err := pathParam(c, "id")
	if err != nil {
		return err
	}
	if err := token.CheckHeaderText(user); err != nil || user == "" || len(user) > maxUser {
		return invalidRequest("The user's id is not one.", err)
	}
	before, err := s.store.RevokeUser(c.Request().Context(), user)
	if err != nil {
		return err
	}
	s.metrics.revoked.WithLabelValues("user").Inc()
	return c.JSON(http.StatusOK, map[string]any{"user_id": user, "before": before})
}

// getLimit is GET /v1/limits/:name/:key.
func (s *Service) getLimit(c echo.Context) error {
	limits, key, err := s.limit(c)
	if err != nil {
		return err
	}
	usage, err := s.store.Usage(c.Request().Context(), limits[0], key)
	if err != nil {
		return refuseKey(err)
	}
	return c.JSON(http.StatusOK, usage)
}

// deleteLimit is DELETE /v1/limits/:name/:key. One name may have several
// windows in several middlewares; all of them are reset.
func (s *Service) deleteLimit(c echo.Context) error {
	limits, key, err := s.limit(c)
	if err != nil {
		return err
	}
	for _, limit := range limits {
		if err := s.store.Reset(c.Request().Context(), limit, key); err != nil {
			return refuseKey(err)
		}
	}
	return c.NoContent(http.StatusNoContent)
}

func refuseKey(err error) error {
	if errors.Is(err, store.ErrBadKey) {
		return invalidRequest("key: "+err.Error()+".", nil)
	}
	return err
}

// limit finds what living gateways mean by a limit's name.
func (s *Service) limit(c echo.Context) ([]store.Limit, string, error) {
	name, err := pathParam(c, "name")
	if err != nil {
		return nil, "", err
	}
	key, err := pathParam(c, "key")
	if err != nil {
		return nil, "", err
	}
	gateways, err := s.store.Gateways(c.Request().Context())
	if err != nil {
		return nil, "", err
	}
	var limits []store.Limit
	for _, gateway := range gateways {
		for _, limit := range gateway.Limits {
			known := slices.ContainsFunc(limits, func(l store.Limit) bool { return l.WindowMS == limit.WindowMS })
			if limit.Name == name && limit.WindowMS > 0 && !known {
				limits = append(limits, limit)
			}
		}
	}
	if len(limits) == 0 {
		return nil, "", &refusal{status: http.StatusNotFound, detail: "No living gateway has a limit of this name."}
	}
	return limits, key, nil
}

// pathParam undoes percent-encoding exactly once. Echo matches on the raw path
// where there is one and unescapes then itself.
func pathParam(c echo.Context, name string) (string, error) {
	value := c.Param(name)
	if c.Request().URL.RawPath == "" {
		return value, nil
	}
	text, err := url.PathUnescape(value)
	if err != nil {
		return "", invalidRequest("The path is not percent-encoded well.", err)
	}
	return text, nil
}

// getGateways is GET /v1/gateways: the heartbeats as the gateways wrote them.
func (s *Service) getGateways(c echo.Context) error {
	gateways, err := s.store.Gateways(c.Request().Context())
	if err != nil {
		return err
	}
	raw := make([]json.RawMessage, len(gateways))
	for i, gateway := range gateways {
		raw[i] = gateway.Raw
	}
	return c.JSON(http.StatusOK, map[string]any{"gateways": raw})
}

// postKeysRotate is POST /v1/keys/rotate.
func (s *Service) postKeysRotate(c echo.Context) error {
	if err := s.keyDir.rotate(time.Now()); err != nil {
		return err
	}
	type schedule struct {
		ID        string    `json:"kid"`
		Algorithm string    `json:"alg"`
		Activates time.Time `json:"activates"`
		Retires   time.Time `json:"retires,omitzero"`
	}
	var keys []schedule
	for _, key := range s.keyDir.living() {
		keys = append(keys, schedule{key.KeyID, key.Algorithm, key.activates, key.retires})
	}
	return c.JSON(http.StatusOK, map[string]any{"keys": keys})
}

// readJSON reads a body that must be one JSON object of known members.
func readJSON(c echo.Context, into any) error {
	if kind, _, _ := mime.ParseMediaType(c.Request().Header.Get("Content-Type")); kind != "application/json" {
		return &refusal{status: http.StatusUnsupportedMediaType, detail: "Send application/json."}
	}
	return refuseBody(decodeJSON(c.Request().Body, into))
}

func decodeJSON(r io.Reader, into any) error {
	decoder := json.NewDecoder(r)
	decoder.DisallowUnknownFields()
	decoder.UseNumber()
	if err := decoder.Decode(into); err != nil {
		return err
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return errors.New("data after the JSON object")
	}
	return nil
}

func refuseBody(err error) error {
	var tooLarge *http.MaxBytesError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &tooLarge):
		return &refusal{status: http.StatusRequestEntityTooLarge, detail: "The body is too large.", cause: err}
	}
	return invalidRequest("The body is not the JSON object or form that this takes.", err)
}

// readFields reads text members of a JSON object, or of a form as the OAuth
// RFCs have it. Per RFC 6749 section 3.2 a member that comes twice is refused,
// and unknown ones (client_id, token_type_hint) are ignored.
func readFields(c echo.Context) (map[string]string, error) {
	request, fields := c.Request(), make(map[string]string)
	if kind, _, _ := mime.ParseMediaType(request.Header.Get("Content-Type")); kind == "application/json" {
		if err := readJSON(c, &fields); err != nil {
			return nil, err
		}
	} else {
		body, err := io.ReadAll(request.Body)
		if err != nil {
			return nil, refuseBody(err)
		}
		form, err := url.ParseQuery(string(body))
		if err != nil {
			return nil, refuseBody(err)
		}
		for name, values := range form {
			if len(values) != 1 {
				return nil, invalidRequest(fmt.Sprintf("%q is there more than once.", name), nil)
			}
			fields[name] = values[0]
		}
	}
	return fields, nil
}
