package main

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"hash/fnv"
	mathrand "math/rand/v2"
	"os"
	"sync"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

const (
	hotUsers  = 16
	zipfUsers = 10_000
	zipfSkew  = 1.1
	issuer    = "bench"
)

// person is a user with a token.
type person struct{ user, token string }

// line is one request's credential and key.
type line struct {
	person
	key string
}

// address is the one that a proxy in front would name: each person has one.
func (l line) address() string {
	h := fnv.New32a()
	h.Write([]byte(l.user))
	n := h.Sum32()
	return fmt.Sprintf("10.%d.%d.%d", n>>16&255, n>>8&255, n&255)
}

// crowd makes the people and the requests of every load.
type crowd struct {
	key    *ecdsa.PrivateKey
	random *mathrand.Rand
	hot    []person
	zipf   []person
	serial int // of people and keys that no earlier request had
}

func newCrowd(seed uint64) (*crowd, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	c := &crowd{key: key, random: mathrand.New(mathrand.NewPCG(seed, 1))}
	if c.hot, err = c.people("h", 0, hotUsers); err != nil {
		return nil, err
	}
	c.zipf, err = c.people("z", 0, zipfUsers)
	return c, err
}

// publicKey is the issuer's, in PEM.
func (c *crowd) publicKey() ([]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(&c.key.PublicKey)
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), err
}

// people signs tokens on every core.
func (c *crowd) people(prefix string, from, count int) ([]person, error) {
	all, failed := make([]person, count), make([]error, 4)
	now := time.Now()
	var signing sync.WaitGroup
	for worker := range failed {
		signing.Go(func() {
			for i := worker; i < count; i += len(failed) {
				user := fmt.Sprintf("%s%d", prefix, from+i)
				token, err := jwt.NewWithClaims(jwt.SigningMethodES256, jwt.MapClaims{
					"iss": issuer, "aud": "sluice", "sub": user, "jti": user,
					"iat": now.Unix(), "exp": now.Add(4 * time.Hour).Unix(),
				}).SignedString(c.key)
				if err != nil {
					failed[worker] = err
					return
				}
				all[i] = person{user: user, token: token}
			}
		})
	}
	signing.Wait()
	for _, err := range failed {
		if err != nil {
			return nil, err
		}
	}
	return all, nil
}

// requests draws n requests of a load; those of hot are the same few.
func (c *crowd) requests(load string, n int) ([]line, error) {
	switch load {
	case hot:
		lines := make([]line, hotUsers)
		for i, p := range c.hot {
			lines[i] = line{person: p, key: p.user}
		}
		return lines, nil
	case zipf:
		popular := mathrand.NewZipf(c.random, zipfSkew, 1, zipfUsers-1)
		lines := make([]line, n)
		for i := range lines {
			p := c.zipf[popular.Uint64()]
			lines[i] = line{person: p, key: p.user}
		}
		return lines, nil
	}
	from := c.serial
	c.serial += n
	fresh := []person{}
	if load == newAll {
		var err error
		if fresh, err = c.people("n", from, n); err != nil {
			return nil, err
		}
	}
	lines := make([]line, n)
	for i := range lines {
		p := c.hot[i%hotUsers]
		if load == newAll {
			p = fresh[i]
		}
		lines[i] = line{person: p, key: fmt.Sprintf("k%d", from+i)}
	}
	return lines, nil
}

// everyone is each Zipf user once: the state that a minute of traffic leaves.
func (c *crowd) everyone() []line {
	lines := make([]line, zipfUsers)
	for i, p := range c.zipf {
		lines[i] = line{person: p, key: p.user}
	}
	return lines
}

// writeLines writes requests for drive.lua: user, key, address and token, by
// spaces.
func writeLines(path string, lines []line) error {
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	out := bufio.NewWriter(file)
	for _, l := range lines {
		fmt.Fprintf(out, "%s %s %s %s\n", l.user, l.key, l.address(), l.token)
	}
	if err := out.Flush(); err != nil {
		return err
	}
	return file.Close()
}
