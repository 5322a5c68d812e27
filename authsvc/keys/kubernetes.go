package keys

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/sluice-gateway/sluice/authsvc/config"
)

// RefreshSecret is the file of the folder that authenticates refresh tokens, and
// RefreshSecretSize the random bytes that it is made of.
const (
	RefreshSecret     = "refresh.secret"
	RefreshSecretSize = 32
)

// NextSecret is a Kubernetes Secret in JSON: what the folder has to hold after a
// rotation. Whoever has a Secret mounted cannot change it, so authsvc prints it
// and its operator puts it in the place of the one there is. With forget no key
// of the folder is kept, and the new one signs at once.
func NextSecret(c *config.Config, name string, forget bool, now time.Time) ([]byte, error) {
	d := &Dir{path: c.Own.KeyDir, algorithm: c.Own.Algorithm, ahead: c.Own.PublishAhead, longest: c.Longest()}
	if d.None() {
		return nil, ErrNoDir
	}
	var keys []SigningKey
	var err error
	if !forget {
		if keys, err = d.read(); err != nil {
			return nil, err
		}
	}
	if keys, err = d.successors(keys, now); err != nil {
		return nil, err
	}
	data := map[string][]byte{RefreshSecret: randomText(RefreshSecretSize)}
	if err := d.others(data); err != nil {
		return nil, err
	}
	for _, key := range keys {
		if data[key.file()], err = key.encode(); err != nil {
			return nil, err
		}
	}
	return json.MarshalIndent(map[string]any{
		"apiVersion": "v1", "kind": "Secret", "type": "Opaque",
		"metadata": map[string]string{"name": name}, "data": data,
	}, "", "  ")
}

// others reads the files that are no keys, which a rotation leaves as they are.
func (d *Dir) others(into map[string][]byte) error {
	folder := d.files()
	entries, err := os.ReadDir(folder)
	if errors.Is(err, os.ErrNotExist) {
		return nil // the first Secret is made before there is a folder
	}
	for _, entry := range entries {
		name := entry.Name()
		if err != nil || !entry.Type().IsRegular() || strings.HasPrefix(name, ".") || filepath.Ext(name) == ".pem" {
			continue
		}
		into[name], err = config.ReadFile(filepath.Join(folder, name))
	}
	return err
}
