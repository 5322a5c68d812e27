package attacks

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"
)

// What who can write to Redis, and has an account of his own, can make of it:
// he can refuse and forget, but nobody becomes somebody else (design: status-only, design: signing-keys).
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
	{"another's session in place of one's own", func(b *bed, p pair) error {
		return b.copySession(b.begin("victim", map[string]any{"plan": "pro"}), p.session)
	}},
	{"one's own better session in place of a worse", func(b *bed, p pair) error {
		return b.copySession(b.begin("mallory", map[string]any{"plan": "pro"}), p.session)
	}},
	{"another's user, claims and MAC", func(b *bed, p pair) error {
		ctx := context.Background()
		theirs, err := b.redis.Client.HGetAll(ctx, prefix+":ref:"+b.begin("victim", map[string]any{"plan": "pro"}).session).Result()
		if err != nil {
			return err
		}
		return b.redis.Client.HSet(ctx, prefix+":ref:"+p.session, "user", theirs["user"], "claims", theirs["claims"], "ttl", theirs["ttl"], "mac", theirs["mac"]).Err()
	}},
	{"a MAC that is empty", func(b *bed, p pair) error {
		return b.redis.Client.HSet(context.Background(), prefix+":ref:"+p.session, "user", "victim", "mac", "").Err()
	}},
	{"a session of another type", func(b *bed, p pair) error {
		ctx := context.Background()
		return errors.Join(b.redis.Client.Del(ctx, prefix+":ref:"+p.session).Err(), b.redis.Client.Set(ctx, prefix+":ref:"+p.session, "victim", 0).Err())
	}},
}

// copySession puts what Redis holds of one session under the name of another,
// but for the sums of the refresh tokens: the thief has only his own.
func (b *bed) copySession(from pair, to string) error {
	ctx := context.Background()
	theirs, err := b.redis.Client.HGetAll(ctx, prefix+":ref:"+from.session).Result()
	if err != nil {
		return err
	}
	delete(theirs, "current")
	return b.redis.Client.HSet(ctx, prefix+":ref:"+to, theirs).Err()
}

// begin is a new session, and its name.
func (b *bed) begin(user string, claimed map[string]any) pair {
	b.t.Helper()
	var own pair
	b.ask("POST", b.ready.Admin+"/v1/tokens", b.ready.AdminToken, map[string]any{"user_id": user, "claims": claimed, "ttl": "15m"}, &own)
	said, err := claims(own.AccessToken)
	if err != nil {
		b.t.Fatal(err)
	}
	own.session = said.Session
	return own
}

// falseEntries are lies about tokens: whoever writes them can have a token
// refused, and none accepted (design: status-only). Each begins with a token that is no good.
var falseEntries = []struct {
	name string
	bad  func(b *bed, good string) string
}{
	{"a token whose signature was changed", func(_ *bed, good string) string { return changed(good, 2) }},
	{"a token whose claims were changed", func(_ *bed, good string) string { return changed(good, 1) }},
	{"a token without a signature", func(_ *bed, good string) string { return good[:strings.LastIndex(good, ".")+1] }},
	{"a token of no algorithm", func(_ *bed, good string) string {
		return base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none","typ":"at+jwt"}`)) + good[strings.Index(good, "."):]
	}},
	{"a token that somebody else signed", func(_ *bed, good string) string {
		parts := strings.Split(good, ".")
		return parts[0] + "." + base64.RawURLEncoding.EncodeToString([]byte(`{"iss":"sluice","aud":"sluice","sub":"victim","iat":1,"exp":4102444800}`)) + "." + parts[2]
	}},
}

// changed is a token with one character of a part changed.
func changed(token string, part int) string {
	parts := strings.Split(token, ".")
	at := len(parts[part]) / 2
	with := "A"
	if parts[part][at] == 'A' {
		with = "B"
	}
	parts[part] = parts[part][:at] + with + parts[part][at+1:]
	return strings.Join(parts, ".")
}

// believed writes that a bad token is known and good, as authsvc would, and
// presents it.
func (b *bed) believed(bad func(*bed, string) string) error {
	ctx := context.Background()
	presented := bad(b, b.issue("mallory"))
	id := sha256.Sum256([]byte(presented[:strings.LastIndex(presented, ".")]))
	whole := sha256.Sum256([]byte(presented))
	entry := prefix + ":tok:" + hex.EncodeToString(id[:])
	if err := b.redis.Client.Set(ctx, entry, "active "+hex.EncodeToString(whole[:]), time.Hour).Err(); err != nil {
		return err
	}
	defer b.redis.Client.Del(ctx, entry)
	c := &client{address: b.door.http, front: plain1}
	defer c.close()
	got, err := c.send(message{method: "GET", target: "/v1/products", host: echoHost, fields: []field{bearer(presented), caseField("believed")}})
	if arrived := b.echo.take("believed"); err != nil || got.status != http.StatusUnauthorized || len(arrived) > 0 {
		return fmt.Errorf("%d, %v, arrived %d times", got.status, err, len(arrived))
	}
	return nil
}

// revived: a token that was revoked stays refused where authsvc has heard of it,
// whatever Redis says afterwards.
func (b *bed) revived() error {
	ctx := context.Background()
	own := b.begin("mallory", map[string]any{})
	id := sha256.Sum256([]byte(own.AccessToken[:strings.LastIndex(own.AccessToken, ".")]))
	whole := sha256.Sum256([]byte(own.AccessToken))
	c := &client{address: b.door.http, front: plain1}
	defer c.close()
	ask := func() (int, error) {
		got, err := c.send(message{method: "GET", target: "/v1/products", host: echoHost, fields: []field{bearer(own.AccessToken), caseField("revived")}})
		b.echo.take("revived")
		return got.status, err
	}
	if status, err := ask(); status != http.StatusOK {
		return fmt.Errorf("before: %d, %v", status, err)
	}
	request, err := http.NewRequest("POST", b.ready.Admin+"/v1/tokens/revoke", strings.NewReader("token="+own.AccessToken))
	if err != nil {
		return err
	}
	request.Header.Set("Authorization", "Bearer "+b.ready.AdminToken)
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("revocation: %s", response.Status)
	}
	err = errors.Join(
		b.redis.Client.Set(ctx, prefix+":tok:"+hex.EncodeToString(id[:]), "active "+hex.EncodeToString(whole[:]), time.Hour).Err(),
		b.redis.Client.Del(ctx, prefix+":ref:"+own.session).Err())
	if err != nil {
		return err
	}
	for deadline := time.Now().Add(2 * time.Second); ; {
		status, err := ask()
		if status == http.StatusUnauthorized {
			return nil
		}
		if err != nil || time.Now().After(deadline) {
			return fmt.Errorf("after: %d, %v", status, err)
		}
	}
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
	for _, f := range falseEntries {
		o.tried++
		if err := b.believed(f.bad); err != nil {
			o.findings = append(o.findings, fmt.Sprintf("%s, which Redis says is good: %v", f.name, err))
		}
	}
	o.tried++
	if err := b.revived(); err != nil {
		o.findings = append(o.findings, fmt.Sprintf("a revoked token, which Redis says is good again: %v", err))
	}
	return o
}

// rewrite begins a session, changes it in Redis, and refreshes. Refused is as
// good as unchanged.
func (b *bed) rewrite(write func(*bed, pair) error) error {
	own := b.begin("mallory", map[string]any{"plan": "free"})
	before, err := claims(own.AccessToken)
	if err != nil {
		return err
	}
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
