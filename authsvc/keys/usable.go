package keys

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"

	"github.com/sluice-gateway/sluice/authsvc/token"
)

// errWeakKeys is an answer that must not be waited out: it would be no better
// next time.
var errWeakKeys = errors.New("weak key")

// usableKeys leaves out of a set what is sound in form and worthless all the
// same, and what the issuer's algorithms have no use for. If nothing remains,
// the error says what became of each key.
func usableKeys(set token.KeySet, algorithms []string) (token.KeySet, error) {
	sound := set.WithoutWeak()
	usable := sound.Restrict(algorithms)
	if usable.Len() > 0 {
		return usable, nil
	}
	var all []error
	if sound.Len() > 0 {
		all = append(all, fmt.Errorf("no key fits algorithms %v", algorithms))
	}
	for _, left := range usable.LeftOut() {
		if left.Weak {
			all = append(all, fmt.Errorf("%w: %s", errWeakKeys, left))
		} else {
			all = append(all, errors.New(left.String()))
		}
	}
	return token.KeySet{}, errors.Join(all...)
}

// leftOutSaid holds which keys the log has named as left out of the last set,
// so that each is named once and not at every reading.
type leftOutSaid map[string]bool

// report names the keys that the set before did not lack. A weak key is loud:
// somebody may be able to sign with it, here and wherever else it is trusted.
func (said leftOutSaid) report(log *slog.Logger, set token.KeySet) leftOutSaid {
	now := make(leftOutSaid)
	for _, left := range set.LeftOut() {
		// Some issuers list their keys in another order every time.
		name := cmp.Or(left.ID, left.Place) + ": " + left.Reason
		now[name] = true
		switch {
		case said[name]:
		case left.Weak:
			log.Error("weak key left out: it proves nothing, because others may sign with it; the issuer has to replace it",
				"key", left.Place, "kid", left.ID, "reason", left.Reason)
		default:
			log.Warn("unusable key left out; tokens that only it has signed are refused, the other keys serve",
				"key", left.Place, "kid", left.ID, "reason", left.Reason)
		}
	}
	return now
}
