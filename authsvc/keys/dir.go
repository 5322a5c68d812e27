package keys

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

// Dir is the folder that all replicas share by mount or secret (design: signing-keys).
// Private keys live here and never in Redis, where every reader could mint
// tokens and a restart would void all of them.
//
//	<kid>.pem       private key with its schedule in the PEM headers
//	admin.token     made when the configuration names none
//	issuer.token
//	refresh.secret  authenticates refresh tokens
//	.lock           held exclusively while any of these is written
//	..data          leads to the files, where a Secret or ConfigMap is mounted
//
// A mounted Secret cannot be written from here: NextSecret is then what Rotate
// is for a folder that can be.
//
// A key is published before it signs and verifies long after: Rotate makes one
// that activates after publishAhead, by when every replica and every reader of
// the JWKS knows it, and its predecessors retire when the last token they can
// have signed has expired.
type Dir struct {
	path      string
	algorithm string
	ahead     time.Duration
	longest   time.Duration
	log       *slog.Logger
	changed   func()

	mu      sync.RWMutex // protects what follows
	signing []SigningKey // by activation, the oldest first
	printed string       // what the folder looked like
}

// SigningKey is one key file: a key with the time from which it signs and the
// time until which it verifies.
type SigningKey struct {
	token.Signer
	Activates time.Time
	Retires   time.Time // zero: has no successor yet
}

const (
	pemActivates = "Sluice-Activates"
	pemRetires   = "Sluice-Retires"
	pemAlgorithm = "Sluice-Algorithm"
	pemSecret    = "SLUICE HMAC SECRET"
)

// OpenDir reads the folder and, under the lock, makes what is missing. Of
// several replicas that start together one makes the key, the others read it.
// Longest is how long a token lives at most; changed is called whenever there
// are other keys than before.
func OpenDir(own config.Own, longest time.Duration, changed func(), log *slog.Logger) (*Dir, error) {
	d := &Dir{path: own.KeyDir, algorithm: own.Algorithm, ahead: own.PublishAhead, longest: longest, log: log, changed: changed}
	if d.None() {
		return d, nil
	}
	if err := os.MkdirAll(d.path, 0o700); err != nil {
		return nil, fmt.Errorf("own.keyDir: %w; it has to be a folder that can be written, or empty where no tokens are issued", err)
	}
	err := d.locked(func() error {
		keys, err := d.read()
		if err != nil {
			return err
		}
		now := time.Now()
		if current(keys, d.algorithm, now) != nil {
			return nil
		}
		if keys, err = d.successors(nil, now); err != nil {
			return err
		}
		if err := d.write(keys); err != nil {
			return fmt.Errorf("no key signs now: %w", err)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("own.keyDir: %w", err)
	}
	return d, d.load()
}

// None reports whether the configuration names no folder, so that there are no keys
// and no tokens of authsvc's own.
func (d *Dir) None() bool { return d.path == "" }

// ErrNoDir is what keeps a folder that is none from signing and rotating.
var ErrNoDir = errors.New("own.keyDir is empty: this authsvc has no signing keys and issues no tokens")

// ErrReadOnly is what keeps a mounted Secret from being written.
var ErrReadOnly = errors.New("own.keyDir cannot be written, as a mounted Secret cannot; authsvc keys secret prints what the Secret has to be")

// locked runs f while no other replica does. A folder that cannot be written
// (a mounted secret) needs no lock: nobody changes it from here.
func (d *Dir) locked(f func() error) error {
	lock, err := os.OpenFile(filepath.Join(d.path, ".lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if readOnly(err) {
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

func readOnly(err error) bool {
	return errors.Is(err, os.ErrPermission) || errors.Is(err, syscall.EROFS)
}

// generate makes a key that signs from a time on.
func (d *Dir) generate(activates time.Time) (SigningKey, error) {
	private, err := token.GenerateKey(d.algorithm)
	if err != nil {
		return SigningKey{}, err
	}
	signer, err := token.NewSigner(d.algorithm, private)
	return SigningKey{Signer: signer, Activates: activates}, err
}

// successors are the keys that follow these: all that have not retired, until the
// last token that they can have signed has expired, and a new one, which signs
// once everybody knows it, or at once where no other key does.
func (d *Dir) successors(keys []SigningKey, now time.Time) ([]SigningKey, error) {
	activates := now.Add(d.ahead)
	if current(keys, d.algorithm, now) == nil {
		activates = now
	}
	var next []SigningKey
	for _, key := range keys {
		if key.retired(now) {
			continue
		}
		if key.Retires.IsZero() {
			key.Retires = activates.Add(d.longest)
		}
		next = append(next, key)
	}
	key, err := d.generate(activates)
	return append(next, key), err
}

func (k SigningKey) file() string { return k.KeyID + ".pem" }

func (k SigningKey) encode() ([]byte, error) {
	block := &pem.Block{Type: "PRIVATE KEY", Headers: map[string]string{
		pemAlgorithm: k.Algorithm,
		pemActivates: k.Activates.UTC().Format(time.RFC3339Nano),
	}}
	if !k.Retires.IsZero() {
		block.Headers[pemRetires] = k.Retires.UTC().Format(time.RFC3339Nano)
	}
	var err error
	if secret, symmetric := k.Private().([]byte); symmetric {
		block.Type, block.Bytes = pemSecret, secret
	} else if block.Bytes, err = x509.MarshalPKCS8PrivateKey(k.Private()); err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(block), nil
}

func (d *Dir) write(keys []SigningKey) error {
	for _, key := range keys {
		data, err := key.encode()
		if err == nil {
			err = writeWhole(filepath.Join(d.path, key.file()), data)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// writeWhole never leaves half a file: a replica may read at any moment.
func writeWhole(path string, data []byte) error {
	temporary, err := os.CreateTemp(filepath.Dir(path), ".new-*") // mode 0600
	if readOnly(err) {
		return fmt.Errorf("%s: %w", filepath.Base(path), ErrReadOnly)
	}
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

// files is where the folder's files are: all of one moment, where a Secret or
// ConfigMap is mounted. Its changes come by one renaming of ..data; the links
// beside it follow later, one by one.
func (d *Dir) files() string {
	if data, err := filepath.EvalSymlinks(filepath.Join(d.path, "..data")); err == nil {
		return data
	}
	return d.path
}

func (d *Dir) read() ([]SigningKey, error) {
	for {
		folder := d.files()
		keys, err := readKeys(folder, d.algorithm)
		if d.files() == folder { // else what was read is gone, or half of it
			return keys, err
		}
	}
}

// readKeys are the keys of a folder, by activation.
func readKeys(folder, algorithm string) ([]SigningKey, error) {
	paths, err := filepath.Glob(filepath.Join(folder, "*.pem"))
	if err != nil {
		return nil, err
	}
	var keys []SigningKey
	for _, path := range paths {
		key, err := readKey(path, algorithm)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		keys = append(keys, key)
	}
	slices.SortFunc(keys, func(a, b SigningKey) int { return a.Activates.Compare(b.Activates) })
	return keys, nil
}

// readKey also takes a plain PKCS #8 file that an operator has put there: it
// signs with the configured algorithm since the file's time.
func readKey(path, algorithm string) (SigningKey, error) {
	data, err := config.ReadFile(path)
	if err != nil {
		return SigningKey{}, err
	}
	block, _ := pem.Decode(data)
	if block == nil {
		return SigningKey{}, errors.New("no PEM block")
	}
	var private any = block.Bytes
	if block.Type != pemSecret {
		if private, err = x509.ParsePKCS8PrivateKey(block.Bytes); err != nil {
			return SigningKey{}, err
		}
	}
	if named := block.Headers[pemAlgorithm]; named != "" {
		algorithm = named
	}
	signer, err := token.NewSigner(algorithm, private)
	if err != nil {
		return SigningKey{}, err
	}
	if weakness := signer.Key().Weakness(); weakness != "" {
		return SigningKey{}, errors.New(weakness)
	}
	key := SigningKey{Signer: signer}
	if key.Activates, err = pemTime(block, pemActivates); err != nil {
		return SigningKey{}, err
	}
	if key.Activates.IsZero() {
		info, err := os.Stat(path)
		if err != nil {
			return SigningKey{}, err
		}
		key.Activates = info.ModTime()
	}
	key.Retires, err = pemTime(block, pemRetires)
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
func (d *Dir) load() error {
	keys, err := d.read()
	if err != nil {
		return err
	}
	var printed strings.Builder
	for _, key := range keys {
		fmt.Fprintln(&printed, key.KeyID, key.Activates, key.Retires)
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

// Watch takes over what other replicas write.
func (d *Dir) Watch(ctx context.Context) {
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

func current(keys []SigningKey, algorithm string, now time.Time) *SigningKey {
	for _, key := range slices.Backward(keys) {
		if key.Algorithm == algorithm && !key.Activates.After(now) && !key.retired(now) {
			return &key
		}
	}
	return nil
}

func (k SigningKey) retired(now time.Time) bool { return !k.Retires.IsZero() && now.After(k.Retires) }

// Signer is the youngest key that may sign now.
func (d *Dir) Signer(now time.Time) (token.Signer, error) {
	if d.None() {
		return token.Signer{}, ErrNoDir
	}
	d.mu.RLock()
	defer d.mu.RUnlock()
	if key := current(d.signing, d.algorithm, now); key != nil {
		return key.Signer, nil
	}
	return token.Signer{}, errors.New("no signing key is active; see own.keyDir")
}

// Living are the keys that have not retired: what JWKS shows and what own
// tokens are verified with.
func (d *Dir) Living() []SigningKey {
	d.mu.RLock()
	defer d.mu.RUnlock()
	now := time.Now()
	return slices.DeleteFunc(slices.Clone(d.signing), func(k SigningKey) bool { return k.retired(now) })
}

// Keys makes Dir the key source of own tokens.
func (d *Dir) Keys() (token.KeySet, bool) {
	var keys []token.Key
	for _, key := range d.Living() {
		keys = append(keys, key.Key())
	}
	return token.NewKeySet(keys...), true
}

// Refresh has nothing to look for: the folder is always known as it is.
func (d *Dir) Refresh(context.Context, string) bool { return false }

// JWKS is the public half as a JWK Set; with HS* it is empty (design: signing-keys).
func (d *Dir) JWKS() ([]byte, error) {
	set := struct {
		Keys []json.RawMessage `json:"keys"`
	}{Keys: []json.RawMessage{}}
	for _, key := range d.Living() {
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

// Rotate adds a key, schedules the retirement of the others and deletes those
// that have retired.
func (d *Dir) Rotate(now time.Time) error {
	if d.None() {
		return ErrNoDir
	}
	err := d.locked(func() error {
		keys, err := d.read()
		if err != nil {
			return err
		}
		if keys, err = d.successors(keys, now); err != nil {
			return err
		}
		if err := d.write(keys); err != nil {
			return err
		}
		return d.keepOnly(keys)
	})
	if err != nil {
		return fmt.Errorf("rotate: %w", err)
	}
	return d.load()
}

// keepOnly deletes the files of other keys, and those that an operator has put
// there under other names.
func (d *Dir) keepOnly(keys []SigningKey) error {
	paths, err := filepath.Glob(filepath.Join(d.path, "*.pem"))
	for _, path := range paths {
		if !slices.ContainsFunc(keys, func(k SigningKey) bool { return k.file() == filepath.Base(path) }) {
			err = errors.Join(err, os.Remove(path))
		}
	}
	return err
}

// SecretFile returns the content of a file of the folder, made of size random
// bytes if it does not exist yet.
func (d *Dir) SecretFile(name string, size int) (string, error) {
	if d.None() {
		return "", nil
	}
	path := filepath.Join(d.path, name)
	var text string
	err := d.locked(func() error {
		data, err := config.ReadFile(path)
		if errors.Is(err, os.ErrNotExist) {
			data = randomText(size)
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

func randomText(size int) []byte {
	random := make([]byte, size)
	_, _ = rand.Read(random) // never fails
	return []byte(hex.EncodeToString(random) + "\n")
}
