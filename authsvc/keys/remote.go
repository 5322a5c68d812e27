package keys

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/sluice-gateway/sluice/authsvc/config"
	"github.com/sluice-gateway/sluice/authsvc/token"
)

// Bounds of fetching a key set (design: key-sets). Tokens are made by strangers, and
// an unknown kid costs them nothing: without bounds each would be a request to
// the issuer, and a slow issuer would hold every one of ours.
const (
	RefreshEvery = 10 * time.Second // between fetches that tokens ask for
	RefreshWait  = time.Second / 2  // of the token that asked, for all issuers together

	jwksEvery   = 5 * time.Minute // background refresh
	jwksRetry   = 5 * time.Second // while no set has ever arrived
	jwksSay     = time.Minute     // between lines in the log about fetches that fail
	jwksTimeout = 5 * time.Second // of one fetch
	jwksMaxSize = 256 << 10
)

// remoteKeys are keys that an issuer publishes by HTTP. The last good set
// outlives an outage of the issuer; a key that is absent from two good answers
// in a row is dead: one absence may be a replica that lags behind.
//
// (keyfunc's HTTP storage was tried for this. It waits for the limiter instead
// of refusing, lets every asking token wait, and forgets keys at the first
// absence, so only jwkset's parser is used.)
type remoteKeys struct {
	url        string
	ca         string // PEM file with the authorities to trust; empty: the system's
	algorithms []string
	changed    func()
	log        *slog.Logger
	every      time.Duration
	unknown    time.Duration
	wake       chan struct{} // holds a token when a fetch is asked for

	mu      sync.Mutex // protects what follows
	set     token.KeySet
	said    leftOutSaid
	failing time.Time // when the log last said that a fetch failed; zero: the last one did not
	ready   bool
	missing map[string]bool // kid of keys that the last good answer lacked
	asked   time.Time       // last fetch on behalf of a token
	done    chan struct{}   // closed when the fetch in flight ends; nil: none
}

func newRemoteKeys(i config.Issuer, changed func(), log *slog.Logger) *remoteKeys {
	return &remoteKeys{
		url: i.JWKSURL, ca: i.CA, algorithms: i.Algorithms, changed: changed, log: log, every: jwksEvery, unknown: RefreshEvery,
		wake: make(chan struct{}, 1),
	}
}

// client is a new one for each fetch, which is once in minutes, so that a file
// of authorities may change without a restart.
func (k *remoteKeys) client() (*http.Client, error) {
	trust, err := config.Authorities(k.ca)
	if err != nil {
		return nil, err
	}
	return &http.Client{
		Timeout: jwksTimeout,
		// A redirect would let whoever answers choose another key server.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			Proxy: http.ProxyFromEnvironment, DisableKeepAlives: true, ForceAttemptHTTP2: true,
			TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: trust},
		},
	}, nil
}

// Keys are those of the last good answers.
func (k *remoteKeys) Keys() (token.KeySet, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.set, k.ready
}

// Refresh asks for a fetch because a token named a kid that no key has. One
// token in RefreshEvery gets it, and waits for its end until ctx ends; all
// others are told at once that nothing will come of it.
func (k *remoteKeys) Refresh(ctx context.Context, kid string) bool {
	k.mu.Lock()
	for _, key := range k.set.Keys() {
		if key.ID == kid {
			k.mu.Unlock()
			return false
		}
	}
	if !k.ready || time.Since(k.asked) < k.unknown || k.done != nil {
		k.mu.Unlock()
		return false
	}
	k.asked = time.Now()
	done := make(chan struct{})
	k.done = done
	k.mu.Unlock()

	select {
	case k.wake <- struct{}{}:
	default: // asked for already
	}
	select {
	case <-done:
		return true
	case <-ctx.Done():
	}
	return false
}

// Watch fetches until ctx ends: now and then, sooner when asked.
func (k *remoteKeys) Watch(ctx context.Context) {
	for {
		k.mu.Lock()
		pause := k.every + rand.N(k.every/10)
		if !k.ready {
			pause = min(pause, jwksRetry)
		}
		k.mu.Unlock()
		select {
		case <-ctx.Done():
			return
		case <-k.wake:
		case <-time.After(pause):
		}
		_ = k.Fetch(ctx) // is in the log
	}
}

// Fetch replaces the set by what the issuer publishes now.
func (k *remoteKeys) Fetch(ctx context.Context) error {
	set, err := k.download(ctx)
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.done != nil {
		close(k.done)
		k.done = nil
	}
	if err != nil {
		if ctx.Err() == nil && time.Since(k.failing) >= jwksSay {
			k.failing = time.Now()
			if k.ready {
				k.log.Warn("key set not fetched; the last good one stays", "url", k.url, "error", err)
			} else {
				k.log.Error("key set not fetched, and none ever was: the issuer's tokens are answered 503 until one is", "url", k.url, "error", err)
			}
		}
		return err
	}
	k.said = k.said.report(k.log, set)
	before := fingerprint(k.set)
	k.set, k.missing = merge(k.set, set, k.missing)
	first := !k.ready
	k.ready = true
	if first || before != fingerprint(k.set) {
		k.changed()
		k.log.Info("key set fetched", "url", k.url, "keys", k.set.Len())
	} else if !k.failing.IsZero() {
		k.log.Info("key set fetched again, unchanged", "url", k.url, "keys", k.set.Len())
	}
	k.failing = time.Time{}
	return nil
}

// merge keeps, beside the new keys, the old ones that are missing for the
// first time.
func merge(old, fresh token.KeySet, missing map[string]bool) (token.KeySet, map[string]bool) {
	present := make(map[string]bool)
	named := make(map[string]bool)
	for _, key := range fresh.Keys() {
		present[key.Thumbprint] = true
		named[key.ID] = true
	}
	merged, nowMissing := fresh.Keys(), make(map[string]bool)
	for _, key := range old.Keys() {
		// A kid that now means another key has been replaced, not forgotten.
		if present[key.Thumbprint] || missing[key.Thumbprint] || key.ID != "" && named[key.ID] {
			continue
		}
		nowMissing[key.Thumbprint] = true
		merged = append(merged, key)
	}
	return fresh.With(merged...), nowMissing
}

// fingerprint changes whenever a token may be judged otherwise than before.
func fingerprint(set token.KeySet) string {
	var all strings.Builder
	for _, key := range set.Keys() {
		fmt.Fprintf(&all, "%q %s %v\n", key.ID, key.Thumbprint, key.Algorithms())
	}
	return all.String()
}

func (k *remoteKeys) download(ctx context.Context) (token.KeySet, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, k.url, nil)
	if err != nil {
		return token.KeySet{}, err
	}
	request.Header.Set("Accept", "application/jwk-set+json, application/json")
	client, err := k.client()
	if err != nil {
		return token.KeySet{}, err
	}
	response, err := client.Do(request)
	if err != nil {
		return token.KeySet{}, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return token.KeySet{}, fmt.Errorf("status %d", response.StatusCode)
	}
	body, err := io.ReadAll(io.LimitReader(response.Body, jwksMaxSize+1))
	if err != nil {
		return token.KeySet{}, err
	}
	if len(body) > jwksMaxSize {
		return token.KeySet{}, fmt.Errorf("more than %d bytes", jwksMaxSize)
	}
	set, err := token.ParseKeySet(body)
	if err != nil {
		return token.KeySet{}, err
	}
	for _, key := range set.Keys() {
		if key.Symmetric() {
			return token.KeySet{}, errors.New("holds a secret, which is none once it is published")
		}
	}
	return usableKeys(set, k.algorithms)
}
