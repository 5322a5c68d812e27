package users

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/sluice-gateway/sluice/services/internal/web"
)

const (
	tokensTimeout = 3 * time.Second
	maxToken      = 8 << 10 // bytes of a token that a client shows
	maxAnswer     = 64 << 10
)

// pair is what authsvc issues, under the names of RFC 6749 section 5.1.
type pair struct {
	AccessToken  string `json:"access_token"`
	TokenType    string `json:"token_type"`
	ExpiresIn    int64  `json:"expires_in"` // seconds
	RefreshToken string `json:"refresh_token"`
}

// tokens calls authsvc's admin listener:
//
//	POST /v1/tokens          {"user_id","claims"}   -> pair
//	POST /v1/tokens/refresh  {"refresh_token"}      -> pair; 400 or 401 for one that is void
//	POST /v1/tokens/revoke   token=... (RFC 7009)   -> 200, for an unknown token too
type tokens struct {
	base   string
	bearer string
	client *http.Client
}

func newTokens(base, bearer string) (*tokens, error) {
	at, err := url.Parse(base)
	if err != nil || at.Host == "" || (at.Scheme != "http" && at.Scheme != "https") {
		return nil, fmt.Errorf("authsvc's admin address %q is no URL such as http://authsvc:9001", base)
	}
	if bearer == "" {
		return nil, errors.New("no issuer token for authsvc's admin listener")
	}
	return &tokens{
		base:   strings.TrimRight(base, "/"),
		bearer: bearer,
		client: &http.Client{
			Timeout:   tokensTimeout,
			Transport: &http.Transport{MaxIdleConnsPerHost: 32, IdleConnTimeout: time.Minute},
			// Following one would hand the issuer token to whoever is named there.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}, nil
}

func (t *tokens) close() { t.client.CloseIdleConnections() }

func (t *tokens) issue(ctx context.Context, userID string) (pair, error) {
	return t.pair(ctx, "/v1/tokens", map[string]any{"user_id": userID, "claims": map[string]any{}})
}

var errVoid = errors.New("authsvc refused the token")

func (t *tokens) refresh(ctx context.Context, token string) (pair, error) {
	fresh, err := t.pair(ctx, "/v1/tokens/refresh", map[string]any{"refresh_token": token})
	if errors.Is(err, errVoid) {
		return pair{}, &web.Problem{Status: http.StatusUnauthorized, Detail: "the refresh token is not valid; log in again", Cause: err}
	}
	return fresh, err
}

func (t *tokens) revoke(ctx context.Context, token string) error {
	form := url.Values{"token": {token}, "token_type_hint": {"refresh_token"}}.Encode()
	_, err := t.call(ctx, "/v1/tokens/revoke", "application/x-www-form-urlencoded", []byte(form))
	return err
}

func (t *tokens) pair(ctx context.Context, path string, body any) (pair, error) {
	sent, err := json.Marshal(body)
	if err != nil {
		return pair{}, err
	}
	answer, err := t.call(ctx, path, "application/json", sent)
	if err != nil {
		return pair{}, err
	}
	var issued pair
	if err := json.Unmarshal(answer, &issued); err != nil || issued.AccessToken == "" || issued.RefreshToken == "" {
		return pair{}, unavailable(errors.Join(errors.New("authsvc's answer is no token pair"), err))
	}
	return issued, nil
}

// call posts and returns the body of a 2xx answer.
func (t *tokens) call(ctx context.Context, path, contentType string, body []byte) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, t.base+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Content-Type", contentType)
	request.Header.Set("Authorization", "Bearer "+t.bearer)
	response, err := t.client.Do(request)
	if err != nil {
		return nil, unavailable(err)
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	switch {
	case err != nil:
		return nil, unavailable(err)
	case response.StatusCode/100 == 2:
		return answer, nil
	case refusesToken(response.StatusCode, answer):
		return nil, errVoid
	}
	return nil, unavailable(fmt.Errorf("authsvc answered %s to POST %s", response.Status, path))
}

// refusesToken tells a void refresh token (RFC 6749 section 5.2: 400 with
// invalid_grant) from a call that authsvc should not have refused, such as one
// whose issuer token is wrong: that is no fault of the client's.
func refusesToken(status int, answer []byte) bool {
	var refusal struct {
		Error string `json:"error"`
	}
	return status/100 == 4 && json.Unmarshal(answer, &refusal) == nil && refusal.Error == "invalid_grant"
}

func unavailable(cause error) error {
	return web.Unavailable("tokens cannot be had at the moment", cause)
}
