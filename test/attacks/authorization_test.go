package attacks

import (
	"errors"
	"fmt"
)

// authorization sends ann's token wherever a token can stand, by every method,
// on protected and public routes, where the service answers, fails or upgrades:
// it never gets to see it (design: what-services-receive).
func authorization(b *bed) []probe {
	token := "Bearer " + b.token
	carriers := []way{
		{name: "plain", fields: []field{{"Authorization", token}}},
		{name: "lower case", fields: []field{{"authorization", token}}},
		{name: "upper case", fields: []field{{"AUTHORIZATION", token}}},
		{name: "scheme in lower case", fields: []field{{"Authorization", "bearer " + b.token}}},
		{name: "scheme in upper case, two spaces", fields: []field{{"Authorization", "BEARER  " + b.token}}},
		{name: "white space around", fields: []field{{"Authorization", "\t " + token + " \t"}}},
		// RFC 9110 section 5.3: a header that is no list stands once.
		{name: "twice the same", fields: []field{{"Authorization", token}, {"Authorization", token}}},
		{name: "two cases", fields: []field{{"Authorization", token}, {"authorization", token}}},
		{name: "another first", fields: []field{{"Authorization", "Basic YTpi"}, {"Authorization", token}}},
		{name: "empty first", fields: []field{{"Authorization", ""}, {"Authorization", token}}},
		{name: "a list", fields: []field{{"Authorization", token + ", " + token}}},
		{name: "folded", fields: []field{{"Authorization", "Bearer\r\n " + b.token}}},
		{name: "folded into another", fields: []field{{"X-Filler", "a\r\n Authorization: Bearer"}}},
		{name: "space before the colon", fields: []field{{"Authorization ", token}}},
		{name: "in a proxy's header", fields: []field{{"Authorization", token}, {"Proxy-Authorization", token}}},
		{name: "in a proxy's header alone", fields: []field{{"Proxy-Authorization", token}}},
		{name: "listed in Connection", fields: []field{{"Authorization", token}, {"Connection", "Authorization"}}},
		{name: "listed in Connection with Upgrade", fields: []field{{"Authorization", token}, {"Connection", "Upgrade, Authorization"}, {"Upgrade", "websocket"}}},
		{name: "upgrade", fields: []field{{"Authorization", token}, {"Connection", "Upgrade"}, {"Upgrade", "websocket"}, {"Sec-WebSocket-Version", "13"}, {"Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="}}},
		{name: "preflight", fields: []field{{"Authorization", token}, {"Origin", "https://example.org"}, {"Access-Control-Request-Method", "GET"}}},
		{name: "expecting 100", fields: []field{{"Authorization", token}, {"Expect", "100-continue"}}},
		{name: "trailer", fields: []field{{"Trailer", "Authorization"}}, trailers: []field{{"Authorization", token}}},
		{name: "header and trailer", fields: []field{{"Authorization", token}, {"Trailer", "Authorization"}}, trailers: []field{{"Authorization", token}}},
		{name: "unannounced trailer", fields: []field{{"Authorization", token}}, trailers: []field{{"authorization", token}}},
	}
	var all []probe
	for _, c := range carriers {
		for _, method := range []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"} {
			for _, target := range []string{"/v1/products", "/v1/products/p-1?fail=500", "/v1/orders", "/v1/users/ann", "/v1/users/login", "/v1/users/register"} {
				for _, f := range fronts {
					all = append(all, probe{name: c.name, front: f, judge: bearsNoToken(b.token), message: message{
						method: method, target: target, host: echoHost, fields: c.fields, trailers: c.trailers}})
				}
			}
		}
	}
	return all
}

func bearsNoToken(token string) func(answer, []seen) error {
	return func(_ answer, arrived []seen) error {
		if len(arrived) > 1 {
			return fmt.Errorf("arrived %d times", len(arrived))
		}
		for _, s := range arrived {
			user := ann
			if s.header.Get("X-User-Id") == "" { // on a public route
				user = who{}
				if s.method != "POST" || s.target != "/v1/users/login" && s.target != "/v1/users/register" {
					return errors.New("arrived for nobody")
				}
			}
			if err := intact(s, user); err != nil {
				return err
			}
		}
		return nil
	}
}
