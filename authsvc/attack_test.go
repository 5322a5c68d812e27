package authsvc

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// TestAttacksOverHTTP sends the list of RFC 8725 and of the issue to /auth, for
// every kind of key: none is admitted, none is answered with 5xx, and not one
// connection goes to an address that a token names.
func TestAttacksOverHTTP(t *testing.T) {
	f := newFederation(t)
	trap, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer trap.Close()
	var lured atomic.Int64
	go func() {
		for {
			conn, err := trap.Accept()
			if err != nil {
				return
			}
			lured.Add(1)
			conn.Close()
		}
	}()
	bait := "http://" + trap.Addr().String()
	tried := 0
	for _, issuer := range f.foreign {
		alg, kid := issuer.signer.Algorithm, issuer.signer.KeyID
		good := issuer.token(nil)
		f.wantStatus(good, 200)
		parts := strings.Split(good, ".")
		attacks := []string{
			"", "..", "a.b.c", parts[0] + "." + parts[1], parts[0] + "." + parts[1] + ".", good + ".", good + "." + parts[2], good + "=",
			parts[0] + ".." + parts[2], parts[1] + "." + parts[0] + "." + parts[2], strings.ToUpper(good), good[1:], good[:len(good)-1],
			parts[0] + "." + parts[1] + "." + strings.Repeat("A", len(parts[2])), strings.Repeat("A", 9<<10), strings.Repeat("a.", 4000),
			good + "A", parts[0] + "." + parts[1] + "." + parts[2] + parts[2],
		}
		for i := len(parts[0]) + len(parts[1]) + 2; i < len(good); i++ {
			for _, c := range "Az09_-" {
				if edited := good[:i] + string(c) + good[i+1:]; edited != good {
					attacks = append(attacks, edited)
				}
			}
		}
		for _, none := range []string{"none", "None", "NONE", "nOnE", ""} {
			head := base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, `{"alg":%q,"kid":%q}`, none, kid))
			attacks = append(attacks, head+"."+parts[1]+".", head+"."+parts[1]+"."+parts[2])
		}
		for _, member := range []string{
			`"jku":"` + bait + `"`, `"x5u":"` + bait + `"`, `"jwk":{"kty":"oct","k":"AAAA"}`, `"x5c":["AAAA"]`, `"crit":["exp"],"exp":1`,
			`"b64":false,"crit":["b64"]`, `"zip":"DEF"`, `"enc":"A128GCM"`, `"ALG":"none"`, `"alg":"none"`, `"typ":"logout+jwt"`, `"typ":1`,
		} {
			attacks = append(attacks, issuer.raw(fmt.Sprintf(`{"alg":%q,"kid":%q,%s}`, alg, kid, member), issuer.claims(nil)))
		}
		for _, kid := range []string{"../../etc/passwd", "' or 1=1", "\u0000", bait, strings.Repeat("k", 4096), "other"} {
			text, _ := json.Marshal(kid)
			if issuer == f.secret || issuer == f.byPEM { // their keys have no name: any kid will do
				continue
			}
			attacks = append(attacks, issuer.raw(fmt.Sprintf(`{"alg":%q,"kid":%s}`, alg, text), issuer.claims(nil)))
		}
		for _, changes := range []map[string]any{
			{"exp": nil}, {"exp": 0}, {"exp": "0"}, {"exp": 1e308}, {"exp": -1}, {"exp": time.Now().Add(-time.Minute).Unix()},
			{"exp": time.Now().Add(48 * time.Hour).Unix()}, {"nbf": time.Now().Add(time.Hour).Unix()}, {"nbf": "0"},
			{"iat": time.Now().Add(time.Hour).Unix()}, {"iat": "now"}, {"aud": []any{}}, {"aud": 1}, {"aud": []any{"api", 1}}, {"aud": map[string]any{"api": 1}},
			{"iss": []string{"x"}}, {"sub": "x\r\nX-User-Plan: pro"}, {"sub": " 42"}, {"sub": "ü"}, {"SUB": "1"}, {"\u017fub": "1"},
			{"plan": map[string]any{"a": 1}}, {"plan": "pro\r\nX-Admin: 1"}, {"scope": "ü"}, {"x": strings.Repeat("a", 20<<10)}, {"x": strings.Repeat("a", 64<<10)}, {"sid": "a\nb"}, {"jti": 1},
		} {
			attacks = append(attacks, issuer.token(changes))
		}
		attacks = append(attacks,
			issuer.raw(issuer.header(), `{"iss":"x"`), issuer.raw(issuer.header(), issuer.claims(nil)+"{}"), issuer.raw(issuer.header(), "\xff"),
			issuer.raw(issuer.header(), strings.Repeat("[", 3000)), issuer.raw(issuer.header(), good), issuer.raw(issuer.header(), ""),
		)
		if public, ok, _ := issuer.signer.PublicJWK(); ok {
			for _, hmac := range []string{"HS256", "HS384", "HS512"} {
				input := base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, `{"alg":%q,"kid":%q}`, hmac, kid)) + "." + parts[1]
				signature, _ := jwt.GetSigningMethod(hmac).Sign(input, []byte(public))
				attacks = append(attacks, input+"."+base64.RawURLEncoding.EncodeToString(signature))
			}
		}
		for _, attack := range attacks {
			tried++
			want := 401
			if len(attack) > 68<<10 { // more than the listener reads
				want = 431
			}
			if a := f.ask(attack); a.status != want {
				t.Errorf("%s: %d for %.200q", issuer.name, a.status, attack)
			}
		}
		f.wantStatus(good, 200)
	}
	if lured.Load() != 0 {
		t.Errorf("%d connections to addresses that tokens name", lured.Load())
	}
	t.Logf("%d attacks, 0 admitted", tried)
}
