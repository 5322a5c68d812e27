package orders

import (
	"context"
	"crypto/sha256"
	"errors"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/sluice-gateway/sluice/services/internal/web"
)

const (
	repeatLife  = 24 * time.Hour
	repeatsUser = 256 // keys remembered for one user; the oldest goes first
	maxKey      = 255 // bytes of an Idempotency-Key
)

// idempotencyKey reads the header (draft-ietf-httpapi-idempotency-key-header);
// "" if the client sent none.
func idempotencyKey(header http.Header) (string, error) {
	values := header.Values("Idempotency-Key")
	if len(values) == 0 {
		return "", nil
	}
	key := values[0]
	valid := len(values) == 1 && len(key) > 0 && len(key) <= maxKey
	for i := 0; valid && i < len(key); i++ {
		valid = key[i] >= ' ' && key[i] <= '~'
	}
	if !valid {
		return "", web.Refuse(http.StatusBadRequest, "Idempotency-Key must be one value of 1 to 255 visible ASCII characters")
	}
	return key, nil
}

// repeats remembers which order answers a user's key, so that a repeated request
// is answered and not carried out again. Keys of one user never meet those of
// another, and a user who brings too many loses its own oldest. Only orders that
// exist are remembered for long, so their bound is a bound here too.
type repeats struct {
	now func() time.Time

	mu     sync.Mutex            // protects byUser
	byUser map[string][]*attempt // oldest first
}

// attempt is the first request under a key.
type attempt struct {
	key     string
	body    [sha256.Size]byte
	expires time.Time

	done chan struct{} // closed when made and err are final
	made order
	err  error
}

func newRepeats(now func() time.Time) *repeats {
	return &repeats{now: now, byUser: map[string][]*attempt{}}
}

var errAborted = errors.New("the first request with this key was aborted")

// once places the order that a key stands for. Requests that come while the
// first is under way wait for it: if it made an order, that is their answer too;
// if it failed, nothing was made and the next of them tries for itself.
func (r *repeats) once(ctx context.Context, userID, key string, body []byte, place func(context.Context) (order, error)) (made order, replayed bool, err error) {
	if key == "" {
		made, err = place(ctx)
		return made, false, err
	}
	sum := sha256.Sum256(body)
	for {
		first, mine := r.begin(userID, key, sum)
		if mine {
			defer r.end(userID, first)
			first.made, first.err = place(ctx)
			return first.made, false, first.err
		}
		if first.body != sum {
			return order{}, false, web.Refuse(http.StatusUnprocessableEntity, "this Idempotency-Key was used with another body")
		}
		select {
		case <-first.done:
		case <-ctx.Done():
			return order{}, false, web.Unavailable("the first request with this Idempotency-Key is still under way", ctx.Err())
		}
		if first.err == nil {
			return first.made, true, nil
		}
	}
}

// begin finds the attempt under a key or makes it, which is then the caller's
// to end.
func (r *repeats) begin(userID, key string, body [sha256.Size]byte) (found *attempt, mine bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.now()
	known := r.byUser[userID]
	for len(known) > 0 && !now.Before(known[0].expires) {
		known = known[1:]
	}
	if i := slices.IndexFunc(known, func(a *attempt) bool { return a.key == key }); i >= 0 {
		r.byUser[userID] = known
		return known[i], false
	}
	if len(known) == repeatsUser {
		known = known[1:]
	}
	found = &attempt{key: key, body: body, expires: now.Add(repeatLife), done: make(chan struct{}), err: errAborted}
	r.byUser[userID] = append(known, found)
	return found, true
}

// end publishes an attempt's outcome and forgets one that made nothing, a panic
// of its request included.
func (r *repeats) end(userID string, ended *attempt) {
	if ended.err != nil {
		r.mu.Lock()
		left := slices.DeleteFunc(r.byUser[userID], func(a *attempt) bool { return a == ended })
		if r.byUser[userID] = left; len(left) == 0 {
			delete(r.byUser, userID)
		}
		r.mu.Unlock()
	}
	close(ended.done)
}
