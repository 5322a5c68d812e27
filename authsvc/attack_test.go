package authsvc

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"maps"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/authsvc/internal/forge"
	"github.com/sluice-gateway/sluice/authsvc/internal/issuertest"
	"github.com/sluice-gateway/sluice/authsvc/keys"
	"github.com/sluice-gateway/sluice/authsvc/token"
	"github.com/sluice-gateway/sluice/internal/redistest"
)

// victim is what forge attacks: the issuer's tokens, as the federation wants
// them.
func (f *federation) victim(i *issuertest.Issuer, bait string) forge.Victim {
	v := forge.Victim{
		Algorithm: i.Signer.Algorithm, KeyID: i.Signer.KeyID, Private: i.Signer.Private(), Bait: bait,
		Named:  i != f.secret && i != f.byPEM, // their keys have no name: any kid will do
		Claims: map[string]any{"iss": "https://" + i.Name + ".example", "aud": "api", "sub": "42", "iat": time.Now().Unix()},
	}
	if jwk, public, _ := i.Signer.PublicJWK(); public {
		v.JWK = string(jwk)
	}
	return v
}

// TestAttacksOverHTTP sends every forgery to /auth, for every kind of key: none
// is admitted, none is answered with 5xx, and not one connection goes to an
// address that a token names.
func TestAttacksOverHTTP(t *testing.T) {
	f := newFederation(t)
	trap, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var lured atomic.Int64
	var trapping sync.WaitGroup
	trapping.Go(func() {
		for {
			conn, err := trap.Accept()
			if err != nil {
				return
			}
			lured.Add(1)
			conn.Close()
		}
	})
	defer func() { trap.Close(); trapping.Wait() }()
	tried, admitted := map[string]int{}, map[string]int{}
	for _, issuer := range f.foreign {
		v := f.victim(issuer, "http://"+trap.Addr().String())
		good := v.Good()
		f.wantStatus(good, 200)
		attacks := v.Attacks()
		statuses := f.askAll(attacks)
		for i, attack := range attacks {
			tried[attack.Class]++
			switch status := statuses[i]; {
			case status == http.StatusUnauthorized:
			case len(attack.Compact) > 64<<10 && (status == http.StatusRequestHeaderFieldsTooLarge || status == hungUp):
			case status < 300:
				admitted[attack.Class]++
				fallthrough
			default:
				t.Errorf("%s, %s: %d for %.200q", issuer.Name, attack.Class, status, attack.Compact)
			}
		}
		f.wantStatus(good, 200)
	}
	// A connection that is on its way arrives before one that is made now.
	before := lured.Load()
	if conn, err := net.Dial("tcp", trap.Addr().String()); err == nil {
		conn.Close()
	}
	redistest.Eventually(t, 5*time.Second, "the trap works", func() bool { return lured.Load() > before })
	total, passed := 0, 0
	for _, class := range forge.Classes {
		if tried[class] == 0 {
			t.Errorf("nothing was tried of class %s", class)
		}
		total, passed = total+tried[class], passed+admitted[class]
		t.Logf("class %s: %d tried, %d admitted", class, tried[class], admitted[class])
	}
	connections := lured.Load() - 1
	if connections != 0 {
		t.Errorf("%d connections to addresses that tokens name", connections)
	}
	t.Logf("%d attacks, %d admitted, %d connections to addresses that tokens name", total, passed, connections)
}

// What cannot be a header becomes none, and nothing else of the token suffers.
func TestUnfitClaimsAreNotHandedOn(t *testing.T) {
	f := newFederation(t)
	headers := map[string]string{"plan": "X-User-Plan", "scope": "X-User-Scopes", "sid": "X-Session-Id"}
	for _, issuer := range f.foreign {
		v := f.victim(issuer, "")
		v.Claims["plan"], v.Claims["scope"], v.Claims["sid"] = "free", "read", "s1"
		for _, unfit := range v.Unfit() {
			a := f.wantStatus(unfit.Compact, 200)
			for claim, header := range headers {
				if got := a.header.Values(header); (claim == unfit.Class) != (len(got) == 0) || len(got) > 1 {
					t.Errorf("%s, claim %s: %s %q", issuer.Name, unfit.Class, header, got)
				}
			}
			if got := a.header.Get("X-User-Id"); got != issuer.Name+":42" {
				t.Errorf("%s, claim %s: user %q", issuer.Name, unfit.Class, got)
			}
		}
	}
}

// hungUp stands for a status where the server would not read on: what exceeds
// its buffers is cut off, and the client may see that before the answer.
const hungUp = 0

// askAll sends attacks, several at a time, and returns the statuses.
func (r *replica) askAll(attacks []forge.Attack) []int {
	statuses := make([]int, len(attacks))
	next := make(chan int)
	var senders sync.WaitGroup
	for range 8 {
		senders.Go(func() {
			for i := range next {
				statuses[i] = r.status(attacks[i].Compact)
			}
		})
	}
	for i := range attacks {
		next <- i
	}
	close(next)
	senders.Wait()
	return statuses
}

func (r *replica) status(compact string) int {
	request, err := http.NewRequest(http.MethodGet, r.public+"/auth", nil)
	if err != nil {
		return -1
	}
	request.Header.Set("Authorization", "Bearer "+compact)
	response, err := r.client.Do(request)
	if err != nil {
		return hungUp
	}
	response.Body.Close()
	return response.StatusCode
}

// TestRevokedInEverySpelling: of a token ECDSA accepts two spellings, and
// revoking either revokes both, at a replica that has seen both before and at
// one that has not.
func TestRevokedInEverySpelling(t *testing.T) {
	f := newFederation(t)
	v := f.victim(f.byURL, "")
	for name, revokeTwin := range map[string]bool{"as issued": false, "the other": true} {
		for _, seen := range []bool{true, false} {
			v.Claims["jti"] = fmt.Sprint(name, seen)
			good := v.Good()
			twin, ok := v.Twin(good)
			if !ok || twin == good {
				t.Fatal("no second spelling")
			}
			if seen {
				f.wantStatus(good, 200)
				f.wantStatus(twin, 200)
			}
			shown := good
			if revokeTwin {
				shown = twin
			}
			if a := f.revoke(shown); a.status != 200 {
				t.Fatal(a)
			}
			f.wantStatus(good, 401)
			f.wantStatus(twin, 401)
		}
	}
}

// TestPoisonedRedisAdmitsNobody: whatever stands in Redis under a forged
// token's id, it stays forged, and the good one stays good (design: status-only).
func TestPoisonedRedisAdmitsNobody(t *testing.T) {
	f := newFederation(t)
	f.awaitStream()
	client := f.redis.Client()
	defer client.Close()
	for _, issuer := range f.foreign {
		v := f.victim(issuer, "")
		good := v.Good()
		end := strings.LastIndexByte(good, '.') + 1
		claims := maps.Clone(v.Claims)
		claims["sub"], claims["exp"] = "admin", time.Now().Add(time.Hour).Unix()
		for name, forged := range map[string]string{
			"no signature":         good[:end],
			"zeros":                good[:end] + strings.Repeat("A", len(good)-end),
			"edited":               good[:len(good)-4] + "AAA" + good[len(good)-1:],
			"other claims":         good[:strings.IndexByte(good, '.')+1] + base64.RawURLEncoding.EncodeToString([]byte(issuer.Claims(claims))) + good[end-1:],
			"another's altogether": issuertest.New(t, issuer.Name, issuer.Signer.Algorithm).Token(nil),
		} {
			id, whole := token.ID(forged), sha256.Sum256([]byte(forged))
			sum := hex.EncodeToString(whole[:])
			for _, value := range []string{"active " + sum, "active", `{"h":"` + sum + `","user":"admin"}`, "1", ""} {
				if err := client.Set(context.Background(), "sluice:tok:"+id, value, time.Minute).Err(); err != nil {
					t.Fatal(err)
				}
				if a := f.ask(forged); a.status != 401 {
					t.Errorf("%s, %s, %q in Redis: %d as %q", issuer.Name, name, value, a.status, a.header.Get("X-User-ID"))
				}
			}
			if id == token.ID(good) { // the good one's name is what was written under
				if err := client.Set(context.Background(), "sluice:tok:"+id, "active "+sum, time.Minute).Err(); err != nil {
					t.Fatal(err)
				}
			}
		}
		a := f.wantStatus(good, 200)
		if got := a.header.Get("X-User-ID"); got != issuer.Name+":42" {
			t.Errorf("%s: the good token is %q", issuer.Name, got)
		}
	}
}

// TestUnknownKidFloodOverHTTP: tokens that name keys nobody has are refused,
// and cause one fetch from the issuer altogether (design: key-sets).
func TestUnknownKidFloodOverHTTP(t *testing.T) {
	f := newFederation(t)
	f.wantStatus(f.byURL.Token(nil), 200)
	before := f.jwks.Requests.Load()
	var flood []forge.Attack
	for i := range 500 {
		flood = append(flood, forge.Attack{Compact: f.byURL.Raw(fmt.Sprintf(`{"alg":"ES256","kid":"unknown-%d"}`, i), f.byURL.Claims(nil))})
	}
	started := time.Now()
	for i, status := range f.askAll(flood) {
		if status != 401 {
			t.Errorf("token %d: %d", i, status)
		}
	}
	// Each keys.RefreshEvery one token may ask.
	allowed := int64(1 + time.Since(started)/keys.RefreshEvery)
	if got := f.jwks.Requests.Load() - before; got < 1 || got > allowed {
		t.Errorf("%d fetches for 500 unknown kids, allowed are %d", got, allowed)
	}
	f.wantStatus(f.byURL.Token(nil), 200)
}
