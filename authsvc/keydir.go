package authsvc

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/sluice-gateway/sluice/authsvc/config"
	"github.com/sluice-gateway/sluice/authsvc/token"
)

// keyDir is the folder that all replicas share by mount or secret (RULES 26).
// Private keys live here and never in Redis, where every reader could mint
// tokens and a restart would void all of them.
//
//	<kid>.pem       private key with its schedule in the PEM headers
//	admin.token     made when the configuration names none
//	issuer.token
//	refresh.secret  authenticates refresh tokens
//	.lock           held exclusively while any of these is written
//
// A key is published before it signs and verifies long after: rotate makes one
// that activates after publishAhead, by when every replica and every reader of
// the JWKS knows it, and its predecessors retire when the last token they can
// have signed has expired.
type keyDir struct {
	path      string
	algorithm string
	ahead     time.Duration
	longest   time.Duration
	log       *slog.Logger
	changed   func()

	mu      sync.RWMutex // protects what follows
	signing []signingKey // by activation, the oldest first
	printed string       // what the folder looked like
}

// signingKey is one key file.
type signingKey struct {
	token.Signer
	activates time.Time
	retires   time.Time // zero: has no successor yet
}

const (
	pemActivates = "Sluice-Activates"
	pemRetires   = "Sluice-Retires"
	pemAlgorithm = "Sluice-Algorithm"
	pemSecret    = "SLUICE HMAC SECRET"
)

// openKeyDir reads the folder and, under the lock, makes what is missing. Of
// several replicas that start together one makes the key, the others read it.
func openKeyDir(d *keyDir) (*keyDir, error) {
	if err := os.MkdirAll(d.path, 0o700); err != nil {
		return nil, fmt.Errorf("own.keyDir: %w; it has to be a folder that can be written, or empty where no tokens are issued", err)
	}
	err := d.locked(func() error {
		keys, err := d.read()
		if err != nil {
			return err
		}
		now := time.Now()
		if current(keys, d.algorithm, now) == nil {
			return d.create(now)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("own.keyDir: %w", err)
	}
	return d, d.load()
}

// none: the configuration names no folder, so there are no keys and no tokens of
// authsvc's own.
func (d *keyDir) none() bool { return d.path == "" }

var errNoKeyDir = &refusal{status: http.StatusConflict, detail: "own.keyDir is empty: this authsvc has no signing keys and issues no tokens."}

// locked runs f while no other replica does. A folder that cannot be written
// (a mounted secret) needs no lock: nobody changes it from here.
func (d *keyDir) locked(f func() error) error {
	lock, err := os.OpenFile(filepath.Join(d.path, ".lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if errors.Is(err, os.ErrPermission) || errors.Is(err, syscall.EROFS) {
		return f()
	}
	if err != nil {
		return err
	}
	defer lock.Close() // releases the lock
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return fmt.Errorf("lock %s: %w", lock.Name(), err)
	}
	return f()
}

func (d *keyDir) create(activates time.Time) error {
	private, err := token.GenerateKey(d.algorithm)
	if err != nil {
		return err
	}
	signer, err := token.NewSigner(d.algorithm, private)
	if err != nil {
		return err
	}
	return d.write(signingKey{Signer: signer, activates: activates})
}

func (d *keyDir) write(key signingKey) error {
	block := &pem.Block{Type: "PRIVATE KEY", Headers: map[string]string{
		pemAlgorithm: key.Algorithm,
		pemActivates: key.activates.UTC().Format(time.RFC3339Nano),
	}}
	if !key.retires.IsZero() {
		block.Headers[pemRetires] = key.retires.UTC().Format(time.RFC3339Nano)
	}
	var err error
	if secret, symmetric := key.Private().([]byte); symmetric {
		block.Type, block.Bytes = pemSecret, secret
	} else if block.Bytes, err = x509.MarshalPKCS8PrivateKey(key.Private()); err != nil {
		return err
	}
	return writeWhole(filepath.Join(d.path, key.KeyID+".pem"), pem.EncodeToMemory(block))
}

// writeWhole never leaves half a file: a replica may read at any moment.
func writeWhole(path string, data []byte) error {
	temporary, err := os.CreateTemp(filepath.Dir(path), ".new-*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(temporary.Name()) // gone already when all went well
	_, err = temporary.Write(data)
	err = errors.Join(err, temporary.Sync(), temporary.Close())
	if err != nil {
		return err
	}
	return os.Rename(temporary.Name(), path)
}

func (d *keyDir) read() ([]signingKey, error) {
	paths, err := filepath.Glob(filepath.Join(d.path, "*.pem"))
	if err != nil {
		return nil, err
	}
	var keys []signingKey
	for _, path := range paths {
		key, err := readKey(path, d.algorithm)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		keys = append(keys, key)
	}
	slices.SortFunc(keys, func(a, b signingKey) int { return a.activates.Compare(b.activates) })
	return keys, nil
}

// readKey also takes a plain PKCS #8 file that an operator has put there: it
// signs with the configured algorithm since the file's time.
func readKey(path, algorithm string) (signingKey, error) {
	data, err := config.ReadFile(path)
	if err != nil {
		return signingKey{}, err
	}
	block, _ := pem.Decode(data)
	if block == nil {
		return signingKey{}, errors.New("no PEM block")
	}
	var private any = block.Bytes
	if block.Type != pemSecret {
		if private, err = x509.ParsePKCS8PrivateKey(block.Bytes); err != nil {
			return signingKey{}, err
		}
	}
	if named := block.Headers[pemAlgorithm]; named != "" {
		algorithm = named
	}
	signer, err := token.NewSigner(algorithm, private)
	if err != nil {
		return signingKey{}, err
	}
	if weakness := signer.Key().Weakness(); weakness != "" {
		return signingKey{}, errors.New(weakness)
	}
	key := signingKey{Signer: signer}
	if key.activates, err = pemTime(block, pemActivates); err != nil {
		return signingKey{}, err
	}
	if key.activates.IsZero() {
		info, err := os.Stat(path)
		if err != nil {
			return signingKey{}, err
		}
		key.activates = info.ModTime()
	}
	key.retires, err = pemTime(block, pemRetires)
	return key, err
}

func pemTime(block *pem.Block, name string) (time.Time, error) {
	text, present := block.Headers[name]
	if !present {
		return time.Time{}, nil
	}
	return time.Parse(time.RFC3339Nano, text)
}

// load takes over what the folder holds now.
func (d *keyDir) load() error {
	keys, err := d.read()
	if err != nil {
		return err
	}
	var printed strings.Builder
	for _, key := range keys {
		fmt.Fprintln(&printed, key.KeyID, key.activates, key.retires)
	}
	d.mu.Lock()
	d.signing = keys
	same := d.printed == printed.String()
	d.printed = printed.String()
	d.mu.Unlock()
	if !same {
		d.changed()
	}
	return nil
}

// watch takes over what other replicas write.
func (d *keyDir) watch(ctx context.Context) {
	every := time.NewTicker(fileCheck)
	defer every.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-every.C:
			if err := d.load(); err != nil {
				d.log.Error("signing keys not read again; the known ones stay", "error", err)
			}
		}
	}
}

// current is the youngest key that may sign now.
func current(keys []signingKey, algorithm string, now time.Time) *signingKey {
	for _, key := range slices.Backward(keys) {
		if key.Algorithm == algorithm && !key.activates.After(now) && !key.retired(now) {
			return &key
		}
	}
	return nil
}

func (k signingKey) retired(now time.Time) bool { return !k.retires.IsZero() && now.After(k.retires) }

func (d *keyDir) signer(now time.Time) (token.Signer, error) {
	if d.none() {
		return token.Signer{}, errNoKeyDir
	}
	d.mu.RLock()
	defer d.mu.RUnlock()
	if key := current(d.signing, d.algorithm, now); key != nil {
		return key.Signer, nil
	}
	return token.Signer{}, errors.New("no signing key is active; see own.keyDir")
}

// living are the keys that have not retired: what JWKS shows and what own
// tokens are verified with.
func (d *keyDir) living() []signingKey {
	d.mu.RLock()
	defer d.mu.RUnlock()
	now := time.Now()
	return slices.DeleteFunc(slices.Clone(d.signing), func(k signingKey) bool { return k.retired(now) })
}

// keys makes keyDir the key source of own tokens.
func (d *keyDir) keys() (token.KeySet, bool) {
	var keys []token.Key
	for _, key := range d.living() {
		keys = append(keys, key.Key())
	}
	return token.NewKeySet(keys...), true
}

func (d *keyDir) refresh(context.Context, string) bool { return false }

// jwks is the public half as a JWK Set; with HS* it is empty (RULES 26).
func (d *keyDir) jwks() ([]byte, error) {
	set := struct {
		Keys []json.RawMessage `json:"keys"`
	}{Keys: []json.RawMessage{}}
	for _, key := range d.living() {
		jwk, public, err := key.PublicJWK()
		if err != nil {
			return nil, err
		}
		if public {
			set.Keys = append(set.Keys, jwk)
		}
	}
	return json.Marshal(set)
}

// rotate adds a key, schedules the retirement of the others and deletes those
// that have retired.
func (d *keyDir) rotate(now time.Time) error {
	if d.none() {
		return errNoKeyDir
	}
	activates := now.Add(d.ahead)
	err := d.locked(func() error {
		keys, err := d.read()
		if err != nil {
			return err
		}
		for _, key := range keys {
			switch {
			case key.retired(now):
				err = os.Remove(filepath.Join(d.path, key.KeyID+".pem"))
			case key.retires.IsZero():
				key.retires = activates.Add(d.longest)
				err = d.write(key)
			}
			if err != nil {
				return err
			}
		}
		return d.create(activates)
	})
	if err != nil {
		return fmt.Errorf("rotate: %w", err)
	}
	return d.load()
}

// secret returns the content of a file of the folder, made of size random
// bytes if it does not exist yet.
func (d *keyDir) secret(name string, size int) (string, error) {
	if d.none() {
		return "", nil
	}
	path := filepath.Join(d.path, name)
	var text string
	err := d.locked(func() error {
		data, err := config.ReadFile(path)
		if errors.Is(err, os.ErrNotExist) {
			random := make([]byte, size)
			_, _ = rand.Read(random) // never fails
			data = []byte(hex.EncodeToString(random) + "\n")
			err = writeWhole(path, data)
		}
		text = strings.TrimSpace(string(data))
		return err
	})
	if err == nil && len(text) < config.MinSecret {
		err = fmt.Errorf("%s: shorter than %d characters; delete it to have one made", path, config.MinSecret)
	}
	return text, err
}
