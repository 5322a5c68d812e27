package authsvc

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/authsvc/config"
	"github.com/sluice-gateway/sluice/authsvc/session"
	"github.com/sluice-gateway/sluice/authsvc/token"
	"github.com/sluice-gateway/sluice/internal/redistest"
)

// Rotation with overlap: the new key is published before it signs, tokens of
// the old one live on, and other replicas follow by the folder alone.
func TestKeyRotation(t *testing.T) {
	t.Parallel() // it waits, mostly
	redis := redistest.Start(t)
	all := replicas(t, redis.Addr, 2, func(c *config.Config) { c.Own.PublishAhead = 2 * time.Second })
	old := all[0].login("u1")
	if a := all[0].call("POST", "/v1/keys/rotate", ""); a.status != 200 {
		t.Fatal(a)
	}
	published := func(r *replica) (kids []string) {
		request, _ := http.NewRequest("GET", r.public+"/.well-known/jwks.json", nil)
		var set struct{ Keys []map[string]string }
		a := r.do(request)
		a.json(t, &set)
		for _, key := range set.Keys {
			if key["d"] != "" || key["alg"] != "ES256" || key["use"] != "sig" {
				t.Errorf("published: %v", key)
			}
			kids = append(kids, key["kid"])
		}
		return kids
	}
	kidOf := func(p session.Pair) string {
		c, err := token.Parse(p.AccessToken)
		if err != nil {
			t.Fatal(err)
		}
		return c.KeyID
	}
	for i, r := range all {
		redistest.Eventually(t, 5*time.Second, fmt.Sprintf("replica %d publishes both keys", i), func() bool { return len(published(r)) == 2 })
	}
	if kid := kidOf(all[1].login("u1")); kid != kidOf(old) {
		t.Log("the new key was published for less than publishAhead on a slow machine")
	}
	for i, r := range all {
		redistest.Eventually(t, 10*time.Second, fmt.Sprintf("replica %d signs with the new key", i), func() bool {
			return kidOf(r.login("u1")) != kidOf(old)
		})
	}
	fresh := all[1].login("u2")
	for _, r := range all {
		r.wantStatus(old.AccessToken, 200)
		r.wantStatus(fresh.AccessToken, 200)
	}
	// Redis knows the public half and the schedule (design: signing-keys), and nothing else.
	client := redis.Client()
	defer client.Close()
	value := ""
	redistest.Eventually(t, 15*time.Second, "the schedule is in Redis", func() bool {
		value = client.Get(context.Background(), "sluice:key:"+kidOf(old)).Val()
		return strings.Contains(value, `"retires"`)
	})
	if strings.Contains(value, `"d"`) {
		t.Errorf("private key in redis: %s", value)
	}
}

func TestEveryOwnAlgorithm(t *testing.T) {
	redis := redistest.Start(t)
	for _, algorithm := range []string{"ES384", "EdDSA", "PS256", "HS256"} {
		c := testConfig(t, redis.Addr)
		c.Own.Algorithm = algorithm
		r := open(t, c)
		r.wantStatus(r.login("u1").AccessToken, 200)
		request, _ := http.NewRequest("GET", r.public+"/.well-known/jwks.json", nil)
		var set struct{ Keys []any }
		a := r.do(request)
		a.json(t, &set)
		// design: signing-keys: a symmetric key is never published.
		if want := map[bool]int{true: 0, false: 1}[algorithm == "HS256"]; len(set.Keys) != want {
			t.Errorf("%s: %s", algorithm, a.body)
		}
	}
}
