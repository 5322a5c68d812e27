package attacks

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"
)

// person is somebody with an account of the user service.
type person struct {
	mail, password string
	ID             string
	pair
}

const knownPassword = "correct horse battery"

// member registers somebody by way of the gateway.
func (b *bed) member(name string) person {
	b.t.Helper()
	p := person{mail: fmt.Sprintf("%s-%d@example.org", name, caseNumber.Add(1)), password: knownPassword}
	var answer struct {
		User struct{ ID string }
		pair
	}
	b.ask("POST", b.ready.HTTP+"/v1/users/register", "", map[string]string{"email": p.mail, "password": p.password, "name": name}, &answer)
	if p.ID, p.pair = answer.User.ID, answer.pair; p.ID == "" || p.AccessToken == "" || p.RefreshToken == "" {
		b.t.Fatalf("nobody was registered: %+v", answer)
	}
	return p
}

// asking is one request to the shipped services, and what must come of it.
type asking struct {
	name           string
	method, target string
	body           string
	as             *person // nil: nobody
	fields         []field
	want           []int
	never          []string // texts that the answer must not hold
	holds          string   // one that it must
}

// askAll sends them through the gateway, each over HTTP/1.1 and HTTP/2.
func (b *bed) askAll(all []asking) (o outcome) {
	for _, f := range []front{plain1, tls2} {
		c := &client{address: b.door.address(f), front: f}
		for _, a := range all {
			if f.h2 && len(a.body) > 16000 {
				continue // more than a frame, and this client knows no flow control
			}
			fields := append([]field{{"Content-Type", "application/json"}}, a.fields...)
			if a.as != nil {
				fields = append(fields, bearer(a.as.AccessToken))
			}
			got, err := c.send(message{method: a.method, target: a.target, host: realHost, body: a.body, fields: fields})
			o.tried++
			if err == nil {
				err = a.judge(got)
			}
			if err != nil {
				o.findings = append(o.findings, fmt.Sprintf("%s, %s: %v", f.name, a.name, err))
			}
		}
		c.close()
	}
	return o
}

func (a asking) judge(got answer) error {
	if !slices.Contains(a.want, got.status) {
		return fmt.Errorf("%d instead of %d: %.200s", got.status, a.want, got.body)
	}
	if got.status >= 400 && len(got.body) > 16<<10 {
		return fmt.Errorf("a refusal of %d bytes", len(got.body))
	}
	if kind := got.header.Get("Content-Type"); len(got.body) > 0 && kind != "application/json" && kind != "application/problem+json" && got.status != http.StatusNotFound && got.status != http.StatusMethodNotAllowed {
		return fmt.Errorf("answered as %q", kind)
	}
	if got.header.Get("Access-Control-Allow-Credentials") != "" {
		return errors.New("a foreign page may use the user's cookies")
	}
	text := string(got.body)
	for _, secret := range append([]string{"goroutine ", ".go:", "127.0.0.1:"}, a.never...) {
		if strings.Contains(text, secret) {
			return fmt.Errorf("the answer holds %q: %.200s", secret, text)
		}
	}
	if !strings.Contains(text, a.holds) {
		return fmt.Errorf("the answer lacks %q: %.200s", a.holds, text)
	}
	return nil
}

// serving tries what a client can say to the services behind the gate.
func serving(b *bed, c class) (o outcome) {
	mallory, victim := b.member("mallory"), b.member("victim")
	add := func(more outcome) {
		o.tried += more.tried
		o.findings = append(o.findings, more.findings...)
	}
	add(b.askAll(sample(registrations(b, mallory, victim), c.sample)))
	add(b.askAll(sample(sessionsOfOthers(b, mallory, victim), c.sample)))
	add(b.askAll(sample(ordersOfOthers(b, mallory, victim), c.sample)))
	add(b.askAll(sample(bodies(mallory), c.sample)))
	for _, try := range []struct {
		name string
		try  func(*bed) error
	}{
		{"a session that was ended, in every spelling of the token (CWE-613)", endedSession},
		{"tokens where no token is looked for (RFC 6750 2.2, 2.3)", tokensElsewhere},
	} {
		o.tried++
		if err := try.try(b); err != nil {
			o.findings = append(o.findings, fmt.Sprintf("%s: %v", try.name, err))
		}
	}
	// Whatever was tried, nobody else has lost anything.
	for _, p := range []person{mallory, victim} {
		var own struct{ ID, Email string }
		if b.ask("GET", b.ready.HTTP+"/v1/users/"+p.ID, p.AccessToken, nil, &own); own.ID != p.ID || own.Email != p.mail {
			o.findings = append(o.findings, fmt.Sprintf("%s is %+v now", p.mail, own))
		}
	}
	return o
}

var (
	refusedBody = []int{http.StatusBadRequest}
	nobody      = []int{http.StatusUnauthorized}
)

// registrations: mass assignment (OWASP API3:2023), doubled and folded names,
// addresses that two parties read in two ways, and who has an account (CWE-204).
func registrations(b *bed, mallory, victim person) (all []asking) {
	register := func(name, body string, want ...int) {
		all = append(all, asking{name: "register with " + name, method: "POST", target: "/v1/users/register", body: body, want: want, never: []string{victim.ID, knownPassword}})
	}
	fresh := func() string { return fmt.Sprintf("new-%d@example.org", caseNumber.Add(1)) }
	for _, member := range []string{
		`"id":"` + victim.ID + `"`, `"user_id":"` + victim.ID + `"`, `"sub":"` + victim.ID + `"`, `"plan":"enterprise"`, `"scope":"admin"`, `"claims":{"plan":"enterprise"}`, `"ttl":"24h"`, `"role":"admin"`, `"admin":true`, `"hash":""`, `"user":{"id":"` + victim.ID + `"}`,
		`"__proto__":{"admin":true}`, `"constructor":1`, `"Email":"` + victim.mail + `"`, `"EMAIL":"` + victim.mail + `"`, `"email":"` + victim.mail + `"`, `"e\u006dail":"` + victim.mail + `"`, `"password":"another password"`, `"na\u006de":"x"`, `"":1`, `"\u0000":1`, `"access_token":"a"`, `"refresh_token":"a"`, `"X-User-ID":"` + victim.ID + `"`,
	} {
		register(member, fmt.Sprintf(`{"email":%q,"password":"another password","name":"M",%s}`, fresh(), member), 400)
	}
	for _, mail := range []string{
		"ann", "@example.org", "ann@", "ann@example.org\\u0000", "ann@example.org\\r\\nBcc: a@b.c", "a@b.c, d@e.f", "<ann@example.org>", "Ann <ann@example.org>", "ann@example.org (comment)", "ａnn@example.org", "ann@exаmple.org", "\\\"a b\\\"@", strings.Repeat("a", 300) + "@example.org", "ann @example.org", "ann@@example.org",
	} {
		register("address "+mail, fmt.Sprintf(`{"email":"%s","password":"another password","name":"M"}`, mail), 400)
	}
	for _, name := range []string{"", "\\u0000", "a\\r\\nX-User-ID: 1", "a\\u001b[31m", strings.Repeat("a", 101), "\\ud800"} {
		register("name "+name, fmt.Sprintf(`{"email":%q,"password":"another password","name":"%s"}`, fresh(), name), 400, 201, 409) // a lone surrogate is read as U+FFFD, and registers once
	}
	for _, password := range []string{"", "short", strings.Repeat("p", 1025)} {
		register(fmt.Sprintf("a password of %d", len(password)), fmt.Sprintf(`{"email":%q,"password":%q,"name":"M"}`, fresh(), password), 400)
	}
	for _, mail := range []string{victim.mail, strings.ToUpper(victim.mail), " " + victim.mail + " ", "\\t" + victim.mail} {
		register("the address of somebody: "+mail, fmt.Sprintf(`{"email":"%s","password":"another password","name":"M"}`, mail), 409)
	}
	login := func(name, mail, password string) {
		all = append(all, asking{name: "log in with " + name, method: "POST", target: "/v1/users/login", body: fmt.Sprintf(`{"email":%q,"password":%q}`, mail, password), want: nobody, holds: `"detail":"email or password is wrong"`, never: []string{victim.ID, victim.mail}})
	}
	login("another password", victim.mail, "another password")
	login("no such address", fresh(), "another password")
	login("a password in other case", victim.mail, strings.ToUpper(victim.password))
	login("a password and more", victim.mail, victim.password+" ")
	login("a password and a tab", victim.mail, victim.password+"\t")
	login("the beginning of a password", victim.mail, victim.password[:len(victim.password)-1])
	login("' or 1=1", "' or 1=1 --", "' or 1=1 --")
	for _, body := range []string{`{"email":{"$ne":null},"password":{"$ne":null}}`, `{"email":["` + victim.mail + `"],"password":"a"}`, `{"email":"` + victim.mail + `","password":null}`, `{"email":"` + victim.mail + `","password":true}`, `{"email":"` + victim.mail + `"}`, `[{"email":"` + victim.mail + `","password":"` + victim.password + `"}]`, `{"email":"` + victim.mail + `","password":"a","password":"` + victim.password + `"}`} {
		all = append(all, asking{name: "log in by " + body, method: "POST", target: "/v1/users/login", body: body, want: refusedBody, never: []string{victim.ID}})
	}
	// Every method on every record, one's own included: there is nothing to change.
	for _, method := range []string{"PUT", "PATCH", "DELETE", "POST"} {
		for _, id := range []string{mallory.ID, victim.ID} {
			all = append(all, asking{name: method + " on a record", method: method, target: "/v1/users/" + id, body: `{"plan":"pro","id":"` + victim.ID + `"}`, as: &mallory, want: []int{http.StatusMethodNotAllowed, http.StatusNotFound}, never: []string{victim.mail}})
		}
	}
	for _, id := range []string{victim.ID, strings.ToUpper(victim.ID), "00000000-0000-0000-0000-000000000000", "me", "*", "%2a", victim.ID + "%20", "%20" + victim.ID, victim.ID + "?id=" + mallory.ID, mallory.ID + "," + victim.ID, "urn:uuid:" + victim.ID, "{" + victim.ID + "}"} {
		all = append(all, asking{name: "the record " + id, method: "GET", target: "/v1/users/" + id, as: &mallory, want: []int{http.StatusNotFound, http.StatusBadRequest}, never: []string{victim.mail}})
	}
	return all
}

// sessionsOfOthers: tokens of one kind where another is asked for, and somebody
// else's session.
func sessionsOfOthers(b *bed, mallory, victim person) (all []asking) {
	parts := strings.Split(mallory.RefreshToken, ".")
	other := strings.Split(victim.RefreshToken, ".")
	if len(parts) != 3 || len(other) != 3 {
		b.t.Fatalf("a refresh token has %d parts", len(parts))
	}
	presented := map[string]string{
		"an access token": victim.AccessToken, "another's session in one's own token": other[0] + "." + parts[1] + "." + parts[2], "another's session and MAC": other[0] + "." + parts[1] + "." + other[2], "the session alone": other[0], "no MAC": other[0] + "." + other[1] + ".",
		"an empty secret": other[0] + ".." + other[2], "dots": "..", "a NUL": other[0] + "\x00." + other[1] + "." + other[2], "a key of Redis": "*." + other[1] + "." + other[2], "white space": " " + victim.RefreshToken, "the token twice": victim.RefreshToken + victim.RefreshToken, "8 KiB": strings.Repeat("a", 8<<10), "in capitals": strings.ToUpper(victim.RefreshToken),
	}
	for _, name := range slices.Sorted(maps.Keys(presented)) {
		refresh := presented[name]
		body, _ := json.Marshal(map[string]string{"refresh_token": refresh}) // strings always marshal
		all = append(all, asking{name: "refresh with " + name, method: "POST", target: "/v1/users/refresh", body: string(body), want: nobody, never: []string{"access_token"}})
		// RFC 7009 section 2.2: what is no token need not be revoked.
		if name != "an access token" {
			all = append(all, asking{name: "log out with " + name, method: "POST", target: "/v1/users/logout", body: string(body), as: &mallory, want: []int{http.StatusNoContent}})
		}
	}
	for _, body := range []string{``, `{}`, `{"refresh_token":null}`, `{"refresh_token":""}`, `{"refresh_token":7}`, `{"refresh_token":["a"]}`, `{"refresh_token":{"a":1}}`, `{"refresh_token":"a","user_id":"` + victim.ID + `"}`, `{"refresh_token":"a","claims":{"plan":"pro"}}`, `{"Refresh_Token":"a"}`, `refresh_token=a`} {
		all = append(all, asking{name: "refresh by " + body, method: "POST", target: "/v1/users/refresh", body: body, want: refusedBody, never: []string{"access_token"}})
	}
	// Not a token for the gate, nor is one of the admin listener's.
	for name, token := range map[string]string{"a refresh token": victim.RefreshToken, "the operator's token": b.ready.AdminToken, "the issuer's token": b.ready.IssuerToken} {
		all = append(all, asking{name: name + " at the gate", method: "GET", target: "/v1/users/" + victim.ID, as: &person{pair: pair{AccessToken: token}}, want: nobody, never: []string{victim.mail}})
	}
	// authsvc's own routes lead nowhere from outside.
	for _, target := range []string{"/auth", "/v1/tokens", "/v1/tokens/refresh", "/v1/tokens/revoke", "/v1/tokens/introspect", "/v1/limits/per-user/user:" + victim.ID, "/v1/gateways", "/v1/keys/rotate", "/v1/users/" + victim.ID + "/revoke", "/metrics", "/healthz", "/readyz", "/.well-known/jwks.json", "/api/rawdata", "/ping"} {
		for _, method := range []string{"GET", "POST", "DELETE"} {
			all = append(all, asking{name: method + " " + target, method: method, target: target, fields: []field{bearer(b.ready.AdminToken)}, want: []int{http.StatusNotFound}, body: map[bool]string{true: `{"user_id":"` + victim.ID + `"}`}[method == "POST"]})
		}
	}
	return all
}

// ordersOfOthers: what an order may be told, and whose it is.
func ordersOfOthers(b *bed, mallory, victim person) (all []asking) {
	var catalogue struct{ Items []struct{ ID string } }
	b.ask("GET", b.ready.HTTP+"/v1/products", mallory.AccessToken, nil, &catalogue)
	if len(catalogue.Items) == 0 {
		b.t.Fatal("nothing to order")
	}
	good := catalogue.Items[0].ID
	order := func(name, body string, want ...int) {
		all = append(all, asking{name: "order " + name, method: "POST", target: "/v1/orders", body: body, as: &mallory, want: want})
	}
	item := `{"product_id":"` + good + `","quantity":1}`
	for _, member := range []string{`"user_id":"` + victim.ID + `"`, `"id":"o-1"`, `"total_cents":0`, `"created_at":"2020-01-01T00:00:00Z"`, `"items":[]`, `"Items":[]`, `"price_cents":0`, `"X-User-ID":"` + victim.ID + `"`} {
		order("with "+member, `{"items":[`+item+`],`+member+`}`, 400)
	}
	for _, member := range []string{`"price_cents":0`, `"quantity":1`, `"Quantity":1`, `"product_id":"x"`, `"total_cents":-1`} {
		order("an item with "+member, `{"items":[{"product_id":"`+good+`","quantity":1,`+member+`}]}`, 400)
	}
	for _, quantity := range []string{"0", "-1", "1.5", "1e3", "1e999", "9223372036854775808", "1001", "true", "null", `"1"`, "[1]", "{}", "0x1", "01", "NaN", "-0"} {
		order("a quantity of "+quantity, `{"items":[{"product_id":"`+good+`","quantity":`+quantity+`}]}`, 400)
	}
	// The order service asks the product service by this name (CWE-918).
	for _, id := range []string{"", ".", "..", "../healthz", "..%2fhealthz", "%2e%2e", good + "/../" + good, good + "?a=b", good + "#", good + "%00", good + "\\u0000", good + "\\r\\nX-User-ID: a", "/" + good, "//127.0.0.1/" + good, "http://127.0.0.1/", good + " ", " " + good, strings.ToUpper(good), good + ";a", "*", strings.Repeat("a", 65), "\\ud800", good + "\\\\.."} {
		order("the product "+id, `{"items":[{"product_id":"`+id+`","quantity":1}]}`, 400)
	}
	order("of 51 items", `{"items":[`+strings.Repeat(item+",", 50)+item+`]}`, 400)
	order("of nothing", `{"items":[]}`, 400)
	for _, key := range []string{"", " ", strings.Repeat("k", 256), "č", "a\tb"} {
		all = append(all, asking{name: fmt.Sprintf("order under the key %.10q", key), method: "POST", target: "/v1/orders", body: `{"items":[` + item + `]}`, as: &mallory, fields: []field{{"Idempotency-Key", key}}, want: refusedBody})
	}
	all = append(all, asking{name: "order under two keys", method: "POST", target: "/v1/orders", body: `{"items":[` + item + `]}`, as: &mallory, fields: []field{{"Idempotency-Key", "a"}, {"Idempotency-Key", "b"}}, want: refusedBody})
	for _, method := range []string{"PUT", "PATCH", "DELETE", "POST"} {
		all = append(all, asking{name: method + " on an order", method: method, target: "/v1/orders/o-1", body: `{}`, as: &mallory, want: []int{http.StatusMethodNotAllowed}})
	}
	return all
}

// bodies that cost more to read than to send (CWE-400, CWE-770), or that two
// readers would take for two things.
func bodies(mallory person) (all []asking) {
	routes := []struct {
		target string
		as     *person
	}{{"/v1/users/register", nil}, {"/v1/users/login", nil}, {"/v1/users/refresh", nil}, {"/v1/users/logout", &mallory}, {"/v1/orders", &mallory}}
	for _, r := range routes {
		sent := map[string]string{
			"30,000 arrays, one in the other": strings.Repeat("[", 30000) + strings.Repeat("]", 30000), "9,000 objects, one in the other": strings.Repeat(`{"a":`, 9000) + "1" + strings.Repeat("}", 9000), "a value nested 20,000 deep": `{"email":` + strings.Repeat("[", 20000) + strings.Repeat("]", 20000) + `}`,
			"an open array": strings.Repeat("[", 60000), "5,000 unknown members": `{"a":1` + manyMembers(5000) + `}`, "one name 3,000 times": `{"a":1` + strings.Repeat(`,"a":1`, 3000) + `}`, "a number of 60,000 digits": `{"email":` + strings.Repeat("9", 60000) + `}`, "an exponent": `{"email":1e99999999}`,
			"something after it": `{"email":"a"}{"email":"b"}`, "a byte order mark": "\ufeff{}", "UTF-16": "\xff\xfe{\x00}\x00", "NUL": "\x00", "a comment": `{/**/"email":"a"}`, "a trailing comma": `{"email":"a",}`, "single quotes": `{'email':'a'}`, "not UTF-8": "{\"email\":\"\xff\xfe\"}", "XML": `<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><a>&b;</a>`, "a form": "email=a&password=b", "a bomb of gzip": "\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x00",
		}
		for _, name := range slices.Sorted(maps.Keys(sent)) {
			body := sent[name]
			all = append(all, asking{name: "to " + r.target + ": " + name, method: "POST", target: r.target, body: body, as: r.as, want: refusedBody, never: []string{"root:"}})
		}
		// The services' own bound lies below the gateway's.
		all = append(all, asking{name: "to " + r.target + ": 64 KiB and a byte", method: "POST", target: r.target, body: `{"email":"` + strings.Repeat("a", 64<<10) + `"}`, as: r.as, want: []int{http.StatusRequestEntityTooLarge}})
		all = append(all, asking{name: "to " + r.target + ": compressed", method: "POST", target: r.target, body: "\x1f\x8b\x08\x00", fields: []field{{"Content-Encoding", "gzip"}}, as: r.as, want: refusedBody})
	}
	return all
}

func manyMembers(n int) string {
	var out strings.Builder
	for i := range n {
		fmt.Fprintf(&out, `,"m%d":1`, i)
	}
	return out.String()
}

// endedSession: `Bearer` has 64 spellings, each a credential of its own to the
// gateway's memory. All of them are good before the logout and none after.
func endedSession(b *bed) error {
	p := b.member("leaving")
	var schemes []string
	for bits := range 64 {
		word := []byte("bearer")
		for i := range word {
			if bits&(1<<i) != 0 {
				word[i] -= 'a' - 'A'
			}
		}
		schemes = append(schemes, string(word))
	}
	ask := func(d door, scheme string) (int, error) {
		c := &client{address: d.http, front: plain1}
		defer c.close()
		got, err := c.send(message{method: "GET", target: "/v1/users/" + p.ID, host: realHost, fields: []field{{"Authorization", scheme + " " + p.AccessToken}}})
		return got.status, err
	}
	var doors []door
	for _, gateway := range b.ready.Gateways {
		doors = append(doors, door{hostOf(b.t, gateway.HTTP), hostOf(b.t, gateway.HTTPS)})
	}
	for _, d := range doors {
		for _, scheme := range schemes {
			if status, err := ask(d, scheme); status != http.StatusOK {
				return fmt.Errorf("%s before the logout: %d, %v", scheme, status, err)
			}
		}
	}
	c := &client{address: b.door.http, front: plain1}
	defer c.close()
	if got, err := c.send(message{method: "POST", target: "/v1/users/logout", host: realHost, fields: []field{bearer(p.AccessToken)}}); got.status != http.StatusNoContent {
		return fmt.Errorf("logout: %d, %v", got.status, err)
	}
	// The event takes a moment, and one address may be refused 30 times a minute
	// elsewhere; here the limits are out of the way.
	deadline := time.Now().Add(2 * time.Second)
	for _, d := range doors {
		for _, scheme := range schemes {
			for {
				status, err := ask(d, scheme)
				if status == http.StatusUnauthorized {
					break
				}
				if err != nil || time.Now().After(deadline) {
					return fmt.Errorf("%s after the logout: %d, %v", scheme, status, err)
				}
			}
		}
	}
	got, err := c.send(message{method: "POST", target: "/v1/users/refresh", host: realHost, body: fmt.Sprintf(`{"refresh_token":%q}`, p.RefreshToken), fields: []field{{"Content-Type", "application/json"}}})
	if got.status != http.StatusUnauthorized {
		return fmt.Errorf("the refresh token after the logout: %d, %v", got.status, err)
	}
	return nil
}

// tokensElsewhere: a good token counts in Authorization, under Bearer, and
// nowhere else.
func tokensElsewhere(b *bed) error {
	p := b.member("elsewhere")
	c := &client{address: b.door.http, front: plain1}
	defer c.close()
	t := p.AccessToken
	basic := base64.StdEncoding.EncodeToString([]byte(p.ID + ":" + t))
	var errs []error
	for _, m := range []message{
		{target: "?access_token=" + t}, {target: "?token=" + t}, {target: "?jwt=" + t}, {target: "?Authorization=Bearer%20" + t}, {target: ";access_token=" + t},
		{method: "POST", body: "access_token=" + t, fields: []field{{"Content-Type", "application/x-www-form-urlencoded"}}},
		{fields: []field{{"Cookie", "access_token=" + t}}}, {fields: []field{{"Cookie", "Authorization=Bearer " + t}}}, {fields: []field{{"X-Access-Token", t}}}, {fields: []field{{"X-Auth-Token", t}}}, {fields: []field{{"X-Authorization", "Bearer " + t}}}, {fields: []field{{"Proxy-Authorization", "Bearer " + t}}}, {fields: []field{{"X-Forwarded-Authorization", "Bearer " + t}}}, {fields: []field{{"Sec-WebSocket-Protocol", "bearer, " + t}}}, {fields: []field{{"Trailer", "Authorization"}}, trailers: []field{bearer(t)}},
		{fields: []field{{"Authorization", t}}}, {fields: []field{{"Authorization", "Token " + t}}}, {fields: []field{{"Authorization", "JWT " + t}}}, {fields: []field{{"Authorization", "Basic " + basic}}}, {fields: []field{{"Authorization", "Bearer\t" + t}}}, {fields: []field{{"Authorization", "Bearer  " + t}}}, {fields: []field{{"Authorization", "Bearer=" + t}}}, {fields: []field{{"Authorization", "Bearer \"" + t + "\""}}}, {fields: []field{{"Authorization", "Bearer " + t + ","}}}, {fields: []field{{"Authorization", "Bearer token=" + t}}}, {fields: []field{{"Authorization", "Negotiate, Bearer " + t}}}, {fields: []field{{"Authorization", "Bearer " + t + " " + t}}}, {fields: []field{{"Authorization", ""}}}, {fields: []field{{"Authorization", "Bearer"}}}, {fields: []field{{"Authorization", "Bearer "}}}, {fields: []field{{"Authorization", "DPoP " + t}}}, {fields: []field{{"Authorization", "Bearer " + t + "\xa0"}}},
	} {
		m.target, m.host = "/v1/users/"+p.ID+m.target, realHost
		if m.method == "" {
			m.method = "GET"
		}
		got, err := c.send(m)
		if err != nil || got.status < 400 || got.status >= 500 || bytes.Contains(got.body, []byte(p.mail)) {
			errs = append(errs, fmt.Errorf("%s %.60s %.60q: %d, %v", m.method, m.target, m.fields, got.status, err))
		}
	}
	return errors.Join(errs...)
}
