package users

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"runtime"

	"golang.org/x/crypto/argon2"

	"github.com/sluice-gateway/sluice/services/internal/web"
)

// Argon2id with the first of the settings that OWASP recommends (RFC 9106 for
// the function): 19 MiB, two passes, one lane.
const (
	argonMemory = 19 << 10 // KiB
	argonPasses = 2
	argonLanes  = 1
	maxPassword = 1024 // bytes; the function itself takes any length
)

type passwordHash struct {
	salt [16]byte
	sum  [32]byte
}

// hasher does the work, at most one password a CPU at a time: each takes 19 MiB,
// and a flood of logins must not decide how much memory the process needs.
type hasher struct {
	slots chan struct{}
	decoy passwordHash // what a login of nobody is compared with, for the time it takes
}

func newHasher() *hasher {
	h := &hasher{slots: make(chan struct{}, runtime.GOMAXPROCS(0))}
	_, _ = rand.Read(h.decoy.salt[:]) // crypto/rand.Read never fails
	_, _ = rand.Read(h.decoy.sum[:])
	return h
}

func (h *hasher) hash(ctx context.Context, password string) (passwordHash, error) {
	var made passwordHash
	_, _ = rand.Read(made.salt[:])
	sum, err := h.derive(ctx, made.salt, password)
	made.sum = sum
	return made, err
}

func (h *hasher) matches(ctx context.Context, known passwordHash, password string) (bool, error) {
	sum, err := h.derive(ctx, known.salt, password)
	return err == nil && subtle.ConstantTimeCompare(sum[:], known.sum[:]) == 1, err
}

func (h *hasher) derive(ctx context.Context, salt [16]byte, password string) (sum [32]byte, err error) {
	select {
	case h.slots <- struct{}{}:
		defer func() { <-h.slots }()
	case <-ctx.Done():
		return sum, web.Unavailable("too many passwords to check at once", ctx.Err())
	}
	copy(sum[:], argon2.IDKey([]byte(password), salt[:], argonPasses, argonMemory, argonLanes, uint32(len(sum))))
	return sum, nil
}
