package test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sluice-gateway/sluice/authsvc/config"
	"github.com/sluice-gateway/sluice/test/forms"
	"github.com/sluice-gateway/sluice/test/harness"
)

// shippedRedis starts redis-server as deploy/redis/start.sh does, with the
// shipped users, in folders of the test's own and with this environment.
// The password of each user is its name.
func shippedRedis(t *testing.T, env ...string) (address string) {
	t.Helper()
	if _, err := exec.LookPath("redis-server"); err != nil {
		t.Skip("redis-server is not installed; on Debian: apt-get install redis-server")
	}
	dir := t.TempDir()
	address = harness.FreeAddress(t)
	_, port, _ := strings.Cut(address, ":")
	own := strings.NewReplacer("/etc/redis", dir+"/etc", "/run/redis", dir+"/run", "/run/secrets", dir+"/secrets",
		"dir /data", "dir "+dir, "bind * -::*", "bind 127.0.0.1\nport "+port)
	for _, folder := range []string{"etc", "run", "secrets"} {
		if err := os.Mkdir(filepath.Join(dir, folder), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"start.sh", "users.acl", "redis.conf"} {
		content, err := os.ReadFile("../deploy/redis/" + name)
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, "etc", name), []byte(own.Replace(string(content))), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, user := range []string{"default", "gateway", "authsvc", "monitor"} {
		if err := os.WriteFile(filepath.Join(dir, "secrets/redis-"+user), []byte(user+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	process := exec.Command("/bin/sh", filepath.Join(dir, "etc/start.sh"))
	process.Env = append(os.Environ(), env...)
	var output strings.Builder
	process.Stdout, process.Stderr = &output, &output
	process.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := process.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = process.Process.Kill()
		_ = process.Wait()
		if t.Failed() {
			t.Log(output.String())
		}
	})
	client := redisAs(t, address, "default")
	harness.Eventually(t, 10*time.Second, "redis-server answers", func() error { return client.Ping(t.Context()).Err() })
	return address
}

func redisAs(t *testing.T, address, user string) *redis.Client {
	client := redis.NewClient(&redis.Options{Addr: address, Username: user, Password: user})
	t.Cleanup(func() { client.Close() })
	return client
}

// TestOneKeyPrefix: SLUICE_KEY_PREFIX is what gateways, authsvc and the users of
// Redis in compose.yaml all go by. With it the shipped users may do what the
// parts do, and nothing below another prefix.
func TestOneKeyPrefix(t *testing.T) {
	for _, prefix := range []string{"", "shop.eu-1_a"} {
		t.Run(prefix, func(t *testing.T) {
			services := project(t, "../compose.yaml", "SLUICE_KEY_PREFIX="+prefix).Services
			environ := func(service string) (all []string) {
				for name, value := range services[service].Environment {
					all = append(all, name+"="+*value)
				}
				return all
			}
			want := prefix
			if want == "" {
				want = "sluice"
			}
			gateways := services["gateway"].Environment["SLUICE_KEY_PREFIX"] // TestEnvironmentReachesTheConfiguration takes it further
			if gateways == nil || *gateways != want {
				t.Fatalf("gateways are not told %s", want)
			}
			address := shippedRedis(t, environ("redis")...)

			options, err := config.Load(nil, environ("authsvc"))
			if err != nil {
				t.Fatal(err)
			}
			options.Redis.Addresses = []string{address}
			options.Redis.PasswordFile, options.Redis.Password = "", "authsvc"
			options.AdminTokenFile, options.IssuerTokenFile = "", ""
			service := harness.OpenAuthsvc(t, options)
			gate := forms.Compiled{}.New(t, forms.FromFile(t, fmt.Sprintf(`
redis: {addresses: [%q], username: gateway, password: gateway, keyPrefix: %q, timeout: 2s}
auth: {addresses: ["http://%s/auth"]}
limits: [{name: all, key: ip, limit: 4, window: 1h}]`, address, *gateways, service.PublicAddr())), http.NotFoundHandler())

			operator := redisAs(t, address, "default")
			harness.Eventually(t, 10*time.Second, "the gateway is listed, with its limit, and not alone", func() error {
				got := harness.Admin(t, service, "GET", "/v1/gateways", nil)
				if text := string(got.Body); got.Status != http.StatusOK || !strings.Contains(text, `"name":"all"`) || strings.Contains(text, `"alone"`) {
					return fmt.Errorf("%s", got)
				}
				return nil
			})
			if got := harness.Admin(t, service, "POST", "/v1/tokens", map[string]string{"user_id": "u1"}); got.Status != http.StatusOK {
				t.Errorf("issuing: %s", got)
			}
			r := httptest.NewRequest("GET", "http://shop.example/", nil)
			gate.ServeHTTP(httptest.NewRecorder(), r)
			if got := harness.Admin(t, service, "GET", "/v1/limits/all/ip:192.0.2.1", nil); got.Status != http.StatusOK || !strings.Contains(string(got.Body), `"used":`) || strings.Contains(string(got.Body), `"used":0`) {
				t.Errorf("counted: %s", got)
			}
			keys, err := operator.Keys(t.Context(), "*").Result()
			if err != nil || len(keys) < 3 {
				t.Errorf("%q %v", keys, err)
			}
			for _, key := range keys {
				if !strings.HasPrefix(key, want+":") {
					t.Errorf("the key %q", key)
				}
			}
			mayNot := func(user string, words ...any) {
				if err := redisAs(t, address, user).Do(t.Context(), words...).Err(); err == nil || !noPermission.MatchString(err.Error()) {
					t.Errorf("%s: %s: %v", user, words, err)
				}
			}
			for _, user := range []string{"gateway", "authsvc"} {
				mayNot(user, "SET", "other:lim:x", 1)
			}
			// Whoever has a gateway's password counts limits, and can neither read nor make
			// an identity, nor harm the server (design: redis-keys).
			for _, line := range []string{
				"PUBLISH P:events {}", "GET P:tok:x", "SET P:tok:x revoked", "GET P:usr:u1", "SET P:usr:x 1", "GET P:ref:x", "GET P:key:x", "SET elsewhere 1", "DEL P:lim:1:x", "FLUSHALL", "FLUSHDB", "KEYS *", "SCAN 0",
				"CONFIG GET *", "CONFIG SET maxmemory 1", "ACL LIST", "ACL WHOAMI", "CLIENT LIST", "CLIENT KILL TYPE normal", "CLIENT PAUSE 1", "DEBUG SLEEP 0", "SHUTDOWN NOSAVE", "REPLICAOF NO ONE", "MONITOR", "SCRIPT FLUSH",
				"FUNCTION LIST", "SUBSCRIBE other", "PSUBSCRIBE *", "INFO", "SAVE", "EVAL return(redis.call('get',KEYS[1])) 1 P:usr:x", "EVAL return(redis.call('del',KEYS[1])) 1 P:lim:1:x",
			} {
				var words []any
				for word := range strings.FieldsSeq(strings.ReplaceAll(line, "P:", want+":")) {
					words = append(words, word)
				}
				mayNot("gateway", words...)
			}
		})
	}
}

// noPermission is how Redis says so, of commands, of keys, and within scripts.
var noPermission = regexp.MustCompile(`NOPERM|ACL failure|not allowed|permissions|can't run this command`)

// TestKeyPrefixIsRefused: what would mean something else in a file of users, or
// that authsvc would not take, does not start Redis.
func TestKeyPrefixIsRefused(t *testing.T) {
	for _, prefix := range []string{"*", "a b", "a\nuser x on nopass ~* +@all", "a/b", "é", strings.Repeat("a", 33)} {
		command := exec.Command("/bin/sh", "../deploy/redis/start.sh")
		command.Env = append(os.Environ(), "SLUICE_KEY_PREFIX="+prefix)
		if out, err := command.CombinedOutput(); err == nil || !strings.Contains(string(out), "SLUICE_KEY_PREFIX") || !strings.Contains(string(out), "1 to 32") {
			t.Errorf("%q: %v %s", prefix, err, out)
		}
	}
}

// TestKubernetesKeyPrefix: one line of the kustomization, or one value of the
// chart, is what gateways, authsvc and the users of Redis all go by.
func TestKubernetesKeyPrefix(t *testing.T) {
	both(t, prefixed, func(t *testing.T, m manifests) {
		if got := m.options(t).Redis.KeyPrefix; got != "shop" {
			t.Errorf("authsvc is told %q", got)
		}
		if got := m.environ(t, "redis"); !slices.Contains(got, "SLUICE_KEY_PREFIX=shop") {
			t.Errorf("Redis is told %q", got)
		}
		gates := 0
		for _, object := range m {
			if object.Kind() == "Middleware" && object.At("spec", "plugin") != nil {
				gates++
				if got := object.At("spec", "plugin", "sluice", "redis", "keyPrefix"); got != "shop" {
					t.Errorf("%s is told %v", object.Name(), got)
				}
			}
		}
		if gates != 4 {
			t.Errorf("%d gates", gates)
		}
	})
}
