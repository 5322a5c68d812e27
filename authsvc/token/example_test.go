package token_test

import (
	"errors"
	"fmt"
	"time"

	"github.com/sluice-gateway/sluice/authsvc/token"
)

// A token is issued and passes the four gates; a minute after its end it does not.
func Example() {
	private, err := token.GenerateKey("ES256")
	if err != nil {
		panic(err)
	}
	signer, err := token.NewSigner("ES256", private)
	if err != nil {
		panic(err)
	}
	now := time.Now()
	compact, err := signer.Issue(token.Grant{Issuer: "shop", Audience: "api", Subject: "42", ID: "1", Issued: now, TTL: time.Hour})
	if err != nil {
		panic(err)
	}

	parsed, err := token.Parse(compact)
	if err != nil {
		panic(err)
	}
	policy := token.Policy{Issuer: "shop", Audiences: []string{"api"}, Type: token.AccessTokenType, MaxLifetime: time.Hour}
	for _, key := range token.NewKeySet(signer.Key()).Candidates(parsed.Algorithm, parsed.KeyID) {
		payload, err := parsed.Verify(key)
		if err != nil {
			panic(err)
		}
		claims, err := token.ParseClaims(payload)
		if err != nil {
			panic(err)
		}
		fmt.Println(claims.Subject, policy.Check(claims, parsed.Type, now))
		late := policy.Check(claims, parsed.Type, now.Add(time.Hour+time.Minute))
		fmt.Println(errors.Is(late, token.ErrExpired))
	}
	// Output:
	// 42 <nil>
	// true
}

// The errors tell what was wrong without a look at their texts.
func ExampleParse() {
	_, err := token.Parse("eyJhbGciOiJub25lIn0.e30.AA")
	fmt.Println(errors.Is(err, token.ErrAlgorithm))
	_, err = token.Parse("not a token")
	fmt.Println(errors.Is(err, token.ErrMalformed))
	// Output:
	// true
	// true
}
