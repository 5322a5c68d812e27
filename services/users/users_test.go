package users

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/sluice-gateway/sluice/services/internal/web"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const issuerToken = "issuer-token-of-the-test"

// fakeAuthsvc answers as authsvc's admin listener does, from memory.
type fakeAuthsvc struct {
	*httptest.Server

	mu      sync.Mutex // protects what follows
	away    bool
	issued  int
	owner   map[string]string // living refresh token -> user id
	revoked []string
}

func newFakeAuthsvc(t *testing.T) *fakeAuthsvc {
	f := &fakeAuthsvc{owner: map[string]string{}}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/tokens", f.issue)
	mux.HandleFunc("POST /v1/tokens/refresh", f.refresh)
	mux.HandleFunc("POST /v1/tokens/revoke", f.revoke)
	f.Server = httptest.NewServer(f.guard(mux))
	t.Cleanup(f.Close)
	return f
}

func (f *fakeAuthsvc) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f.mu.Lock()
		defer f.mu.Unlock()
		switch {
		case f.away:
			w.WriteHeader(http.StatusServiceUnavailable)
		case r.Header.Get("Authorization") != "Bearer "+issuerToken:
			w.WriteHeader(http.StatusUnauthorized)
		default:
			next.ServeHTTP(w, r)
		}
	})
}

func (f *fakeAuthsvc) pairFor(w http.ResponseWriter, user string) {
	f.issued++
	refresh := fmt.Sprintf("refresh-%d", f.issued)
	f.owner[refresh] = user
	_ = json.NewEncoder(w).Encode(pair{AccessToken: "access-of-" + user, TokenType: "Bearer", ExpiresIn: 900, RefreshToken: refresh})
}

func (f *fakeAuthsvc) issue(w http.ResponseWriter, r *http.Request) {
	var body struct {
		UserID string          `json:"user_id"`
		Claims json.RawMessage `json:"claims"`
	}
	if json.NewDecoder(r.Body).Decode(&body) != nil || body.UserID == "" {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	f.pairFor(w, body.UserID)
}

func (f *fakeAuthsvc) refresh(w http.ResponseWriter, r *http.Request) {
	var body struct {
		RefreshToken string `json:"refresh_token"`
	}
	_ = json.NewDecoder(r.Body).Decode(&body)
	user, ok := f.owner[body.RefreshToken]
	if !ok {
		w.WriteHeader(http.StatusBadRequest)
		fmt.Fprint(w, `{"error":"invalid_grant"}`)
		return
	}
	delete(f.owner, body.RefreshToken)
	f.pairFor(w, user)
}

func (f *fakeAuthsvc) revoke(_ http.ResponseWriter, r *http.Request) {
	delete(f.owner, r.FormValue("token"))
	f.revoked = append(f.revoked, r.FormValue("token"))
}

func (f *fakeAuthsvc) setAway(away bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.away = away
}

func (f *fakeAuthsvc) revokedTokens() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.revoked)
}

// client calls one service and reads its answers.
type client struct {
	t    *testing.T
	base string
}

type reply struct {
	status int
	header http.Header
	body   string
	User   struct {
		ID, Email, Name string
	} `json:"user"`
	ID           string           `json:"id"`
	AccessToken  string           `json:"access_token"`
	RefreshToken string           `json:"refresh_token"`
	ExpiresIn    int              `json:"expires_in"`
	TokenType    string           `json:"token_type"`
	Errors       []web.FieldError `json:"errors"`
}

func (c client) do(method, path, user, body string) reply {
	c.t.Helper()
	request, err := http.NewRequest(method, c.base+path, bytes.NewReader([]byte(body)))
	if err != nil {
		c.t.Fatal(err)
	}
	if user != "" {
		request.Header.Set(web.UserHeader, user)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		c.t.Fatal(err)
	}
	defer response.Body.Close()
	raw, err := io.ReadAll(response.Body)
	if err != nil {
		c.t.Fatal(err)
	}
	got := reply{status: response.StatusCode, header: response.Header, body: string(raw)}
	if len(raw) > 0 {
		if err := json.Unmarshal(raw, &got); err != nil {
			c.t.Fatalf("%v in %q", err, raw)
		}
	}
	return got
}

func (c client) want(status int, got reply) reply {
	c.t.Helper()
	if got.status != status {
		c.t.Fatalf("status %d, want %d: %s", got.status, status, got.body)
	}
	return got
}

func open(t *testing.T) (client, *Service, *fakeAuthsvc) {
	t.Helper()
	authsvc := newFakeAuthsvc(t)
	s, err := Open(context.Background(), Config{
		Listen: "127.0.0.1:0", Admin: authsvc.URL, IssuerToken: issuerToken, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		http.DefaultClient.CloseIdleConnections()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return client{t, "http://" + s.Addr()}, s, authsvc
}

const ann = `{"email":"Ann@Example.org ","password":"correct horse","name":"Ann"}`

func TestRegisterLoginShow(t *testing.T) {
	c, _, _ := open(t)
	registered := c.want(201, c.do("POST", "/v1/users/register", "", ann))
	if registered.User.Email != "ann@example.org" || registered.User.Name != "Ann" || registered.User.ID == "" {
		t.Errorf("user %+v", registered.User)
	}
	if registered.AccessToken != "access-of-"+registered.User.ID || registered.TokenType != "Bearer" || registered.ExpiresIn != 900 || registered.RefreshToken == "" {
		t.Errorf("tokens %s", registered.body)
	}
	if got := registered.header.Get("Cache-Control"); got != "no-store" {
		t.Errorf("Cache-Control: %q", got)
	}
	if strings.Contains(registered.body, "correct horse") || strings.Contains(registered.body, "hash") {
		t.Errorf("the answer holds the password: %s", registered.body)
	}

	for _, email := range []string{"ann@example.org", " ANN@EXAMPLE.ORG"} {
		again := c.want(200, c.do("POST", "/v1/users/login", "", `{"email":"`+email+`","password":"correct horse"}`))
		if again.User.ID != registered.User.ID {
			t.Errorf("%q is user %q", email, again.User.ID)
		}
		c.want(409, c.do("POST", "/v1/users/register", "", `{"email":"`+email+`","password":"something else","name":"B"}`))
	}

	path := "/v1/users/" + registered.User.ID
	if shown := c.want(200, c.do("GET", path, registered.User.ID, "")); shown.ID != registered.User.ID {
		t.Errorf("shown %s", shown.body)
	}
	c.want(200, c.do("HEAD", path, registered.User.ID, ""))
	c.want(401, c.do("GET", path, "", ""))
	stranger := c.want(404, c.do("GET", path, "somebody-else", ""))
	unknown := c.want(404, c.do("GET", "/v1/users/nobody", registered.User.ID, ""))
	if stranger.body != unknown.body {
		t.Errorf("a stranger's id and an unknown one differ: %s and %s", stranger.body, unknown.body)
	}
}

func TestRefusedInput(t *testing.T) {
	c, _, _ := open(t)
	tests := []struct {
		name, path, body string
		status           int
		fields           string // in order
	}{
		{"everything missing", "register", `{}`, 400, "email password name"},
		{"everything wrong", "register", `{"email":"ann","password":"short","name":"","admin":true}`, 400, "email password name admin"},
		{"a display name", "register", `{"email":"Ann <ann@example.org>","password":"correct horse","name":"A"}`, 400, "email"},
		{"two addresses", "register", `{"email":"a@b.c,d@e.f","password":"correct horse","name":"A"}`, 400, "email"},
		{"beyond ASCII", "register", `{"email":"änn@example.org","password":"correct horse","name":"A"}`, 400, "email"},
		{"line break in the address", "register", `{"email":"ann@example.org\nx: y","password":"correct horse","name":"A"}`, 400, "email"},
		{"line break in the name", "register", `{"email":"ann@example.org","password":"correct horse","name":"A\r\nB"}`, 400, "name"},
		{"password without end", "register", `{"email":"a@b.c","password":"` + strings.Repeat("x", 1025) + `","name":"A"}`, 400, "password"},
		{"login without password", "login", `{"email":"ann@example.org"}`, 400, "password"},
		{"login with more", "login", `{"email":"ann@example.org","password":"x","otp":1}`, 400, "otp"},
		{"unknown email", "login", `{"email":"ann@example.org","password":"correct horse"}`, 401, ""},
		{"refresh without token", "refresh", `{}`, 400, "refresh_token"},
		{"refresh with a void token", "refresh", `{"refresh_token":"void"}`, 401, ""},
		{"no JSON", "login", `email=ann`, 400, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := client{t, c.base}
			got := c.want(tt.status, c.do("POST", "/v1/users/"+tt.path, "", tt.body))
			var fields []string
			for _, field := range got.Errors {
				fields = append(fields, field.Field)
			}
			if strings.Join(fields, " ") != tt.fields {
				t.Errorf("fields %q, want %q", fields, tt.fields)
			}
			if got.header.Get("Content-Type") != "application/problem+json" {
				t.Errorf("Content-Type %q", got.header.Get("Content-Type"))
			}
		})
	}
}

func TestLoginDoesNotTellWhoHasAnAccount(t *testing.T) {
	c, _, _ := open(t)
	c.want(201, c.do("POST", "/v1/users/register", "", ann))
	// The shortest of several: load on the machine only ever adds time.
	shortest := func(body string) (least time.Duration, answer string) {
		least = time.Hour
		for range 5 {
			start := time.Now()
			answer = c.want(401, c.do("POST", "/v1/users/login", "", body)).body
			least = min(least, time.Since(start))
		}
		return least, answer
	}
	known, knownAnswer := shortest(`{"email":"ann@example.org","password":"wrong horse"}`)
	unknown, unknownAnswer := shortest(`{"email":"bob@example.org","password":"wrong horse"}`)
	if knownAnswer != unknownAnswer {
		t.Errorf("answers differ: %s and %s", knownAnswer, unknownAnswer)
	}
	if unknown < known/2 {
		t.Errorf("an unknown address is refused in %v, a known one in %v", unknown, known)
	}
}

func TestConcurrentRegistrationMakesOneUser(t *testing.T) {
	c, s, authsvc := open(t)
	const tries = 8
	statuses := make(chan int, tries)
	var start sync.WaitGroup
	start.Add(1)
	for range tries {
		go func() {
			start.Wait()
			response, err := http.Post(c.base+"/v1/users/register", "application/json", strings.NewReader(ann))
			if err != nil {
				statuses <- 0
				return
			}
			response.Body.Close()
			statuses <- response.StatusCode
		}()
	}
	start.Done()
	count := map[int]int{}
	for range tries {
		count[<-statuses]++
	}
	if count[201] != 1 || count[409] != tries-1 {
		t.Errorf("statuses %v", count)
	}
	if len(s.accounts.users) != 1 || len(s.accounts.claimed) != 0 || authsvc.issued != 1 {
		t.Errorf("%d users, %d claims, %d token pairs", len(s.accounts.users), len(s.accounts.claimed), authsvc.issued)
	}
}

// TestAuthsvcAwayLeavesNothingHalfMade: a registration that got no tokens can be
// repeated.
func TestAuthsvcAwayLeavesNothingHalfMade(t *testing.T) {
	c, _, authsvc := open(t)
	authsvc.setAway(true)
	got := c.want(503, c.do("POST", "/v1/users/register", "", ann))
	if got.header.Get("Retry-After") != "1" {
		t.Errorf("Retry-After: %q", got.header.Get("Retry-After"))
	}
	authsvc.setAway(false)
	who := c.want(201, c.do("POST", "/v1/users/register", "", ann))
	authsvc.setAway(true)
	c.want(503, c.do("POST", "/v1/users/login", "", `{"email":"ann@example.org","password":"correct horse"}`))
	c.want(503, c.do("POST", "/v1/users/refresh", "", `{"refresh_token":"`+who.RefreshToken+`"}`))
	c.want(503, c.do("POST", "/v1/users/logout", who.User.ID, ""))
	authsvc.setAway(false)
	c.want(204, c.do("POST", "/v1/users/logout", who.User.ID, ""))
	if got := authsvc.revokedTokens(); !slices.Equal(got, []string{who.RefreshToken}) {
		t.Errorf("revoked %q: a logout that failed must leave the session to be ended", got)
	}
}

func TestLogoutEndsSessions(t *testing.T) {
	c, s, authsvc := open(t)
	first := c.want(201, c.do("POST", "/v1/users/register", "", ann))
	login := func() reply {
		return c.want(200, c.do("POST", "/v1/users/login", "", `{"email":"ann@example.org","password":"correct horse"}`))
	}
	second, third := login(), login()
	rotated := c.want(200, c.do("POST", "/v1/users/refresh", "", `{"refresh_token":"`+second.RefreshToken+`"}`))
	if rotated.RefreshToken == second.RefreshToken || rotated.AccessToken == "" {
		t.Errorf("refresh answered %s", rotated.body)
	}
	c.want(401, c.do("POST", "/v1/users/refresh", "", `{"refresh_token":"`+second.RefreshToken+`"}`))

	c.want(401, c.do("POST", "/v1/users/logout", "", ""))
	c.want(204, c.do("POST", "/v1/users/logout", first.User.ID, `{"refresh_token":"`+third.RefreshToken+`"}`))
	if got := authsvc.revokedTokens(); !slices.Equal(got, []string{third.RefreshToken}) {
		t.Errorf("revoked %q, want the third session alone", got)
	}
	c.want(204, c.do("POST", "/v1/users/logout", first.User.ID, ""))
	if got := authsvc.revokedTokens(); !slices.Equal(got[1:], []string{first.RefreshToken, rotated.RefreshToken}) {
		t.Errorf("revoked %q, want the sessions that were left, under their newest tokens", got)
	}
	c.want(204, c.do("POST", "/v1/users/logout", first.User.ID, `{}`))
	if len(s.sessions.byUser) != 0 || len(s.sessions.owner) != 0 {
		t.Errorf("sessions left: %v, %v", s.sessions.byUser, s.sessions.owner)
	}
}

func TestSessionsAreBounded(t *testing.T) {
	s := newSessions()
	for i := range maxSessions {
		if oldest := s.add("u", fmt.Sprint(i)); oldest != "" {
			t.Fatalf("session %d ends %q", i, oldest)
		}
	}
	s.rotate("0", "0 rotated")
	if oldest := s.add("u", "one more"); oldest != "0 rotated" {
		t.Errorf("%q has to end, want the oldest under its newest token", oldest)
	}
	if len(s.of("u")) != maxSessions || len(s.owner) != maxSessions {
		t.Errorf("%d and %d sessions", len(s.of("u")), len(s.owner))
	}
}

func TestOpenRefusesHalfAConfiguration(t *testing.T) {
	for _, cfg := range []Config{
		{Listen: "127.0.0.1:0", IssuerToken: issuerToken},
		{Listen: "127.0.0.1:0", IssuerToken: issuerToken, Admin: "authsvc:9001"},
		{Listen: "127.0.0.1:0", Admin: "http://authsvc:9001"},
		{Listen: "nowhere", Admin: "http://authsvc:9001", IssuerToken: issuerToken},
	} {
		if s, err := Open(context.Background(), cfg); err == nil {
			t.Errorf("%+v was accepted", cfg)
			s.Close()
		}
	}
}
