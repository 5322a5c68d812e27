package attacks

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
)

// What who can write to Redis, and has an account of his own, can make of it:
// he can refuse and forget, but nobody becomes somebody else (RULES 1, 26).
var rewrites = []struct {
	name  string
	write func(b *bed, p pair) error
}{
	{"another user in a session", func(b *bed, p pair) error {
		return b.redis.Client.HSet(context.Background(), prefix+":ref:"+p.session, "user", "victim").Err()
	}},
	{"another plan in a session", func(b *bed, p pair) error {
		return b.redis.Client.HSet(context.Background(), prefix+":ref:"+p.session, "claims", `{"plan":"enterprise","scope":"admin"}`).Err()
	}},
	{"a longer life in a session", func(b *bed, p pair) error {
		return b.redis.Client.HSet(context.Background(), prefix+":ref:"+p.session, "ttl", 20*60*60*1000).Err()
	}},
}

// pair is what a user was issued.
type pair struct {
	AccessToken  string `json:"access_token"`
	RefreshToken string `json:"refresh_token"`
	session      string
}

// said are the claims that matter here.
type said struct {
	Subject string  `json:"sub"`
	Session string  `json:"sid"`
	Plan    string  `json:"plan"`
	Scope   string  `json:"scope"`
	Issued  float64 `json:"iat"`
	Expires float64 `json:"exp"`
}

func claims(token string) (c said, err error) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return c, errors.New("no token")
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return c, err
	}
	return c, json.Unmarshal(payload, &c)
}

func writingRedis(b *bed, _ class) (o outcome) {
	for _, r := range rewrites {
		o.tried++
		if err := b.rewrite(r.write); err != nil {
			o.findings = append(o.findings, fmt.Sprintf("%s: %v", r.name, err))
		}
	}
	return o
}

// rewrite begins a session, changes it in Redis, and refreshes. Refused is as
// good as unchanged.
func (b *bed) rewrite(write func(*bed, pair) error) error {
	var own pair
	b.ask("POST", b.ready.Admin+"/v1/tokens", b.ready.AdminToken, map[string]any{"user_id": "mallory", "claims": map[string]any{"plan": "free"}, "ttl": "15m"}, &own)
	before, err := claims(own.AccessToken)
	if err != nil {
		return err
	}
	own.session = before.Session
	if n, err := b.redis.Client.Exists(context.Background(), prefix+":ref:"+own.session).Result(); err != nil || n != 1 {
		return fmt.Errorf("the session is not where it was looked for: %d, %w", n, err)
	}
	if err := write(b, own); err != nil {
		return err
	}
	c := &client{address: b.door.http, front: plain1}
	defer c.close()
	body, err := json.Marshal(map[string]string{"refresh_token": own.RefreshToken})
	if err != nil {
		return err
	}
	got, err := c.send(message{method: "POST", target: "/v1/users/refresh", host: realHost, body: string(body), fields: []field{{"Content-Type", "application/json"}}})
	if err != nil || got.status != http.StatusOK {
		return err
	}
	var next pair
	if err := json.Unmarshal(got.body, &next); err != nil {
		return err
	}
	after, err := claims(next.AccessToken)
	if err != nil {
		return err
	}
	if after.Subject != before.Subject || after.Plan != before.Plan || after.Scope != before.Scope || after.Expires-after.Issued > before.Expires-before.Issued+2 {
		return fmt.Errorf("was issued %+v", after)
	}
	return nil
}
