package users

import (
	"net/http"
	"net/mail"
	"strings"
	"sync"
	"unicode"

	"github.com/google/uuid"

	"github.com/sluice-gateway/sluice/services/internal/web"
)

const (
	maxAccounts = 100_000 // memory is bounded; registration then answers 503
	maxEmail    = 254     // RFC 5321 section 4.5.3.1.3, without the brackets
	maxName     = 100
)

// account is one registered user.
type account struct {
	ID    string `json:"id"`
	Email string `json:"email"` // normalised
	Name  string `json:"name"`
	hash  passwordHash
}

func newAccount(email, name string, hash passwordHash) account {
	return account{ID: uuid.NewString(), Email: email, Name: name, hash: hash}
}

// accounts are the registered users, and the addresses of those who are about
// to be: registering takes a password hash and a call to authsvc, and no lock is
// held meanwhile.
type accounts struct {
	mu      sync.RWMutex // protects what follows
	users   map[string]account
	emails  map[string]string // normalised address -> user id
	claimed map[string]bool   // addresses of registrations under way
}

func newAccounts() *accounts {
	return &accounts{users: map[string]account{}, emails: map[string]string{}, claimed: map[string]bool{}}
}

// claim is one registration's hold on an address.
type claim struct {
	accounts *accounts
	email    string
}

func (a *accounts) claim(email string) (*claim, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.emails[email] != "" || a.claimed[email] {
		return nil, web.Refuse(http.StatusConflict, "this email is registered already")
	}
	if len(a.users)+len(a.claimed) >= maxAccounts {
		return nil, web.Unavailable("no room for another user", nil)
	}
	a.claimed[email] = true
	return &claim{a, email}, nil
}

// keep turns the claim into an account.
func (c *claim) keep(who account) {
	c.accounts.mu.Lock()
	defer c.accounts.mu.Unlock()
	c.accounts.users[who.ID] = who
	c.accounts.emails[c.email] = who.ID
}

// release ends the claim, kept or not.
func (c *claim) release() {
	c.accounts.mu.Lock()
	defer c.accounts.mu.Unlock()
	delete(c.accounts.claimed, c.email)
}

func (a *accounts) byEmail(email string) (account, bool) {
	a.mu.RLock()
	defer a.mu.RUnlock()
	found, ok := a.users[a.emails[email]]
	return found, ok
}

func (a *accounts) byID(id string) (account, bool) {
	a.mu.RLock()
	defer a.mu.RUnlock()
	found, ok := a.users[id]
	return found, ok
}

// normalise gives the spellings of one mailbox one form. Providers that tell
// case apart exist on paper only (RFC 5321 section 2.4).
func normalise(email string) string { return strings.ToLower(strings.TrimSpace(email)) }

// readEmail accepts a bare ASCII address. Beyond ASCII one address has several
// spellings that look alike, and each would be an account.
func readEmail(body *web.Object) string {
	given := body.String("email", 1, maxEmail)
	if given == "" {
		return ""
	}
	email := normalise(given)
	parsed, err := mail.ParseAddress(email)
	if err != nil || parsed.Address != email || strings.ContainsFunc(email, func(r rune) bool { return r > unicode.MaxASCII }) {
		body.Reject("email", "must be an address such as ann@example.org")
		return ""
	}
	return email
}

func readName(body *web.Object) string {
	name := strings.TrimSpace(body.String("name", 1, maxName))
	if strings.ContainsFunc(name, unicode.IsControl) {
		body.Reject("name", "must not hold control characters")
	}
	return name
}
