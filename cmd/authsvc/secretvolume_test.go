package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/internal/freeport"
	"github.com/sluice-gateway/sluice/internal/redistest"
)

// volume is a Secret mounted on one node, laid out and changed as the kubelet
// does it: the files of one generation lie in a folder of their own, ..data leads
// there and is swapped by renaming, and the names that programs use are links
// through it, which are tidied up afterwards.
type volume struct {
	t          *testing.T
	dir        string
	generation int
}

func newVolume(t *testing.T) *volume {
	t.Helper()
	v := &volume{t: t, dir: t.TempDir()}
	for dir := v.dir; dir != filepath.Clean(os.TempDir()) && dir != "/"; dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil { // for the user that runs authsvc
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { _ = os.Chmod(v.dir, 0o755) }) // or it could not be removed
	return v
}

func (v *volume) put(files map[string][]byte) {
	v.t.Helper()
	v.generation++
	name := fmt.Sprintf("..2026_11_28_%d", v.generation)
	data := filepath.Join(v.dir, "..data")
	before, _ := os.Readlink(data)
	err := errors.Join(os.Chmod(v.dir, 0o755), os.Mkdir(filepath.Join(v.dir, name), 0o755))
	for file, content := range files {
		err = errors.Join(err, os.WriteFile(filepath.Join(v.dir, name, file), content, 0o444))
	}
	err = errors.Join(err, os.Symlink(name, data+"_tmp"), os.Rename(data+"_tmp", data))
	for file := range files {
		if _, missing := os.Lstat(filepath.Join(v.dir, file)); missing != nil {
			err = errors.Join(err, os.Symlink(filepath.Join("..data", file), filepath.Join(v.dir, file)))
		}
	}
	entries, _ := os.ReadDir(v.dir)
	for _, entry := range entries {
		if _, kept := files[entry.Name()]; !kept && !strings.HasPrefix(entry.Name(), "..") {
			err = errors.Join(err, os.Remove(filepath.Join(v.dir, entry.Name())))
		}
	}
	if before != "" {
		err = errors.Join(err, os.RemoveAll(filepath.Join(v.dir, before)))
	}
	// A Secret's volume is mounted read-only. Here it belongs to somebody else.
	if err = errors.Join(err, os.Chmod(v.dir, 0o555)); err != nil {
		v.t.Fatal(err)
	}
}

// replica is a process with a volume of its own, as on a node of its own.
type replica struct {
	t             *testing.T
	volume        *volume
	binary        string
	environ       []string
	public, admin string
	token         string
	output        output
}

// output may be read while it is written.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

func newReplica(t *testing.T, binary, redis string, ahead time.Duration) *replica {
	random := make([]byte, 24)
	_, _ = rand.Read(random)
	public, err := freeport.Address()
	admin, other := freeport.Address()
	if err := errors.Join(err, other); err != nil {
		t.Fatal(err)
	}
	r := &replica{t: t, volume: newVolume(t), binary: binary, public: public, admin: admin, token: fmt.Sprintf("%x", random)}
	r.environ = []string{
		"AUTHSVC_LISTEN=" + r.public, "AUTHSVC_ADMINLISTEN=" + r.admin, "AUTHSVC_ADMINTOKEN=" + r.token, "AUTHSVC_ISSUERTOKEN=" + r.token + "i",
		"AUTHSVC_REDIS_ADDRESSES=" + redis, "AUTHSVC_OWN_KEYDIR=" + r.volume.dir, "AUTHSVC_OWN_PUBLISHAHEAD=" + ahead.String(),
	}
	return r
}

// command is authsvc as the image runs it: as a user to whom nothing belongs.
func (r *replica) command(args ...string) *exec.Cmd {
	command := exec.Command(r.binary, args...)
	command.Env, command.Dir = r.environ, "/"
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if os.Geteuid() == 0 {
		command.SysProcAttr.Credential = &syscall.Credential{Uid: 65532, Gid: 65532}
	}
	return command
}

func (r *replica) start() {
	r.t.Helper()
	process := r.command()
	process.Stdout, process.Stderr = &r.output, &r.output
	if err := process.Start(); err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() {
		_ = process.Process.Kill()
		_ = process.Wait()
		if r.t.Failed() {
			r.t.Log(r.output.String())
		}
	})
	redistest.Eventually(r.t, 20*time.Second, "authsvc is ready to issue", func() bool {
		response, err := http.Get("http://" + r.admin + "/readyz/issuing")
		if err != nil {
			return false
		}
		response.Body.Close()
		return response.StatusCode == http.StatusOK
	})
}

type pair struct {
	Access  string `json:"access_token"`
	Refresh string `json:"refresh_token"`
}

// post asks the admin listener for tokens.
func (r *replica) post(path, body string) (p pair, status int) {
	r.t.Helper()
	request, _ := http.NewRequest("POST", "http://"+r.admin+path, strings.NewReader(body))
	request.Header.Set("Authorization", "Bearer "+r.token)
	request.Header.Set("Content-Type", "application/json")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		r.t.Fatal(err)
	}
	defer response.Body.Close()
	if response.StatusCode == http.StatusOK {
		err = json.NewDecoder(response.Body).Decode(&p)
	}
	if err != nil {
		r.t.Fatal(err)
	}
	return p, response.StatusCode
}

func (r *replica) issue() pair {
	r.t.Helper()
	p, status := r.post("/v1/tokens", `{"user_id":"u1"}`)
	if status != http.StatusOK {
		r.t.Fatalf("issuing: %d", status)
	}
	return p
}

// judge is what /auth answers for a token.
func (r *replica) judge(token string) int {
	r.t.Helper()
	request, _ := http.NewRequest("GET", "http://"+r.public+"/auth", nil)
	request.Header.Set("Authorization", "Bearer "+token)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		r.t.Fatal(err)
	}
	response.Body.Close()
	return response.StatusCode
}

// published counts the keys of the JWKS.
func (r *replica) published() int {
	r.t.Helper()
	response, err := http.Get("http://" + r.public + "/.well-known/jwks.json")
	if err != nil {
		r.t.Fatal(err)
	}
	defer response.Body.Close()
	var set struct{ Keys []any }
	if err := json.NewDecoder(response.Body).Decode(&set); err != nil {
		r.t.Fatal(err)
	}
	return len(set.Keys)
}

// next is what `authsvc keys secret` prints beside the replica.
func (r *replica) next(args ...string) map[string][]byte {
	r.t.Helper()
	command := r.command(append([]string{"keys", "secret"}, args...)...)
	var errs bytes.Buffer
	command.Stderr = &errs
	out, err := command.Output()
	var secret struct {
		APIVersion, Kind string
		Metadata         struct{ Name string }
		Data             map[string][]byte
	}
	if err = errors.Join(err, json.Unmarshal(out, &secret)); err != nil {
		r.t.Fatalf("%v: %s%s", err, out, errs.String())
	}
	if secret.APIVersion != "v1" || secret.Kind != "Secret" || secret.Metadata.Name != "signing-keys" {
		r.t.Errorf("%s", out)
	}
	return secret.Data
}

// TestSecretVolume: replicas take their signing keys from a Secret, each on a
// node of its own that hears of a change when it does. A rotation refuses no
// token meanwhile; forgetting refuses all.
func TestSecretVolume(t *testing.T) {
	t.Parallel() // it waits, mostly
	redis := redistest.Start(t)
	binary := filepath.Join(newVolume(t).dir, "authsvc")
	if out, err := exec.Command("go", "build", "-o", binary, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	const ahead = 20 * time.Second
	a, b := newReplica(t, binary, redis.Addr, ahead), newReplica(t, binary, redis.Addr, ahead)

	// Nothing can be made in an empty one.
	a.volume.put(nil)
	if out, err := a.command().CombinedOutput(); err == nil || !strings.Contains(string(out), "no key signs now") || !strings.Contains(string(out), "authsvc keys secret") {
		t.Fatalf("it started without keys: %v %s", err, out)
	}
	// The first Secret comes from the command, or is of an operator's own key.
	first := a.next()
	if len(first) != 2 || len(first["refresh.secret"]) < 32 {
		t.Errorf("the first Secret has %q", slices.Sorted(maps.Keys(first)))
	}
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	first = map[string][]byte{"refresh.secret": first["refresh.secret"], "mine.pem": pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})}
	for _, r := range []*replica{a, b} {
		r.volume.put(first)
		r.start()
	}
	old := a.issue()
	if got := b.judge(old.Access); got != http.StatusOK {
		t.Fatalf("a token of one replica at the other: %d", got)
	}

	// Who cannot write is told how it is done.
	out, err := a.command("keys", "rotate", "--server=http://"+a.admin, "--adminToken="+a.token).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "authsvc keys secret") {
		t.Errorf("keys rotate: %v %s", err, out)
	}

	// A rotation reaches the nodes one after the other.
	rotated := a.next()
	if len(rotated) != 3 || rotated["mine.pem"] != nil || !bytes.Equal(rotated["refresh.secret"], first["refresh.secret"]) {
		t.Errorf("the rotated Secret has %q", slices.Sorted(maps.Keys(rotated)))
	}
	began := time.Now()
	a.volume.put(rotated)
	redistest.Eventually(t, 5*time.Second, "the first replica publishes both keys", func() bool { return a.published() == 2 })
	if got := b.judge(a.issue().Access); got != http.StatusOK {
		t.Errorf("a token of the replica that knows the new key at the other: %d", got)
	}
	b.volume.put(rotated)
	redistest.Eventually(t, 5*time.Second, "the second replica publishes both keys", func() bool { return b.published() == 2 })
	if late := time.Since(began); late >= ahead {
		t.Fatalf("the machine took %v for what has to be done before the new key signs", late)
	}
	kid := header(t, old.Access)
	redistest.Eventually(t, 2*ahead, "both sign with the new key, and each takes the other's", func() bool {
		of, to := a.issue().Access, b.issue().Access
		if got := []int{b.judge(of), a.judge(to), a.judge(old.Access), b.judge(old.Access)}; slices.Max(got) != http.StatusOK {
			t.Fatalf("refused while keys rotate: %v", got)
		}
		return header(t, of) != kid && header(t, to) != kid
	})

	// A key that was read by somebody is forgotten, and sessions go on.
	forgotten := b.next("--forget")
	if len(forgotten) != 2 {
		t.Errorf("after --forget the Secret has %q", slices.Sorted(maps.Keys(forgotten)))
	}
	stolen := b.issue().Access
	for _, r := range []*replica{a, b} {
		r.volume.put(forgotten)
	}
	for _, r := range []*replica{a, b} {
		redistest.Eventually(t, 5*time.Second, "the old keys' tokens are refused", func() bool {
			return r.judge(old.Access) == http.StatusUnauthorized && r.judge(stolen) == http.StatusUnauthorized
		})
	}
	refreshed, status := b.post("/v1/tokens/refresh", `{"refresh_token":"`+old.Refresh+`"}`)
	if status != http.StatusOK || a.judge(refreshed.Access) != http.StatusOK {
		t.Errorf("a session after its key was forgotten: %d, %d", status, a.judge(refreshed.Access))
	}
	for _, r := range []*replica{a, b} { // a swap is never seen half
		if strings.Contains(r.output.String(), "signing keys not read again") {
			t.Error("a generation was not read whole")
		}
	}
}

// header is the first part of a token, which names its key.
func header(t *testing.T, token string) string {
	part, _, found := strings.Cut(token, ".")
	if !found {
		t.Fatalf("no token: %q", token)
	}
	return part
}
